"""Listings as JSON. What a version is told to do (`instructions`) is never among it."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from store.accounts.models import Publisher
from store.billing import prices
from store.catalog.models import Listing, Measurement, UseCase, Version
from store.catalog.search import SORTS, is_position
from store.playground.arena.standings import Place
from store.ratings.models import RatingSummary


class ListingQuery(serializers.Serializer):
    """What `GET /api/listings` can be asked."""

    q = serializers.CharField(required=False, max_length=200, default="", allow_blank=True)
    use_case = serializers.SlugRelatedField(slug_field="slug", queryset=UseCase.objects.all(), required=False)
    kind = serializers.ChoiceField(Version.Kind.choices, required=False)
    language = serializers.RegexField(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", required=False, max_length=20)
    free = serializers.BooleanField(required=False, default=False)
    sort = serializers.ChoiceField(list(SORTS), required=False, default="best")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=100)
    after = serializers.CharField(required=False, default="", max_length=300, help_text="Where the page before ended, as its `next` says")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["after"] and not is_position(attrs["after"], attrs["sort"]):
            raise serializers.ValidationError({"after": _("Take this from the `next` of the page before, asked in the same order.")})
        return attrs


class PublisherSerializer(serializers.ModelSerializer):
    verified = serializers.SerializerMethodField()

    class Meta:
        model = Publisher
        fields = ["slug", "name", "kind", "verified", "is_demo"]

    def get_verified(self, publisher: Publisher) -> bool:
        return publisher.verified_at is not None


class RatingSummarySerializer(serializers.ModelSerializer):
    class Meta:
        model = RatingSummary
        fields = ["count", "mean"]


class TextSerializer(serializers.Serializer):
    name = serializers.CharField()
    summary = serializers.CharField()


class FullTextSerializer(TextSerializer):
    card = serializers.CharField(help_text="Markdown")


class MeasurementSerializer(serializers.ModelSerializer):
    class Meta:
        model = Measurement
        fields = [
            *("name", "value", "low", "high", "base_value", "difference", "difference_low", "difference_high"),
            *("unit", "lower_is_better", "method"),
        ]


class VersionSerializer(serializers.ModelSerializer):
    name = serializers.CharField(source="full_name")
    base = serializers.SerializerMethodField()

    class Meta:
        model = Version
        fields = ["name", "kind", "base", "change_log", "released_at", "deprecated_at", "notice"]

    def get_base(self, version: Version) -> str | None:
        return version.base.full_name if version.base else None


class ListingSerializer(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id")
    name = serializers.CharField(source="full_name")
    publisher = PublisherSerializer()
    texts = serializers.SerializerMethodField()
    current_version = VersionSerializer()
    use_cases: serializers.Field = serializers.SlugRelatedField(slug_field="slug", many=True, read_only=True)
    languages = serializers.ListField(child=serializers.CharField())
    input_price_micro = serializers.SerializerMethodField(help_text="Of a million input tokens, with what the GPT builds on")
    output_price_micro = serializers.SerializerMethodField(help_text="Of a million output tokens, with what the GPT builds on")
    monthly_price_micro = serializers.IntegerField(
        help_text="Of 30 days in which the GPT's own price per token is not asked, what it builds on is; 0: not offered"
    )
    monthly_tokens = serializers.IntegerField(help_text="That such a month covers at most")
    rating = RatingSummarySerializer(source="rating_summary", allow_null=True, default=None)

    class Meta:
        model = Listing
        fields = [
            *("id", "name", "publisher", "texts", "current_version", "use_cases", "languages", "licence"),
            *(
                "input_price_micro",
                "output_price_micro",
                "monthly_price_micro",
                "monthly_tokens",
                "rating",
                "request_count",
                "published_at",
            ),
        ]

    def get_input_price_micro(self, listing: Listing) -> int:
        return prices.of_listing(listing).input_micro

    def get_output_price_micro(self, listing: Listing) -> int:
        return prices.of_listing(listing).output_micro

    @extend_schema_field(serializers.DictField(child=TextSerializer()))
    def get_texts(self, listing: Listing) -> dict[str, Any]:
        texts = listing.live_revision.texts.all() if listing.live_revision else []
        return {text.language: TextSerializer(text).data for text in texts}


class ListingPageSerializer(serializers.Serializer):
    count = serializers.IntegerField()
    count_is_least = serializers.BooleanField()
    next = serializers.URLField(allow_null=True)
    results = ListingSerializer(many=True)


class FullListingSerializer(ListingSerializer):
    versions = serializers.SerializerMethodField()
    measurements = serializers.SerializerMethodField()

    class Meta(ListingSerializer.Meta):
        fields = [*ListingSerializer.Meta.fields, "versions", "measurements"]

    @extend_schema_field(serializers.DictField(child=FullTextSerializer()))
    def get_texts(self, listing: Listing) -> dict[str, Any]:
        texts = listing.live_revision.texts.all() if listing.live_revision else []
        return {text.language: FullTextSerializer(text).data for text in texts}

    @extend_schema_field(VersionSerializer(many=True))
    def get_versions(self, listing: Listing) -> Any:
        available: QuerySet[Version] = Version.objects.available().filter(listing=listing)
        return VersionSerializer(available.select_related("listing__publisher", "base__listing__publisher"), many=True).data

    @extend_schema_field(MeasurementSerializer(many=True))
    def get_measurements(self, listing: Listing) -> Any:
        measurements = listing.current_version.measurements.all() if listing.current_version else []
        return MeasurementSerializer(measurements, many=True).data


class ArenaQuery(serializers.Serializer):
    """What `GET /api/arena` can be asked."""

    use_case = serializers.SlugRelatedField(slug_field="slug", queryset=UseCase.objects.all(), required=False)


class ArenaStandingSerializer(serializers.Serializer):
    """A rated version. What has too few votes for a place has none."""

    model = serializers.SerializerMethodField()
    first_place = serializers.SerializerMethodField()
    last_place = serializers.SerializerMethodField()
    rating = serializers.FloatField(source="standing.rating", help_text="1,000 is the mean by votes; 400 more win ten times for one")
    low = serializers.FloatField(source="standing.low", help_text="Of the 95% interval")
    high = serializers.FloatField(source="standing.high")
    votes = serializers.IntegerField(source="standing.votes")
    wins = serializers.IntegerField(source="standing.wins")
    ties = serializers.IntegerField(source="standing.ties")

    def get_model(self, place: Place) -> str:
        assert place.listing.current_version is not None
        return f"{place.listing.full_name}@{place.listing.current_version.number}"

    def get_first_place(self, place: Place) -> int | None:
        return place.first or None

    def get_last_place(self, place: Place) -> int | None:
        return place.last or None


class ArenaSerializer(serializers.Serializer):
    computed_at = serializers.DateTimeField(allow_null=True)
    votes = serializers.IntegerField(help_text="That count, over all use cases")
    doubted_votes = serializers.IntegerField(help_text="That do not")
    results = ArenaStandingSerializer(many=True)
