"""Listings, their moderated texts, versions and lineage, artifacts, use cases and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.core.validators import MaxValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher, slug_validator
from store.accounts.public_ids import PublicIdField
from store.catalog.querysets import ListingQuerySet, VersionQuerySet

if TYPE_CHECKING:
    from store.accounts.models import User

version_validator = RegexValidator(
    r"^(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})$", _("Write the version as three numbers, for example 1.2.0.")
)


class UseCase(models.Model):
    slug = models.SlugField(max_length=40, unique=True)
    name_en = models.CharField(max_length=40)
    name_zh = models.CharField(max_length=40)
    icon = models.CharField(max_length=20)
    position = models.PositiveSmallIntegerField(default=0)
    synonyms = models.TextField(blank=True, help_text="Other words for it in any language, with commas between them; search knows them.")

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def name(self) -> str:
        return self.name_zh if (get_language() or "").startswith("zh") else self.name_en


class Tag(models.Model):
    slug = models.SlugField(max_length=40, unique=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Artifact(models.Model):
    """The files of a version, content-addressed: equal folders are one artifact."""

    public_id = PublicIdField("art")
    digest = models.CharField(max_length=64, unique=True)  # sha256 of the manifest
    revision = models.CharField(max_length=40, unique=True)  # what the Hub protocol calls a commit
    manifest = models.JSONField()  # {"format": 1, "files": [{path, size_bytes, sha256, git_oid}]}
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.digest[:12]


class Listing(models.Model):
    """One GPT in the catalogue, `publisher/slug`."""

    class Visibility(models.TextChoices):
        DRAFT = "draft", _("Draft")  # members only
        UNLISTED = "unlisted", _("Unlisted")  # whoever has the address
        PUBLIC = "public", _("Public")

    public_id = PublicIdField("lst")
    publisher = models.ForeignKey(Publisher, on_delete=models.PROTECT, related_name="listings")
    slug = models.CharField(_("name in addresses"), max_length=48, validators=[slug_validator])
    visibility = models.CharField(max_length=10, choices=Visibility.choices, default=Visibility.DRAFT)
    wanted_visibility = models.CharField(max_length=10, choices=Visibility.choices[1:], default=Visibility.PUBLIC)  # by the next approval
    suspended_at = models.DateTimeField(null=True, blank=True)
    live_revision = models.ForeignKey("ListingRevision", on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    current_version = models.ForeignKey("Version", on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    use_cases: models.ManyToManyField = models.ManyToManyField(UseCase, blank=True, related_name="listings")
    tags: models.ManyToManyField = models.ManyToManyField(Tag, blank=True, related_name="listings")
    licence = models.CharField(_("licence"), max_length=60, help_text=_("An SPDX identifier, for example Apache-2.0."))
    licence_name = models.CharField(max_length=60, blank=True)  # of one that is not on the SPDX list
    licence_url = models.URLField(max_length=300, blank=True)
    languages = models.JSONField(default=list)  # BCP 47 tags the GPT works in: claimed, then checked
    # What its publisher asks for their part. What people pay is told by `store.billing.prices`: what it builds on asks too.
    input_price_micro = models.PositiveBigIntegerField(
        _("price of a million input tokens"), default=0, validators=[MaxValueValidator(1_000_000_000)]
    )
    output_price_micro = models.PositiveBigIntegerField(
        _("price of a million output tokens"), default=0, validators=[MaxValueValidator(1_000_000_000)]
    )
    # What 30 days without the price per token cost, and how many tokens they cover; 0: that is not offered.
    monthly_price_micro = models.PositiveBigIntegerField(default=0, validators=[MaxValueValidator(1_000_000_000)])
    monthly_tokens = models.PositiveBigIntegerField(default=0, validators=[MaxValueValidator(10_000_000_000)])
    allow_finetune = models.BooleanField(_("others may fine-tune it"), default=False)
    allow_download = models.BooleanField(_("weights can be downloaded"), default=False)
    featured = models.PositiveSmallIntegerField(default=0, help_text="0: not featured; else its place on the home page.")
    request_count = models.PositiveBigIntegerField(default=0)
    download_count = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True)

    objects = ListingQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["publisher", "slug"], name="one_listing_per_name")]

    def __str__(self) -> str:
        return self.full_name

    @property
    def full_name(self) -> str:
        return f"{self.publisher.slug}/{self.slug}"

    @property
    def shown_revision(self) -> ListingRevision | None:
        """The live one; of a listing that was never approved the newest."""
        return self.live_revision or next(iter(self.revisions.all()), None)  # prefetched in lists

    def text(self, language: str | None = None) -> ListingText:
        """The live text in `language` (default: the active one), else in English, else in any language it has.

        A listing that was never approved shows its newest revision: only members and reviewers can reach it.
        """
        revision = self.shown_revision
        if revision is None:
            return ListingText(language="en", name=self.slug)
        texts = {t.language: t for t in revision.texts.all()}
        wanted = (language or get_language() or "en").lower()
        return texts.get(wanted) or texts.get("en") or next(iter(texts.values()), ListingText(language="en", name=self.slug))


class FormerAddress(models.Model):
    """Where a listing was found before another publisher had it: it still is."""

    publisher = models.ForeignKey(Publisher, on_delete=models.PROTECT, related_name="former_addresses")
    slug = models.CharField(max_length=48)
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="former_addresses")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["publisher", "slug"], name="one_listing_per_former_address")]

    def __str__(self) -> str:
        return f"{self.publisher.slug}/{self.slug}"


class ListingViews(models.Model):
    """How often a listing's page was looked at on a day. `store.catalog.views` says what counts."""

    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="views")
    day = models.DateField()
    number = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["listing", "day"], name="one_row_of_views_per_listing_and_day")]

    def __str__(self) -> str:
        return f"{self.listing_id} on {self.day}: {self.number}"


