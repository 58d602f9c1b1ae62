"""The edge of the pages: what an act refused becomes a page that says why. The APIs have edges of their own."""

from __future__ import annotations

import math

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin

from store.errors import DomainError, NotAllowed, NotFound, TooMany


class RefusalMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        """No name in the store holds a NUL, and PostgreSQL takes none, not even in a question."""
        if "\0" in request.path_info:
            raise SuspiciousOperation("NUL in the address")

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, DomainError):
            return None
        if isinstance(exception, NotFound):
            raise Http404(str(exception)) from exception
        if isinstance(exception, NotAllowed):
            raise PermissionDenied(str(exception)) from exception
        if isinstance(exception, TooMany):
            wait_s = math.ceil(exception.retry_after_s)
            response = render(request, "429.html", {"error": exception, "retry_after": wait_s}, status=exception.status)
            response["Retry-After"] = str(wait_s)
            return response
        return render(request, "refused.html", {"error": exception}, status=exception.status)
