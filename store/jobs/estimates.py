"""What a fine-tune will probably take: its tokens and steps from the file, its time from what earlier runs took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.db.models import Q, QuerySet

from inference.protocol import LEARNED_BYTES, MAX_HELD_OUT
from store.catalog.models import Version
from store.jobs import pretraining
from store.jobs.finetunes import MAX_STEPS, price_micro
from store.jobs.models import Job, UploadedFile

BYTES_PER_TOKEN = 4  # of English text; a guess, used until the file has been checked against the base
BYTES_PER_EXAMPLE = 400  # likewise
FLOAT32_BYTES = 4
RUNS = 5  # the last ones, whose pace is taken


@dataclass(frozen=True)
class Estimate:
    steps: int
    tokens: int  # of all epochs
    seconds: float | None  # of training, not of waiting for a worker; None while no run on this base has ended
    cost_micro: int
    result_bytes: int | None  # of all weights, as large as the base's; an adapter is small, and how small its rank says
    memory_bytes: int | None  # of the worker, where all weights are trained: the least it takes
    counted: bool  # the file was checked with this base's tokenizer; else steps and tokens are a guess from its size
    parameters: int | None = None  # of a model that is made from nothing


def estimate(file: UploadedFile, base: Version, settings: Mapping[str, Any]) -> Estimate:
    """For checked settings. Held-out examples are measured, not trained on, which costs about a third of training on them."""
    report = _found_good(_checks(file, settings).filter(subject=base.public_id))
    examples = report["examples"] if report else max(file.size_bytes // BYTES_PER_EXAMPLE, 1)
    tokens = report["tokens"] if report else max(file.size_bytes // BYTES_PER_TOKEN, 1)
    trained = examples - min(round(examples * settings["validation_share"]), MAX_HELD_OUT, examples - 1)
    steps = min(math.ceil(trained / settings["batch_size"]) * settings["epochs"], MAX_STEPS)
    read = round(tokens * trained / examples) * settings["epochs"]
    pace = tokens_per_s(base, settings["method"], settings.get("scope", "adapter"))
    result_bytes = base.artifact.size_bytes if base.artifact and settings.get("scope") == "weights" else None
    memory_bytes = result_bytes and result_bytes + LEARNED_BYTES * base.facts.get("parameters", 0)
    return Estimate(steps, read, read / pace if pace else None, price_micro(steps), result_bytes, memory_bytes, counted=report is not None)


def tokens_per_s(base: Version, method: str, scope: str = "adapter") -> float | None:
    """The pace of the last runs of this kind on the base; None without any."""
    of_scope = Q(params__settings__scope=scope)
    if scope == "adapter":  # a run from before there was a choice
        of_scope |= Q(params__settings__scope__isnull=True)
    runs = Job.objects.filter(of_scope, kind=Job.Kind.FINETUNE, subject=base.public_id, params__settings__method=method)
    return _pace(runs)


def estimate_from_nothing(file: UploadedFile, settings: Mapping[str, Any]) -> Estimate:
    """For checked settings of a pre-training. Before a file was checked for a model of this shape, steps and tokens are a guess from
    its size.
    """
    shape = pretraining.shape_of(settings["size"], settings["vocabulary"])
    report = _found_good(_checks(file, {**settings, "method": "text", "max_length": pretraining.CONTEXT}).filter(params__shape=shape))
    tokens = report["tokens"] if report else max(file.size_bytes // BYTES_PER_TOKEN, 1)
    examples = report["examples"] if report else tokens / pretraining.CONTEXT
    kept = 1 - settings["validation_share"]
    steps = min(math.ceil(examples * kept / settings["batch_size"]) * settings["epochs"], MAX_STEPS)
    read = round(tokens * kept) * settings["epochs"]
    parameters = pretraining.SIZES[settings["size"]].parameters(settings["vocabulary"])
    pace = _pace(Job.objects.filter(kind=Job.Kind.PRETRAINING, params__size=settings["size"]))
    return Estimate(
        steps=steps,
        tokens=read,
        seconds=read / pace if pace else None,
        cost_micro=price_micro(steps),
        result_bytes=FLOAT32_BYTES * parameters,
        memory_bytes=(FLOAT32_BYTES + LEARNED_BYTES) * parameters,
        counted=report is not None,
        parameters=parameters,
    )


def _pace(runs: QuerySet[Job]) -> float | None:
    """The median tokens a second of the last of these runs that succeeded, all that was measured on the way included."""
    results = runs.filter(state=Job.State.SUCCEEDED).order_by("-id").values_list("result", flat=True)[:RUNS]
    paces = [result["tokens"] / (result["seconds"] + result.get("seconds_beside", 0)) for result in results if _is_timed(result)]
    return median(paces) if paces else None


def _is_timed(result: Mapping[str, Any]) -> bool:
    return bool(result.get("tokens") and result.get("seconds"))


def _checks(file: UploadedFile, settings: Mapping[str, Any]) -> QuerySet[Job]:
    """Of this file for the same use."""
    checks = Job.objects.filter(kind=Job.Kind.VALIDATION, state=Job.State.SUCCEEDED, publisher=file.publisher)
    return checks.filter(params__file=file.sha256, params__use=settings["method"], params__max_length=settings["max_length"])


def _found_good(checks: QuerySet[Job]) -> dict[str, Any] | None:
    """What the last of them found, if it found the file good."""
    report = checks.order_by("-id").values_list("result", flat=True).first()
    return report if report and report.get("valid") and report.get("examples") else None
