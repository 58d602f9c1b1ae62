"""What in training data may harm the people it is about: personal data and secrets, found by their shape.

Only kinds, counts and the first lines are kept, never what was found: a report must not become a second place where a
secret lies. A shape is no proof, and what has none (names, addresses, health) is not seen.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

KEPT_LINES = 5


class Kind(StrEnum):
    EMAIL = "email"
    TELEPHONE = "telephone"
    CREDIT_CARD = "credit_card"
    IP_ADDRESS = "ip_address"
    AWS_KEY = "aws_key"
    GITHUB_TOKEN = "github_token"
    PRIVATE_KEY = "private_key"
    STORE_KEY = "store_key"
    SERVICE_KEY = "service_key"  # of Google, Hugging Face, OpenAI or Slack


def luhn(digits: str) -> bool:
    """Whether the check digit at the end is right (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _is_public_address(text: str) -> bool:
    """One that leads to somebody: not those every private network has."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _any(_text: str) -> bool:
    return True


@dataclass(frozen=True)
class Pattern:
    kind: Kind
    needs: re.Pattern[str]  # quick to find, and in every text that has one
    shape: re.Pattern[str]
    holds: Callable[[str], bool] = _any


def _pattern(kind: Kind, needs: str, shape: str, holds: Callable[[str], bool] = _any) -> Pattern:
    return Pattern(kind, re.compile(needs, re.ASCII), re.compile(shape, re.ASCII), holds)


# Every repetition is bounded and begins where the last character cannot belong to it, so that a search takes linear time.
# Cards come before telephones: what is one is not counted as the other.
PATTERNS = (
    _pattern(Kind.EMAIL, "@", r"(?<![\w.%+-])[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
    _pattern(Kind.AWS_KEY, "AKIA", r"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"),
    _pattern(Kind.AWS_KEY, "ASIA", r"(?<![A-Z0-9])ASIA[A-Z0-9]{16}(?![A-Z0-9])"),
    _pattern(Kind.GITHUB_TOKEN, "gh[pousr]_", r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}"),
    _pattern(Kind.GITHUB_TOKEN, "github_pat_", r"(?<!\w)github_pat_\w{22,255}"),
    _pattern(Kind.PRIVATE_KEY, "-----BEGIN ", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY"),
    _pattern(Kind.STORE_KEY, "gs_", r"(?<!\w)gs_[0-9A-Za-z]{10}_[0-9A-Za-z]{40}(?!\w)"),
    _pattern(Kind.SERVICE_KEY, "AIza", r"(?<!\w)AIza[\w-]{35}"),
    _pattern(Kind.SERVICE_KEY, "hf_", r"(?<!\w)hf_[A-Za-z0-9]{30,64}"),
    _pattern(Kind.SERVICE_KEY, "sk-", r"(?<!\w)sk-[\w-]{32,200}"),
    _pattern(Kind.SERVICE_KEY, "xox", r"(?<!\w)xox[abprs]-[A-Za-z0-9-]{10,200}"),
    _pattern(Kind.IP_ADDRESS, r"\d\.\d", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)", _is_public_address),
    _pattern(Kind.IP_ADDRESS, r"::|(?:[0-9A-Fa-f]{1,4}:){7}", r"(?<![\w:])[0-9A-Fa-f:]{3,39}(?![\w:])", _is_public_address),
    _pattern(Kind.CREDIT_CARD, r"\d{4}[ \d-]{9}", r"(?<!\d)(?:\d{13,19}|\d{4}(?:[ -]\d{4}){3}|\d{4}[ -]\d{6}[ -]\d{5})(?!\d)", _is_card),
    _pattern(
        Kind.TELEPHONE,
        r"\d[\d ./()-]{6}",
        r"\+\d(?:[ .()-]{0,2}\d){7,14}(?!\d)"  # international
        r"|(?<![\d.])1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)"  # Chinese mobile
        r"|(?<![\d.])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}(?!\d)"  # North American
        r"|(?<![\d.])0\d{2,4}[ /-]\d{6,8}(?!\d)",  # with an area code
    ),
)


def found_in(text: str) -> Counter[Kind]:
    """How often something has the shape of each kind. What is one thing is not counted as another."""
    counts: Counter[Kind] = Counter()
    for pattern in PATTERNS:
        if pattern.needs.search(text):
            text = pattern.shape.sub(partial(_set_aside, pattern, counts), text)
    return counts


def _set_aside(pattern: Pattern, counts: Counter[Kind], place: re.Match[str]) -> str:
    if not pattern.holds(place.group()):
        return place.group()
    counts[pattern.kind] += 1
    return "\n"


class Findings:
    """How often each kind was found, and where first."""

    def __init__(self) -> None:
        self._counts: Counter[Kind] = Counter()
        self._lines: dict[Kind, list[int]] = {kind: [] for kind in Kind}

    def read(self, text: str, line: int) -> None:
        for kind, count in found_in(text).items():
            self._counts[kind] += count
            lines = self._lines[kind]
            if len(lines) < KEPT_LINES and line not in lines:
                lines.append(line)

    def to_json(self) -> list[dict[str, Any]]:
        """Every kind that was looked for, also those that were not found."""
        return [{"kind": str(kind), "count": self._counts[kind], "lines": self._lines[kind]} for kind in Kind]
