"""The store as an app on somebody's screen: its manifest, and a service worker that knows one page, for when there is no network."""

from __future__ import annotations

import hashlib
import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils import translation
from django.utils.translation import get_language, gettext
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from store.pages.templatetags.ui import bcp47

PAPER = "#fbfbfa"  # tokens.css, in the light
NEEDED = ("css/site.css", "js/theme.js", "icons.svg", "favicon.svg")  # of the page without a network
ICONS = (("icons/app-192.png", 192, "any"), ("icons/app-512.png", 512, "any"), ("icons/app-maskable-512.png", 512, "maskable"))


@require_safe
@cache_control(public=True, max_age=3600)
def manifest(request: HttpRequest) -> JsonResponse:
    """In the language of the page that names it (W3C, Web Application Manifest)."""
    said = {
        "id": "/",
        "name": "GPT Store",
        "short_name": "GPT Store",
        "description": gettext("Language models you can try, compare with the model they were built on, and call from your own code."),
        "lang": bcp47(get_language() or settings.LANGUAGE_CODE),
        "dir": "ltr",
        "start_url": reverse("pages:home"),
        "scope": "/",
        "display": "standalone",
        "background_color": PAPER,
        "theme_color": PAPER,
        "icons": [{"src": static(name), "sizes": f"{px}x{px}", "type": "image/png", "purpose": use} for name, px, use in ICONS],
        "shortcuts": [
            {"name": gettext("Explore"), "url": reverse("pages:explore")},
            {"name": gettext("Chat"), "url": reverse("playground:chat")},
        ],
    }
    return JsonResponse(said, content_type="application/manifest+json", json_dumps_params={"ensure_ascii": False})


@require_safe
@cache_control(no_cache=True)
def service_worker(request: HttpRequest) -> HttpResponse:
    """From the root, whose pages it may answer. Another one, and so installed anew, when what it keeps is another."""
    pages = {}
    for code, _name in settings.LANGUAGES:
        with translation.override(code):
            pages[code] = reverse("pages:offline")
    files = [static(name) for name in NEEDED]
    kept = hashlib.sha256(json.dumps([pages, files]).encode()).hexdigest()[:12]
    context = {"pages": json.dumps(pages), "files": json.dumps(files), "kept": kept, "otherwise": settings.LANGUAGE_CODE}
    return render(request, "pages/service_worker.js", context, content_type="text/javascript; charset=utf-8")


@require_safe
@cache_control(public=True, max_age=3600)
def offline(request: HttpRequest) -> HttpResponse:
    """Names nobody, whoever asks: it is kept in the browser for everybody who uses it."""
    return HttpResponse(render_to_string("pages/offline.html"))
