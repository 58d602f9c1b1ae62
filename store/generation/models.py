"""One row per generation: who asked which version, what became of it, and its measured tokens."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from store.accounts.models import ApiKey
from store.accounts.public_ids import PublicIdField
from store.billing.models import Access
from store.catalog.models import Version


class Request(models.Model):
    class State(models.TextChoices):
        ADMITTED = "admitted", _("Under way")
        FINISHED = "finished", _("Finished")
        CANCELLED = "cancelled", _("Stopped")
        FAILED = "failed", _("Failed")
        VOIDED = "voided", _("Lost")  # no settlement came in time; never charged

    class Source(models.TextChoices):
        TRY = "try", _("Try-it box")
        EMBED = "embed", _("On another site")
        CHAT = "chat", _("Chat")
        API = "api", _("API")
        ARENA = "arena", _("Arena")  # by a GPT that the store chose

    public_id = PublicIdField("req")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="requests")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="requests")
    visitor = models.CharField(max_length=40, blank=True, db_index=True)  # of a person without an account
    api_key = models.ForeignKey(ApiKey, on_delete=models.SET_NULL, null=True, blank=True, related_name="requests")
    source = models.CharField(max_length=6, choices=Source.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ADMITTED)
    finish_reason = models.CharField(max_length=12, blank=True)
    failure = models.CharField(max_length=40, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    cached_tokens = models.PositiveIntegerField(default=0)
    cost_micro = models.PositiveBigIntegerField(default=0)
    input_price_micro = models.PositiveBigIntegerField(default=0)  # as agreed when it was asked
    output_price_micro = models.PositiveBigIntegerField(default=0)
    access = models.ForeignKey(Access, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")  # that paid for the GPT's part
    first_token_ms = models.FloatField(null=True, blank=True)
    duration_ms = models.FloatField(null=True, blank=True)
    attempt = models.PositiveSmallIntegerField(default=1)
    deadline_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["state", "deadline_at"]),
            models.Index(fields=["user", "-id"]),
            models.Index(fields=["version", "-created_at"], name="requests_by_version"),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def tenant(self) -> str:
        """Whose it is, as workers are told."""
        return self.user.public_id if self.user else self.visitor

    @property
    def cause(self) -> str:
        """Names its reservation and its transaction."""
        return f"generation:{self.public_id}"