class Transfer(models.Model):
    """An offer of a listing to another publisher. `store.catalog.transfers` says what it means."""

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        ACCEPTED = "accepted", _("Accepted")
        DECLINED = "declined", _("Declined")
        REVOKED = "revoked", _("Taken back")

    public_id = PublicIdField("trf")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="transfers")
    giver = models.ForeignKey(Publisher, on_delete=models.PROTECT, related_name="+")
    taker = models.ForeignKey(Publisher, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    offered_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["listing"], condition=Q(state="open"), name="one_open_offer_per_listing")]

    def __str__(self) -> str:
        return f"{self.listing_id} to {self.taker_id}: {self.state}"


class ListingRevision(models.Model):
    """Icon, name, summary and card in all its languages, moderated as one unit. The live one stays until its successor is approved."""

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        SEALED = "sealed", _("Submitted")
        LIVE = "live", _("Live")
        SUPERSEDED = "superseded", _("Superseded")
        REFUSED = "refused", _("Refused")

    public_id = PublicIdField("rev")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="revisions")
    state = models.CharField(max_length=12, choices=State.choices, default=State.DRAFT)
    icon = models.CharField(max_length=64, blank=True, db_index=True)  # sha256 of a WebP blob; empty: one is drawn from the name
    small_icon = models.CharField(max_length=64, blank=True, db_index=True)  # the same for lists
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["listing"], condition=Q(state="live"), name="one_live_revision_per_listing")]

    def __str__(self) -> str:
        return f"{self.listing} text {self.public_id}"


class ListingText(models.Model):
    revision = models.ForeignKey(ListingRevision, on_delete=models.CASCADE, related_name="texts")
    language = models.CharField(max_length=10, choices=[("en", _("English")), ("zh-hans", _("Simplified Chinese"))])
    name = models.CharField(_("name"), max_length=60)
    summary = models.CharField(_("summary"), max_length=200)
    card = models.TextField(_("description"), max_length=20_000, blank=True)  # Markdown

    class Meta:
        constraints = [models.UniqueConstraint(fields=["revision", "language"], name="one_text_per_revision_and_language")]

    def __str__(self) -> str:
        return self.name


