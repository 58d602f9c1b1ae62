"""Runs an import as a process of its own: it needs torch and touches hostile files, so it gets neither database nor secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from django.conf import settings
from django.utils.translation import gettext as _

from store import environment
from store.catalog import artifacts
from store.catalog.models import Artifact
from store.errors import DomainError


class ImportFailed(DomainError):
    """The source cannot become a base; the message is the importer's own, in English."""

    code = "import_failed"


@dataclass(frozen=True)
class Imported:
    artifact: Artifact
    facts: dict[str, Any]  # architecture, parameters, context_length, dtype, …
    licence: str  # as its origin states it; may be ""


def run(source: str, progress: Callable[[str, float | None], None]) -> Imported:
    """Imports `source`: a repository `owner/name`, a folder, or a packaged model. Safe to run again.

    `progress(stage, done)` is called as it goes on, `done` being a share or None. Raises ImportFailed, ArtifactRejected.
    """
    command = [sys.executable, "-m", "inference.importing", "--artifacts", settings.ARTIFACT_URL]
    # What was downloaded and converted is found there the next time.
    command += ["--cache", os.environ.get("WORKER_CACHE_DIR") or str(settings.VAR_DIR / "cache"), "--", source]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=settings.BASE_DIR, env=environment.of_imports())
    assert process.stdout is not None
    try:
        last = _follow(process.stdout, progress)
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.terminate()
        process.wait()
    if last.get("type") != "result":
        message = last.get("message") or _("The import ended without a result (exit status %(status)s).") % {"status": process.returncode}
        raise ImportFailed(str(message), reason=last.get("code", ""))
    facts = facts_of(last["facts"])
    facts.pop("folder", None)  # a path of this machine
    licence = str(facts.pop("licence", ""))
    return Imported(artifact=artifacts.record(last["manifest"]), facts=facts, licence=licence)


def facts_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker or an import told of a model, under the names by which versions keep it."""
    return {"parameters" if name == "parameter_count" else name: value for name, value in told.items()}


def _follow(lines: IO[str], progress: Callable[[str, float | None], None]) -> dict[str, Any]:
    """Reports progress until the output ends; its last JSON line."""
    last: deque[dict[str, Any]] = deque([{}], maxlen=1)
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library printed something
        if isinstance(said, dict):
            last.append(said)
            if said.get("type") == "progress":
                progress(str(said.get("stage", "")), said.get("done"))
    return last[0]
