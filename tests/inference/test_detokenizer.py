"""Streaming text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from inference.detokenizer import REPLACEMENT, Detokenizer, _Stop
from inference.tokenizer import Tokenizer
from tests.inference.tiny import tiny_base


def sentencepiece_like() -> Tokenizer:
    """Words that begin with ▁, and bytes for what is not a word, as Llama 2 and Mistral have."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary |= {piece: 256 + n for n, piece in enumerate(["▁", "▁Hello", "▁world", "a", "b", "你", "!"])}
    tokens = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token=None))
    tokens.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokens.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1, right=0)]
    )
    return Tokenizer(tokens, specials={}, eos_ids=frozenset())


TOKENIZERS: dict[str, Tokenizer] = {}


@pytest.fixture(scope="module", autouse=True)
def _tokenizers(tmp_path_factory: pytest.TempPathFactory) -> None:
    TOKENIZERS["byte-level"] = Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("model")))
    TOKENIZERS["sentencepiece"] = sentencepiece_like()


def stream(name: str, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(TOKENIZERS[name], stop)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.end()]


TEXT = st.text(st.sampled_from("ab Hello\n你好世界é😀👩‍👧🇫🇷ñ"), max_size=30) | st.text("ab", max_size=30)


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
@pytest.mark.parametrize("name", ["byte-level", "sentencepiece"])
def test_the_parts_are_whole_characters_and_make_the_text(name: str, text: str) -> None:
    tokens = TOKENIZERS[name].encode(text)

    parts = stream(name, tokens)

    assert "".join(parts) == TOKENIZERS[name].decode(tokens)
    assert all(REPLACEMENT not in part for part in parts)


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 255), max_size=120))
@pytest.mark.parametrize("name", ["byte-level", "sentencepiece"])
def test_bytes_that_are_no_text_never_break_it(name: str, tokens: list[int]) -> None:
    parts = stream(name, tokens)

    assert isinstance("".join(parts), str)
    if name == "byte-level":
        assert TOKENIZERS[name].decode(tokens).rstrip(REPLACEMENT).startswith("".join(parts).rstrip(REPLACEMENT))


@settings(max_examples=300, deadline=None)
@given(
    text=TEXT,
    stop=st.lists(st.text(st.sampled_from("abHel 你好😀"), min_size=1, max_size=4) | st.text("ab", min_size=1), min_size=1, max_size=3),
)
def test_nothing_of_a_stop_string_is_ever_given_out(text: str, stop: list[str]) -> None:
    tokens = TOKENIZERS["byte-level"].encode(text)
    ends = [(at + len(end), at) for end in stop if (at := text.find(end)) >= 0]  # the first to be complete wins

    parts = stream("byte-level", tokens, tuple(stop))

    assert "".join(parts) == (text[: min(ends)[1]] if ends else text)


class CountedText(str):
    """Counts how often one of its characters is looked at."""

    looks = 0

    def __getitem__(self, at: object) -> str:
        type(self).looks += 1
        return super().__getitem__(at)  # type: ignore[index]


@pytest.mark.parametrize("said", ["a" * 20_000, ("a" * 9_999 + "c") * 2])
def test_a_stop_string_of_10_kb_costs_a_little_for_each_character_whatever_is_said(said: str) -> None:
    CountedText.looks = 0
    stop = _Stop(CountedText("a" * 9_999 + "b"))

    assert not any(stop.read(character) for character in said)

    assert CountedText.looks < 3 * (10_000 + len(said))
    assert all(not stop.read("a") for _ in range(10_000))
    assert stop.read("b")


def test_stop_strings_are_text_like_any_other_until_they_may_stop() -> None:
    detokenizer = Detokenizer(TOKENIZERS["byte-level"], ("ab",))

    parts = [detokenizer.push(token, may_stop=at >= 3) for at, token in enumerate(byte_tokens(b"ababab"))]

    assert "".join(parts) == "abab"
    assert detokenizer.stopped


def test_an_emoji_of_four_byte_tokens_comes_at_once() -> None:
    assert stream("byte-level", byte_tokens("a😀b".encode())) == ["a", "", "", "", "😀", "b", ""]


def test_a_character_cut_off_by_the_end_is_left_out() -> None:
    assert stream("byte-level", byte_tokens(b"a\xe4\xbd")) == ["a", "", "", ""]


def test_what_might_have_become_a_stop_string_is_given_out_at_the_end() -> None:
    detokenizer = Detokenizer(TOKENIZERS["byte-level"], ("###",))

    parts = [detokenizer.push(token) for token in byte_tokens(b"a##")]

    assert parts == ["a", "", ""]
    assert detokenizer.end() == "##"
    assert not detokenizer.stopped


def byte_tokens(raw: bytes) -> list[int]:
    """One token per byte, of the byte-level tokenizer."""
    alphabet = bytes_to_unicode()
    return [TOKENIZERS["byte-level"]._tokens.token_to_id(alphabet[byte]) for byte in raw]
