"""The demo's training data: it passes the store's own check, no two examples are alike, and all have the one form they teach."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import store
from inference.datasets import validate
from inference.recipe import Recipe
from inference.tokenizer import Tokenizer
from store.jobs.finetunes import checked_settings
from tests.inference.tiny import tiny_base

FOLDER = Path(store.__file__).parent / "pages" / "demo" / "glossary"
FILES = {"cards.jsonl": 320, "held_out.jsonl": 48}
CARD = re.compile(
    r"\*\*(?P<term>[^*\n]+)\*\*\n(?P<sentence>[^\n]+\.)\nExample: (?P<example>[^\n]+\.)\nSee also: (?P<first>[^,\n]+), (?P<second>[^,\n]+)"
)
BY_FILE = pytest.mark.parametrize("name", FILES)


def conversations(name: str) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def cards(*names: str) -> list[re.Match[str]]:
    found = [CARD.fullmatch(messages[-1]["content"]) for name in names for messages in conversations(name)]
    assert None not in found
    return [card for card in found if card is not None]


@BY_FILE
def test_the_stores_own_check_finds_nothing_wrong_and_nothing_personal(name: str, tmp_path: Path) -> None:
    report = validate(FOLDER / name, Tokenizer.from_folder(tiny_base(tmp_path)), max_length=1024)

    assert (report.examples, report.problems, report.skipped, report.duplicates) == (FILES[name], (), 0, 0)
    assert [finding for finding in report.findings if finding["count"]] == []
    assert report.format == "chat"
    assert set(report.scripts) == {"latin"}


@pytest.mark.real_model
@BY_FILE
def test_no_example_is_longer_than_the_demos_fine_tune_reads(name: str, smollm2_folder: Path) -> None:
    recipe = json.loads((FOLDER / "recipe.json").read_text(encoding="utf-8"))

    report = validate(FOLDER / name, Tokenizer.from_folder(smollm2_folder), max_length=recipe["max_length"])

    assert report.skipped == 0


@BY_FILE
def test_every_conversation_is_one_question_and_one_card(name: str) -> None:
    for messages in conversations(name):
        assert [message["role"] for message in messages] == ["user", "assistant"]
        card = CARD.fullmatch(messages[1]["content"])
        assert card is not None, messages[1]["content"]
        term = card["term"].lower()
        assert term in messages[0]["content"].lower()
        assert term in card["sentence"].lower()
        assert term not in {card["first"].lower(), card["second"].lower()}


def test_no_term_comes_twice_and_what_is_held_out_is_not_trained_on() -> None:
    terms = Counter(card["term"].lower() for card in cards(*FILES))
    sentences = Counter(card[part] for card in cards(*FILES) for part in ("sentence", "example"))

    assert [term for term, count in terms.items() if count > 1] == []
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def test_the_recipe_holds_settings_that_store_and_worker_know() -> None:
    recipe = json.loads((FOLDER / "recipe.json").read_text(encoding="utf-8"))

    chosen = checked_settings(recipe)

    assert chosen | recipe == chosen
    assert Recipe.from_json(chosen).batch_size == recipe["batch_size"]
