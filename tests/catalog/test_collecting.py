"""What nothing refers to leaves the artifact store, and never what somebody is about to refer to."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from django.conf import LazySettings
from django.utils import timezone

from inference.artifacts import ArtifactStore
from inference.protocol import blob_key, condemned_key, manifest_key
from store.batches.models import Batch
from store.catalog import artifacts, collecting, publishing, tasks
from store.catalog.collecting import Collected, collect
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Artifact, Measurement
from store.jobs import files
from store.jobs.models import Job, JobSegment, UploadedFile
from tests.making import make_artifact, make_base, make_publisher, make_user, owner_of

pytestmark = pytest.mark.django_db(transaction=True)
KEPT_HOURS = 10
RAW = b'{"text": "Once."}\n'


@pytest.fixture(autouse=True)
def folder(settings: LazySettings, tmp_path: Path) -> Path:
    """Of an artifact store with nothing in it; something is referred to."""
    folder = tmp_path / "artifacts"
    settings.ARTIFACT_URL, settings.UNREFERENCED_KEPT_HOURS = folder.as_uri(), KEPT_HOURS
    make_base()
    return folder


def stored(raw: bytes = RAW) -> str:
    return artifacts.put_blob(io.BytesIO(raw))[0]


def keep(sha256: str) -> UploadedFile:
    """A row that refers to the blob."""
    return UploadedFile.objects.create(created_by=make_user(), purpose="batch", name="a.jsonl", sha256=sha256, size_bytes=len(RAW))


def upload(raw: bytes = RAW) -> UploadedFile:
    return files.save(make_user(), None, name="a.jsonl", stream=io.BytesIO(raw), purpose="batch")


def hours_pass(folder: Path, hours: float = KEPT_HOURS + 1) -> None:
    """For everything that is stored by now."""
    for path in folder.rglob("*"):
        if path.is_file():
            was = path.stat().st_mtime - hours * 3600
            os.utime(path, (was, was))


def is_in_place(folder: Path, sha256: str) -> bool:
    return (folder / blob_key(sha256)).exists()


def is_aside(folder: Path, sha256: str) -> bool:
    return (folder / condemned_key(blob_key(sha256))).exists()


# ---------------------------------------------------------------- what goes


def test_what_nothing_refers_to_is_moved_aside_and_later_removed(folder: Path) -> None:
    sha256 = stored()

    young = collect()
    hours_pass(folder)
    condemned = collect()
    waiting = collect()
    hours_pass(folder)
    removed = collect()

    assert (young, condemned, waiting) == (Collected(), Collected(condemned=1), Collected())
    assert removed == Collected(removed=1, removed_bytes=len(RAW))
    assert not is_in_place(folder, sha256)
    assert not is_aside(folder, sha256)


def test_a_file_goes_when_the_last_row_with_its_bytes_does(folder: Path) -> None:
    first, second = upload(), upload()
    first.delete()
    hours_pass(folder)
    kept = collect()

    second.delete()
    condemned = collect()

    assert (kept, condemned) == (Collected(), Collected(condemned=1))


def test_a_deleted_draft_takes_its_files_with_it_but_not_those_that_another_version_has(folder: Path) -> None:
    base = make_base()
    owner, listing = owner_of(base.listing.publisher), base.listing
    shared = (folder / blob_key(base.artifact.manifest["files"][0]["sha256"])).read_bytes()  # type: ignore[union-attr]
    artifact = make_artifact(**{"config_json": shared, "own_json": RAW})
    draft = publishing.create_weights_version(owner, listing, number="1.1.0", artifact=artifact, facts={})
    hours_pass(folder)
    kept = collect()

    publishing.delete_draft(owner, draft)
    condemned = collect()

    assert (kept, condemned) == (Collected(), Collected(condemned=2))  # its own file, and the list of its files
    assert not (folder / manifest_key(artifact.digest)).exists()
    assert is_in_place(folder, base.artifact.manifest["files"][0]["sha256"])  # type: ignore[union-attr]


def test_what_a_killed_process_left_half_stored_is_removed(folder: Path) -> None:
    (folder / "blobs" / "ab").mkdir(exist_ok=True)
    torn = folder / "blobs" / "ab" / f"{'ab' * 32}#3"
    torn.write_bytes(b"ha")

    young = collect()
    hours_pass(folder)
    old = collect()

    assert (young, old) == (Collected(), Collected(torn=1))
    assert not torn.exists()


def test_a_store_with_no_rows_at_all_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than of a store of which nothing is left, these are the artifacts of another database."""
    monkeypatch.setattr(collecting, "_asked", [])
    hours_pass(folder)

    assert collect() == Collected()


