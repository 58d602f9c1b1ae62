"""What every endpoint of /v1 that is an async view needs: its method, its key, and errors in the envelope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from store.api.errors import WrongMethod, error_response, translated

View = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def endpoint(method: str) -> Callable[[View], View]:
    """For a view that answers one method and reads its key itself; no cookie is looked at, so no CSRF token is needed."""

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        async def answer(request: HttpRequest) -> HttpResponseBase:
            try:
                if request.method != method:
                    raise WrongMethod([method])
                return await view(request)
            except Exception as error:
                return error_response(translated(error))

        return answer

    return decorate
