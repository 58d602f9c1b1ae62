"""`/v1/models`: what can be named in a request."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from store.api.authentication import ApiKeyAuthentication
from store.api.openai.deprecation import deprecation_headers
from store.api.openai.shapes import MODEL, MODEL_LIST, errors
from store.catalog import naming
from store.catalog.models import Listing
from store.catalog.querysets import base_digest
from store.generation import precision


def _model(name: str, publisher: str, created: Any, precisions: list[str]) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created.timestamp()), "owned_by": publisher, "precisions": precisions}


class Models(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="list_models",
        tags=["v1"],
        summary=_("List GPTs"),
        description=_("Every listed GPT, newest first, under the name that means its current version."),
        responses={200: MODEL_LIST, **errors(401)},
    )
    def get(self, request: Request) -> Response:
        listed = Listing.objects.listed().annotate(base_digest=base_digest()).order_by("-published_at", "-pk")
        rows = list(listed.values_list("publisher__slug", "slug", "published_at", "created_at", "base_digest"))
        served = precision.of_bases([base for *_listing, base in rows if base])
        data = [
            _model(f"{publisher}/{slug}", publisher, published or created, served.get(base, []))
            for publisher, slug, published, created, base in rows
        ]
        return Response({"object": "list", "data": data})


class Model(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="retrieve_model",
        tags=["v1"],
        summary=_("Retrieve a GPT"),
        description=_("One GPT that you may use: publisher/name, or publisher/name@1.2.0 for exactly that version."),
        parameters=[OpenApiParameter("model", str, OpenApiParameter.PATH)],
        responses={200: MODEL, **errors(401, 404, 410)},
    )
    def get(self, request: Request, model: str) -> Response:
        version = naming.resolve(model, request.user)
        named = _model(model, version.listing.publisher.slug, version.released_at or version.created_at, precision.of(version))
        return Response(named, headers=deprecation_headers(version))
