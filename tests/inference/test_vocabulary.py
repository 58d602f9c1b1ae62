"""What tokens stand for: the bytes of a text's tokens, one behind the other, are the text's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.reading import TokenLogprob
from inference.tokenizer import Tokenizer
from inference.vocabulary import IMPOSSIBLE
from tests.inference.test_detokenizer import sentencepiece_like
from tests.inference.tiny import END, tiny_base

TEXT = st.text(st.sampled_from("ab Hello\n你好世界é😀👩‍👧🇫🇷ñ\u00ad"), max_size=30)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("model")))


@given(text=TEXT)
def test_byte_level_tokens_spell_their_text(byte_level: Tokenizer, text: str) -> None:
    assert b"".join(map(byte_level.vocabulary.bytes_of, byte_level.encode(text))) == text.encode()


@given(text=TEXT)
def test_tokens_with_byte_fallback_spell_their_text_behind_a_space(text: str) -> None:
    tokenizer = sentencepiece_like()

    spelled = b"".join(map(tokenizer.vocabulary.bytes_of, tokenizer.encode(text)))

    assert spelled.removeprefix(b" ") == tokenizer.decode(tokenizer.encode(text)).encode()


def test_a_special_token_is_spelled_as_it_is_and_no_token_as_nothing(byte_level: Tokenizer) -> None:
    assert byte_level.vocabulary.bytes_of(2) == END.encode()
    assert byte_level.vocabulary.bytes_of(10**6) == b""


def test_log_probabilities_are_told_in_the_words_of_the_protocol(byte_level: Tokenizer) -> None:
    whole, half = byte_level.encode("a")[0], byte_level.encode("😁")[0]
    half_bytes = byte_level.vocabulary.bytes_of(half)

    told = byte_level.vocabulary.in_words(TokenLogprob(whole, -0.5, ((whole, -0.5), (half, float("-inf")))))

    assert len("😁".encode()) > len(half_bytes) > 0
    a = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert told == {**a, "top_logprobs": [a, {"token": "\ufffd", "logprob": IMPOSSIBLE, "bytes": list(half_bytes)}]}
