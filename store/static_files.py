"""Static files in production: hashed and compressed, and the style sheet in one piece.

`css/site.css` imports one file per component, which browsers read as it stands; `collectstatic` puts the parts in place of the
imports, so that a page waits for one request instead of a chain of thirty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import iscoroutine
from pathlib import PurePosixPath
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.files.base import ContentFile
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage

STYLE_SHEET = "css/site.css"
_IMPORT = re.compile(r'^@import "(?P<path>[^"]+)";\n', re.MULTILINE)


class BundledStaticFilesStorage(CompressedManifestStaticFilesStorage):
    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        if STYLE_SHEET in paths and not dry_run:
            bundle = _inlined(paths, STYLE_SHEET)
            self.delete(STYLE_SHEET)
            self.save(STYLE_SHEET, ContentFile(bundle.encode()))
            paths = {**paths, STYLE_SHEET: (self, STYLE_SHEET)}
        return super().post_process(paths, dry_run=dry_run, **options)


def _inlined(paths: dict[str, Any], name: str) -> str:
    storage, path = paths[name]
    with storage.open(path) as file:
        text = file.read().decode()
    folder = PurePosixPath(name).parent
    return _IMPORT.sub(lambda match: _inlined(paths, str(folder / match["path"])), text)


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise without a thread between the server and an async view.

    WhiteNoise is synchronous: Django would run the rest of each request through a thread and back, and a client that
    hangs up at the wrong moment would then not be noticed. What it does for a request is a look in a table.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(get_response, *args, **kwargs)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._answer(request) if self._is_async else super().__call__(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        answer: Any = super().__call__(request)
        return await answer if iscoroutine(answer) else answer
