"""Every answer says the id of its request, and everything that is logged on the way carries it, in the workers too."""

from __future__ import annotations

import re
import uuid

import structlog
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

_USABLE = re.compile(r"[0-9A-Za-z_.-]{8,64}")


def usable(given: str) -> str:
    """The caller's, when it is a harmless one; else a new one."""
    return given if _USABLE.fullmatch(given) else uuid.uuid4().hex


class RequestIdMiddleware(MiddlewareMixin):
    """Takes the caller's `X-Request-ID` when it is a harmless one, else makes one. Stands first, so that nothing answers without."""

    def process_request(self, request: HttpRequest) -> None:
        request_id = usable(request.META.get("HTTP_X_REQUEST_ID", ""))
        request.META["HTTP_X_REQUEST_ID"] = request_id  # where the request log takes it from
        structlog.contextvars.bind_contextvars(request_id=request_id)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response["x-request-id"] = request.META.get("HTTP_X_REQUEST_ID", "")
        return response
