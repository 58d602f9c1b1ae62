"""What every endpoint of /v1 that is an async view needs: its method, its key, and errors in the envelope."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from store.api.errors import WrongMethod, error_response, translated

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def endpoint(method: str) -> Callable[[View], View]:
    """For a view that answers one method and reads its key itself; no cookie is looked at, so no CSRF token is needed.

    What the view puts into `request.answer_headers` goes out with its answer and with its errors alike.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        async def answer(request: HttpRequest, **named: Any) -> HttpResponseBase:
            try:
                if request.method != method:
                    raise WrongMethod([method])
                response = await view(request, **named)
            except Exception as error:
                response = error_response(translated(error))
            for name, value in getattr(request, "answer_headers", {}).items():
                response[name] = value
            return response

        return answer

    return decorate
