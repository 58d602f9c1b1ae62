"""Submissions, their automated checks with evidence, and append-only decisions."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField
from store.catalog.models import Listing, ListingRevision, Version

CLAIMED_FOR = timedelta(minutes=30)


class Submission(models.Model):
    """A version, a listing revision, or both together (a first release) in moderation. The review state lives here."""

    class State(models.TextChoices):
        CHECKING = "checking", _("Automated checks running")
        QUEUED = "queued", _("Waiting for a reviewer")
        APPROVED = "approved", _("Approved")
        CHANGES_REQUESTED = "changes_requested", _("Changes requested")
        REJECTED = "rejected", _("Rejected")
        WITHDRAWN = "withdrawn", _("Withdrawn")

    OPEN = frozenset({State.CHECKING, State.QUEUED})

    public_id = PublicIdField("sub")
    listing = models.ForeignKey(Listing, on_delete=models.PROTECT, related_name="submissions")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, null=True, blank=True, related_name="submissions")
    revision = models.ForeignKey(ListingRevision, on_delete=models.PROTECT, null=True, blank=True, related_name="submissions")
    state = models.CharField(max_length=20, choices=State.choices, default=State.CHECKING, db_index=True)
    note = models.TextField(_("note to the reviewer"), blank=True, max_length=2000)
    submitted_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    claimed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    claimed_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["due_at"]
        permissions = [("review", "Can review submissions")]
        constraints = [
            models.CheckConstraint(condition=Q(version__isnull=False) | Q(revision__isnull=False), name="submission_is_about_something"),
            models.UniqueConstraint(
                fields=["listing"], condition=Q(state__in=["checking", "queued"]), name="one_open_submission_per_listing"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.listing} {self.public_id}"

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN

    @property
    def claim_ends_at(self) -> datetime | None:
        """Until when only who claimed it may decide it; None when nobody holds it."""
        if self.claimed_by_id is None or self.claimed_at is None or self.claimed_at + CLAIMED_FOR <= timezone.now():
            return None
        return self.claimed_at + CLAIMED_FOR


class Check(models.Model):
    """One automated check of a submission and its evidence, run as a job on a worker."""

    class State(models.TextChoices):
        PENDING = "pending", _("Running")
        PASSED = "passed", _("Passed")
        WARNED = "warned", _("Look at this")
        FAILED = "failed", _("Failed")
        ERROR = "error", _("Could not be run")

    submission = models.ForeignKey(Submission, on_delete=models.CASCADE, related_name="checks")
    name = models.CharField(max_length=40)  # files | loads | generates | perplexity
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    code = models.CharField(max_length=60, blank=True)  # of the finding, for its translation
    finding = models.CharField(max_length=400, blank=True)  # in English
    evidence = models.JSONField(default=dict, blank=True)
    job = models.CharField(max_length=40, blank=True)  # public id
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["submission", "name"], name="one_check_per_name")]

    def __str__(self) -> str:
        return f"{self.name}: {self.state}"


class Decision(models.Model):
    """What a reviewer decided and why. Append-only."""

    class Action(models.TextChoices):
        APPROVE = "approve", _("Approved")
        REQUEST_CHANGES = "request_changes", _("Changes requested")
        REJECT = "reject", _("Rejected")
        SUSPEND = "suspend", _("Suspended")
        RESTORE = "restore", _("Restored")

    public_id = PublicIdField("dec")
    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, null=True, blank=True, related_name="decisions")
    listing = models.ForeignKey(Listing, on_delete=models.PROTECT, related_name="decisions")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, null=True, blank=True, related_name="decisions")
    action = models.CharField(max_length=16, choices=Action.choices)
    reason = models.TextField(blank=True, max_length=4000)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.action} {self.listing}"
