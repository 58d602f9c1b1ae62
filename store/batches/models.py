"""A batch: a file of requests that are answered when there is nothing more urgent to do, within a day.

Its lines are cut into shards, blobs in the artifact store. Of each shard that can be answered one job is made when its turn
comes (`store.jobs`, kind "batch", the batch as its subject); what the job's segments hold is the record of what was answered.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField
from store.catalog.models import Version
from store.jobs.models import Job, UploadedFile


class Batch(models.Model):
    class State(models.TextChoices):
        VALIDATING = "validating", _("Being checked")
        FAILED = "failed", _("Failed")
        IN_PROGRESS = "in_progress", _("Being answered")
        FINALIZING = "finalizing", _("Results are being written")
        COMPLETED = "completed", _("Completed")
        EXPIRED = "expired", _("Expired")
        CANCELLING = "cancelling", _("Being cancelled")
        CANCELLED = "cancelled", _("Cancelled")

    ENDED = frozenset({State.FAILED, State.COMPLETED, State.EXPIRED, State.CANCELLED})
    ENDING = frozenset({State.FINALIZING, State.CANCELLING})

    public_id = PublicIdField("batch")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="batches")
    state = models.CharField(max_length=12, choices=State.choices, default=State.VALIDATING, db_index=True)
    ending = models.CharField(max_length=12, choices=State.choices, blank=True)  # what it will be once its results are written
    endpoint = models.CharField(max_length=40)
    metadata = models.JSONField(default=dict, blank=True)
    name = models.CharField(max_length=200)  # of the file of requests
    input_file = models.CharField(max_length=40)  # its public id; the file may be deleted meanwhile
    input_sha256 = models.CharField(max_length=64)
    output_file = models.ForeignKey(UploadedFile, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    error_file = models.ForeignKey(UploadedFile, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    model = models.CharField(max_length=200, blank=True)  # as it was asked for
    shards = models.JSONField(default=list, blank=True)  # in the file's order: {"sha256", "requests": how many of its lines to answer}
    next_shard = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)
    cached_tokens = models.PositiveBigIntegerField(default=0)
    input_price_micro = models.PositiveBigIntegerField(default=0)  # as agreed when it began
    output_price_micro = models.PositiveBigIntegerField(default=0)
    reserved_micro = models.PositiveBigIntegerField(default=0)
    cost_micro = models.PositiveBigIntegerField(default=0)
    errors = models.JSONField(default=list, blank=True)  # why it failed, or was ended: {"code", "message", "param", "line"}
    sent_at = models.DateTimeField(null=True, blank=True)  # when its checking or the writing of its results was last sent
    created_at = models.DateTimeField(auto_now_add=True)
    in_progress_at = models.DateTimeField(null=True, blank=True)
    finalizing_at = models.DateTimeField(null=True, blank=True)
    cancelling_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "batches"
        indexes = [models.Index(fields=["user", "-id"])]
        constraints = [models.CheckConstraint(condition=Q(ending="") | ~Q(state="in_progress"), name="what_ends_is_not_in_progress")]

    def __str__(self) -> str:
        return self.public_id

    @property
    def cause(self) -> str:
        """Names its reservation and its transaction."""
        return f"batch:{self.public_id}"

    @property
    def has_ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def answered(self) -> int:
        return min(self.completed + self.failed, self.total)

    @property
    def percent(self) -> int:
        return int(100 * self.answered / self.total) if self.total else 0

    @property
    def jobs(self) -> QuerySet[Job]:
        """Of the shards that had their turn so far."""
        return Job.objects.filter(kind=Job.Kind.BATCH, subject=self.public_id)
