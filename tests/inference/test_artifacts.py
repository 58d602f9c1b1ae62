"""What is read from the artifact store is what its name says, or it is not read."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.artifacts import (
    ArtifactCorrupt,
    ArtifactMissing,
    ArtifactRejected,
    ArtifactStore,
    evict,
)
from inference.protocol import Manifest, ManifestFile, blob_key, manifest_key


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40_000)
    (folder / "empty.txt").touch()
    return folder


def blob_at(tmp_path: Path, sha256: str) -> Path:
    return tmp_path / "store" / blob_key(sha256)


def test_a_folder_comes_back_as_it_was_under_a_digest_of_its_content(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.put_folder(folder)
    again = store.put_folder(folder)

    found = store.materialise(manifest.digest, tmp_path / "cache")

    assert again.digest == manifest.digest
    assert {file.path: file.size_bytes for file in manifest.files} == {"config.json": 2, "model.safetensors": 10_240_000, "empty.txt": 0}
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_manifest_carries_the_ids_git_gives_its_files(store: ArtifactStore, folder: Path) -> None:
    (file,) = (file for file in store.put_folder(folder).files if file.path == "config.json")

    assert file.git_oid == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object of "{}"
    assert file.sha256 == hashlib.sha256(b"{}").hexdigest()


def test_only_files_asked_for_are_stored(store: ArtifactStore, folder: Path) -> None:
    manifest = store.put_folder(folder, names=["config.json"])

    assert [file.path for file in manifest.files] == ["config.json"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl", "run.py", ".hidden.json", "spaced name.json"])
def test_a_file_that_may_not_come_along_is_refused_by_name(store: ArtifactStore, folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")

    with pytest.raises(ArtifactRejected, match=name.replace(".", r"\.")):
        store.put_folder(folder)

    assert list((tmp_path / "store").rglob("*.json")) == []


def test_links_are_refused(store: ArtifactStore, folder: Path) -> None:
    (folder / "secrets.txt").symlink_to("/etc/hostname")

    with pytest.raises(ArtifactRejected, match=r"secrets\.txt: links are not accepted"):
        store.put_folder(folder)


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: b"x" + raw[1:]])
def test_a_changed_blob_is_refused_and_leaves_nothing(store: ArtifactStore, folder: Path, tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    manifest = store.put_folder(folder)
    (weights,) = (file for file in manifest.files if file.path == "model.safetensors")
    blob = blob_at(tmp_path, weights.sha256)
    blob.write_bytes(spoil(blob.read_bytes()))
    cache = tmp_path / "cache"

    with pytest.raises(ArtifactCorrupt):
        store.materialise(manifest.digest, cache)

    assert list((cache / "artifacts").iterdir()) == []
    assert weights.sha256 not in {path.name for path in (cache / "blobs").iterdir()}
    assert not any(path.name.startswith(".") for path in (cache / "blobs").iterdir())


def test_a_manifest_under_a_wrong_digest_is_refused(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.put_folder(folder)
    other = Manifest(manifest.files[:1])
    (tmp_path / "store" / manifest_key(manifest.digest)).write_bytes(other.encode())

    with pytest.raises(ArtifactCorrupt, match="is another one"):
        store.materialise(manifest.digest, tmp_path / "cache")


@pytest.mark.parametrize("path", ["../escape.json", "/etc/escape.json", "a/../../escape.json", "a//b.json", "", "x.sh"])
def test_a_manifest_cannot_write_outside_its_folder(store: ArtifactStore, tmp_path: Path, path: str) -> None:
    content = b"{}"
    evil = Manifest((ManifestFile(path=path, size_bytes=2, sha256=hashlib.sha256(content).hexdigest(), git_oid="0" * 40),))
    target = tmp_path / "store" / manifest_key(evil.digest)
    target.parent.mkdir(parents=True)
    target.write_bytes(evil.encode())

    with pytest.raises(ArtifactCorrupt, match="lists"):
        store.materialise(evil.digest, tmp_path / "cache")

    assert list(tmp_path.rglob("escape.json")) == []


def test_what_is_not_there_is_missing(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.put_folder(folder)
    blob_at(tmp_path, manifest.files[0].sha256).unlink()

    with pytest.raises(ArtifactMissing):
        store.materialise("0" * 64, tmp_path / "cache")
    with pytest.raises(ArtifactMissing):
        store.materialise(manifest.digest, tmp_path / "cache")
    with pytest.raises(ArtifactCorrupt):
        store.materialise("../../etc", tmp_path / "cache")


def test_many_who_ask_at_once_get_one_folder(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.put_folder(folder)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: store.materialise(manifest.digest, tmp_path / "cache"), range(16)))

    assert found == {tmp_path / "cache" / "artifacts" / manifest.digest}
    assert sorted(path.name for path in found.pop().iterdir()) == ["config.json", "empty.txt", "model.safetensors"]


def test_a_file_that_two_artifacts_share_is_kept_once(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    first = store.put_folder(folder)
    (folder / "config.json").write_text(json.dumps({"other": 1}))
    second = store.put_folder(folder)

    places = [store.materialise(manifest.digest, tmp_path / "cache") / "model.safetensors" for manifest in (first, second)]

    assert places[0].stat().st_ino == places[1].stat().st_ino


def test_eviction_takes_the_folder_asked_for_longest_ago_and_keeps_shared_files(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    old = store.materialise(store.put_folder(folder).digest, cache)
    (folder / "config.json").write_text(json.dumps({"other": 1}))
    new = store.materialise(store.put_folder(folder).digest, cache)
    os.utime(old, (0, 0))

    freed = evict(cache, budget_bytes=0)

    assert not old.exists()
    assert new.exists()  # asked for a moment ago
    assert freed == 2  # config.json of the old one; the weights belong to the new one too
