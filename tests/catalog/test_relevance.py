"""The relevance set keeps its score; `python -m benchmarks.relevance --worst 10` says where it is lost."""

from __future__ import annotations

import pytest

from benchmarks import relevance

BOUNDS = {"en": (0.90, 0.95), "zh": (0.90, 0.95)}  # nDCG@10, recall@5


@pytest.mark.django_db
def test_search_finds_what_people_ask_for_in_both_languages() -> None:
    relevance.fill()

    scores = relevance.score()

    for language, (gained, recalled) in relevance.means(scores).items():
        least_gained, least_recalled = BOUNDS[language]
        worst = [(one.q, one.found) for one in sorted(scores, key=lambda one: one.ndcg)[:5]]
        assert gained >= least_gained, worst
        assert recalled >= least_recalled, worst


@pytest.mark.parametrize(
    ("found", "gained", "recalled"), [(("a", "b"), 1.0, 1.0), (("b", "a"), 0.7098, 1.0), (("x", "a"), 0.5788, 1.0), ((), 0.0, 0.0)]
)
def test_how_a_score_is_counted(found: tuple[str, ...], gained: float, recalled: float) -> None:
    assert relevance.ndcg(found, {"a": 3, "b": 1}) == pytest.approx(gained, abs=1e-4)
    assert relevance.recall(found, {"a": 3, "b": 1}) == recalled
    assert relevance.ndcg((), {}) == 1.0
