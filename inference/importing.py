"""Takes a base model into the artifact store: `python -m inference.importing SOURCE --artifacts URL --cache DIR`.

SOURCE is a repository on a Hugging Face hub (`owner/name`), a local folder, or the name of a packaged model (`smollm2`).
Each line of the output is a JSON object: `progress`, and in the end `result` (manifest digest and facts) or `error` (code and
message). A second run with the same source gives the same digest and sends nothing again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import hub, packaged
from inference.artifacts import ArtifactError, ArtifactRejected, ArtifactStore, check_file
from inference.job_process import take_standard_output

if TYPE_CHECKING:
    from inference.config import GPTConfig

IGNORED_NAMES = frozenset({"LICENSE", "LICENCE", "NOTICE", "USE_POLICY"})
MAX_JSON_DEPTH = 64
TRIAL_TEXTS = ("Hello, world!", "How are you?\n", "你好，世界", "naïve café 🙂")
LEAST_VOCABULARY_SHARE = 0.5  # a tokenizer that reaches less of the embedding than this belongs to another model


class ImportRefused(Exception):
    """The source cannot become a base; `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Reporter:
    """Writes progress lines, at most a few a second."""

    def __init__(self, write: Callable[[dict[str, Any]], None], *, every_s: float = 0.5) -> None:
        self._write = write
        self._every_s = every_s
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        now = time.monotonic()
        if stage == self._last[0] and now - self._last[1] < self._every_s and done not in (None, 1.0):
            return
        self._last = (stage, now)
        self._write({"type": "progress", "stage": stage, "done": done, **facts})


def import_model(source: str, *, artifacts: str, cache: Path, progress: packaged.Progress) -> dict[str, Any]:
    """{"manifest": digest, "facts": {…}} of the imported base. Raises ImportRefused or ArtifactError."""
    folder, licence = _locate(source, cache, progress=progress)
    names = _wanted_files(folder)
    store = ArtifactStore(artifacts)
    memo = cache / "imports" / f"{_fingerprint(folder, names)}.json"
    if memo.exists():
        before: dict[str, Any] = json.loads(memo.read_text(encoding="utf-8"))
        if store.has(before["manifest"]):
            return before
    progress("check", what=folder.name)
    _check_texts(folder, names)
    facts = check_folder(folder)
    manifest = store.put_folder(folder, names=names, done=lambda done: progress("store", done=round(done, 3)))
    facts |= {"licence": licence or _licence_in_card(folder), "size_bytes": manifest.size_bytes, "folder": str(folder.resolve())}
    result = {"manifest": manifest.digest, "facts": facts}
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_text(json.dumps(result), encoding="utf-8")
    return result


def _fingerprint(folder: Path, names: list[str]) -> str:
    """Names the folder as it is now: a run that finds it unchanged need not read it again."""
    stats = [(name, (folder / name).stat()) for name in names]
    seen = [str(folder.resolve()), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _locate(source: str, cache: Path, *, progress: packaged.Progress) -> tuple[Path, str]:
    """The folder that holds the source's files, and its licence if its origin states one."""
    try:
        if source in packaged.PACKAGED:
            model = packaged.PACKAGED[source]
            return packaged.folder_of(model, cache, progress=progress), model.licence
        if Path(source).is_dir():
            return Path(source), ""
        if hub.REPOSITORY.fullmatch(source) and not Path(source).exists():
            return hub.download(source, cache, progress=progress)
    except packaged.PackagedModelUnavailable as error:
        raise ImportRefused("unavailable", str(error)) from error
    except hub.HubRefused as error:
        raise ImportRefused("hub", str(error)) from error
    known = ", ".join(sorted(packaged.PACKAGED))
    raise ImportRefused("source", f"{source!r} is neither a folder, nor a repository `owner/name`, nor one of: {known}.")


def _wanted_files(folder: Path) -> list[str]:
    """Names of the files to keep. Raises ImportRefused or ArtifactRejected naming a file that may not come along."""
    names = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or place.name in IGNORED_NAMES:
            continue
        if place.is_dir():
            raise ImportRefused("file", f"{place.name}: folders inside a model folder are not accepted.")
        check_file(folder, place.name)
        names.append(place.name)
    if not any(name.endswith(".safetensors") for name in names):
        others = ", ".join(names[:5]) or "nothing"
        raise ImportRefused("weights", f"{folder.name} has no .safetensors file (it has: {others}). Only safetensors weights are accepted.")
    return names


def _check_texts(folder: Path, names: list[str]) -> None:
    for name in names:
        if not name.endswith(".safetensors"):  # its header is checked with the weights
            check_text(folder / name)


def check_text(place: Path) -> None:
    """Raises ImportRefused unless the file is UTF-8, and JSON of bounded depth where its name says so."""
    try:
        text = place.read_text(encoding="utf-8")
        if place.suffix == ".json":
            _check_depth(json.loads(text))
    except UnicodeDecodeError as error:
        raise ImportRefused(
            "file", f"{place.name}: not UTF-8 text (byte {error.start}). Only safetensors, JSON and text are accepted."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportRefused("file", f"{place.name}: not the JSON it should be: {error}.") from error


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
        level = [item for node in level if isinstance(node, dict | list) for item in (node.values() if isinstance(node, dict) else node)]


def check_folder(folder: Path) -> dict[str, Any]:
    """Facts about a model folder that the core can run. Raises ImportRefused."""
    check_config(folder)
    facts = check_weights(folder)
    check_tokenizer(folder)
    return facts


def check_config(folder: Path) -> GPTConfig:
    """Raises ImportRefused for what the core can't run."""
    from inference.config import GPTConfig, UnsupportedModel

    try:
        return GPTConfig.from_folder(folder)
    except UnsupportedModel as error:
        raise ImportRefused("unsupported", f"config.json: {error}") from error


def check_weights(folder: Path) -> dict[str, Any]:
    """Facts about weights of a folder whose configuration is good, from their headers. Raises ImportRefused."""
    from inference.checkpoint import CheckpointError, described

    try:
        return described(folder)
    except CheckpointError as error:
        raise ImportRefused("weights", str(error)) from error


def check_tokenizer(folder: Path) -> None:
    """Of a folder whose configuration is good. Raises ImportRefused, also for a chat template that needs too much."""
    from inference import trial
    from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

    try:
        _check_tokenizer(Tokenizer.from_folder(folder), vocab_size=check_config(folder).vocab_size)
        trial.require_bounded(folder)
    except TokenizerError as error:
        raise ImportRefused("tokenizer", f"The tokenizer could not be read: {error}") from error
    except TemplateFailed as error:
        raise ImportRefused("template", str(error)) from error


def _check_tokenizer(tokenizer: Any, *, vocab_size: int) -> None:
    """Refuses a tokenizer of another model: its ids must fit the embedding, and reach a fair part of it."""
    if tokenizer.vocab_size > vocab_size:
        raise ImportRefused(
            "tokenizer", f"The tokenizer has {tokenizer.vocab_size} tokens but config.json says vocab_size {vocab_size}: they do not match."
        )
    if tokenizer.vocab_size < vocab_size * LEAST_VOCABULARY_SHARE:
        raise ImportRefused(
            "tokenizer", f"The tokenizer has only {tokenizer.vocab_size} tokens of the model's {vocab_size}: they do not belong together."
        )
    for text in TRIAL_TEXTS:
        tokens = tokenizer.encode(text)
        if not tokens or max(tokens) >= vocab_size:
            raise ImportRefused("tokenizer", f"The tokenizer turns {text!r} into {tokens[:5]}, which the model has no embedding for.")
    if any(token >= vocab_size for token in tokenizer.eos_ids):
        raise ImportRefused("tokenizer", f"The end-of-text token is outside the model's vocabulary of {vocab_size}.")


def _licence_in_card(folder: Path) -> str:
    """The `license` line of README.md's front matter, "" if there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    lines = card.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.removeprefix("license:").strip().strip("\"'")
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference.importing", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", help="owner/name on a hub, a folder, or " + ", ".join(sorted(packaged.PACKAGED)))
    parser.add_argument("--artifacts", default=os.environ.get("ARTIFACT_URL"), help="URL of the artifact store", metavar="URL")
    parser.add_argument("--cache", type=Path, default=Path("var/cache"), help="folder for downloads and conversions", metavar="DIR")
    options = parser.parse_args(arguments)
    if not options.artifacts:
        parser.error("give --artifacts or set ARTIFACT_URL")
    output = take_standard_output()

    def write(line: dict[str, Any]) -> None:
        output.write(json.dumps(line) + "\n")
        output.flush()

    try:
        result = import_model(options.source, artifacts=options.artifacts, cache=options.cache, progress=Reporter(write))
    except ImportRefused as error:
        write({"type": "error", "code": error.code, "message": str(error)})
    except ArtifactRejected as error:
        write({"type": "error", "code": "file", "message": str(error)})
    except ArtifactError as error:
        write({"type": "error", "code": "artifacts", "message": str(error)})
    except OSError as error:
        write({"type": "error", "code": "storage", "message": f"A file could not be read or written: {error}"})
    else:
        write({"type": "result", **result})
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
