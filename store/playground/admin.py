"""Staff see that conversations and battles exist, whose they are and what was voted, for support; never what was said."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from store.accounts.admin import AppendOnlyAdmin
from store.playground.models import Battle, Conversation, FeedbackConsent, Message, PreferenceSet, Share, Standing, Tally


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


@admin.register(Share)
class ShareAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "user", "version", "created_at", "revoked_at"]
    fields = ["public_id", "user", "version", "created_at", "revoked_at"]
    search_fields = ["public_id", "user__username"]
    list_select_related = ["user", "version__listing__publisher"]
    date_hierarchy = "created_at"


@admin.register(Battle)
class BattleAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "user", "version_a", "version_b", "vote", "doubt", "created_at", "voted_at"]
    fields = [
        "public_id",
        "user",
        "use_case",
        "version_a",
        "version_b",
        "request_a",
        "request_b",
        "vote",
        "doubt",
        "created_at",
        "voted_at",
    ]
    search_fields = ["public_id", "user__username", "version_a__listing__slug", "version_b__listing__slug"]
    list_filter = ["vote", "doubt", "use_case"]
    list_select_related = ["user", "version_a__listing__publisher", "version_b__listing__publisher"]
    date_hierarchy = "created_at"


class StandingInline(admin.TabularInline):
    model = Standing
    fields = ["version", "use_case", "rating", "margin", "votes", "wins", "ties"]
    readonly_fields = ["version", "use_case", "rating", "margin", "votes", "wins", "ties"]
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Standing]:
        return super().get_queryset(request).select_related("version__listing__publisher", "use_case")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Tally)
class TallyAdmin(AppendOnlyAdmin):
    list_display = ["computed_at", "vote_count", "doubted_count"]
    inlines = [StandingInline]


@admin.register(FeedbackConsent)
class FeedbackConsentAdmin(AppendOnlyAdmin):
    list_display = ["user", "given_at"]
    search_fields = ["user__username"]
    list_select_related = ["user"]


@admin.register(PreferenceSet)
class PreferenceSetAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "listing", "created_by", "created_at"]
    fields = ["public_id", "listing", "created_by", "created_at"]
    search_fields = ["public_id", "listing__slug"]
    list_select_related = ["listing__publisher", "created_by"]
