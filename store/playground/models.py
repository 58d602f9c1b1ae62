"""Kept conversations. A visitor's are kept under their visitor id and become theirs when they sign up."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField
from store.catalog.models import Version
from store.generation.models import Request


class Conversation(models.Model):
    public_id = PublicIdField("cnv")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="conversations")
    visitor = models.CharField(max_length=40, blank=True, db_index=True)
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    title = models.CharField(_("title"), max_length=80, blank=True)
    parameters = models.JSONField(default=dict, blank=True)  # what the person set; the version's defaults fill the rest
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-updated_at"]
        constraints = [models.CheckConstraint(condition=Q(user__isnull=False) | ~Q(visitor=""), name="conversation_belongs_to_somebody")]

    def __str__(self) -> str:
        return self.public_id


class Message(models.Model):
    class Role(models.TextChoices):
        USER = "user", _("You")
        ASSISTANT = "assistant", _("Answer")

    public_id = PublicIdField("msg")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    role = models.CharField(max_length=10, choices=Role.choices)
    text = models.TextField(blank=True)
    request = models.ForeignKey(Request, on_delete=models.SET_NULL, null=True, blank=True, related_name="messages")  # of an answer
    replaced_at = models.DateTimeField(null=True, blank=True)  # regenerated or edited away
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.role} in {self.conversation_id}"
