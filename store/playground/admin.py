"""Staff see that conversations exist and whose they are, for support; never what was said."""

from __future__ import annotations

from django.contrib import admin

from store.accounts.admin import AppendOnlyAdmin
from store.playground.models import Conversation, Message


@admin.register(Conversation)
class ConversationAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "user", "version", "created_at", "updated_at"]
    fields = ["public_id", "user", "version", "created_at", "updated_at"]
    search_fields = ["public_id", "user__username", "version__listing__slug"]
    list_select_related = ["user", "version__listing__publisher"]
    date_hierarchy = "created_at"


@admin.register(Message)
class MessageAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "conversation_id", "role", "request", "created_at"]
    fields = ["public_id", "role", "request", "replaced_at", "created_at"]
    search_fields = ["public_id", "conversation__public_id"]
    list_filter = ["role"]
    list_select_related = ["request"]