class Version(models.Model):
    """A release of a listing. Editable as a draft, sealed by digest when submitted, never changed after."""

    class Kind(models.TextChoices):
        WEIGHTS = "weights", _("Full weights")
        ADAPTER = "adapter", _("Adapter")
        PROMPT = "prompt", _("Prompt GPT")

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        SEALED = "sealed", _("Submitted")
        RELEASED = "released", _("Released")
        REFUSED = "refused", _("Refused")
        SUSPENDED = "suspended", _("Suspended")
        YANKED = "yanked", _("Withdrawn")

    public_id = PublicIdField("ver")
    listing = models.ForeignKey(Listing, on_delete=models.PROTECT, related_name="versions")
    number = models.CharField(_("version"), max_length=20, validators=[version_validator])
    kind = models.CharField(max_length=10, choices=Kind.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.DRAFT)
    base = models.ForeignKey(  # what it runs on; of weights, what they were trained from, if anything
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="derived"
    )
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, null=True, blank=True, related_name="versions")
    instructions = models.TextField(_("instructions"), blank=True, max_length=8000)
    starters = models.JSONField(_("conversation starters"), default=list, blank=True)  # ["text", …], at most 6
    parameters = models.JSONField(_("default parameters"), default=dict, blank=True)  # temperature, top_p, max_tokens, …
    facts = models.JSONField(default=dict, blank=True)  # read at import: architecture, parameters, context_length, dtype, …
    change_log = models.TextField(_("what changed"), blank=True, max_length=4000)
    digest = models.CharField(max_length=64, blank=True)  # sha256 over everything above, set on sealing
    terms = models.JSONField(default=dict, blank=True)  # the listing's licence and prices when it was released
    made_by = models.CharField(max_length=40, blank=True)  # public id of the job that made it
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    sealed_at = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, blank=True)
    announced_at = models.DateTimeField(null=True, blank=True)  # to everybody who follows its listing or publisher
    # Said by its publisher after the release, so outside the digest: why it should not be used any more, and what instead.
    deprecated_at = models.DateTimeField(null=True, blank=True)
    notice = models.CharField(max_length=300, blank=True)  # of a deprecated or a withdrawn one

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["listing", "number"], name="one_version_per_number"),
            models.CheckConstraint(
                condition=(
                    Q(kind="weights", instructions="")
                    | Q(kind="adapter", base__isnull=False, instructions="")
                    | Q(kind="prompt", base__isnull=False, artifact__isnull=True)
                ),
                name="version_has_the_parts_of_its_kind",
            ),
            models.CheckConstraint(condition=Q(state="draft") | ~Q(digest=""), name="version_sealed_by_digest"),
        ]
        indexes = [models.Index(fields=["released_at"], condition=Q(announced_at__isnull=True), name="unannounced_versions")]

    def __str__(self) -> str:
        return self.full_name

    @property
    def full_name(self) -> str:
        return f"{self.listing.full_name}@{self.number}"

    @property
    def is_editable(self) -> bool:
        return self.state == self.State.DRAFT

    @property
    def is_withdrawn(self) -> bool:
        """Taken back after its release; one that was taken back from review never answered anybody."""
        return self.state == self.State.YANKED and self.released_at is not None

    def lineage(self) -> list[Version]:
        """It and what it was made from, nearest first: a prompt on an adapter on weights, trained from weights, and so on."""
        versions = [self]
        while (base := versions[-1].base) is not None:
            versions.append(base)
        return versions

    def runs_on(self) -> list[Version]:
        """The part of the lineage that computes its answers, nearest first: at most three, a prompt on an adapter on weights."""
        versions = [self]
        while (base := versions[-1].stands_on) is not None:
            versions.append(base)
        return versions

    @property
    def stands_on(self) -> Version | None:
        """The base whose engine it shares; None for weights, which have one of their own whatever they were trained from."""
        return None if self.kind == self.Kind.WEIGHTS else self.base

    def weights(self) -> Version:
        """Whose engine runs this version."""
        return self.runs_on()[-1]

    def adapter(self) -> Version | None:
        """The adapter that its engine puts beside the weights."""
        return next((version for version in self.runs_on() if version.kind == self.Kind.ADAPTER), None)


