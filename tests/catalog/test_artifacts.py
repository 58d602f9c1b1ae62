from __future__ import annotations

import hashlib
import io
from pathlib import Path

import obstore
import pytest
from django.conf import LazySettings

from inference import protocol
from store.catalog import artifacts
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Artifact
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_store(settings: LazySettings, tmp_path: Path) -> None:
    settings.ARTIFACT_URL = (tmp_path / "artifacts").as_uri()


def manifest_of(**changes: object) -> protocol.Manifest:
    sha256, size = artifacts.put_blob(io.BytesIO(b"{}"))
    return protocol.Manifest(
        (protocol.ManifestFile(**{"path": "config.json", "size_bytes": size, "sha256": sha256, "git_oid": "0" * 40} | changes),)
    )  # type: ignore[arg-type]


def test_a_blob_is_kept_under_its_digest_and_read_back_verified() -> None:
    raw = b"line\n" * 500_000

    sha256, size = artifacts.put_blob(io.BytesIO(raw))

    assert (sha256, size) == (hashlib.sha256(raw).hexdigest(), 2_500_000)
    assert artifacts.read_blob(sha256, max_bytes=size) == raw
    assert artifacts.put_blob(io.BytesIO(raw)) == (sha256, size)


def test_a_blob_beyond_the_limit_leaves_nothing() -> None:
    with pytest.raises(ArtifactRejected):
        artifacts.put_blob(io.BytesIO(b"x" * 101), max_bytes=100)

    assert list(obstore.list(artifacts.open_store()).collect()) == []


def test_a_blob_that_was_changed_is_not_read() -> None:
    sha256, size = artifacts.put_blob(io.BytesIO(b"true"))
    obstore.put(artifacts.open_store(), protocol.blob_key(sha256), b"fals")

    with pytest.raises(ArtifactRejected):
        artifacts.read_blob(sha256, max_bytes=size)


def test_equal_folders_are_one_artifact() -> None:
    first = making.make_artifact(config_json=b"{}")

    assert making.make_artifact(config_json=b"{}") == first
    assert first.revision == first.digest[:40]
    assert first.size_bytes == 2
    assert first.manifest["files"][0]["path"] == "config.json"


@pytest.mark.parametrize(
    "changes",
    [{"path": "../config.json"}, {"path": "/config.json"}, {"path": "a\\b.json"}, {"path": "model.bin"}, {"path": "code.py"},
     {"size_bytes": 3}, {"sha256": "0" * 64}, {"sha256": "../x"}],
)  # fmt: skip
def test_a_manifest_that_lies_makes_no_artifact(changes: dict) -> None:
    digest = artifacts.put_manifest(manifest_of(**changes))

    with pytest.raises(ArtifactRejected):
        artifacts.record(digest)

    assert not Artifact.objects.exists()


def test_a_manifest_that_is_missing_or_changed_makes_no_artifact() -> None:
    digest = artifacts.put_manifest(manifest_of())
    obstore.put(artifacts.open_store(), protocol.manifest_key(digest), manifest_of(path="other.json").encode())

    for asked in (digest, "0" * 64, "../../etc/passwd"):
        with pytest.raises(ArtifactRejected):
            artifacts.record(asked)

    assert not Artifact.objects.exists()
