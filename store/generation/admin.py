"""Requests are records: staff can look them up and change nothing."""

from __future__ import annotations

from django.contrib import admin

from store.accounts.admin import AppendOnlyAdmin
from store.generation.models import Request


@admin.register(Request)
class RequestAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "version", "user", "source", "state", "prompt_tokens", "completion_tokens", "cost_micro", "created_at"]
    list_filter = ["state", "source", "failure", "created_at"]
    search_fields = ["public_id", "user__username", "version__listing__slug", "version__listing__publisher__slug"]
    list_select_related = ["version__listing__publisher", "user"]
    date_hierarchy = "created_at"
