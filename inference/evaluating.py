"""An evaluation: suites put to a version and, to compare, to the base it stands on or was trained from.

As a job it ends a segment after each suite of each of the two, so that nothing finished is done again. Of two that do not share
their weights one is measured after the other, so that one model is in memory at a time. What was measured of
one of them is kept as a record: the rows of every metric and the conditions under which they came about. A later evaluation
of another version of the same base takes the base's rows from its record, where suite and conditions are the same ones.
"""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from inference import intervals, suites
from inference.config import GPTConfig
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.footprint import cache_token_bytes
from inference.job_process import JobError
from inference.library import Engine
from inference.measuring import Measuring, Scores, Subject, Unmeasurable
from inference.metrics import METRICS, measured
from inference.native import fastest_runner
from inference.protocol import JobTask
from inference.renderer import Renderer
from inference.suites import Kind, Suite, SuiteRefused
from inference.tokenizer import TemplateFailed, TokenizerError
from inference.workbench import Workbench

CACHE_TOKENS = 8192
SAID_EVERY_S = 0.5
RENDERED_WITHIN_S = 30.0  # nobody waits, and a job has what the rest of the machine leaves
RECORD, STATE = "record.json", "state.json"
INTERVAL = "95 %: Wilson for shares, else percentile bootstrap over items; differences paired by item"


@dataclass(frozen=True)
class Measurand:
    """Whose numbers these are: what names it, and how it is put to the engine."""

    names: dict[str, Any]  # {"base", "adapter": digests or None, "instructions_sha256"}
    subject: Subject

    @property
    def base(self) -> str:
        """The digest of the weights."""
        return str(self.names["base"])


@dataclass
class Findings:
    """What is known by now, by suite: of the version itself, and of what it stands beside."""

    own: dict[str, Scores] = field(default_factory=dict)
    beside: dict[str, Scores] = field(default_factory=dict)


