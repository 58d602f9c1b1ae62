"""The artifact store in a bucket, at a real server of the S3 protocol: it keeps and gives back, and says when it is out of reach."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from socket import SHUT_WR, create_connection
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx2 as httpx
import obstore
import pytest
import time_machine
from django.conf import LazySettings
from django.utils import timezone

from inference.artifacts import MAX_TENSORS_BYTES, ArtifactCorrupt, ArtifactMissing, ArtifactStore, ArtifactUnreachable
from inference.protocol import blob_key, condemned_key, manifest_key, part_bytes
from store.catalog import artifacts, staging
from store.catalog.collecting import Collected, collect
from store.errors import AWAY
from store.jobs import files
from store.jobs.models import UploadedFile
from tests.making import make_base, make_user
from tests.stack import free_port, wait_until

pytestmark = pytest.mark.xdist_group("bucket")  # one server of buckets for all
KEPT_HOURS = 10
RAW = b'{"text": "Once."}\n'
WEIGHTS = bytes(range(256)) * 48_000  # 12 MB: three parts of an upload
numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a server that keeps its buckets in memory."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is None and _answers(port), what="the server of buckets")
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def url(server: int, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an artifact store in a bucket of this test alone."""
    bucket = f"artifacts-{next(numbers)}"
    httpx.put(f"http://127.0.0.1:{server}/{bucket}").raise_for_status()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server}")
    settings.ARTIFACT_URL, settings.UNREFERENCED_KEPT_HOURS = f"s3://{bucket}/store", KEPT_HOURS
    return settings.ARTIFACT_URL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


class _Relay(StreamRequestHandler):
    def handle(self) -> None:
        with create_connection(("127.0.0.1", self.server.leads_to)) as beyond:
            threading.Thread(target=self._hand_on, args=(self.connection, beyond), daemon=True).start()
            self._hand_on(beyond, self.connection)

    @staticmethod
    def _hand_on(source, target) -> None:
        try:
            while received := source.recv(65536):
                target.sendall(received)
            target.shutdown(SHUT_WR)
        except OSError:
            return


@contextmanager
def reachable(port: int, *, leads_to: int) -> Iterator[None]:
    """Whoever connects to `port` meanwhile reaches the server behind it; afterwards nobody does."""
    ThreadingTCPServer.allow_reuse_address = True
    with ThreadingTCPServer(("127.0.0.1", port), _Relay) as relay:
        relay.daemon_threads = True
        relay.block_on_close = False
        relay.leads_to = leads_to
        threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield
        relay.shutdown()


def listed(prefix: str = "") -> set[str]:
    return {found["path"] for page in obstore.list(artifacts.open_store(), prefix) for found in page}


def stored(raw: bytes = RAW) -> str:
    return artifacts.put_blob(io.BytesIO(raw))[0]


@contextmanager
def hours_later(hours: float = KEPT_HOURS + 1) -> Iterator[None]:
    """For this process; the server's clock stays as it is, and so does that by which requests are signed."""
    with time_machine.travel(timezone.now() + timedelta(hours=hours)):
        yield


# ---------------------------------------------------------------- what workers store and read


def test_a_folder_goes_into_the_bucket_in_parts_and_comes_back_with_its_digests(url: str, folder: Path, tmp_path: Path) -> None:
    store = ArtifactStore(url)
    manifest = store.put_folder(folder)
    again = store.put_folder(folder)

    found = store.materialise(manifest.digest, tmp_path / "cache")

    weights = hashlib.sha256(WEIGHTS).hexdigest()
    assert {file.path: file.sha256 for file in manifest.files} == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": weights,
    }
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"config.json": b"{}", "model.safetensors": WEIGHTS}
    assert (again.digest, store.has(manifest.digest)) == (manifest.digest, True)
    assert listed() == {manifest_key(manifest.digest), *(blob_key(file.sha256) for file in manifest.files)}
    assert obstore.head(artifacts.open_store(), blob_key(weights))["e_tag"].endswith('-3"')  # how S3 tells the number of parts


def test_a_superseded_checkpoint_is_removed_but_for_what_it_shares(url: str, folder: Path) -> None:
    store = ArtifactStore(url)
    first = store.put_folder(folder)
    (folder / "config.json").write_text('{"step": 2}')
    second = store.put_folder(folder)

    store.remove(first.digest, kept=second.digest)
    store.remove(second.digest, kept=second.digest)

    assert listed() == {blob_key(file.sha256) for file in second.files}


def test_what_is_not_there_or_another_one_is_said_to_be(url: str, folder: Path, tmp_path: Path) -> None:
    store = ArtifactStore(url)
    manifest = store.put_folder(folder)
    obstore.put(artifacts.open_store(), blob_key(manifest.files[1].sha256), WEIGHTS[:-1])
    obstore.delete(artifacts.open_store(), blob_key(manifest.files[0].sha256))

    with pytest.raises(ArtifactMissing):
        store.read(manifest.files[0].sha256)
    with pytest.raises(ArtifactCorrupt):
        store.fetch(manifest.files[1].sha256, tmp_path / "cache")
    assert not store.has(manifest.digest)


