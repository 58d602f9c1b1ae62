"""The edge of the APIs: whatever goes wrong becomes the error envelope that the OpenAI clients read.

`{"error": {"message", "type", "param", "code"}}`, with `x-should-retry` so that the clients do not guess from the status.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.utils.translation import gettext_lazy as _
from rest_framework import exceptions as drf
from rest_framework.response import Response

from store.errors import AWAY, DomainError, NotAllowed, NotFound, TooMany, Unavailable

log = structlog.get_logger(__name__)

_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.PAYMENT_REQUIRED: "insufficient_quota",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_RETRIABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})  # and nothing was billed


class InvalidKey(DomainError):
    code = "invalid_api_key"
    status = HTTPStatus.UNAUTHORIZED
    message = _("This API key is not known, or it was revoked. Make a new one in your account.")


class MissingKey(InvalidKey):
    message = _("No API key was sent. Send one in the header: Authorization: Bearer gs_…")


class WrongMethod(DomainError):
    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED
    message = _("This address does not answer that method.")

    def __init__(self, allowed: list[str]) -> None:
        super().__init__()
        self.allowed = allowed


class UnknownAddress(NotFound):
    code = "unknown_url"
    message = _("There is no such endpoint. The reference at /api/docs/ lists them all.")


class InvalidValue(DomainError):
    """A field of the request has the wrong type or a value out of range; `param` names it."""

    code = "invalid_value"


class TooLarge(DomainError):
    code = "request_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    message = _("The request body is larger than this endpoint takes.")


class ServerError(DomainError):
    code = "internal_error"
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    message = _("Something went wrong on our side. Try again; if it stays, tell the store's operator the request id.")


def envelope(error: DomainError) -> dict[str, Any]:
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_response(error: DomainError) -> JsonResponse:
    response = JsonResponse(envelope(error), status=error.status, json_dumps_params={"ensure_ascii": False})
    _set_headers(response, error)
    return response


def exception_response(exception: Exception, context: dict[str, Any]) -> Response:
    """What Django REST framework answers when a view raises."""
    error = translated(exception)
    response = Response(envelope(error), status=error.status)
    _set_headers(response, error)
    return response


def translated(exception: Exception) -> DomainError:
    """The domain's error that stands for any exception; what nobody expected is logged and says nothing about itself."""
    if isinstance(exception, DomainError):
        return exception
    if isinstance(exception, Http404):
        return NotFound()
    if isinstance(exception, PermissionDenied | drf.PermissionDenied):
        return NotAllowed()
    if isinstance(exception, RequestDataTooBig):
        return TooLarge()
    if isinstance(exception, drf.NotAuthenticated):
        return MissingKey()
    if isinstance(exception, drf.AuthenticationFailed):
        return InvalidKey()
    if isinstance(exception, drf.MethodNotAllowed):
        return WrongMethod([])
    if isinstance(exception, drf.APIException):
        return _of_drf(exception)
    if isinstance(exception, SuspiciousOperation):
        return DomainError()
    if isinstance(exception, AWAY):
        log.error("something_is_away", exc_info=exception)  # an artifact store that is set up wrongly says so here alone
        return Unavailable()
    log.error("request_failed", exc_info=exception)
    return ServerError()


def _of_drf(exception: drf.APIException) -> DomainError:
    """The first thing that a serializer or parser found wrong, with the field it is about."""
    detail, param = exception.detail, None
    while isinstance(detail, dict | list) and detail:
        if isinstance(detail, dict):
            field, detail = next(iter(detail.items()))
            param = field if param is None else f"{param}.{field}"
        else:
            detail = detail[0]
    error = InvalidValue(str(detail), param=param)
    error.status = exception.status_code
    return error


def _set_headers(response: HttpResponseBase, error: DomainError) -> None:
    response["x-should-retry"] = "true" if error.status in _RETRIABLE else "false"
    if isinstance(error, TooMany):
        response["retry-after"] = str(math.ceil(error.retry_after_s))
        response["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    if error.status == HTTPStatus.UNAUTHORIZED:
        response["www-authenticate"] = "Bearer"
    if isinstance(error, WrongMethod) and error.allowed:
        response["allow"] = ", ".join(error.allowed)


def unknown_address(request: HttpRequest, rest: str = "") -> JsonResponse:
    """Answers every address under an API's prefix that is no endpoint."""
    return error_response(UnknownAddress())
