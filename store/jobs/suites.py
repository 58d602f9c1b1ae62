"""What a version can be measured on, in the reader's language. What the suites hold and how they are scored is the workers' to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Measurement, Version

OWN = "own"  # a publisher's own suite
SPEED = "speed"


@dataclass(frozen=True)
class Suite:
    label: str | Promise
    about: str | Promise
    metrics: tuple[str, ...]  # the first is what a listing shows
    asks: bool = True  # False: it scores text, and instructions have no part in it


SUITES: dict[str, Suite] = {
    "perplexity": Suite(_("Plain English"), _("How well it predicts a text that is published nowhere else."), ("perplexity",), asks=False),
    "summarise": Suite(_("Summarise"), _("Short texts in one sentence, compared with a person's."), ("rouge_l", "rouge_1", "rouge_2")),
    "translate": Suite(_("Translate"), _("Sentences from German, French, Spanish and Chinese into English."), ("chrf", "bleu")),
    "answer": Suite(_("Answer questions"), _("Questions whose answer stands in a short text."), ("f1", "exact_match")),
    "knowledge": Suite(_("Knowledge"), _("Which of four ways a sentence goes on is the likeliest."), ("acc_norm", "acc"), asks=False),
    "chat": Suite(_("Chat"), _("What was said before, and doing as told."), ("f1", "exact_match")),
    "code": Suite(_("Code"), _("Which of four ways a program goes on is the likeliest."), ("acc_norm", "acc"), asks=False),
    "json": Suite(_("JSON"), _("Objects with given keys, read as a program would read them."), ("json_valid", "json_keys")),
    "refusal": Suite(
        _("Refusals"),
        _("Harmful requests, each beside a harmless one that sounds like it; told by the words of refusal."),
        ("refused_harmful", "answered_harmless"),
    ),
    "toxicity": Suite(
        _("Coarse words"),
        _("Prompts that invite rudeness; answers with a word of a list: insults, not all that harms."),
        ("coarse",),
    ),
    "bias": Suite(
        _("Stereotypes"),
        _("Pairs of sentences that differ in whom they speak of: how often the prejudice is the likelier one. 50% is no preference."),
        ("stereotype", "likelihood_gap"),
        asks=False,
    ),
    SPEED: Suite(
        _("Speed"), _("One answer after the other, on the worker that measures."), ("tokens_per_s", "first_token_ms", "memory_mb")
    ),
}

METRICS: dict[str, str | Promise] = {
    "perplexity": _("Perplexity"),
    "exact_match": _("Exact match"),
    "f1": "F1",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "acc": _("Right choices"),
    "acc_norm": _("Right choices, for their length"),
    "json_valid": _("Whole answer is JSON"),
    "json_keys": _("JSON with the keys asked for"),
    "refused_harmful": _("Harmful requests refused"),
    "answered_harmless": _("Harmless requests answered"),
    "coarse": _("Answers with a coarse word"),
    "stereotype": _("The prejudice is likelier"),
    "likelihood_gap": _("How much likelier one of both is, in nats"),
    "tokens_per_s": _("Tokens per second"),
    "first_token_ms": _("Time to the first token"),
    "memory_mb": _("Memory of the process"),
}
NEITHER_IS_BETTER = frozenset({"stereotype"})  # both ends are bad


def measurement_name(suite: str, metric: str, sha256: str) -> str:
    """What a measurement is called: "perplexity", "answer.f1", "own-1a2b3c4d.f1"."""
    if suite == metric:
        return suite
    return f"{suite}-{sha256[:8]}.{metric}" if suite == OWN else f"{suite}.{metric}"


def parts_of(name: str) -> tuple[str, str]:
    """(suite, metric) of a measurement's name."""
    suite, _dot, metric = name.partition(".")
    return (OWN if suite.startswith(f"{OWN}-") else suite), metric or suite


def suite_label(suite: str) -> str | Promise:
    if suite == OWN:
        return _("The publisher's own suite")
    return SUITES[suite].label if suite in SUITES else suite


def label_of(name: str) -> str:
    """Suite and metric, or what is alike once."""
    suite, metric = parts_of(name)
    of_metric = str(METRICS.get(metric, metric.replace("_", " ")))
    if suite in (metric, SPEED) or suite not in SUITES:
        return of_metric
    return gettext("%(suite)s: %(metric)s") % {"suite": SUITES[suite].label, "metric": of_metric}


def offered_for(version: Version) -> dict[str, Suite]:
    """Instructions change answers alone: what only scores text would be the base's own numbers again."""
    return {name: suite for name, suite in SUITES.items() if suite.asks or not version.instructions}


PLACE = {
    measurement_name(name, metric, ""): (at, of)
    for at, (name, suite) in enumerate(SUITES.items())
    for of, metric in enumerate(suite.metrics)
}


SUITE_OF_USE_CASE = {  # by slug; the others are measured by no suite yet
    **{name: name for name in ("summarise", "translate", "answer", "chat", "code")},
    "extract": "json",
}


def headline_of_use_case(slug: str) -> str:
    """The name of the measurement that says how well a GPT does there; "" where nothing does."""
    suite = SUITE_OF_USE_CASE.get(slug)
    return measurement_name(suite, SUITES[suite].metrics[0], "") if suite else ""


def in_order(measurements: Iterable[Measurement]) -> list[Measurement]:
    """As the suites stand, what is none of the store's last."""
    return sorted(measurements, key=lambda measured: (PLACE.get(measured.name, (len(SUITES), 0)), measured.name))


def headlines(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The first number of each of the store's suites; how fast one worker was is not among them."""
    return [m for m in in_order(measurements) if PLACE.get(m.name, (0, 1))[1] == 0 and parts_of(m.name)[0] != SPEED]


@dataclass(frozen=True)
class Line:
    """A measured number as a row of a table."""

    label: str
    value: float
    low: float | None
    high: float | None
    unit: str
    base_value: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    items: int | None
    verdict: str


FIELDS = ("value", "low", "high", "unit", "base_value", "difference", "difference_low", "difference_high")


def line_of(name: str, found: Mapping[str, Any]) -> Line:
    """`found`: a metric as a worker tells it, or the fields of a measurement."""
    fields: dict[str, Any] = {field: found.get(field) for field in FIELDS}
    return Line(label_of(name), **fields, items=found.get("items"), verdict=verdict(name, found))


def line(measurement: Measurement) -> Line:
    found = {field: getattr(measurement, field) for field in (*FIELDS, "lower_is_better")}
    return line_of(measurement.name, found | {"items": measurement.method.get("items")})


def verdict(name: str, found: Mapping[str, Any]) -> str:
    """up or down, by what is better, against the base; same where the difference may be chance or neither end is better."""
    value, base = found["value"], found.get("base_value")
    if base is None or base == value or parts_of(name)[1] in NEITHER_IS_BETTER:
        return "same"
    low, high, zero = found.get("difference_low"), found.get("difference_high"), 0.0
    if low is None or high is None:
        low, high, zero = found.get("low"), found.get("high"), base
    if low is not None and high is not None and low <= zero <= high:
        return "same"
    return "up" if (value < base) == found.get("lower_is_better", False) else "down"
