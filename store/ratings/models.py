"""One current rating per person and listing, bound to the version used; replies, flags, and the kept aggregate."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts.public_ids import PublicIdField
from store.catalog.models import Listing, Version


class Rating(models.Model):
    public_id = PublicIdField("rat")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="ratings")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="ratings")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="ratings")
    stars = models.PositiveSmallIntegerField(_("stars"), validators=[MinValueValidator(1), MaxValueValidator(5)])
    text = models.TextField(_("what should others know?"), blank=True, max_length=4000)
    fingerprint = models.CharField(max_length=32, blank=True, default="", db_index=True)  # of the text; "" where it is too short
    language = models.CharField(max_length=10, default="en")  # of the page it was written on
    requests_used = models.PositiveIntegerField(default=0)  # how often its author had used the listing
    tokens_used = models.PositiveBigIntegerField(default=0)  # metered in them, prompts and answers
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    helpful_count = models.PositiveIntegerField(default=0)  # votes
    edited_at = models.DateTimeField(null=True, blank=True)  # when it was given anew
    hidden_at = models.DateTimeField(null=True, blank=True)  # by a moderator; stays when its author withdraws it or gives it anew
    withdrawn_at = models.DateTimeField(null=True, blank=True)  # by its author

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["listing", "user"], name="one_rating_per_listing_and_user"),
            models.CheckConstraint(condition=Q(stars__gte=1) & Q(stars__lte=5), name="one_to_five_stars"),
        ]
        indexes = [models.Index(fields=["listing", "-created_at"], name="ratings_by_listing")]

    def __str__(self) -> str:
        return f"{self.stars} stars for {self.listing_id}"

    @property
    def is_visible(self) -> bool:
        return self.hidden_at is None and self.withdrawn_at is None

    @property
    def is_newer_than_reply(self) -> bool:
        """Whether its publisher's reply answers something that stands here no more."""
        return self.edited_at is not None and self.edited_at > self.reply.updated_at


class PastRating(models.Model):
    """What a rating said before its author gave it anew; for its author and for moderators."""

    rating = models.ForeignKey(Rating, on_delete=models.CASCADE, related_name="past")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    stars = models.PositiveSmallIntegerField()
    text = models.TextField(blank=True)
    language = models.CharField(max_length=10)
    requests_used = models.PositiveIntegerField()
    tokens_used = models.PositiveBigIntegerField()
    written_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True, blank=True)  # where it had been withdrawn before
    replaced_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.stars} stars until {self.replaced_at:%Y-%m-%d}"


class HelpfulVote(models.Model):
    """Somebody else found the rating helpful."""

    rating = models.ForeignKey(Rating, on_delete=models.CASCADE, related_name="helpful_votes")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rating", "user"], name="one_helpful_vote_per_rating_and_user")]

    def __str__(self) -> str:
        return f"{self.rating_id} helps"


class Reply(models.Model):
    """The publisher's one reply to a rating."""

    rating = models.OneToOneField(Rating, on_delete=models.CASCADE, related_name="reply")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    text = models.TextField(_("reply"), max_length=2000)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"reply to {self.rating_id}"


class Flag(models.Model):
    """Somebody, or a sign that the store noticed, says that a rating breaks the rules; a moderator looks at it."""

    class Reason(models.TextChoices):
        SPAM = "spam", _("Advertising or spam")
        ABUSE = "abuse", _("Insults or hate")
        OFF_TOPIC = "off_topic", _("Not about this GPT")
        PRIVATE = "private", _("Contains personal data")
        DUPLICATE = "duplicate", _("The text of another rating")
        BURST = "burst", _("One of many by new accounts within an hour")

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        UPHELD = "upheld", _("Rating hidden")
        DISMISSED = "dismissed", _("Dismissed")

    public_id = PublicIdField("flg")
    rating = models.ForeignKey(Rating, on_delete=models.CASCADE, related_name="flags")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="+")  # None: a sign
    reason = models.CharField(max_length=12, choices=Reason.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["rating", "user"], name="one_flag_per_rating_and_user"),
            models.UniqueConstraint(fields=["rating", "reason"], condition=Q(user__isnull=True), name="one_sign_per_rating_and_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.reason} on {self.rating_id}"


class RatingSummary(models.Model):
    """Counters of a listing's visible ratings, kept incrementally. `bayesian` pulls few ratings towards the store's mean."""

    listing = models.OneToOneField(Listing, on_delete=models.CASCADE, related_name="rating_summary")
    count = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)  # sum of stars
    stars_1 = models.PositiveIntegerField(default=0)
    stars_2 = models.PositiveIntegerField(default=0)
    stars_3 = models.PositiveIntegerField(default=0)
    stars_4 = models.PositiveIntegerField(default=0)
    stars_5 = models.PositiveIntegerField(default=0)
    bayesian = models.FloatField(default=0.0, db_index=True)

    class Meta:
        verbose_name_plural = "rating summaries"

    def __str__(self) -> str:
        return f"{self.listing_id}: {self.count}"

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None
