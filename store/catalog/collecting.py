"""Objects of the artifact store that nothing refers to any more, and how they go without taking one that is wanted again.

No folder and no bucket removes an object on the condition that no row refers to it, and those who write most, the workers, know no
database. Whoever brings bytes that are stored already finds them and refers to them a moment later; in that moment nothing
refers to them. So an object goes in two steps, with `settings.UNREFERENCED_KEPT_HOURS` before each:

1. Stored so long ago and not referred to, it is **condemned**: moved aside. Who brings the same bytes now finds none in
   their place and stores them anew. Who found them just before still reads them (`protocol.places_of`).
2. Condemned so long ago and still not referred to, it is **removed**; referred to by then, it is put back.

What is removed nobody has found in its place for so long, which is much longer than it takes from finding an object to
referring to it: that is all this relies on. A sweep that breaks off, or two at once, do no harm.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import obstore
from django.conf import settings
from django.utils import timezone
from obstore.exceptions import BaseError

from inference import protocol
from store.catalog import artifacts
from store.catalog.errors import ArtifactRejected

log = logging.getLogger(__name__)

BLOBS, MANIFESTS, CONDEMNED = "blobs", "manifests", protocol.condemned_key("").rstrip("/")
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
Digests = Callable[[], Iterable[Any]]

_asked: list[Digests] = []


@dataclass
class Collected:
    """What a sweep did, in objects."""

    condemned: int = 0
    restored: int = 0
    removed: int = 0
    removed_bytes: int = 0
    torn: int = 0  # left by processes that were killed while they stored something


def ask(digests: Digests) -> None:
    """Has `digests()` asked in every sweep for JSON values in which the digests stand of what must stay, blobs or manifests."""
    if digests not in _asked:
        _asked.append(digests)


def collect() -> Collected:
    """One sweep. Raises what the artifact store or the database does when they are away, and has decided nothing then."""
    done = Collected()
    wanted = referred_to()
    if not wanted:
        return done  # more likely another database than a store of which nothing is left
    before = timezone.now() - timedelta(hours=settings.UNREFERENCED_KEPT_HOURS)
    for key in _stored(CONDEMNED):
        place = key.removeprefix(f"{CONDEMNED}/")
        with _alone(key):
            if _digest_of(place) in wanted:
                artifacts.move(key, place)
                done.restored += 1
            elif (size_bytes := _removed(key, before)) is not None:
                done.removed += 1
                done.removed_bytes += size_bytes
    for folder in (BLOBS, MANIFESTS):
        for key in _stored(folder, before=before):
            with _alone(key):
                if _digest_of(key) not in wanted and _is_older(key, before):
                    artifacts.move(key, protocol.condemned_key(key))
                    done.condemned += 1
    done.torn = sum(artifacts.remove_torn(folder, before=before) for folder in (BLOBS, MANIFESTS, CONDEMNED))
    return done


def referred_to() -> set[str]:
    """The digests of all that must stay: what rows name, and the files of the manifests among it."""
    found = {digest for digests in _asked for value in digests() for digest in _DIGEST.findall(_text(value))}
    manifests = {_digest_of(key) for folder in (MANIFESTS, protocol.condemned_key(MANIFESTS)) for key in _stored(folder)}
    for digest in found & manifests:
        try:
            found.update(file.sha256 for file in artifacts.read_manifest(digest).files)
        except ArtifactRejected as error:  # nobody can read its files by it
            log.warning("the manifest %s keeps no files: %s", digest, error)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _stored(folder: str, *, before: datetime | None = None) -> Iterator[str]:
    """The keys of objects named by a digest below `folder`, those stored before then."""
    for page in obstore.list(artifacts.open_store(), folder):
        for found in page:
            if _DIGEST.fullmatch(_digest_of(found["path"])) and (before is None or found["last_modified"] < before):
                yield found["path"]


def _digest_of(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _is_older(key: str, before: datetime) -> bool:
    """Asked once more: it may have been stored anew since it was listed."""
    stored_at: datetime = obstore.head(artifacts.open_store(), key)["last_modified"]
    return stored_at < before


def _removed(key: str, before: datetime) -> int | None:
    """The size of the object if it was moved aside before then, and is removed; else None."""
    found = obstore.head(artifacts.open_store(), key)
    if found["last_modified"] >= before:
        return None
    obstore.delete(artifacts.open_store(), key)
    return int(found["size"])


@contextmanager
def _alone(key: str) -> Iterator[None]:
    """What goes wrong with one object leaves the others to be looked at; this one's turn comes again."""
    try:
        yield
    except FileNotFoundError:
        log.info("%s is gone already: another sweep was quicker", key)
    except (BaseError, OSError):
        log.exception("%s stays as it is", key)
