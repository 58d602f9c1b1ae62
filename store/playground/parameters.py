"""What a person can set for a conversation: read from the form, bounded, and kept only where it differs from the GPT's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from store.catalog.models import Version
from store.generation.errors import BadSampling
from store.generation.messages import sampling_for

MAX_STOP_CHARS = 40


@dataclass(frozen=True)
class Knob:
    """A slider of the drawer."""

    name: str
    label: str | Promise
    hint: str | Promise
    low: float
    high: float
    step: float
    read: Callable[[str], float]


KNOBS = (
    Knob(
        "temperature",
        gettext_lazy("Temperature"),
        gettext_lazy("Low repeats the likeliest words; high is more varied and less exact."),
        *(0, 2, 0.1, float),
    ),
    Knob(
        "top_p",
        gettext_lazy("Top p"),
        gettext_lazy("Considers only the likeliest words that together reach this share."),
        *(0.05, 1, 0.05, float),
    ),
    Knob(
        "max_tokens",
        gettext_lazy("Longest answer"),
        gettext_lazy("Tokens. One token is about four letters, or one to two Chinese characters."),
        *(1, settings.MAX_COMPLETION_TOKENS, 1, int),
    ),
    Knob(
        "frequency_penalty",
        gettext_lazy("Frequency penalty"),
        gettext_lazy("Makes words that were already used less likely."),
        *(0, 2, 0.1, float),
    ),
)


NAMES = (*(knob.name for knob in KNOBS), "seed", "stop")  # the fields of a form that `read` reads


@dataclass(frozen=True)
class Setting:
    """A knob as one conversation has it."""

    knob: Knob
    value: float
    default: float


def shown(version: Version, own: Mapping[str, Any]) -> list[Setting]:
    defaults = sampling_for(version, {}).to_json()
    return [Setting(knob, own.get(knob.name, defaults[knob.name]), defaults[knob.name]) for knob in KNOBS]


def read(form: Mapping[str, str], version: Version) -> dict[str, Any]:
    """What the form sets differently from the version. Raises BadSampling that names the field."""
    defaults = sampling_for(version, {}).to_json()
    own: dict[str, Any] = {}
    for knob in KNOBS:
        value = _number(form.get(knob.name, ""), knob.read, knob.name, knob.label)
        if value is not None and value != defaults[knob.name]:
            own[knob.name] = value
    seed = _number(form.get("seed", ""), int, "seed", _("Seed"))
    if seed is not None:
        own["seed"] = int(seed) % 2**32
    if stop := form.get("stop", "").strip():
        own["stop"] = [stop[:MAX_STOP_CHARS]]
    sampling_for(version, own)
    return own


def _number(raw: str, read: Callable[[str], float], name: str, label: str | Promise) -> float | None:
    if not raw.strip():
        return None
    try:
        return read(raw)
    except ValueError as error:
        raise BadSampling(_("%(label)s must be a number.") % {"label": label}, param=name) from error
