"""Staff's view of moderation. Decisions are made on the review pages; here nothing of them can be added, changed or deleted."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html

from store.accounts.admin import AppendOnlyAdmin
from store.catalog.admin import ReadOnlyInline
from store.moderation.models import Check, Decision, Submission


class CheckInline(ReadOnlyInline):
    model = Check
    fields = ("name", "state", "code", "finding", "job", "finished_at")


class DecisionInline(ReadOnlyInline):
    model = Decision
    fields = ("action", "reason", "decided_by", "created_at")


@admin.register(Submission)
class SubmissionAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "listing", "version", "state", "review_page", "claimed_by", "submitted_by", "due_at", "created_at")
    list_filter = ("state", "created_at", "due_at")
    search_fields = ("public_id", "listing__slug", "listing__publisher__slug", "submitted_by__username")
    list_select_related = ("listing__publisher", "version__listing__publisher", "claimed_by", "submitted_by")
    inlines = (CheckInline, DecisionInline)

    @admin.display(description="review page")
    def review_page(self, submission: Submission) -> str:
        return format_html('<a href="{}">open</a>', reverse("moderation:submission", args=[submission.public_id]))


@admin.register(Check)
class CheckAdmin(AppendOnlyAdmin):
    list_display = ("name", "submission", "state", "code", "finding", "job", "finished_at")
    list_filter = ("state", "name", "finished_at")
    search_fields = ("submission__public_id", "submission__listing__slug", "job", "code")
    list_select_related = ("submission__listing__publisher",)


@admin.register(Decision)
class DecisionAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "action", "listing", "version", "decided_by", "reason", "created_at")
    list_filter = ("action", "created_at")
    search_fields = ("public_id", "listing__slug", "listing__publisher__slug", "decided_by__username", "reason")
    list_select_related = ("listing__publisher", "version__listing__publisher", "decided_by")
    date_hierarchy = "created_at"
