"""Answers that follow a rule: a JSON schema, a regular expression or a list of texts, by the library llguidance.

    matcher = compiled(grammar, vocabulary)    # raises GrammarRefused
    constraint = Constraint(matcher, …)        # of one answer
    constraint.allowed                         # the tokens that may come next, a bit each
    constraint.take(token)

The library never raises for a bad rule or for one that needs too much: its matcher says so. Its own limits bound a step in
most cases. They do not bound how deep it recurses, nor all that compiling takes: that is tried in a process of its own first
(`grammar_trial`), which imports this module and nothing heavy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from inference.sampling_params import Form, Grammar
from inference.tool_calls import Wanted, lark

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

STEP_WITHIN_S = 0.1  # of processor time for the tokens that may come next; schemas and choices take well under a millisecond
LIMITS = LLParserLimits(
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    initial_lexer_fuel=200_000,
    max_grammar_size=100_000,
    max_lexer_states=10_000,  # one to two kilobytes each, of each answer
    verbose_errors=False,
)
# Between JSON's signs a model may put a space, or a line with its indentation: without a bound it may put nothing else for ever.
JSON_STYLE: JsonCompileOptions = {"lenient": False, "whitespace_flexible": True, "whitespace_pattern": r"( |\n {0,16})"}
OPTIONS_IN_SCHEMA = "x-guidance"  # would let a schema change how it is compiled
NO_TEXT = "no text follows it"
ANY_OBJECT = '{"type":"object"}'


class GrammarRefused(ValueError):
    """The rule is not supported, or needs too much; the message says what."""


class GrammarTooSlow(GrammarRefused):
    """It held up whoever else is served."""


def compiled(grammar: Grammar, vocabulary: LLTokenizer, tokens: Collection[str] = ()) -> LLMatcher:
    """Where an answer begins. tokens: texts that are a token of their own to the model. Raises GrammarRefused."""
    matcher = LLMatcher(vocabulary, _source(grammar, tokens), log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarRefused(_said(matcher))
    return matcher


def next_allowed(matcher: LLMatcher) -> bytes:
    """A bit for each token, those of a byte from the lowest on. Raises GrammarRefused where finding them needs too much."""
    began_at = time.thread_time()
    allowed = matcher.compute_bitmask()
    if matcher.is_error():
        raise GrammarRefused(_said(matcher))
    if time.thread_time() - began_at > STEP_WITHIN_S:
        raise GrammarTooSlow("it takes too long to find the tokens that may come next")
    return allowed


class Constraint:
    """What one answer may say, and how far it is."""

    def __init__(self, matcher: LLMatcher, allowed: bytes, *, eos_ids: Collection[int], may_end: bool) -> None:
        """`matcher` becomes this answer's own; `allowed` is what it allows now. Unless it `may_end`, an answer to which
        something can be added goes on."""
        self._matcher = matcher
        self._eos = sum(1 << token for token in eos_ids)
        self._may_end = may_end
        self.complete = False  # nothing can be added
        self._allow(allowed)

    def take(self, token: int) -> None:
        """Goes on behind a token of the answer. Raises GrammarRefused, after which the answer cannot go on."""
        if not self._matcher.consume_token(token):
            raise GrammarRefused(_said(self._matcher))
        if self._matcher.is_stopped():
            self.complete = True
        else:
            self._allow(next_allowed(self._matcher))

    def _allow(self, allowed: bytes) -> None:
        self.complete = says_nothing(allowed, self._eos)
        if not self._may_end and not self.complete:
            allowed = (int.from_bytes(allowed, "little") & ~self._eos).to_bytes(len(allowed), "little")
        self.allowed = allowed


def says_nothing(allowed: bytes, eos: int) -> bool:
    """Whether no token but those that end an answer are allowed. eos: their bits."""
    return not int.from_bytes(allowed, "little") & ~eos


def schemas_of_calls(grammar: Grammar) -> dict[str, Grammar]:
    """The rules for the arguments of each function that the answer may call. Raises GrammarRefused."""
    return {name: Grammar(Form.JSON_SCHEMA, schema) for name, schema in _wanted(grammar).functions.items()}


def _source(grammar: Grammar, tokens: Collection[str]) -> str:
    """The rule as the library reads it."""
    match grammar.kind:
        case Form.REGEX:
            return LLMatcher.grammar_from_regex(str(grammar.value))
        case Form.CHOICE:
            return LLMatcher.grammar_from_lark("start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in grammar.value))
        case Form.TOOLS:
            return lark(_wanted(grammar), {OPTIONS_IN_SCHEMA: JSON_STYLE}, tokens)
    schema = str(grammar.value) or ANY_OBJECT
    if OPTIONS_IN_SCHEMA in json.loads(schema):
        raise GrammarRefused(f'Unimplemented keys: ["{OPTIONS_IN_SCHEMA}"]')
    return LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE)


def _wanted(grammar: Grammar) -> Wanted:
    try:
        return Wanted.from_json(json.loads(str(grammar.value)))
    except ValueError as error:
        raise GrammarRefused(str(error)) from error


def _said(matcher: LLMatcher) -> str:
    """What the library has against the rule, without its own marks and on one line."""
    error = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())
    return NO_TEXT if error.startswith("NoExtension") else error[:500]
