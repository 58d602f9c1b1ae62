"""Staff's view of what people were told."""

from __future__ import annotations

from django.contrib import admin

from store.accounts.admin import AppendOnlyAdmin
from store.notifications.models import Notification


@admin.register(Notification)
class NotificationAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "kind", "user", "created_at", "emailed_at", "read_at")
    list_filter = ("kind", "created_at", ("read_at", admin.EmptyFieldListFilter), ("emailed_at", admin.EmptyFieldListFilter))
    search_fields = ("public_id", "user__username", "user__email", "key")
    list_select_related = ("user",)
