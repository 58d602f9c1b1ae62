"""Text to tokens and back, and a conversation to the prompt its model was trained on.

Tokens come from `tokenizer.json` through the tokenizers library; conversations through the model's chat template in
transformers' sandboxed Jinja. What people write never becomes a special token: a message that spells one out, such as
an end-of-turn mark, is encoded as the plain text it is.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from inference import tool_prompts
from inference.vocabulary import Vocabulary

MAX_TOKENIZER_BYTES = 128 * 1024 * 1024
MAX_TEMPLATE_CHARS = 256 * 1024
MAX_RENDERED_CHARS = 16 * 1024 * 1024
# For a base that was never taught to chat. The space belongs to the content, as it does in the tokens of most models.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class TokenizerError(ValueError):
    """The tokenizer's files cannot be read; the message says which and why."""


class TemplateFailed(ValueError):
    """The chat template refused the conversation, or is broken."""


class Tokenizer:
    def __init__(
        self, tokens: tokenizers.Tokenizer, *, template: str = PLAIN_TEMPLATE, specials: Mapping[str, str], eos_ids: frozenset[int]
    ) -> None:
        """`specials` are the names a template may use, such as `bos_token`."""
        self._tokens = tokens
        self._template = template
        self._specials = dict(specials)
        self.eos_ids = eos_ids
        self.vocab_size: int = max(tokens.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        added = tokens.get_added_tokens_decoder().values()
        self.written_tokens = frozenset(token.content for token in added if not token.special)  # added to those of plain text
        marks = [token.content for token in added if token.special]
        self.vocabulary = Vocabulary(tokens)
        self._marks = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True)))) if marks else None

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Raises TokenizerError."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file() or path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise TokenizerError(f"tokenizer.json is missing or larger than {MAX_TOKENIZER_BYTES} bytes")
        try:
            tokens = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise TokenizerError(f"tokenizer.json: {error}") from error
        _refuse_patterns(tokens.decoder)
        tokens.no_padding()
        tokens.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        specials = _specials(_read_json(folder / "special_tokens_map.json")) | _specials(config)
        return cls(
            tokens, template=_template(folder, config) or PLAIN_TEMPLATE, specials=specials, eos_ids=_eos_ids(folder, tokens, specials)
        )

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """`add_special_tokens`: with what the tokenizer puts around a text, such as a token that begins it.

        Raises TokenizerError for a text on which a pattern of the tokenizer's backtracks for too long.
        """
        try:
            return self._tokens.encode(text, add_special_tokens=add_special_tokens).ids
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":  # not an Exception: it would end the engine
                raise TokenizerError(f"the tokenizer cannot read the text: {error}") from error
            raise

    @property
    def end_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        token = self._tokens.token_to_id(self._specials.get("eos_token", ""))
        return token if token is not None else min(self.eos_ids, default=None)

    def to_json(self) -> str:
        """All of it, as `tokenizer.json` holds it."""
        return self._tokens.to_str()

    def decode(self, tokens: Sequence[int]) -> str:
        """The text without special tokens. Bytes that are no character become U+FFFD."""
        return self._tokens.decode(list(tokens), skip_special_tokens=True)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The prompt for a conversation, as tokens. tools: functions that the model may call. Raises TemplateFailed."""
        if tools or any(tool_prompts.is_of_calls(message) for message in messages):
            messages, tools = (tool_prompts.for_template if self._knows_tools else tool_prompts.in_words)(messages, tools)
        mark = secrets.token_hex(8)
        spelled: list[str] = []
        if self._marks is not None:
            messages, tools = self._set_aside([messages, tools], mark, spelled)
        text = self._render_text(messages, add_generation_prompt, tools)
        try:
            return self._encode_with_spelled(text, mark, spelled) if spelled else self.encode(text)
        except TokenizerError as error:
            raise TemplateFailed(f"The model's prompt could not be made: {error}") from error

    @cached_property
    def _knows_tools(self) -> bool:
        """Whether the model's own template tells of tools, and of calls in the form in which they are read."""
        if "tools" not in self._template:
            return False
        try:
            return tool_prompts.is_told_by(lambda messages, tools: self._render_text(messages, False, tools))
        except TemplateFailed:
            return False

    def _set_aside(self, value: Any, mark: str, spelled: list[str]) -> Any:
        """The JSON value with each special token that its texts spell out replaced by a mark, those gathered in `spelled`."""
        if isinstance(value, Mapping):
            return {self._set_aside(name, mark, spelled): self._set_aside(entry, mark, spelled) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self._set_aside(entry, mark, spelled) for entry in value]
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            spelled.append(match.group())
            return f"\ue000{mark}:{len(spelled) - 1}\ue001"

        assert self._marks is not None
        return self._marks.sub(replace, value)

    def _encode_with_spelled(self, text: str, mark: str, spelled: Sequence[str]) -> list[int]:
        found: list[int] = []
        for number, part in enumerate(re.split(f"\ue000{mark}:(\\d+)\ue001", text)):
            found += self.encode_plain(spelled[int(part)]) if number % 2 else self.encode(part)
        return found

    def encode_plain(self, text: str) -> list[int]:
        """Without special tokens, also where the text spells one out. Raises TokenizerError."""
        self._tokens.encode_special_tokens = True
        try:
            return self.encode(text)
        finally:
            self._tokens.encode_special_tokens = False

    def _render_text(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (text,), _ = render_jinja_template(
                [list(messages)],
                tools=list(tools) if tools else None,
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
                **self._specials,
            )
        except Exception as error:  # whatever a stranger's template can raise
            raise TemplateFailed(f"The model's chat template refused the conversation: {error}") from error
        if len(text) > MAX_RENDERED_CHARS:
            raise TemplateFailed(f"The model's chat template made more than {MAX_RENDERED_CHARS} characters.")
        return text


def _refuse_patterns(decoder: Any) -> None:
    """Answers are decoded token by token beside everybody else's: a pattern that backtracks would hold all of them up."""
    parts: list[Any] = [json.loads(decoder.__getstate__())] if decoder is not None else []
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping) and "Regex" in part:
            raise TokenizerError("tokenizer.json: its decoder replaces by a regular expression, which is not supported; replace a string")
        parts += part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else []


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise TokenizerError(f"{path.name} is larger than {MAX_TOKENIZER_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TokenizerError(f"{path.name}: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path.name} is not a JSON object")
    return value


def _specials(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like: a string, or an object with `content`."""
    found = {}
    for name, value in config.items():
        value = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(value, str):
            found[name] = value
    return found


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or in the config as a string or as a list of named ones."""
    file = folder / "chat_template.jinja"
    template: Any = config.get("chat_template")
    if file.is_file():
        if file.stat().st_size > MAX_TEMPLATE_CHARS:
            raise TokenizerError(f"{file.name} is larger than {MAX_TEMPLATE_CHARS} bytes")
        try:
            template = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{file.name} is not UTF-8 text") from error
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and (not isinstance(template, str) or len(template) > MAX_TEMPLATE_CHARS):
        raise TokenizerError("the chat template is not a text of reasonable length")
    return template


def _eos_ids(folder: Path, tokens: tokenizers.Tokenizer, specials: Mapping[str, str]) -> frozenset[int]:
    """Every token that ends an answer, by any of the three files that may say so."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        found.update(token for token in values if isinstance(token, int) and not isinstance(token, bool) and token >= 0)
    token = tokens.token_to_id(specials["eos_token"]) if "eos_token" in specials else None
    return frozenset(found | ({token} if token is not None else set()))
