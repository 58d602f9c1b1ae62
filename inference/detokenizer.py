"""Tokens to text as they come, so that whoever reads never sees half a character or part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from inference.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
MAX_WINDOW = 64  # tokens decoded together while bytes that are no character keep coming


class Detokenizer:
    """The text of one answer. What `push` and `end` return, joined, is the answer.

    A token's text depends on what stands before it (a decoder may drop a leading space), so each is decoded together with
    the tokens of the one before, and only what is new is taken.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0  # where the window begins: tokens before it are not decoded again
        self._read = 0  # the window's tokens before this one were given out whole
        self._taken = 0  # characters of the window's text that were given out
        self._stops = [_Stop(text) for text in stop if text]
        self._held = ""  # what may become a stop string
        self.stopped = False  # a stop string came; nothing follows

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """The text that is now certain. Unless it `may_stop`, a stop string is text like any other."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens[self._context :])
        finished = _without_unfinished(text)
        if endless := len(self._tokens) - self._context > MAX_WINDOW:
            finished = text
        new = finished[self._taken :]
        self._taken = max(self._taken, len(finished))
        if endless or (new and len(finished) == len(text)):
            self._context, self._read = self._read, len(self._tokens)
            self._taken = len(self._tokenizer.decode(self._tokens[self._context :]))
        return self._until_stop(new) if may_stop else new

    def end(self) -> str:
        """What was held back, when no more tokens come. A character whose last bytes never came is left out."""
        held, self._held = self._held, ""
        return held

    def _until_stop(self, new: str) -> str:
        text = self._held + new
        for read, character in enumerate(new, len(self._held) + 1):
            # The first to be complete ends the answer, however the text was cut into tokens.
            if complete := [len(stop.text) for stop in self._stops if stop.read(character)]:
                self.stopped = True
                self._held = ""
                return text[: read - max(complete)]
        kept = max((stop.matched for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


class _Stop:
    """How much of a stop string the text ends with, kept character by character: the search of Knuth, Morris and Pratt.

    However long the string and whatever the text, a character costs a small constant on average.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        self._shorter = [0]  # for each length matched, the next shorter one that may go on
        for character in text[1:]:
            self._shorter.append(self._longer(self._shorter[-1], character))

    def read(self, character: str) -> bool:
        """Whether the string is complete with this character."""
        self.matched = self._longer(self.matched, character)
        return self.matched == len(self.text)

    def _longer(self, matched: int, character: str) -> int:
        while matched and self.text[matched] != character:
            matched = self._shorter[matched - 1]
        return matched + (self.text[matched] == character)


def _without_unfinished(text: str) -> str:
    """The text without what may be the beginning of a character at its end.

    That is any number of replacement characters: a decoder with byte fallback shows a whole run of bytes as such while
    the last character of the run is unfinished.
    """
    return text.rstrip(REPLACEMENT)
