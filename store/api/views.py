"""The store's own endpoints: finding listings."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.permissions import AllowAny

from store.api.openai.shapes import errors
from store.api.serializers import FullListingSerializer, ListingQuery, ListingSerializer
from store.catalog import search
from store.catalog.models import Listing
from store.errors import NotFound


class ListingPages(LimitOffsetPagination):
    default_limit = 20
    max_limit = 100


@extend_schema_view(
    get=extend_schema(
        operation_id="list_listings",
        tags=["listings"],
        summary=_("Find GPTs"),
        description=_("The listed GPTs that match everything that is given."),
        parameters=[ListingQuery],
        responses={200: ListingSerializer(many=True), **errors(400)},
    )
)
class Listings(ListAPIView):
    permission_classes = [AllowAny]
    serializer_class = ListingSerializer
    pagination_class = ListingPages

    def get_queryset(self) -> Any:
        query = ListingQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        found = search.find(
            q=wanted["q"],
            use_case=wanted["use_case"].slug if "use_case" in wanted else "",
            kind=wanted.get("kind", ""),
            language=wanted.get("language", ""),
            free=wanted["free"],
            sort=wanted["sort"],
        )
        return found.select_related("current_version__listing__publisher")


@extend_schema_view(
    get=extend_schema(
        operation_id="retrieve_listing",
        tags=["listings"],
        summary=_("Retrieve a listing"),
        description=_("One GPT with its full texts, its released versions and its measurements."),
        responses={200: FullListingSerializer, **errors(404)},
    )
)
class OneListing(RetrieveAPIView):
    permission_classes = [AllowAny]
    serializer_class = FullListingSerializer

    def get_object(self) -> Listing:
        reachable = Listing.objects.reachable_by(self.request.user).for_cards()
        listing = reachable.filter(publisher__slug=self.kwargs["publisher"], slug=self.kwargs["slug"]).first()
        if listing is None:
            raise NotFound
        return listing