def test_what_is_no_object_of_this_store_is_left_alone(folder: Path) -> None:
    (folder / "blobs" / "README.txt").write_text("Mine.")
    hours_pass(folder)

    assert collect() == Collected()


# ---------------------------------------------------------------- what stays


def _job(**fields: Any) -> Job:
    return Job.objects.create(kind=Job.Kind.FINETUNE, publisher=make_publisher(), **fields)


def _segment_of(job: Job, *, checkpoint: str = "", events: list[dict[str, Any]] | None = None) -> None:
    JobSegment.objects.create(job=job, number=0, attempt=1, checkpoint=checkpoint, events=events or [])


def _batch(sha256: str, state: str) -> Batch:
    named = {"name": "a.jsonl", "endpoint": "/v1/chat/completions", "input_file": "file_1", "input_sha256": sha256}
    return Batch.objects.create(user=make_user(), state=state, expires_at=timezone.now(), **named)


def _of_shard(batch_state: str, digest: str) -> None:
    batch = _batch("0" * 64, batch_state)
    _segment_of(Job.objects.create(kind=Job.Kind.BATCH, subject=batch.public_id, state="succeeded"), checkpoint=digest)


WANTED: dict[str, Callable[[str], object]] = {
    "a file": keep,
    "the result of a job": lambda digest: _job(state="succeeded", result={"manifest": digest}),
    "the record of an evaluation": lambda digest: _job(state="succeeded", result={"beside_record": digest}),
    "a checkpoint of which a version can be made": lambda digest: _segment_of(
        _job(state="succeeded"), events=[{"step": 10, "snapshot": digest}]
    ),
    "the checkpoint of a paused job": lambda digest: _job(state="paused", checkpoint=digest),
    "the checkpoint of a job that can be tried again": lambda digest: _job(state="failed", checkpoint=digest),
    "what a job works on": lambda digest: _job(state="queued", params={"records": [digest]}),
    "what was measured": lambda digest: Measurement.objects.create(version=make_base(), name="f1", value=1.0, method={"record": digest}),
    "the requests of a batch": lambda digest: _batch(digest, "validating"),
    "the answers of a shard": lambda digest: _of_shard("finalizing", digest),
}
UNWANTED: dict[str, Callable[[str], object]] = {
    "the last checkpoint of a job that succeeded": lambda digest: _job(state="succeeded", checkpoint=digest),
    "what a job that succeeded worked on": lambda digest: _job(state="succeeded", params={"file": digest}),
    "a superseded checkpoint": lambda digest: _segment_of(_job(state="running"), checkpoint=digest),
    "the requests of an ended batch": lambda digest: _batch(digest, "completed"),
    "the answers of a shard of an ended batch": lambda digest: _of_shard("cancelled", digest),
}


@pytest.mark.parametrize("name", WANTED)
def test_what_is_referred_to_stays_with_all_its_files(folder: Path, name: str) -> None:
    sha256, artifact = stored(), make_artifact(config_json=b'{"of": "a manifest"}')

    for digest in (sha256, artifact.digest):
        WANTED[name](digest)
    hours_pass(folder)

    assert collect() == Collected()


@pytest.mark.parametrize("name", UNWANTED)
def test_what_nobody_needs_any_more_is_not_held_by_the_row_that_names_it(folder: Path, name: str) -> None:
    UNWANTED[name](stored())
    hours_pass(folder)

    assert collect() == Collected(condemned=1)


