"""The least that Django can serve: one view that answers with the bytes of the file BARE_PAGE, without any middleware."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import re_path

BODY = Path(os.environ["BARE_PAGE"]).read_bytes()

settings.configure(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], SECRET_KEY="none is needed", LOGGING_CONFIG=None)


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(BODY, headers={"Content-Length": str(len(BODY))})


async def async_page(request: HttpRequest) -> HttpResponse:
    return page(request)


urlpatterns = [re_path(r"^async/$", async_page), re_path(r"", page)]
application = get_asgi_application()
