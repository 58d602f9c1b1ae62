"""The store's own endpoints: finding listings, and the arena's leaderboard."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.generics import RetrieveAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from store.api.openai.shapes import errors
from store.api.serializers import ArenaQuery, ArenaSerializer, FullListingSerializer, ListingPageSerializer, ListingQuery, ListingSerializer
from store.catalog import search, transfers
from store.catalog.models import Listing
from store.errors import NotFound
from store.playground.arena import standings


@extend_schema_view(
    get=extend_schema(
        operation_id="list_listings",
        tags=["listings"],
        summary=_("Find GPTs"),
        description=_(
            "The listed GPTs that match everything that is given, a page at a time: ask for the next one at the address in `next`. "
            "`count` is exact unless `count_is_least` says that there may be more."
        ),
        parameters=[ListingQuery],
        responses={200: ListingPageSerializer, **errors(400)},
    )
)
class Listings(APIView):
    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        query = ListingQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        found = search.find(q=wanted["q"], facts=_facts(wanted), sort=wanted["sort"], after=wanted["after"])
        page = found.page(size=wanted["limit"])
        total = found.total
        return Response(
            {
                "count": total.number,
                "count_is_least": total.is_least,
                "next": replace_query_param(request.build_absolute_uri(), "after", page.next) if page.next else None,
                "results": ListingSerializer(page.listings, many=True).data,
            }
        )


def _facts(wanted: dict[str, Any]) -> list[str]:
    facts = [search.fact("use", wanted["use_case"].slug)] if "use_case" in wanted else []
    facts += [search.fact(fact, wanted[name]) for name, fact in (("kind", "kind"), ("language", "lang")) if wanted.get(name)]
    return [*facts, *(["free"] if wanted["free"] else [])]


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
        named = {"publisher": self.kwargs["publisher"], "slug": self.kwargs["slug"]}
        listing = reachable.filter(publisher__slug=named["publisher"], slug=named["slug"]).first()
        if listing is None and (moved := transfers.moved(**named)) is not None:
            listing = reachable.filter(pk=moved.pk).first()
        if listing is None:
            raise NotFound
        return listing


@extend_schema_view(
    get=extend_schema(
        operation_id="retrieve_arena",
        tags=["arena"],
        summary=_("The arena's leaderboard"),
        description=_(
            "Current versions of listed GPTs with their Bradley–Terry ratings from blind votes, best first, those with too few votes "
            "for a place behind them. A place is a range: where two intervals meet, nobody can say which of both is better."
        ),
        parameters=[ArenaQuery],
        responses={200: ArenaSerializer, **errors(400)},
    )
)
class Arena(APIView):
    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        query = ArenaQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        board = standings.board(query.validated_data.get("use_case"))
        tally = board.tally
        found = {
            "computed_at": tally.computed_at if tally else None,
            "votes": tally.vote_count if tally else 0,
            "doubted_votes": tally.doubted_count if tally else 0,
            "results": [*board.places, *board.unplaced],
        }
        return Response(ArenaSerializer(found).data)
