"""Kept conversations, battles of the arena and what their votes come to.

A visitor's conversations are kept under their visitor id and become theirs when they sign up.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.public_ids import PublicIdField
from store.catalog.models import Listing, UseCase, Version
from store.generation.models import Request
from store.jobs.models import UploadedFile


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
    liked = models.BooleanField(null=True, blank=True)  # an answer, by who asked
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.role} in {self.conversation_id}"


class Share(models.Model):
    """A conversation as it was when somebody shared it, for whoever has its address. Taken back, it keeps nothing that was said."""

    NAME_CHARS = 40

    public_id = PublicIdField("shr")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="shares")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")  # who shared it; shown to nobody
    name = models.CharField(max_length=NAME_CHARS, blank=True)  # that they chose to be shown by
    title = models.CharField(max_length=80, blank=True)
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    messages = models.JSONField()  # [{"role", "text"}]
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["conversation"], condition=Q(revoked_at__isnull=True), name="one_live_share_per_conversation")
        ]

    def __str__(self) -> str:
        return self.public_id


class Battle(models.Model):
    """One question answered by two versions, A on the left; who asked it does not learn their names before the vote."""

    class Vote(models.TextChoices):
        A = "a", _("A is better")
        B = "b", _("B is better")
        TIE = "tie", _("Both are as good")
        BAD = "bad", _("Both are bad")

    class Doubt(models.TextChoices):
        NAMED = "named", _("an answer gives a name away")
        REPEATED = "repeated", _("the same was asked of the same two before")
        ENOUGH = "enough", _("you have voted as often on one of the two as counts")
        BURST = "burst", _("too many alike in a short time")

    public_id = PublicIdField("btl")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="battles")
    use_case = models.ForeignKey(UseCase, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")  # chosen by who asked
    text = models.TextField()
    fingerprint = models.CharField(max_length=32, blank=True, db_index=True)  # of the text; "" where it is too short
    version_a = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    version_b = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    request_a = models.OneToOneField(Request, on_delete=models.PROTECT, related_name="+")
    request_b = models.OneToOneField(Request, on_delete=models.PROTECT, related_name="+")
    answer_a = models.TextField(blank=True)
    answer_b = models.TextField(blank=True)
    vote = models.CharField(max_length=4, choices=Vote.choices, blank=True)
    doubt = models.CharField(max_length=10, choices=Doubt.choices, blank=True)  # why the vote does not count
    created_at = models.DateTimeField(auto_now_add=True)
    voted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=~Q(version_a=F("version_b")), name="no_version_meets_itself"),
            models.CheckConstraint(
                condition=Q(vote="", voted_at__isnull=True) | (~Q(vote="") & Q(voted_at__isnull=False)), name="vote_has_its_time"
            ),
        ]
        indexes = [models.Index(fields=["voted_at"], condition=~Q(vote=""), name="battles_by_vote")]

    def __str__(self) -> str:
        return self.public_id

    @property
    def winner_id(self) -> int | None:
        return {self.Vote.A: self.version_a_id, self.Vote.B: self.version_b_id}.get(self.Vote(self.vote)) if self.vote else None


class Tally(models.Model):
    """One computation of the arena's ratings. The newest is what holds; it replaces the one before."""

    computed_at = models.DateTimeField(auto_now_add=True)
    vote_count = models.PositiveIntegerField()
    doubted_count = models.PositiveIntegerField()  # votes that do not count

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.vote_count} votes at {self.computed_at:%Y-%m-%d %H:%M}"


class Standing(models.Model):
    """The rating of a version in one computation: over all votes, or over those of one use case."""

    tally = models.ForeignKey(Tally, on_delete=models.CASCADE, related_name="standings")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="arena_standings")
    use_case = models.ForeignKey(UseCase, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    rating = models.FloatField()
    margin = models.FloatField()  # half the 95 % interval
    votes = models.PositiveIntegerField()
    wins = models.PositiveIntegerField()
    ties = models.PositiveIntegerField()

    class Meta:
        ordering = ["-rating"]

    def __str__(self) -> str:
        return f"{self.version_id}: {self.rating:.0f} ± {self.margin:.0f}"

    @property
    def low(self) -> float:
        return self.rating - self.margin

    @property
    def high(self) -> float:
        return self.rating + self.margin


class Embed(models.Model):
    """Where a GPT may be shown on other sites, and how many tokens a day that may take. `store.playground.embeds` says how."""

    public_id = PublicIdField("emb")
    listing = models.OneToOneField(Listing, on_delete=models.CASCADE, related_name="embed")
    is_on = models.BooleanField(default=False)
    origins = models.JSONField(default=list, blank=True)  # ["https://example.org"]
    tokens_per_day = models.PositiveIntegerField(default=100_000)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.listing_id} on {len(self.origins)} sites"


class FeedbackConsent(models.Model):
    """A person lets publishers see what they judged or asked again, in conversations that they begin from then on."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="feedback_consent")
    given_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.user_id} since {self.given_at:%Y-%m-%d}"


class PreferenceSet(models.Model):
    """A file of preferences that a publisher made of consented feedback on a listing."""

    public_id = PublicIdField("prf")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="preference_sets")
    file = models.OneToOneField(UploadedFile, on_delete=models.CASCADE, related_name="preference_set")
    digests = models.JSONField(default=list)  # of the file as it is and as it was before somebody withdrew: what runs were begun with
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.public_id


class PreferencePair(models.Model):
    """Two answers to one question, of which a person preferred one; whose it is, only to take it out again."""

    set = models.ForeignKey(PreferenceSet, on_delete=models.CASCADE, related_name="pairs")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    chosen = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    rejected = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.chosen_id} rather than {self.rejected_id}"
