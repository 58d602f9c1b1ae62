"""What PEFT's `adapter_config.json` says of a LoRA adapter: ranks, scales and the base; what is not supported is refused by name."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1024 * 1024
MAX_RANK = 256
MAX_ALPHA = 1e6
MAX_PATTERNS = 4096
MAX_PATTERN_CHARS = 200
MATCHED_WITHIN_S = 2.0  # all patterns of an adapter
PATTERN = re.compile(r"(?:\\[.dw]|\[[\w-]+\]|[\w.^$|*+?()-])+")
REPEATED_GROUP = re.compile(r"\)[*+?]")
MOST_SIGNS = {"*+": 2, "?": 2, "(": 2, "|": 16}  # in a pattern
DIGEST = re.compile(r"[0-9a-f]{64}")

REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save (whole modules beside the adapter)",
    "lora_bias": "lora_bias",
    "layer_replication": "layer_replication",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
}
# How the training may have begun, beside true and false: the base is left as it was, unlike by PiSSA, OLoRA, CorDA, LoftQ or LoRA-GA.
STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
# Says how the adapter was made or where it goes; what it adds is said by its tensors, ranks and alphas alone.
WITHOUT_EFFECT = frozenset(
    {
        *("alora_offset", "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out"),
        *("inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout"),
        *("lora_ga_config", "megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"),
        *("target_modules", "task_type"),
    }
)
READ = frozenset({"peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias"})


class AdapterError(ValueError):
    """The adapter cannot be read, does not fit the base or uses what is not supported; the message says what."""


@dataclass(frozen=True)
class LoraSettings:
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool
    base: str  # what the adapter says it was made for: a digest, a name, a path or nothing
    _compiled: dict[str, re.Pattern[str]] = field(default_factory=dict)
    _match_until: float = field(default_factory=lambda: time.monotonic() + MATCHED_WITHIN_S)

    @classmethod
    def read(cls, path: Path) -> LoraSettings:
        """Raises AdapterError for what is not supported."""
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise AdapterError(f"{CONFIG} is larger than {MAX_CONFIG_BYTES} bytes")
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise AdapterError(f"{CONFIG} cannot be read: {error}") from error
        if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
            raise AdapterError(f"{CONFIG}: peft_type must be LORA")
        _refuse_unsupported(raw)
        base = raw.get("base_model_name_or_path")
        return cls(
            rank=_rank(raw.get("r"), "r"),
            alpha=_alpha(raw.get("lora_alpha"), "lora_alpha"),
            rank_pattern={key: _rank(value, "rank_pattern") for key, value in _pattern(raw, "rank_pattern").items()},
            alpha_pattern={key: _alpha(value, "alpha_pattern") for key, value in _pattern(raw, "alpha_pattern").items()},
            rank_stabilised=bool(raw.get("use_rslora")),
            base=base if isinstance(base, str) else "",
        )

    def check_base(self, digest: str) -> None:
        """Raises AdapterError when the adapter names another base's digest; other names are free text and say nothing."""
        if DIGEST.fullmatch(digest) and DIGEST.fullmatch(self.base) and digest != self.base:
            raise AdapterError(f"{CONFIG}: the adapter was made for the base {self.base[:12]}…, this one is {digest[:12]}…")

    def rank_and_scale(self, projection: str) -> tuple[int, float]:
        """Its rank, and what B·A·x is multiplied with."""
        rank = int(self._value(self.rank_pattern, projection, self.rank))
        alpha = self._value(self.alpha_pattern, projection, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def _value(self, patterns: Mapping[str, float], projection: str, otherwise: float) -> float:
        """Of the first pattern that matches the whole name or its end behind a dot: PEFT's rule."""
        for pattern, value in patterns.items():
            if pattern not in self._compiled:
                self._compiled[pattern] = _compiled(pattern)
            if time.monotonic() > self._match_until:
                raise AdapterError(f"{CONFIG}: the patterns take too long to match; write module names instead")
            if self._compiled[pattern].match(projection):
                return value
        return otherwise


def _compiled(pattern: str) -> re.Pattern[str]:
    """Names and simple expressions only: matching a hostile one could take for ever, or all memory."""
    bare = pattern.replace("(?:", "(")
    harmless = (
        len(pattern) <= MAX_PATTERN_CHARS
        and PATTERN.fullmatch(bare) is not None
        and REPEATED_GROUP.search(bare) is None
        and all(len(re.findall(rf"[{signs}]", bare)) <= most for signs, most in MOST_SIGNS.items())
    )
    try:
        if harmless:
            return re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        pass
    raise AdapterError(f"{CONFIG}: the pattern {pattern[:80]!r} is not supported; write module names or simple regular expressions")


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    for name, called in REFUSED.items():
        if raw.get(name):
            raise AdapterError(f"{CONFIG}: {called} is not supported")
    if (bias := raw.get("bias", "none")) != "none":
        raise AdapterError(f"{CONFIG}: bias={str(bias)[:40]!r} is not supported: only adapters without trained biases are")
    start = raw.get("init_lora_weights")
    if not (start is None or isinstance(start, bool) or (isinstance(start, str) and start.lower() in STARTS)):
        said = f"init_lora_weights={str(start)[:40]!r} changes the base, or may; convert the adapter to plain LoRA"
        raise AdapterError(f"{CONFIG}: {said}")
    for name, value in raw.items():
        if value and name not in READ and name not in WITHOUT_EFFECT:
            raise AdapterError(f"{CONFIG}: {name[:80]} is not known here, and may change what the adapter does")


def _pattern(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name) or {}
    if not isinstance(value, dict) or len(value) > MAX_PATTERNS:
        raise AdapterError(f"{CONFIG}: {name} must map at most {MAX_PATTERNS} names to numbers")
    return value


def _rank(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_RANK:
        raise AdapterError(f"{CONFIG}: {name} is {str(value)[:40]}; it must be a whole number from 1 to {MAX_RANK}")
    return value


def _alpha(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MAX_ALPHA:
        raise AdapterError(f"{CONFIG}: {name} is {str(value)[:40]}; it must be a number of at most {MAX_ALPHA:g}")
    return float(value)
