"""Batches are records: staff can look them up and change nothing."""

from __future__ import annotations

from django.contrib import admin

from store.accounts.admin import AppendOnlyAdmin
from store.batches.models import Batch


@admin.register(Batch)
class BatchAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "user", "model", "state", "total", "completed", "failed", "cost_micro", "created_at"]
    list_filter = ["state", "created_at"]
    search_fields = ["public_id", "user__username", "model"]
    list_select_related = ["user"]
    date_hierarchy = "created_at"
