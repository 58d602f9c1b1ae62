"""Jobs for operators: look up, filter, and the acts that operators may do; fields are never edited by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from store.accounts.admin import AppendOnlyAdmin
from store.errors import DomainError
from store.jobs import dispatch
from store.jobs.models import Job, JobEvent, JobSegment, Upload, UploadedFile


class JobEventInline(admin.TabularInline):
    model = JobEvent
    extra = 0
    can_delete = False
    fields = ["created_at", "kind", "attempt", "detail"]
    readonly_fields = ["created_at", "kind", "attempt", "detail"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    list_display = ["public_id", "kind", "state", "publisher", "attempt", "done", "worker", "heartbeat_at", "error_code", "created_at"]
    list_filter = ["state", "kind", "error_code", "created_at"]
    search_fields = ["public_id", "subject", "publisher__slug", "created_by__username", "worker"]
    list_select_related = ["publisher"]
    date_hierarchy = "created_at"
    inlines = [JobEventInline]
    actions = ["cancel_jobs", "retry_jobs"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in Job._meta.fields]

    @admin.action(description=_("Cancel the chosen jobs"), permissions=["change"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, dispatch.cancel)

    @admin.action(description=_("Try the chosen jobs again"), permissions=["change"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, dispatch.retry)

    def _each(self, request: HttpRequest, queryset: QuerySet[Job], act: Any) -> None:
        for job in queryset:
            try:
                act(request.user, job)
            except DomainError as error:
                self.message_user(request, f"{job.public_id}: {error}", messages.WARNING)


@admin.register(JobSegment)
class JobSegmentAdmin(AppendOnlyAdmin):
    list_display = ["job", "number", "attempt", "checkpoint", "created_at"]
    search_fields = ["job__public_id", "checkpoint"]
    list_select_related = ["job"]


@admin.register(UploadedFile)
class UploadedFileAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "name", "publisher", "purpose", "size_bytes", "created_by", "created_at"]
    list_filter = ["purpose", "created_at"]
    search_fields = ["public_id", "name", "sha256", "publisher__slug"]
    list_select_related = ["publisher", "created_by"]


@admin.register(Upload)
class UploadAdmin(AppendOnlyAdmin):
    list_display = ["public_id", "name", "publisher", "purpose", "offset_bytes", "length_bytes", "created_by", "expires_at"]
    list_filter = ["purpose", "created_at"]
    search_fields = ["public_id", "name", "publisher__slug", "created_by__username"]
    list_select_related = ["publisher", "created_by"]
