"""Copies: which texts are the same or nearly, and how many of what is held out is trained on all the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from inference import job_kinds
from inference.batching import split
from inference.copies import NEAR, Copies
from inference.datasets import Use, load_examples, validate
from inference.protocol import JobTask
from inference.recipe import Recipe
from inference.tokenizer import Tokenizer
from tests.inference.job_bench import Place, Told, chat_file, chat_line
from tests.inference.tiny import tiny_base

WORDS = [
    first + last for first in ("ba", "de", "ki", "lo", "mu", "ra", "se", "to", "vi", "zu") for last in ("lan", "mer", "nok", "pir", "tas")
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


def told(seed: int, words: int = 60) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def grouped(*texts: str) -> list[int]:
    copies = Copies()
    for text in texts:
        copies.read(text)
    return copies.groups


def index_of(one: list[str], other: list[str]) -> float:
    """The Jaccard index of all runs of three words, written out."""
    a, b = ({tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in (one, other))
    return len(a & b) / len(a | b)


def test_case_and_spaces_make_no_difference_and_signs_hardly_any() -> None:
    copies = Copies()
    for text in ("What is the sea?", "what  IS the\nsea?", "What is the sea!", "What is the sky?"):
        copies.read(text)

    assert copies.groups == [0, 0, 0, 3]
    assert copies.exact[0] == copies.exact[1] != copies.exact[2]
    assert copies.near_count == 1


def test_a_few_other_words_in_a_long_text_leave_it_a_copy_and_many_do_not() -> None:
    text = told(1, 200)
    few, many = list(text), list(text)
    few[40:42] = ["somewhere", "else"]
    many[::7] = ["other"] * len(many[::7])

    assert index_of(text, few) > NEAR > index_of(text, many)
    assert grouped(*map(" ".join, (text, few, many))) == [0, 0, 2]


def test_the_same_words_in_another_order_are_another_text() -> None:
    words = told(2)

    assert grouped(" ".join(words), " ".join(reversed(words))) == [0, 1]


def test_chinese_is_compared_sign_by_sign() -> None:
    text = "潮汐是海水在月球和太阳引力作用下产生的周期性涨落现象,每天大约发生两次,沿海居民早已熟悉它的规律。"

    assert grouped(text, text.replace("居民", "渔民"), "今天天气很好,我们去公园散步。") == [0, 0, 2]


def test_all_copies_are_found_among_many_texts_and_nothing_else_is() -> None:
    chooser = random.Random(3)
    texts = [told(seed, chooser.randint(10, 120)) for seed in range(400)]
    copied = [[*text[:30], "so", *text[30:]] for text in texts[::4] if len(text) > 60]
    whole = [text for text in texts[::4] if len(text) > 60]

    copies = Copies()
    for text in texts + copied:
        copies.read(" ".join(text))

    assert all(index_of(one, other) > NEAR for one, other in zip(whole, copied, strict=True))
    assert copies.groups[:400] == list(range(400))
    found = [copies.groups[400 + at] == texts.index(text) for at, text in enumerate(whole)]
    assert sum(found) / len(found) > 0.95  # of a long text the index is known within a few hundredths
    assert len(found) > 30


def test_a_report_counts_what_the_run_holds_out_and_trains_on_all_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    answers = [f"{' '.join(told(seed))}." for seed in range(40)]
    path = chat_file(tmp_path / "data.jsonl", [chat_line("Tell me.", answer) for answer in answers])
    recipe = Recipe(validation_share=0.25, seed=9)
    _, held = split(load_examples(path, tokenizer, max_length=512), recipe)
    lines = [example.line for example in held]
    rows = [chat_line("Tell me.", answer) for answer in answers]
    trained = next(at for at in range(40) if at + 1 not in lines)
    rows[lines[0] - 1] = rows[trained].replace(b"Tell me.", b"TELL  me.")
    rows[lines[1] - 1] = chat_line("Tell me!", answers[trained].replace(answers[trained].split()[5], "indeed", 1))
    rows[lines[2] - 1] = rows[lines[3] - 1]  # both are held out: nothing of them is trained on
    chat_file(path, rows)

    report = validate(path, tokenizer, max_length=512, validation_share=0.25, seed=9)

    found = report.overlap
    assert (found.held_out, found.exact, found.near, found.lines) == (10, 1, 1, tuple(sorted(lines[:2])))
    assert (report.duplicates, report.near_duplicates) == (1, 1)


def test_what_the_system_is_told_everywhere_makes_no_copies(tokenizer: Tokenizer, tmp_path: Path) -> None:
    system = {"role": "system", "content": " ".join(told(1, 100))}
    rows = [
        {"messages": [system, {"role": "user", "content": word}, {"role": "assistant", "content": f"{word}s."}]}
        for word in sorted({*WORDS})
    ]

    report = validate(chat_file(tmp_path / "d.jsonl", [json.dumps(row).encode() for row in rows]), tokenizer, max_length=2048)

    assert (report.near_duplicates, report.overlap.exact, report.overlap.near) == (0, 0, 0)


def test_pieces_of_one_text_are_no_copies_of_each_other(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tale.txt").write_text("the sea is wide and the sea is deep\n" * 200)

    report = validate(tmp_path / "tale.txt", tokenizer, max_length=32, use=Use.TEXT)

    assert report.examples > 10
    assert (report.overlap.held_out, report.overlap.exact, report.overlap.near) == (round(report.examples / 10), 0, 0)


def test_a_validation_looks_at_what_its_run_will_hold_out(tmp_path: Path) -> None:
    place = Place(tmp_path)
    params = {"file": place.data, "base": place.base, "adapter": None, "max_length": 128, "validation_share": 0.5, "seed": 3}

    result = job_kinds.validate(JobTask(job="job_a", attempt=1, kind="validation", params=params), place.bench(Told()))

    assert result["overlap"] == {"held_out": 5, "exact": 0, "near": 0, "lines": ()}