class Ancestry(models.Model):
    """The transitive closure of lineage: one row per version and ancestor, so that availability and shares need no recursion."""

    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="ancestry")
    ancestor = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="descendants")
    depth = models.PositiveSmallIntegerField()  # 1: its direct base

    class Meta:
        ordering = ["depth"]
        constraints = [
            models.UniqueConstraint(fields=["version", "ancestor"], name="one_row_per_version_and_ancestor"),
            models.CheckConstraint(condition=~Q(version=F("ancestor")), name="no_version_is_its_own_ancestor"),
        ]

    def __str__(self) -> str:
        return f"{self.version_id} ← {self.ancestor_id} ({self.depth})"


class Measurement(models.Model):
    """A measured number of a version, with its interval and how it was measured."""

    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="measurements")
    name = models.CharField(max_length=40)  # "perplexity", "answer.f1"
    value = models.FloatField()
    low = models.FloatField(null=True)  # 95 % interval
    high = models.FloatField(null=True)
    base_value = models.FloatField(null=True)
    difference = models.FloatField(null=True)  # to the base, paired by item
    difference_low = models.FloatField(null=True)
    difference_high = models.FloatField(null=True)
    unit = models.CharField(max_length=20, blank=True)
    lower_is_better = models.BooleanField(default=False)
    method = models.JSONField(default=dict)  # suite, seed, engine version, digests, and the record of every row
    made_by = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "name"], name="one_measurement_per_version_and_name")]
        indexes = [models.Index(fields=["name", "value"], name="measurements_by_value")]  # of leaderboards

    def __str__(self) -> str:
        return f"{self.name} of {self.version_id}: {self.value}"


class SearchText(models.Model):
    """The one normalised column by which a listing is found, written by `store.catalog.search.documents` alone.

    Under it stands what the database offers for words: on PostgreSQL a generated column `doc` (tsvector, GIN), on SQLite the
    FTS5 table `catalog_searchtext_fts`, which triggers keep. Migration 0007 makes both.
    """

    listing = models.OneToOneField(Listing, on_delete=models.CASCADE, primary_key=True, related_name="search_text")
    terms = models.TextField(blank=True)  # with a space before, between and behind

    def __str__(self) -> str:
        return f"terms of {self.listing_id}"


class SearchHead(models.Model):
    """The terms of the best listings of a large catalogue once more, under an index of their own (`store.catalog.search.heading`).

    A word that many listings have is looked up here first, in a hundredth of the places. Migration 0018 makes the index, as 0007 does.
    """

    place = models.BigIntegerField(primary_key=True)  # in the order of their ranks, the best first
    listing = models.OneToOneField(Listing, on_delete=models.CASCADE, related_name="search_head")
    terms = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"head of {self.listing_id}"


