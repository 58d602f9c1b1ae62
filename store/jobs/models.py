"""Jobs survive everything: the row is the truth, the broker is disposable.

A job runs as numbered attempts. An attempt is claimed by one worker, renewed by heartbeats, and made of segments that
end in a checkpoint; only a conditional update of the job's pointer makes a checkpoint current.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher
from store.accounts.public_ids import PublicIdField
from store.catalog.models import Listing, Version


class UploadedFile(models.Model):
    """A user's file in artifact storage; equal bytes are stored once."""

    class Purpose(models.TextChoices):
        FINETUNE = "fine-tune", _("Fine-tuning")
        BATCH = "batch", _("Batch")
        BATCH_OUTPUT = "batch_output", _("Results of a batch")
        EVALUATION = "evaluation", _("Evaluation")
        MODEL = "model", _("Part of a model")

    public_id = PublicIdField("file")
    publisher = models.ForeignKey(Publisher, on_delete=models.CASCADE, null=True, blank=True, related_name="files")  # none: a person's own
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    name = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64, db_index=True)
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Upload(models.Model):
    """A file on its way, in pieces that wait in artifact storage. `store.jobs.uploads` says how."""

    public_id = PublicIdField("upload")
    publisher = models.ForeignKey(Publisher, on_delete=models.CASCADE, null=True, blank=True, related_name="+")  # none: a person's own
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    purpose = models.CharField(max_length=20, choices=UploadedFile.Purpose.choices)
    name = models.CharField(max_length=200)
    metadata = models.CharField(max_length=2000, blank=True)  # as the client sent it, who may ask for it
    length_bytes = models.PositiveBigIntegerField()
    offset_bytes = models.PositiveBigIntegerField(default=0)  # what is kept of it
    pieces = models.JSONField(default=list, blank=True)  # their names in order; together `offset_bytes` long, until the file is made
    file = models.ForeignKey(UploadedFile, on_delete=models.CASCADE, null=True, blank=True, related_name="+")  # what became of it
    expires_at = models.DateTimeField(db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.CheckConstraint(condition=Q(offset_bytes__lte=models.F("length_bytes")), name="no_more_than_was_said")]

    def __str__(self) -> str:
        return f"{self.name} {self.offset_bytes}/{self.length_bytes}"

    @property
    def is_complete(self) -> bool:
        return self.offset_bytes == self.length_bytes

    @property
    def percent(self) -> int:
        return 100 * self.offset_bytes // self.length_bytes


class Job(models.Model):
    class Kind(models.TextChoices):
        VALIDATION = "validation", _("Data validation")
        IMPORT = "import", _("Check of brought files")
        FINETUNE = "finetune", _("Fine-tune")
        PRETRAINING = "pretraining", _("Pre-training")
        CHECK = "check", _("Check")
        BATCH = "batch", _("Batch")  # one shard of a batch, about which store.batches knows
        EVALUATION = "evaluation", _("Evaluation")

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")  # for another job (a fine-tune for its validation)
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        PAUSED = "paused", _("Paused")
        SUCCEEDED = "succeeded", _("Succeeded")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

    class Wish(models.TextChoices):
        NONE = "", _("None")
        PAUSE = "pause", _("Pause")
        CANCEL = "cancel", _("Cancel")

    public_id = PublicIdField("job")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED, db_index=True)
    wish = models.CharField(max_length=8, choices=Wish.choices, default=Wish.NONE, blank=True)  # told to the worker at its next heartbeat
    publisher = models.ForeignKey(Publisher, on_delete=models.PROTECT, null=True, blank=True, related_name="jobs")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="jobs")
    subject = models.CharField(max_length=40, blank=True, db_index=True)  # public id of what it is about
    after = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="followers")
    params = models.JSONField(default=dict)  # what the worker gets
    result = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_detail = models.JSONField(default=dict, blank=True)
    attempt = models.PositiveSmallIntegerField(default=1)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    claim = models.CharField(max_length=40, blank=True)  # empty: nobody works on it
    worker = models.CharField(max_length=120, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    checkpoint = models.CharField(max_length=64, blank=True)  # digest of the current checkpoint's manifest; of a shard, its newest answers
    segment = models.PositiveIntegerField(default=0)  # number of the next segment
    done = models.FloatField(default=0.0)  # share of the whole, 0 to 1
    not_before = models.DateTimeField(null=True, blank=True)  # back-off after a failed attempt
    dispatched_at = models.DateTimeField(null=True, blank=True)  # last time it was sent to the broker
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["state", "heartbeat_at"]), models.Index(fields=["publisher", "-id"])]
        constraints = [models.CheckConstraint(condition=Q(done__gte=0) & Q(done__lte=1), name="done_is_a_share")]

    def __str__(self) -> str:
        return f"{self.kind} {self.public_id}"

    @property
    def has_ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def cause(self) -> str:
        """Names its reservation and its transaction."""
        return f"job:{self.public_id}"


class ModelFolder(models.Model):
    """Files on their way to be a version: a model's or an adapter's. `store.jobs.folders` says how."""

    class Kind(models.TextChoices):
        WEIGHTS = "weights", _("Full weights")
        ADAPTER = "adapter", _("Adapter")

    public_id = PublicIdField("folder")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    base = models.ForeignKey(Version, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    files: models.ManyToManyField = models.ManyToManyField(UploadedFile, related_name="folders", blank=True)
    job = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")  # the last check of them
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.CheckConstraint(condition=Q(kind="weights") | Q(base__isnull=False), name="an_adapter_has_a_base")]

    def __str__(self) -> str:
        return f"{self.kind} {self.public_id}"


class JobSegment(models.Model):
    """A segment that became current: its checkpoint and its complete events."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="segments")
    number = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField()
    checkpoint = models.CharField(max_length=64)
    events = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="one_segment_per_number")]

    def __str__(self) -> str:
        return f"{self.job_id} segment {self.number}"


class JobEvent(models.Model):
    """What happened to a job, for people: queued, claimed, lost, retried, paused, failed with its traceback."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=30)
    attempt = models.PositiveSmallIntegerField(default=1)
    detail = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.job_id} {self.kind}"
