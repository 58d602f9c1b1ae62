"""Answers that follow a rule, whatever the model would say by itself; and rules that harm nobody but who asked for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from inference import grammar_trial, grammars
from inference.engine import EngineCore
from inference.grammar import Constraint, GrammarRefused, GrammarTooSlow
from inference.grammars import Grammars
from inference.model import GPT
from inference.native import NativeRunner
from inference.protocol import FailureCode, FinishReason
from inference.runner import Runner, TorchRunner
from inference.sampling_params import Form, Grammar, InvalidSampling, SamplingParams
from inference.tokenizer import Tokenizer
from tests.inference.asking import PROMPTS, Outcome, a_request, an_engine, an_engine_with, finish, outcomes, run, texts
from tests.inference.tiny import tiny_base, write_json

WORD = {"type": "string", "maxLength": 6}
PERSON = {
    "type": "object",
    "properties": {
        "name": WORD,
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["red", "绿", "blue"]}, "maxItems": 3},
        "address": {"type": "object", "properties": {"town": WORD}, "required": ["town"], "additionalProperties": False},
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    PERSON,
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"const": None}, {"type": "integer", "minimum": -9, "maximum": 9}]},
    {"type": "string", "pattern": "^[a-c]{2,5}$"},
    {"$defs": {"leaf": {"type": "array", "items": WORD, "maxItems": 2}}, "type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2},
]
REGEXES = [r"[0-9]{4}-[01][0-9]", r"(yes|no), because [a-z ]{3,12}\.", r"[一-龥]{2,4}!"]
CHOICES = ("positive", "negative", 'neither "so" nor\nso', "不知道")
# References that lead to references end a process that follows them to the end.
ENDLESS = {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(600)} | {"d600": {}}}
HEAVY = "(" + "a*" * 1500 + ")*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=[TorchRunner, NativeRunner], ids=["torch", "native"])
def engine(folder: Path, request: pytest.FixtureRequest) -> EngineCore:
    run_with: Callable[[GPT, int], Runner] = request.param
    return an_engine_with(folder, run_with)


@pytest.fixture(scope="module")
def one(folder: Path) -> EngineCore:
    return an_engine(folder)


def asked(kind: Form, value: Any = "", text: str = "Hello!", **fields: Any) -> Any:
    return a_request(text, grammar=Grammar(kind, value), **{"max_tokens": 300} | fields)


def refused(outcome: Outcome) -> str:
    """The reason."""
    assert (outcome.finished.reason, outcome.finished.failure) == (FinishReason.ERROR, FailureCode.GRAMMAR_UNSUPPORTED)
    assert outcome.text == ""
    return str(outcome.finished.detail["reason"])


# ---------------------------------------------------------------- answers that follow their rule


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.5, "seed": 7}, {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "seed": 1}], ids=str
)
def test_an_answer_is_json_that_its_schema_allows(engine: EngineCore, schema: dict[str, Any], sampling: dict[str, Any]) -> None:
    for prompt in PROMPTS[:3]:
        (outcome,) = run(engine, asked(Form.JSON_SCHEMA, schema, prompt, **sampling))

        assert outcome.finished.reason == FinishReason.STOP
        jsonschema.validate(json.loads(outcome.text), schema)


def test_json_without_a_schema_is_an_object(one: EngineCore) -> None:
    closing = {str(token): 9.0 for token in range(one.config.vocab_size) if one.tokenizer.vocabulary.text_of(token) in ('"', "}", ":")}

    found = [run(one, asked(Form.JSON, temperature=1.0, seed=seed, logit_bias=closing))[0] for seed in range(3)]

    assert {outcome.finished.reason for outcome in found} == {FinishReason.STOP}
    assert all(isinstance(json.loads(outcome.text), dict) for outcome in found)


@pytest.mark.parametrize("regex", REGEXES)
def test_an_answer_matches_its_regular_expression(engine: EngineCore, regex: str) -> None:
    found = texts([run(engine, asked(Form.REGEX, regex, temperature=1.0, seed=seed))[0] for seed in range(3)])

    assert all(re.fullmatch(regex, text) for text in found), found


def test_an_answer_is_one_of_its_choices(engine: EngineCore) -> None:
    found = texts([run(engine, asked(Form.CHOICE, CHOICES, temperature=2.0, seed=seed))[0] for seed in range(12)])

    assert set(found) <= set(CHOICES)
    assert len(set(found)) > 1


def test_rows_without_a_rule_say_what_they_say_alone(engine: EngineCore) -> None:
    free = [a_request(text, max_tokens=40, temperature=temperature, seed=4) for text in PROMPTS[:3] for temperature in (0.0, 0.8)]
    alone = [texts(run(engine, request))[0] for request in free]
    ruled = [asked(Form.JSON_SCHEMA, PERSON), asked(Form.CHOICE, CHOICES), asked(Form.REGEX, REGEXES[0], temperature=0.9, seed=2)]
    ruled_alone = [texts(run(engine, request))[0] for request in ruled]

    together = texts(run(engine, *[one for pair in zip(free, [*ruled, *ruled], strict=True) for one in pair if one not in ruled], *ruled))

    assert together == [*alone, *ruled_alone]


def test_several_answers_to_one_prompt_each_follow_the_rule(one: EngineCore) -> None:
    request = asked(Form.JSON_SCHEMA, PERSON, n=3, temperature=1.2, seed=5)

    (outcome,) = run(one, request)

    said = ["".join(delta.text for delta in outcome.deltas if delta.choice == choice) for choice in range(3)]
    assert len(set(said)) == 3
    for text in said:
        jsonschema.validate(json.loads(text), PERSON)


def test_an_answer_that_lost_its_turn_goes_on_where_it_was(folder: Path) -> None:
    requests = [asked(Form.JSON_SCHEMA, PERSON, text, temperature=0.9, seed=3) for text in ("Tell me " * 6, "rate it " * 9, "ask " * 12)]
    expected = [texts(run(an_engine(folder), request))[0] for request in requests]
    narrow = an_engine(folder, cache_tokens=288)

    found = texts(run(narrow, *requests))

    assert narrow.stats()["preemptions"] > 0
    assert found == expected


def test_a_bias_or_a_penalty_cannot_break_the_rule(one: EngineCore) -> None:
    against = {str(token): -100.0 if token % 2 else 100.0 for token in range(0, 440)}

    (outcome,) = run(one, asked(Form.JSON_SCHEMA, PERSON, logit_bias=against, frequency_penalty=2.0))

    jsonschema.validate(json.loads(outcome.text), PERSON)


def test_a_complete_answer_ends_whatever_else_is_asked(one: EngineCore) -> None:
    for also in ({"ignore_eos": True}, {"min_tokens": 200}, {"min_tokens": 200, "ignore_eos": True}):
        (outcome,) = run(one, asked(Form.CHOICE, ("Paris",), **also))

        assert (outcome.text, outcome.finished.reason) == ("Paris", FinishReason.STOP)


def test_an_answer_that_may_go_on_does_where_its_end_is_to_be_ignored(one: EngineCore) -> None:
    ending = {str(token): 100.0 for token in one.tokenizer.eos_ids}

    (ended,) = run(one, asked(Form.REGEX, "a+", max_tokens=20, logit_bias=ending))
    (ignoring,) = run(one, asked(Form.REGEX, "a+", max_tokens=20, logit_bias=ending, ignore_eos=True))

    assert (ended.text, ended.finished.reason) == ("a", FinishReason.STOP)
    assert set(ignoring.text) == {"a"}
    assert (ignoring.finished.usage["completion_tokens"], ignoring.finished.reason) == (20, FinishReason.LENGTH)


def test_a_stop_string_ends_an_answer_within_its_rule(one: EngineCore) -> None:
    (outcome,) = run(one, asked(Form.REGEX, "[0-9]{3}-[0-9]{3}", stop=("-",)))

    assert re.fullmatch("[0-9]{3}", outcome.text)


def test_a_model_without_a_token_that_ends_a_text_follows_no_rule(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "endless", eos_token_id=None)
    write_json(folder / "generation_config.json", {})
    write_json(folder / "tokenizer_config.json", {})

    (outcome,) = run(an_engine(folder), asked(Form.CHOICE, CHOICES))

    assert refused(outcome) == "this model has no token that ends a text"


@pytest.mark.parametrize("beyond", [1, 5, 32])
def test_a_vocabulary_padded_beyond_the_tokenizers_will_do(tmp_path: Path, beyond: int) -> None:
    folder = tiny_base(tmp_path / "padded", vocab_size=448 + beyond)
    write_json(folder / "generation_config.json", {"eos_token_id": [2, 447 + beyond]})

    (outcome,) = run(an_engine(folder), asked(Form.JSON_SCHEMA, PERSON, temperature=1.0, seed=1))

    jsonschema.validate(json.loads(outcome.text), PERSON)


def test_log_probabilities_are_told_of_each_token(one: EngineCore) -> None:
    (outcome,) = run(one, asked(Form.CHOICE, CHOICES, logprobs=1))

    told = [entry["token"] for delta in outcome.deltas for entry in delta.logprobs or []]
    assert "".join(told) == outcome.text
    assert one.stats()["guessed"] == 0


# ---------------------------------------------------------------- rules that are refused


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Form.JSON_SCHEMA, {"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"]'),
        (Form.JSON_SCHEMA, {"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
        (Form.JSON_SCHEMA, {"type": "text"}, "Invalid type: text"),
        (Form.JSON_SCHEMA, {"$ref": "https://example.com/schema"}, "https://example.com/schema"),
        (Form.JSON_SCHEMA, {"x-guidance": {"lenient": True}, "uniqueItems": True}, "x-guidance"),
        (Form.JSON_SCHEMA, {"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater than maximum (3)"),
        (Form.REGEX, "(?=a)b", "look-around"),
        (Form.REGEX, r"(a)\1", "backreferences"),
        (Form.REGEX, "(", "unclosed group"),
        (Form.REGEX, "a{0}", "no text follows it"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(one: EngineCore, kind: Form, value: Any, said: str) -> None:
    (outcome,) = run(one, asked(kind, value))

    assert said in refused(outcome)
    assert said in outcome.finished.message


@pytest.mark.parametrize(("kind", "value"), [(Form.JSON_SCHEMA, ENDLESS), (Form.REGEX, HEAVY)], ids=["endless", "heavy"])
def test_a_rule_that_needs_too_much_harms_no_other(one: EngineCore, kind: Form, value: Any) -> None:
    free = a_request("Tell me " * 4, max_tokens=40)
    (alone,) = texts(run(one, free))
    hostile = asked(kind, value)
    requests = [free, hostile, asked(Form.CHOICE, CHOICES)]

    found = run(one, *requests)

    assert found[0].text == alone
    assert refused(found[1])
    assert found[2].text in CHOICES


def test_a_trial_without_time_says_that_nothing_is_known(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    engine = an_engine(folder)
    monkeypatch.setattr(grammar_trial, "WAITED_S", 0.001)
    (overdue,) = run(engine, asked(Form.CHOICE, CHOICES))
    monkeypatch.undo()

    (outcome,) = run(engine, asked(Form.CHOICE, CHOICES))

    assert overdue.finished.failure == FailureCode.OVERLOADED
    assert outcome.text in CHOICES


def test_a_rule_that_holds_up_the_others_ends_its_own_answer_and_is_not_begun_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = an_engine(folder)
    slow, other = asked(Form.REGEX, "[a-z]{40}"), asked(Form.CHOICE, CHOICES)
    run(engine, slow, other)
    takes = Constraint.take

    def too_slow(self: Constraint, token: int) -> None:
        if self in [branch.choice.constraint for branch in engine.submitted.branches]:  # type: ignore[attr-defined]
            raise GrammarTooSlow("it takes too long")
        takes(self, token)

    engine.submitted = engine.submit(slow)  # type: ignore[attr-defined]
    engine.submit(other)
    monkeypatch.setattr(Constraint, "take", too_slow)
    first, second = outcomes(finish(engine), [slow, other])
    monkeypatch.undo()
    (again,) = run(engine, asked(Form.REGEX, "[a-z]{40}"))

    assert (refused(first), refused(again)) == ("it takes too long", "it takes too long")
    assert second.text in CHOICES
    assert engine.stats()["blocks_used"] == 0


def test_a_request_cancelled_while_its_rule_is_tried_ends_at_once(one: EngineCore) -> None:
    request = asked(Form.REGEX, "[b-d]{30}")
    one.submit(request)

    one.cancel(request.id)

    (outcome,) = outcomes(finish(one), [request])
    assert outcome.finished.reason == FinishReason.CANCELLED


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize(("count", "size_bytes"), [(2, 0), (32, 10)], ids=["by number", "by memory"])
def test_a_rule_is_tried_once_and_the_longest_unused_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, size_bytes: int
) -> None:
    tried: list[Grammar] = []
    monkeypatch.setattr(grammars, "require_bounded", lambda grammar: tried.append(grammar) or size_bytes)
    monkeypatch.setattr(grammars, "KEPT", count)
    monkeypatch.setattr(grammars, "KEPT_BYTES", 25)
    kept = Grammars(Tokenizer.from_folder(folder), vocab_size=448)
    first, second, third = (Grammar(Form.CHOICE, (text,)) for text in ("a", "b", "c"))

    for grammar in (first, second, first, third, first, second):
        kept.compile(grammar).result(timeout=30)

    assert tried == [first, second, third, second]
    kept.close()


def test_a_refused_rule_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Grammar] = []

    def refuse(grammar: Grammar) -> None:
        tried.append(grammar)
        raise GrammarRefused("no")

    monkeypatch.setattr(grammars, "require_bounded", refuse)
    kept = Grammars(Tokenizer.from_folder(folder), vocab_size=448)

    for _ in range(2):
        with pytest.raises(GrammarRefused):
            kept.compile(Grammar(Form.JSON)).result(timeout=30)

    assert len(tried) == 1
    kept.close()


# ---------------------------------------------------------------- on the wire


@pytest.mark.parametrize(
    "grammar", [Grammar(Form.JSON), Grammar(Form.JSON_SCHEMA, PERSON), Grammar(Form.REGEX, "[a-z]+"), Grammar(Form.CHOICE, CHOICES)]
)
def test_a_rule_is_the_same_behind_the_wire(grammar: Grammar) -> None:
    params = SamplingParams(grammar=grammar)

    assert SamplingParams.from_json(json.loads(json.dumps(params.to_json()))) == params


def test_schemas_that_say_the_same_are_one_rule() -> None:
    assert Grammar(Form.JSON_SCHEMA, '{ "type" : "object" }') == Grammar(Form.JSON_SCHEMA, {"type": "object"})


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("xml", "", "grammar.kind"),
        (Form.JSON_SCHEMA, "{", "grammar.json_schema"),
        (Form.JSON_SCHEMA, [], "grammar.json_schema"),
        (Form.JSON_SCHEMA, {"enum": ["x" * 32_768]}, "grammar.json_schema"),
        (Form.REGEX, "", "grammar.regex"),
        (Form.REGEX, "a" * 4_097, "grammar.regex"),
        (Form.CHOICE, [], "grammar.choice"),
        (Form.CHOICE, ["a", ""], "grammar.choice"),
        (Form.CHOICE, ["a"] * 1_001, "grammar.choice"),
        (Form.CHOICE, "ab", "grammar.choice"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_rule_that_is_none_is_refused_by_name(kind: str, value: Any, name: str) -> None:
    with pytest.raises(InvalidSampling) as refusal:
        Grammar(kind, value)

    assert refusal.value.name == name