class SearchEntry(models.Model):
    """One narrow row for each listing, by which explore filters, counts and sorts without looking at anything else.

    Apart from SearchText, so that a use, which moves `heat`, touches no index of words.
    """

    listing = models.OneToOneField(Listing, on_delete=models.CASCADE, primary_key=True, related_name="search_entry")
    is_listed = models.BooleanField(default=False)  # as `Listing.objects.listed()` says
    is_stale = models.BooleanField(default=False)  # something it tells of has changed: to be written again
    facts = models.CharField(max_length=600, blank=True)  # " use/chat lang/en free ", what facets filter by and count
    rank = models.FloatField(default=0.0)  # 0 to 1, see store.catalog.search.ranking
    heat = models.FloatField(default=0.0)  # uses, the older the less: the logarithm of their sum, so that no row needs cooling
    rating = models.FloatField(default=0.0)  # Bayesian; 0 without ratings
    published = models.FloatField(default=0.0)  # seconds since 1970
    price = models.FloatField(default=0.0)  # micro-units for a million tokens read and as many written, with what it builds on
    name_en = models.CharField(max_length=240, blank=True)  # sort keys
    name_zh = models.CharField(max_length=240, blank=True)

    class Meta:
        verbose_name_plural = "search entries"
        indexes = [
            *(
                models.Index(F(key), F("listing"), name=f"entry_by_{key}", condition=Q(is_listed=True))
                for key in ("rank", "heat", "rating", "published", "price", "name_en", "name_zh")
            ),
            models.Index("is_stale", name="stale_entries", condition=Q(is_stale=True)),
        ]

    def __str__(self) -> str:
        return f"entry of {self.listing_id}"


class Spelling(models.Model):
    """A word of the catalogue under one of the forms by which a misspelling of it is found."""

    form = models.CharField(max_length=24)
    word = models.CharField(max_length=24)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["form", "word"], name="one_row_per_form_and_word")]

    def __str__(self) -> str:
        return f"{self.form} → {self.word}"


class SavedSearch(models.Model):
    """A look into the catalogue that a person wants again, as its address."""

    MAX_CHARS = 2600  # an entry of PostgreSQL's index over it holds 2,704 bytes

    public_id = PublicIdField("sea")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_searches")
    address = models.CharField(max_length=MAX_CHARS)  # the query string, without "?"
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "saved searches"
        constraints = [models.UniqueConstraint(fields=["user", "address"], name="one_saved_search_per_address")]

    def __str__(self) -> str:
        return self.address


class Follow(models.Model):
    """A person wants to be told of new versions: of one listing, or of all that a publisher lists."""

    public_id = PublicIdField("fol")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="follows")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, null=True, blank=True, related_name="follows")
    publisher = models.ForeignKey(Publisher, on_delete=models.CASCADE, null=True, blank=True, related_name="follows")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["user", "listing"], name="one_follow_per_listing"),
            models.UniqueConstraint(fields=["user", "publisher"], name="one_follow_per_publisher"),
            models.CheckConstraint(
                condition=Q(listing__isnull=True, publisher__isnull=False) | Q(listing__isnull=False, publisher__isnull=True),
                name="one_thing_is_followed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} follows {self.listing or self.publisher}"


class Collection(models.Model):
    """A person's own list of GPTs under a name: theirs alone, or shared with whoever has its address."""

    NAME_CHARS, ABOUT_CHARS = 60, 300

    public_id = PublicIdField("col")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="collections")
    name = models.CharField(_("name"), max_length=NAME_CHARS)
    about = models.CharField(_("what it is for"), max_length=ABOUT_CHARS, blank=True)
    is_public = models.BooleanField(_("whoever has the address can see it"), default=False)
    featured = models.PositiveSmallIntegerField(
        default=0, help_text="0: not featured; else its place on the home page, while it is shared."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="one_collection_per_name")]

    def __str__(self) -> str:
        return self.name


class CollectionItem(models.Model):
    NOTE_CHARS = 200

    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="items")
    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="+")
    place = models.IntegerField(default=0)  # among the others, the lowest first; equal ones the newest first
    note = models.CharField(_("why it is here"), max_length=NOTE_CHARS, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["place", "-id"]
        constraints = [models.UniqueConstraint(fields=["collection", "listing"], name="one_item_per_collection_and_listing")]

    def __str__(self) -> str:
        return f"{self.listing_id} in {self.collection_id}"


def may_see(user: User | None, listing: Listing) -> bool:
    """Whether a listing's page exists for this person: public and unlisted for all, drafts and suspended for members and reviewers."""
    return Listing.objects.reachable_by(user).filter(pk=listing.pk).exists()
