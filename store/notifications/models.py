"""In-site messages. What a notification says is rendered from its kind in the reader's language when it is read."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField


class Topic(models.TextChoices):
    """What e-mails are about, as a person chooses them. Everything is in the inbox whatever they choose."""

    REVIEWS = "reviews", _("Decisions about your GPTs")
    JOBS = "jobs", _("Jobs that are finished or have failed")
    RATINGS = "ratings", _("Ratings of your GPTs, and replies to yours")
    FOLLOWED = "followed", _("New versions of what you follow")
    MONEY = "money", _("Access that has ended or was renewed")
    PUBLISHERS = "publishers", _("Transfers of GPTs, and your publishers' badges")


class Notification(models.Model):
    class Kind(models.TextChoices):
        SUBMISSION_APPROVED = "submission_approved", _("Approved")
        SUBMISSION_CHANGES = "submission_changes", _("Changes requested")
        SUBMISSION_REJECTED = "submission_rejected", _("Rejected")
        SUBMISSION_CHECKS_FAILED = "submission_checks_failed", _("Automated checks failed")
        VERSION_SUSPENDED = "version_suspended", _("Suspended")
        VERSION_RESTORED = "version_restored", _("Restored")
        JOB_SUCCEEDED = "job_succeeded", _("Job finished")
        JOB_FAILED = "job_failed", _("Job failed")
        RATING_RECEIVED = "rating_received", _("New rating")
        RATING_REPLY = "rating_reply", _("Reply to your rating")
        GPT_PUBLISHED = "gpt_published", _("New GPT")
        VERSION_PUBLISHED = "version_published", _("New version")
        ACCESS_RENEWED = "access_renewed", _("Access renewed")
        ACCESS_ENDED = "access_ended", _("Access ended")
        TRANSFER_OFFERED = "transfer_offered", _("GPT offered")
        TRANSFER_ANSWERED = "transfer_answered", _("Offer answered")
        BADGE_AT_RISK = "badge_at_risk", _("Badge at risk")
        BADGE_LOST = "badge_lost", _("Badge lost")

    public_id = PublicIdField("ntf")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=40, choices=Kind.choices)
    params = models.JSONField(default=dict, blank=True)  # what the sentence of this kind names
    url = models.CharField(max_length=300, blank=True)  # path without the language prefix
    key = models.CharField(
        max_length=120, unique=True, help_text="One notification per cause and person, however often the cause is reported."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, blank=True)
    emailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "read_at"]),
            models.Index(fields=["created_at"], condition=models.Q(emailed_at__isnull=True), name="notifications_unsent"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.user_id}"


class EmailOptOut(models.Model):
    """A person does not want e-mails about this."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="email_opt_outs")
    topic = models.CharField(max_length=20, choices=Topic.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "topic"], name="one_opt_out_per_user_and_topic")]

    def __str__(self) -> str:
        return f"no {self.topic} for {self.user_id}"


class WeeklyDigest(models.Model):
    """A person wants one e-mail a week in place of one for each message."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="weekly_digest")
    told_until = models.DateTimeField(db_index=True)  # what was said later is in the next one

    def __str__(self) -> str:
        return f"{self.user_id} until {self.told_until:%Y-%m-%d}"
