"""A client that brings files in pieces, for the tests of uploads."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

from django.http import HttpResponse
from django.urls import reverse

from store.accounts.models import User
from store.catalog import artifacts, staging
from store.jobs import uploads
from store.jobs.models import Upload, UploadedFile
from tests.jobs.test_finetunes import LINE, Scene
from tests.jobs.test_views import signed_in

CONTENT = LINE * 7
LENGTH = len(CONTENT)
PIECE = "application/offset+octet-stream"


def empty_scene() -> Scene:
    """With no piece waiting: the artifact store is that of all tests."""
    staging.remove(waiting())
    return Scene()


class Tus:
    """A client of the protocol."""

    def __init__(self, user: User) -> None:
        self.client = signed_in(user)

    def ask(self, method: str, url: str, body: bytes = b"", *, content_type: str = PIECE, **headers: Any) -> HttpResponse:
        sent = {"Tus-Resumable": "1.0.0", "Content-Type": content_type} | {
            name.replace("_", "-"): str(value) for name, value in headers.items()
        }
        return self.client.generic(method, url, body, content_type, headers={k: v for k, v in sent.items() if v != "None"})  # type: ignore[arg-type]

    def create(
        self, length: Any = LENGTH, body: bytes = b"", *, content_type: str = "", checksum: str | None = None, **said: str
    ) -> HttpResponse:
        metadata = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in said.items())
        headers = {"Upload_Length": length, "Upload_Metadata": metadata, "Upload_Checksum": checksum}
        return self.ask("POST", reverse("jobs:uploads"), body, content_type=content_type, **headers)

    def patch(self, url: str, offset: int, body: bytes, **more: Any) -> HttpResponse:
        return self.ask("PATCH", url, body, Upload_Offset=offset, **more)

    def offset(self, url: str) -> int:
        return int(self.ask("HEAD", url)["Upload-Offset"])


def metadata_of(scene: Scene, name: str = "mine.jsonl", purpose: str = "fine-tune") -> dict[str, str]:
    return {"filename": name, "purpose": purpose, "publisher": scene.publisher.slug}


def begun(scene: Scene, length: int = LENGTH, name: str = "mine.jsonl") -> Upload:
    return uploads.begin(scene.owner, scene.publisher, name=name, purpose="fine-tune", length_bytes=length)


def append(upload: Upload, content: bytes) -> None:
    uploads.append(upload, offset_bytes=upload.offset_bytes, stream=io.BytesIO(content))


def finish(scene: Scene, upload: Upload) -> UploadedFile:
    return uploads.finish(scene.owner, scene.publisher, upload.public_id, purpose="fine-tune")


def content_of(file: UploadedFile) -> bytes:
    return artifacts.read_blob(file.sha256, max_bytes=1 << 20)


def waiting() -> list[str]:
    return sorted(name for name, _stored_at in staging.waiting())