# ---------------------------------------------------------------- who comes at the same time


def test_an_upload_that_found_the_blob_in_its_place_before_it_is_condemned_gets_it_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First order: found, condemned, referred to. It can be read all the while."""
    sha256 = stored()
    hours_pass(folder)
    found = artifacts._is_kept
    swept: list[tuple[bool, Collected]] = []

    def condemned_after(key: str, size_bytes: int) -> bool:
        was = found(key, size_bytes)
        monkeypatch.setattr(artifacts, "_is_kept", found)
        swept.append((was, collect()))
        return was

    monkeypatch.setattr(artifacts, "_is_kept", condemned_after)
    file = upload()
    meanwhile = (is_in_place(folder, sha256), artifacts.read_blob(file.sha256, max_bytes=100))
    hours_pass(folder)  # also when the sweep comes late
    restored = collect()
    hours_pass(folder)

    assert swept == [(True, Collected(condemned=1))]
    assert meanwhile == (False, RAW)
    assert (restored, collect()) == (Collected(restored=1), Collected())
    assert is_in_place(folder, sha256)


def test_an_upload_after_the_blob_is_condemned_is_stored_anew_and_outlives_the_removal(folder: Path) -> None:
    """Second order: condemned, not found, stored, the old one removed."""
    sha256 = stored()
    hours_pass(folder)
    collect()

    file = upload()
    both = (is_in_place(folder, sha256), is_aside(folder, sha256))
    hours_pass(folder)
    collect()

    assert both == (True, True)
    assert (is_in_place(folder, sha256), is_aside(folder, sha256)) == (True, False)
    assert artifacts.read_blob(file.sha256, max_bytes=100) == RAW


def test_an_upload_between_the_reading_of_the_rows_and_the_removal_keeps_its_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal has decided that nothing refers to the condemned object; the upload does not rely on that one."""
    sha256 = stored()
    hours_pass(folder)
    collect()
    hours_pass(folder)
    files_made = []
    remove = collecting._removed

    def just_before(key: str, before: Any) -> int | None:
        files_made.append(upload())
        return remove(key, before)

    monkeypatch.setattr(collecting, "_removed", just_before)
    done = collect()

    assert done.removed == 1
    assert (is_in_place(folder, sha256), is_aside(folder, sha256)) == (True, False)
    assert artifacts.read_blob(files_made[0].sha256, max_bytes=100) == RAW


def test_an_upload_between_the_listing_and_the_condemning_of_a_blob_that_was_stored_anew_keeps_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = stored()
    hours_pass(folder)
    older = collecting._is_older

    def after_it_was_stored_anew(key: str, before: Any) -> bool:
        obstore.put(artifacts.open_store(), key, RAW)
        return older(key, before)

    monkeypatch.setattr(collecting, "_is_older", after_it_was_stored_anew)

    assert collect() == Collected()
    assert is_in_place(folder, sha256)


def test_an_artifact_is_recorded_from_what_was_moved_aside_which_is_then_in_its_place(folder: Path) -> None:
    """A worker found every file, all was condemned, and then its job's result becomes a version."""
    artifact = make_artifact(config_json=RAW)
    Artifact.objects.filter(pk=artifact.pk).delete()
    hours_pass(folder)
    collect()
    (file,) = ArtifactStore(folder.as_uri()).manifest(artifact.digest).files
    read = ArtifactStore(folder.as_uri()).read(file.sha256)

    again = artifacts.record(artifact.digest)

    assert (again.digest, read) == (artifact.digest, RAW)
    assert is_in_place(folder, file.sha256)
    assert (folder / manifest_key(artifact.digest)).exists()
    assert not (folder / "condemned" / manifest_key(artifact.digest)).exists()