# ---------------------------------------------------------------- what the store stores and reads


def test_the_store_streams_a_large_file_into_the_bucket_and_any_range_of_it_out(url: str) -> None:
    sha256, size_bytes = artifacts.put_blob(io.BytesIO(WEIGHTS))

    async def read(start: int, stop: int) -> bytes:
        return b"".join([chunk async for chunk in await artifacts.stream(sha256, start=start, stop=stop)])

    assert (sha256, size_bytes) == (hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    assert asyncio.run(read(5_000_000, 5_000_300)) == WEIGHTS[5_000_000:5_000_300]
    assert asyncio.run(read(0, len(WEIGHTS))) == WEIGHTS
    assert artifacts.read_blob(sha256, max_bytes=len(WEIGHTS)) == WEIGHTS


def test_the_pieces_of_an_upload_wait_in_the_bucket_and_are_read_as_one_file(url: str) -> None:
    for name, piece in (("one", RAW), ("two", WEIGHTS)):
        staging.put(name, io.BytesIO(piece))

    waiting = {name for name, _stored_at in staging.waiting()}
    whole = staging.joined(["one", "two"]).read()
    staging.remove(["one", "two", "three"])

    assert waiting == {"one", "two"}
    assert whole == RAW + WEIGHTS
    assert listed() == set()


def test_the_largest_file_has_no_more_parts_than_a_bucket_takes() -> None:
    assert part_bytes(len(WEIGHTS)) == 5 * 1024 * 1024
    assert -(-MAX_TENSORS_BYTES // part_bytes(MAX_TENSORS_BYTES)) <= 10_000


# ---------------------------------------------------------------- what nothing refers to


@pytest.mark.django_db
def test_what_nothing_refers_to_is_moved_aside_and_later_removed(url: str) -> None:
    make_base()  # something is referred to
    kept = listed()
    sha256 = stored()

    young = collect()
    with hours_later():
        condemned = collect()
    aside, read = listed() - kept, ArtifactStore(url).read(sha256)
    waiting = collect()
    with hours_later():
        removed = collect()

    assert (young, condemned, waiting) == (Collected(), Collected(condemned=1), Collected())
    assert (aside, read) == ({condemned_key(blob_key(sha256))}, RAW)
    assert removed == Collected(removed=1, removed_bytes=len(RAW))
    assert listed() == kept


@pytest.mark.django_db
def test_what_is_referred_to_again_is_put_back_also_when_it_is_too_large_to_be_copied_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_base()
    monkeypatch.setattr(artifacts, "COPIED_AT_ONCE_BYTES", len(RAW))
    large = stored(WEIGHTS)
    with hours_later():
        assert collect() == Collected(condemned=1)
    aside = listed("condemned")

    file = files.save(make_user(), None, name="a.jsonl", stream=io.BytesIO(RAW), purpose="batch")
    UploadedFile.objects.filter(pk=file.pk).update(sha256=large)
    with hours_later():
        restored = collect()

    assert aside == {condemned_key(blob_key(large))}
    assert (restored.restored, restored.removed) == (1, 0)
    assert artifacts.read_blob(large, max_bytes=len(WEIGHTS)) == WEIGHTS
    assert blob_key(large) in listed()


# ---------------------------------------------------------------- when it can't be reached


def test_while_the_bucket_is_away_everybody_is_told_and_afterwards_all_is_as_before(
    url: str, server: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")
    settings.ARTIFACT_URL = f"{url}-relayed"  # clients of its own, made for that address
    store = ArtifactStore(settings.ARTIFACT_URL)
    with reachable(port, leads_to=server):
        manifest = store.put_folder(folder)

    with ThreadPoolExecutor(3) as pool:  # at once: each tries for some seconds
        read, written = pool.submit(store.materialise, manifest.digest, tmp_path / "cache"), pool.submit(store.put_folder, folder)
        of_store = pool.submit(artifacts.read_blob, manifest.files[0].sha256, max_bytes=100)
    with pytest.raises(AWAY):  # which pages and the API answer with 503
        of_store.result()
    with pytest.raises(ArtifactUnreachable, match="could not be read"):
        read.result()
    with pytest.raises(ArtifactUnreachable, match="could not be looked up"):
        written.result()
    with reachable(port, leads_to=server):
        found = store.materialise(manifest.digest, tmp_path / "cache")

    assert (found / "model.safetensors").read_bytes() == WEIGHTS


def test_a_bucket_that_does_not_exist_is_not_taken_for_an_artifact_that_is_missing(url: str, folder: Path) -> None:
    with pytest.raises(ArtifactUnreachable, match="could not be written"):
        ArtifactStore("s3://no-such-bucket/store").put_folder(folder)