def names_of(base: str, adapter: str | None, instructions: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(instructions.encode()).hexdigest() if instructions else ""
    return {"base": base, "adapter": adapter, "instructions_sha256": sha256}


@cache
def engine_source() -> str:
    """sha256 over the engine's own code, in the order of the files' names: another engine may give other numbers."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.cpp")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def conditions(precision: str, device: str, runner: str) -> dict[str, Any]:
    """All, beside the weights and the suites, that decides about the numbers."""
    return {
        "engine": {"version": metadata.version("gpt-store"), "source_sha256": engine_source(), "torch": torch.__version__},
        "precision": precision,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "runner": runner,
        "threads": torch.get_num_threads(),
        "decoding": "greedy",
        "interval": INTERVAL,
        "draws": intervals.DRAWS,
        "seed": intervals.SEED,
    }


# ---------------------------------------------------------------- as a job


def run(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """Raises JobError, Cancelled and Paused."""
    chosen = chosen_suites(task.params, bench)
    own, beside = _measurand(task.params, task.params, bench), None
    if task.params.get("beside") is not None:
        beside = _measurand(task.params, task.params["beside"], bench)
    said = Saying(bench)
    with Held(bench, said) as held:
        evaluation = Evaluation(task, bench, suites=chosen, own=own, beside=beside, held=held, said=said)
        evaluation.begin()
        evaluation.to_the_end()
        return evaluation.result()


def chosen_suites(params: Mapping[str, Any], bench: Workbench) -> list[Suite]:
    """Those the job names, and the publisher's own last. Raises JobError, for a file with everything that is wrong with it."""
    limit = params.get("limit")
    try:
        chosen = [suites.built_in(name) for name in params["suites"]]
    except KeyError as error:
        raise JobError("suite_unknown", f"This worker knows no suite named {error}; it may be older than the store.") from error
    if params.get("file"):
        bench.channel.progress("reading")
        try:
            chosen.append(suites.read(bench.file(params["file"])))
        except SuiteRefused as error:
            detail = {"error_count": error.count, "problems": [asdict(problem) for problem in error.problems]}
            raise JobError("suite_invalid", f"The suite cannot be used: {error}", detail=detail) from error
    if params.get("instructions"):
        chosen = [suite for suite in chosen if suite.asks]
    if not chosen:
        raise JobError("nothing_to_measure", "None of these suites asks for answers, and instructions change nothing else.")
    return [suite.first(limit) for suite in chosen]


def _measurand(params: Mapping[str, Any], of: Mapping[str, Any], bench: Workbench) -> Measurand:
    names = names_of(of.get("base") or params["base"], of["adapter"], of["instructions"])
    folder = bench.folder(of["adapter"]) if of["adapter"] else None
    return Measurand(names, Subject(folder, of["instructions"]))


class Saying:
    """Tells now and then that work goes on, and how far it is."""

    def __init__(self, bench: Workbench) -> None:
        self._bench, self._said_at = bench, 0.0
        self.facts: dict[str, Any] = {}
        self.done = 0.0

    def beat(self) -> None:
        """Raises Cancelled."""
        self._bench.channel.raise_if_cancelled()
        if time.monotonic() - self._said_at >= SAID_EVERY_S:
            self.now()

    def now(self) -> None:
        self._bench.channel.progress("measuring", done=self.done, **self.facts)
        self._said_at = time.monotonic()


class Held:
    """An engine at a time, of the weights that are asked for."""

    def __init__(self, bench: Workbench, said: Saying) -> None:
        self._bench, self._said = bench, said
        self._engine = ExitStack()
        self._held: dict[str, tuple[Measuring, dict[str, Any]]] = {}  # of one base at most

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        self._engine.close()

    def of(self, base: str) -> tuple[Measuring, dict[str, Any]]:
        """What measures those weights, and under which conditions. Raises JobError."""
        if base not in self._held:
            self._held.clear()
            self._engine.close()
            gc.collect()  # the model before it and its cache go first
            self._held[base] = self._load(self._bench.folder(base))
        return self._held[base]

    def _load(self, folder: Path) -> tuple[Measuring, dict[str, Any]]:
        room_bytes = CACHE_TOKENS * cache_token_bytes(GPTConfig.from_folder(folder), "float32")
        model = self._bench.model(folder, room_bytes=room_bytes)
        options = EngineOptions(cache_tokens=CACHE_TOKENS, name="evaluation")
        core = EngineCore(model, self._bench.tokenizer(folder), options, run_with=fastest_runner(model))
        renderer = self._engine.enter_context(Renderer(folder, within_s=RENDERED_WITHIN_S))
        engine = self._engine.enter_context(Engine(core, after_step=self._said.beat))
        under = conditions(str(model.dtype).removeprefix("torch."), model.device.type, engine.runner_name)
        return Measuring(engine, renderer.render), under


class Evaluation:
    """From the first suite to the last, or from a checkpoint on."""

    def __init__(
        self,
        task: JobTask,
        bench: Workbench,
        *,
        suites: Sequence[Suite],
        own: Measurand,
        beside: Measurand | None,
        held: Held,
        said: Saying,
    ) -> None:
        self._task, self._bench, self._suites, self._own, self._beside = task, bench, suites, own, beside
        self._held, self._said = held, said
        _measuring, self._under = held.of(own.base)
        self._found = Findings()
        self._segment, self._checkpoint = task.segment, task.checkpoint
        self._seconds = 0.0

    def begin(self) -> None:
        """Takes up the checkpoint, and what is known of the base from records."""
        if self._checkpoint is not None:
            self._take_up(self._bench.folder(self._checkpoint))
        for digest in self._task.params.get("records") or []:
            self._take_from_record(digest)

    def to_the_end(self) -> None:
        """Raises Paused after the suite in which a pause was asked for."""
        left = self._left()
        total = len(self._suites) * (1 if self._beside is None else 2)
        for number, (suite, of) in enumerate(left, 1):
            self._said.facts = {"suite": suite.name, "of": of}
            self._said.done = (total - len(left) + number - 1) / total
            self._said.now()
            began = time.monotonic()
            self._put(suite, of)
            seconds = time.monotonic() - began
            self._seconds += seconds
            if number < len(left):
                self._end_segment(suite, of, seconds, done=(total - len(left) + number) / total)

    def _left(self) -> list[tuple[Suite, str]]:
        """What is not known yet: suite by suite, the base before the version; of other weights all after the version, whose are loaded."""
        if self._beside is None:
            turns = [(suite, "own") for suite in self._suites]
        elif self._beside.base == self._own.base:
            turns = [(suite, of) for suite in self._suites for of in ("beside", "own")]
        else:
            turns = [(suite, of) for of in ("own", "beside") for suite in self._suites]
        return [(suite, of) for suite, of in turns if suite.name not in getattr(self._found, of)]

    def _put(self, suite: Suite, of: str) -> None:
        measurand = self._own if of == "own" or self._beside is None else self._beside
        measuring, under = self._held.of(measurand.base)
        if under != self._under:
            raise JobError("not_comparable", f"The base is computed otherwise than the version: {under}, not {self._under}.")
        try:
            getattr(self._found, of)[suite.name] = measuring.run(suite, measurand.subject)
        except TemplateFailed as error:
            raise JobError("template_failed", f"The chat template refused an item of {suite.name}: {error}") from error
        except (Unmeasurable, TokenizerError) as error:
            raise JobError("suite_unusable", f"{suite.name}: {error}", detail={"suite": suite.name, "reason": str(error)}) from error

    # ------------------------------------------------------------ what came of it

    def result(self) -> dict[str, Any]:
        method = {**self._under, **self._own.names, "limit": self._task.params.get("limit")}
        return {
            "results": results_of(self._suites, self._found.own, self._found.beside),
            "beside_results": results_of(self._suites, self._found.beside, {}),
            "method": method,
            "beside": None if self._beside is None else self._beside.names,
            "record": self._put_record(self._own, self._found.own),
            "beside_record": None if self._beside is None else self._put_record(self._beside, self._found.beside),
            "seconds": round(self._seconds, 1),
        }

    def _put_record(self, of: Measurand, found: Mapping[str, Scores]) -> str:
        kept = {
            suite.name: {"sha256": suite.sha256, "items": len(suite.items), **asdict(found[suite.name])}
            for suite in self._suites
            if suite.name in found
        }
        return self._put_json(RECORD, {"of": of.names, "under": self._under, "suites": kept})

    def _take_from_record(self, digest: str) -> None:
        """Of the base, what was measured of just these suites under just these conditions. A record that is gone is none."""
        try:
            record = json.loads((self._bench.folder(digest) / RECORD).read_text(encoding="utf-8"))
        except (JobError, OSError, ValueError):
            return
        if self._beside is None or record.get("of") != self._beside.names or record.get("under") != self._under:
            return
        for suite in (suite for suite in self._suites if suite.kind != Kind.SPEED):  # it is not the same again
            kept = record["suites"].get(suite.name)
            if kept is not None and (kept["sha256"], kept["items"]) == (suite.sha256, len(suite.items)):
                self._found.beside.setdefault(suite.name, Scores(kept["rows"], kept["samples"]))

    # ------------------------------------------------------------ checkpoints

    def _end_segment(self, suite: Suite, of: str, seconds: float, *, done: float) -> None:
        state = {"job": self._task.job, "under": self._under, **asdict(self._found), "seconds": self._seconds}
        digest = self._put_json(STATE, state)
        scores = getattr(self._found, of)[suite.name]
        values = {name: METRICS[name].value_of(intervals.sums(rows)) for name, rows in scores.rows.items()}
        event = {"suite": suite.name, "of": of, "seconds": round(seconds, 1), "values": values}
        self._bench.channel.segment(number=self._segment, checkpoint=digest, events=[event], done=done)
        if self._checkpoint is not None and self._checkpoint != digest:
            self._bench.forget(self._checkpoint, kept=digest)
        self._segment, self._checkpoint = self._segment + 1, digest

    def _take_up(self, folder: Path) -> None:
        """What was finished under the same conditions; an engine that became another one meanwhile begins anew."""
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["job"] != self._task.job:
            raise JobError("checkpoint_unusable", "The checkpoint belongs to another job.")
        if state["under"] != self._under:
            return
        self._seconds = state["seconds"]
        self._found = Findings(*({name: Scores(**kept) for name, kept in state[of].items()} for of in ("own", "beside")))

    def _put_json(self, name: str, value: Mapping[str, Any]) -> str:
        folder = self._bench.work / "kept"
        folder.mkdir()
        try:
            (folder / name).write_text(json.dumps(value, sort_keys=True, allow_nan=False), encoding="utf-8")
            return self._bench.put(folder)
        finally:
            shutil.rmtree(folder)


def results_of(chosen: Sequence[Suite], found: Mapping[str, Scores], beside: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """For each suite its metrics with their intervals, beside those of the base where they are known."""
    return [
        {
            "suite": suite.name,
            "sha256": suite.sha256,
            "items": len(suite.items),
            "kind": str(suite.kind),
            "metrics": [
                measured(name, found[suite.name].rows[name], beside[suite.name].rows.get(name) if suite.name in beside else None)
                for name in suite.metrics
                if name in found[suite.name].rows
            ],
            "samples": found[suite.name].samples,
        }
        for suite in chosen
        if suite.name in found
    ]