def test_the_files_of_an_artifact_are_kept_by_a_manifest_that_was_moved_aside(folder: Path) -> None:
    artifact = make_artifact(config_json=RAW)
    hours_pass(folder)
    collect()
    job = _job(state="succeeded", result={"manifest": artifact.digest})
    hours_pass(folder)

    restored = collect()

    assert restored == Collected(restored=2)
    assert artifacts.record(job.result["manifest"]) == artifact


def test_an_artifact_of_which_a_file_was_removed_is_not_recorded_from_the_row_that_stayed(folder: Path) -> None:
    artifact = make_artifact(config_json=RAW)
    for _step in ("condemned", "removed"):
        hours_pass(folder)
        collect()

    with pytest.raises(ArtifactRejected):
        artifacts.record(artifact.digest)


def test_two_sweeps_at_once_do_what_one_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = stored()
    hours_pass(folder)
    move = artifacts.move
    other: list[Collected] = []

    def after_the_other(key: str, to: str) -> None:
        monkeypatch.setattr(artifacts, "move", move)
        other.append(collect())
        move(key, to)

    monkeypatch.setattr(artifacts, "move", after_the_other)
    done = collect()

    assert (done.condemned, other[0].condemned) == (0, 1)
    assert is_aside(folder, sha256)


def test_a_sweep_killed_in_the_middle_of_a_move_leaves_the_object_in_both_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_args: Any) -> None:
        raise Killed

    sha256 = stored()
    hours_pass(folder)
    monkeypatch.setattr(obstore, "delete", killed)
    with pytest.raises(Killed):
        collect()
    monkeypatch.undo()

    assert (is_in_place(folder, sha256), is_aside(folder, sha256)) == (True, True)
    keep(sha256)
    collect()
    assert (is_in_place(folder, sha256), is_aside(folder, sha256)) == (True, False)


def test_while_the_rows_cannot_be_read_nothing_moves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored()
    hours_pass(folder)

    def away() -> Any:
        raise OSError("the database is away")

    monkeypatch.setattr(collecting, "_asked", [*collecting._asked, away])
    with pytest.raises(OSError, match="away"):
        collect()

    assert not (folder / "condemned").exists()


# ---------------------------------------------------------------- what a row refers to is on the disk


def test_a_blob_is_on_the_disk_with_the_folders_that_name_it_before_it_counts_as_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(folder)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)

    sha256 = stored()
    first, synced[:] = list(synced), []
    stored()  # by somebody else, who may not have got so far
    second, synced[:] = list(synced), []
    ArtifactStore(folder.as_uri()).put_file(_written(folder.parent / "answers.jsonl", b"another"))
    of_worker, synced[:] = list(synced), []
    ArtifactStore(folder.as_uri()).put_file(_written(folder.parent / "answers.jsonl", b"another"))

    key = blob_key(sha256)
    another = blob_key(hashlib.sha256(b"another").hexdigest())
    assert first == second == [key, f"blobs/{sha256[:2]}", "blobs", "."]
    assert of_worker == synced == [another, another[: len("blobs/ab")], "blobs", "."]


def _written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def test_a_file_has_no_row_before_its_bytes_are_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(_spool: artifacts.Spool) -> None:
        assert not UploadedFile.objects.exists()
        raise Killed

    monkeypatch.setattr(artifacts.Spool, "store", killed)
    with pytest.raises(Killed):
        upload()

    assert not UploadedFile.objects.exists()


def test_a_blob_that_lost_its_end_in_a_crash_is_stored_again(folder: Path) -> None:
    sha256 = stored()
    (folder / blob_key(sha256)).write_bytes(RAW[:3])

    stored()

    assert artifacts.read_blob(sha256, max_bytes=100) == RAW


def test_the_clock_sweeps(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from store.celery import app

    stored()
    hours_pass(folder)

    tasks.collect()

    assert app.conf.beat_schedule["collect-artifacts"]["task"] == tasks.collect.name
    assert (folder / "condemned").exists()
    assert timedelta(seconds=app.conf.beat_schedule["collect-artifacts"]["schedule"]) < timedelta(hours=KEPT_HOURS)
