"""The numbers an evaluation gives, each a function of rows, one row for each item.

ROUGE is the rouge-score package's, BLEU and chrF are sacrebleu's; the other rows come from `inference.wording` and from
log-likelihoods. Shares and scores are in percent. Their packages are loaded when a suite asks for them: that takes most of a
second, and the process of every job knows this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from inference import intervals, wording
from inference.intervals import Interval, Rows, ValueOf

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric

MOST_LOSS = 700.0  # of a token, so that its exponential is still a number


def mean(sums: Sequence[float]) -> float:
    """Rows are (value, 1)."""
    return sums[0] / sums[1]


def percent(sums: Sequence[float]) -> float:
    return 100 * sums[0] / sums[1]


def perplexity(sums: Sequence[float]) -> float:
    """Rows are (sum of the tokens' losses in nats, tokens)."""
    return math.exp(min(sums[0] / sums[1], MOST_LOSS))


@cache
def _sacrebleu(name: str, tokenize: str = "none") -> SacreMetric:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(tokenize=tokenize) if name == "bleu" else CHRF()


def bleu(sums: Sequence[float]) -> float:
    """Rows are sacrebleu's statistics of a sentence."""
    return float(_sacrebleu("bleu")._compute_score_from_stats(list(sums)).score)


def chrf(sums: Sequence[float]) -> float:
    """Rows are sacrebleu's statistics of a sentence."""
    return float(_sacrebleu("chrf")._compute_score_from_stats(list(sums)).score)


@dataclass(frozen=True)
class Metric:
    name: str
    value_of: ValueOf
    unit: str = ""
    lower_is_better: bool = False
    is_share: bool = False  # every row is (0 or 1, 1)

    def interval(self, rows: Rows) -> Interval:
        if self.is_share:
            found = intervals.wilson(intervals.sums(rows)[0], len(rows))
            return Interval(100 * found.low, 100 * found.high)
        return intervals.bootstrap(rows, self.value_of)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("perplexity", perplexity, lower_is_better=True),
        Metric("exact_match", percent, "%", is_share=True),
        Metric("f1", percent, "%"),
        Metric("rouge_1", percent, "%"),
        Metric("rouge_2", percent, "%"),
        Metric("rouge_l", percent, "%"),
        Metric("bleu", bleu),
        Metric("chrf", chrf),
        Metric("acc", percent, "%", is_share=True),
        Metric("acc_norm", percent, "%", is_share=True),
        Metric("json_valid", percent, "%", is_share=True),
        Metric("json_keys", percent, "%", is_share=True),
        Metric("refused_harmful", percent, "%", is_share=True),
        Metric("answered_harmless", percent, "%", is_share=True),
        Metric("coarse", percent, "%", lower_is_better=True, is_share=True),
        Metric("stereotype", percent, "%", is_share=True),  # half of them, 50 %, is no preference
        Metric("likelihood_gap", mean, lower_is_better=True),
        Metric("tokens_per_s", mean),
        Metric("first_token_ms", mean, "ms", lower_is_better=True),
        Metric("memory_mb", mean, "MB", lower_is_better=True),
    )
}


def flag(value: bool | float) -> list[float]:
    return [float(value), 1.0]


def measured(name: str, rows: Rows, beside: Rows | None = None) -> dict[str, Any]:
    """A metric's value and 95 % interval, and those of its difference to what `beside` gives on the same items."""
    metric = METRICS[name]
    value, found = metric.value_of(intervals.sums(rows)), metric.interval(rows)
    said: dict[str, Any] = {"name": name, "value": value, "low": found.low, "high": found.high, "items": len(rows)}
    said |= {"unit": metric.unit, "lower_is_better": metric.lower_is_better, "base_value": None, "difference": None}
    if beside is not None:
        base_value = metric.value_of(intervals.sums(beside))
        apart = intervals.difference(rows, beside, metric.value_of)
        said |= {"base_value": base_value, "difference": value - base_value}
        said |= {"difference_low": apart.low, "difference_high": apart.high}
    return said


# ---------------------------------------------------------------- rows of answers


class _Words:
    """The ROUGE package's tokenizer, and one that does not lose what is not written in Latin letters."""

    def tokenize(self, text: str) -> list[str]:
        return wording.words(text)


_ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def rows_of_answers(name: str, answers: Sequence[str], expected: Sequence[Sequence[str]]) -> list[list[float]]:
    """Of a metric that compares each answer with the expected ones, of which the nearest counts."""
    if name in _ROUGE:
        from rouge_score.rouge_scorer import RougeScorer

        scorer, kind = RougeScorer([_ROUGE[name]], tokenizer=_Words()), _ROUGE[name]
        return [flag(scorer.score_multi(list(right), answer)[kind].fmeasure) for answer, right in zip(answers, expected, strict=True)]
    if name in ("bleu", "chrf"):
        tokenize = "zh" if wording.is_chinese([right for rights in expected for right in rights]) else "13a"
        return _rows_of_sacrebleu(_sacrebleu(name, tokenize), answers, expected)
    of_one: Callable[[str, Sequence[str]], float] = {"exact_match": wording.exact_match, "f1": wording.f1}[name]
    return [flag(of_one(answer, right)) for answer, right in zip(answers, expected, strict=True)]


def _rows_of_sacrebleu(metric: SacreMetric, answers: Sequence[str], expected: Sequence[Sequence[str]]) -> list[list[float]]:
    most = max(map(len, expected))
    references = [[rights[at] if at < len(rights) else None for rights in expected] for at in range(most)]
    return [[float(number) for number in row] for row in metric._extract_corpus_statistics(list(answers), references)]
