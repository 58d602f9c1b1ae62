"""The base of every error that the store's acts raise on purpose. Each edge translates it once: form, page or API envelope."""

from __future__ import annotations

from typing import Any

import obstore.exceptions
import redis.exceptions
from django.db import OperationalError
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class DomainError(Exception):
    """Something the user asked for can't be done; `message` says what, where and how to mend it, in their language.

    `code` is stable and machine-readable, `status` the HTTP status an edge answers with, `param` the field it is about.
    """

    code: str = "invalid_request"
    status: int = 400
    message: str | Promise = _("This request can't be carried out.")

    def __init__(self, message: str | Promise | None = None, *, param: str | None = None, **detail: Any) -> None:
        self.message = self.message if message is None else message
        self.param = param
        self.detail = detail
        super().__init__(self.message)

    def __str__(self) -> str:
        return str(self.message)


class NotAllowed(DomainError):
    code = "permission_denied"
    status = 403
    message = _("You may not do this. Ask an owner of the publisher, or sign in with another account.")


class NotFound(DomainError):
    code = "not_found"
    status = 404
    message = _("There is nothing here by that name.")


class Conflict(DomainError):
    code = "conflict"
    status = 409
    message = _("This has changed in the meantime. Reload the page and try again.")


class TooMany(DomainError):
    """A limit was reached; `retry_after_s` says when to try again."""

    code = "rate_limit_exceeded"
    status = 429
    message = _("Too many requests. Wait a little and try again.")

    def __init__(self, message: str | Promise | None = None, *, retry_after_s: float = 1.0, **detail: Any) -> None:
        super().__init__(message, **detail)
        self.retry_after_s = retry_after_s


class Unavailable(DomainError):
    """The database, the broker or the artifact store is away for a moment."""

    code = "unavailable"
    status = 503
    message = _("The store is being restarted or is over capacity. Try again in a few seconds.")


# What is raised then. The last one is an artifact store that can't be reached or has no room.
AWAY = (OperationalError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, obstore.exceptions.GenericError)
