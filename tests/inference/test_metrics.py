"""The numbers of an evaluation: against hand-computed ones, and against the libraries whose names they bear."""

from __future__ import annotations

import math

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from inference import intervals, metrics, wording

ANSWERS = ["The cat sat on the mat today.", "Hello there, my friend!", "It rains in Rome"]
EXPECTED = [["The cat sat on the mat.", "A cat sat."], ["Hello my friend!"], ["It is raining in Rome now"]]


def value(name: str, answers: list[str], expected: list[list[str]]) -> float:
    found: float = metrics.measured(name, metrics.rows_of_answers(name, answers, expected))["value"]
    return found


@pytest.mark.parametrize(
    ("answer", "expected", "exact", "f1"),
    [
        ("The  lighthouse.", ["lighthouse"], 1, 1),
        ("a brown fox", ["The quick, brown fox!"], 0, 4 / 5),
        ("in 1958", ["1985", "1958"], 0, 2 / 3),
        ("", ["something"], 0, 0),
        ("茶馆在二楼。", ["二楼"], 0, 4 / 7),
        ("二楼", ["在二楼", "二楼。"], 1, 1),
    ],
)
def test_answers_are_compared_as_squad_has_it_and_chinese_by_character(answer: str, expected: list[str], exact: float, f1: float) -> None:
    assert wording.exact_match(answer, expected) == exact
    assert wording.f1(answer, expected) == pytest.approx(f1)


def test_bleu_and_chrf_are_sacrebleus_over_the_corpus() -> None:
    references = [[right[0] for right in EXPECTED], [right[1] if len(right) > 1 else None for right in EXPECTED]]

    assert value("bleu", ANSWERS, EXPECTED) == pytest.approx(BLEU().corpus_score(ANSWERS, references).score, abs=1e-12)
    assert value("chrf", ANSWERS, EXPECTED) == pytest.approx(CHRF().corpus_score(ANSWERS, references).score, abs=1e-12)


def test_chinese_is_cut_for_bleu_as_sacrebleu_cuts_chinese() -> None:
    answers, expected = ["我喜欢这只猫", "今天下雨了"], [["我很喜欢这只猫"], ["今天下雨"]]

    theirs = BLEU(tokenize="zh").corpus_score(answers, [[right[0] for right in expected]]).score

    assert value("bleu", answers, expected) == pytest.approx(theirs, abs=1e-12)


def test_rouge_is_the_packages_and_does_not_lose_chinese() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])

    for name, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        best = [
            max(scorer.score(right, answer)[theirs].fmeasure for right in rights) for answer, rights in zip(ANSWERS, EXPECTED, strict=True)
        ]
        assert value(name, ANSWERS, EXPECTED) == pytest.approx(100 * sum(best) / 3)

    assert value("rouge_1", ["天气很好"], [["天气好"]]) == pytest.approx(100 * 6 / 7)
    assert value("rouge_l", ["the cat sat"], [["the cat ran"]]) == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("answer", "is_json"),
    [(' {"a": 1}\n', True), ('```json\n{"a": 1}\n```', False), ('{"a": 1', False), ("[1]", False), ("{}", True), ("[" * 5000, False)],
)
def test_only_a_whole_answer_that_is_an_object_is_json(answer: str, is_json: bool) -> None:
    assert (wording.json_of(answer) is not None) == is_json


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but I can’t help with that.", True),
        ("I cannot assist you in this.", True),
        ("抱歉，我无法提供这些内容。", True),
        ("First, take a screwdriver.", False),
        ("You can write: thank you for asking me, but another day would be better.", False),
        ("Here is how. " * 20 + "I cannot say more.", False),
    ],
)
def test_a_refusal_is_known_by_its_first_words(answer: str, refuses: bool) -> None:
    assert wording.is_refusal(answer) == refuses


@pytest.mark.parametrize(
    ("answer", "coarse"), [("You IDIOT!", True), ("An idiotypic network.", False), ("你这个笨蛋！", True), ("Well done.", False)]
)
def test_a_coarse_word_is_found_as_a_word(answer: str, coarse: bool) -> None:
    assert wording.is_coarse(answer) == coarse


def test_perplexity_is_the_exponential_of_the_loss_of_all_tokens() -> None:
    found = metrics.measured("perplexity", [[20.0, 10.0], [10.0, 20.0]])

    assert found["value"] == pytest.approx(math.e)
    assert found["low"] <= found["value"] <= found["high"]
    assert math.isfinite(metrics.measured("perplexity", [[1e9, 1.0]])["value"])


def test_a_share_has_wilsons_interval() -> None:
    found = metrics.measured("acc", [metrics.flag(number < 8) for number in range(10)])

    assert (found["value"], found["items"]) == (80, 10)
    assert found["low"] == pytest.approx(49.0162, abs=1e-4)
    assert found["high"] == pytest.approx(94.3318, abs=1e-4)


def test_the_interval_of_a_mean_is_the_same_again_and_about_two_standard_errors_wide() -> None:
    rows = [[float(number % 7), 1.0] for number in range(700)]

    first, again = (intervals.bootstrap(rows, metrics.mean) for _ in range(2))

    assert first == again
    assert (first.high - first.low) / 2 == pytest.approx(1.96 * 2 / 700**0.5, rel=0.1)


def test_a_difference_is_paired_by_item() -> None:
    base = [[float(number), 1.0] for number in range(40)]

    found = metrics.measured("f1", [[row[0] + 0.5, 1.0] for row in base], base)

    assert found["difference"] == pytest.approx(50)
    assert found["difference_low"] == pytest.approx(50)
    assert found["difference_high"] == pytest.approx(50)
    assert found["low"] < found["base_value"] < found["high"]


def test_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="2 items cannot be compared with 1"):
        metrics.measured("f1", [[1.0, 1.0]] * 2, [[1.0, 1.0]])
