"""Training data: which tokens are learned, what a report counts, and that training refuses what validation refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from inference import job_kinds
from inference.datasets import Pair, UnusableDataset, load_examples, load_pairs, load_texts, validate
from inference.examples import Example, encode
from inference.problems import BadExample
from inference.protocol import JobTask
from inference.tokenizer import Tokenizer
from tests.inference.job_bench import Place, Told, chat_file, chat_line
from tests.inference.tiny import tiny_base


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


def test_the_assistants_words_and_its_end_are_learned_and_nothing_else(tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Paris."},
    ]

    example = encode(messages, tokenizer)

    learned = [token for token, trained in zip(example.tokens, example.trained, strict=True) if trained]
    (end,) = tokenizer.encode("<|im_end|>")
    assert learned == [*tokenizer.encode("Hello!"), end, *tokenizer.encode("Paris."), end]
    assert list(example.tokens) == tokenizer.render(messages, add_generation_prompt=False)


def test_an_end_mark_that_a_message_spells_out_is_plain_text(tokenizer: Tokenizer) -> None:
    example = encode([{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "No."}], tokenizer)

    (end,) = tokenizer.encode("<|im_end|>")
    assert example.tokens.count(end) == 2


def test_a_template_that_rewrites_what_stood_before_is_refused(tokenizer: Tokenizer) -> None:
    class Forgetful:
        eos_ids, end_id = tokenizer.eos_ids, tokenizer.end_id

        def encode_plain(self, text: str) -> list[int]:
            return tokenizer.encode_plain(text)

        def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]:
            return tokenizer.render(messages[-1:], add_generation_prompt)

        def decode(self, tokens: list[int]) -> str:
            return tokenizer.decode(tokens)

    with pytest.raises(BadExample) as refused:
        encode([{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}], Forgetful())

    assert refused.value.code == "template_not_prefix"


def test_a_report_counts_everything_and_previews_what_is_learned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + chat_line("Hello?", "Hello!"),
        b"",
        chat_line("Hello?", "Hello!"),
        b"{",
        chat_line("x " * 200, "y"),
        b'["a"]',
    ]

    report = validate(chat_file(tmp_path / "data.jsonl", lines), tokenizer, max_length=64)

    assert (report.lines, report.examples, report.duplicates, report.skipped) == (6, 2, 1, 1)
    assert (report.error_count, report.problem_count, report.valid) == (2, 3, False)
    assert [(p.line, p.code, p.skips) for p in report.problems] == [
        (4, "not_json", False),
        (5, "too_long", True),
        (6, "not_an_object", False),
    ]
    assert "".join(run["text"] for run in report.preview[0] if run["trained"]) == "Hello!"
    assert json.dumps(report.to_json())


def test_only_the_first_problems_are_kept_and_all_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    report = validate(chat_file(tmp_path / "data.jsonl", [b"{"] * 250), tokenizer, max_length=64)

    assert (report.error_count, len(report.problems)) == (250, 100)


def test_a_file_of_nothing_is_said_to_be_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    empty, long = tmp_path / "empty.jsonl", chat_file(tmp_path / "long.jsonl", [chat_line("x " * 200, "y")])
    empty.write_bytes(b"\n\n")

    assert [p.code for p in validate(empty, tokenizer, max_length=64).problems] == ["no_examples"]
    assert [p.code for p in validate(long, tokenizer, max_length=64).problems] == ["too_long", "no_examples"]


def test_training_refuses_what_validation_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = chat_file(tmp_path / "data.jsonl", [chat_line("Hello?", "Hello!"), b"{"])

    with pytest.raises(UnusableDataset) as refused:
        load_examples(file, tokenizer, max_length=64)

    assert (refused.value.problem.line, refused.value.problem.code) == (2, "not_json")


def learned(example: Example, tokenizer: Tokenizer) -> str:
    return tokenizer.decode([token for token, trained in zip(example.tokens, example.trained, strict=True) if trained])


def jsonl(path: Path, *values: object) -> Path:
    return chat_file(path, [json.dumps(value).encode() for value in values])


def test_a_prompt_and_its_completion_are_a_conversation_of_two_turns(tokenizer: Tokenizer, tmp_path: Path) -> None:
    asked = {"prompt": "Hello?", "completion": "Hello!"}
    file = jsonl(tmp_path / "data.jsonl", asked, {"system": "Be brief.", **asked})

    bare, told = load_examples(file, tokenizer, max_length=64)

    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}]
    assert bare == encode(turns, tokenizer, line=1)
    assert told == encode([{"role": "system", "content": "Be brief."}, *turns], tokenizer, line=2)


def test_a_pair_has_one_prompt_and_only_its_answers_are_learned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    earlier = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And now?"},
    ]
    file = jsonl(tmp_path / "data.jsonl", {"prompt": earlier, "chosen": "Paris.", "rejected": "system user"})

    (pair,) = load_pairs(file, tokenizer, max_length=128)

    prompt = tokenizer.render(earlier, add_generation_prompt=True)
    for side in (pair.chosen, pair.rejected):
        assert list(side.tokens[: len(prompt)]) == prompt
        assert not any(side.trained[: len(prompt)])
    assert (learned(pair.chosen, tokenizer), learned(pair.rejected, tokenizer)) == ("Paris.", "system user")
    assert pair.chosen.trained_tokens == len(tokenizer.encode("Paris.")) + 1  # its end too


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."},
        {
            "prompt": [{"role": "user", "content": "Hello?"}],
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
        {
            "input": {"messages": [{"role": "user", "content": "Hello?"}], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": "Yes."}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
    ],
)
def test_preferences_are_read_in_each_of_their_shapes(tokenizer: Tokenizer, tmp_path: Path, value: object) -> None:
    (pair,) = load_pairs(jsonl(tmp_path / "data.jsonl", value), tokenizer, max_length=64)

    asked = {"role": "user", "content": "Hello?"}
    expected = [encode([asked, {"role": "assistant", "content": answer}], tokenizer, line=1) for answer in ("Yes.", "No.")]
    assert pair == Pair(*expected)


def test_a_pair_is_as_long_as_its_longer_side(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "data.jsonl",
        {"prompt": "Hello?", "chosen": "Yes.", "rejected": "x " * 200},
        {"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."},
    )

    report = validate(file, tokenizer, max_length=64, use="preference")
    pairs = load_pairs(file, tokenizer, max_length=64)

    assert [pair.line for pair in pairs] == [2]
    assert (report.examples, report.skipped, report.format, report.valid) == (1, 1, "preference", True)
    assert [run["text"] for run in report.preview[0] if run["trained"] and not run.get("rejected")] == ["Yes."]
    assert [run["text"] for run in report.preview[0] if run.get("rejected")] == ["No."]


def test_answers_that_the_template_makes_the_same_are_no_preference(tokenizer: Tokenizer, tmp_path: Path) -> None:
    class Trimming:
        eos_ids, end_id = tokenizer.eos_ids, tokenizer.end_id
        decode, encode_plain = staticmethod(tokenizer.decode), staticmethod(tokenizer.encode_plain)

        def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]:
            return tokenizer.render([{**message, "content": message["content"].strip()} for message in messages], add_generation_prompt)

    file = jsonl(tmp_path / "data.jsonl", {"prompt": "Hello?", "chosen": "Yes.", "rejected": "Yes. "})

    report = validate(file, Trimming(), max_length=64, use="preference")

    assert [problem.code for problem in report.problems] == ["same_answers"]


def test_all_of_a_text_is_learned_and_its_end_token_with_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_text("Hello! How\ncan I help?\n\n\nThe capital <|im_end|>\n")

    first, second = load_texts(file, tokenizer, max_length=64)

    assert list(first.tokens) == [*tokenizer.encode("Hello! How\ncan I help?"), tokenizer.end_id]
    assert list(second.tokens) == [*tokenizer.encode_plain("The capital <|im_end|>"), tokenizer.end_id]
    assert not first.trained[0]  # nothing stands before it
    assert all(first.trained[1:])
    assert (first.line, second.line) == (1, 5)
    assert tokenizer.end_id not in second.tokens[:-1]


def test_a_long_text_is_learned_in_pieces_and_none_of_it_is_lost(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "Hello! How can I help you today? " * 20
    file = jsonl(tmp_path / "data.jsonl", {"text": text})

    pieces = load_texts(file, tokenizer, max_length=50)

    assert max(len(piece.tokens) for piece in pieces) == 50
    assert [token for piece in pieces for token in piece.tokens] == [*tokenizer.encode(text), tokenizer.end_id]


def test_a_token_of_a_corpus_takes_about_five_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tale.txt").write_text("Hello! How can I help you today?\n" * 2500)

    (piece,) = load_texts(tmp_path / "tale.txt", tokenizer, max_length=1_000_000)

    assert len(piece.tokens) > 10_000
    assert (sys.getsizeof(piece.tokens) + sys.getsizeof(piece.trained)) / len(piece.tokens) < 6


@pytest.mark.parametrize(
    ("value", "use", "found"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "supervised", "preference"),
        ({"text": "a"}, "supervised", "text"),
        ({"prompt": "a", "completion": "b"}, "preference", "completion"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "text", "chat"),
    ],
)
def test_a_file_for_another_way_of_training_is_one_clear_error(
    tokenizer: Tokenizer, tmp_path: Path, value: object, use: str, found: str
) -> None:
    report = validate(jsonl(tmp_path / "data.jsonl", value, value), tokenizer, max_length=64, use=use)

    assert [(p.line, p.code, p.detail) for p in report.problems] == [(1, "wrong_format", {"format": found, "use": use})]
    assert (report.valid, report.format) == (False, found)


def test_the_trainer_is_told_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "data.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})

    with pytest.raises(UnusableDataset) as refused:
        load_examples(file, tokenizer, max_length=64)

    assert refused.value.problem.code == "wrong_format"


@pytest.mark.parametrize(
    ("line", "use", "valid"),
    [
        ({"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."}, None, False),
        ({"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."}, "preference", True),
        ({"text": "Hello!"}, "supervised", False),
        ({"text": "Hello!"}, "text", True),
        ({"prompt": "Hello?", "completion": "Hello!"}, None, True),
    ],
)
def test_a_validation_job_says_whether_the_file_is_for_its_use(tmp_path: Path, line: object, use: str | None, valid: bool) -> None:
    place = Place(tmp_path)
    params = {"file": place.put_data([json.dumps(line).encode()] * 250), "base": place.base, "max_length": 64, "name": "a.jsonl"}
    task = JobTask(job="job_v", attempt=1, kind="validation", params=params | ({"use": use} if use else {}))
    told = Told()

    report = job_kinds.validate(task, place.bench(told))

    assert (report["valid"], report["error_count"]) == (valid, int(not valid))
    assert any("rendered" in said for said in told.said) == valid
    assert json.loads(json.dumps(report))["container"] == "jsonl"
