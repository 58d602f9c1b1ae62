"""A message as the thread shows it."""

from __future__ import annotations

from dataclasses import dataclass

from store.playground import answers, meters
from store.playground.meters import Meter
from store.playground.models import Message


@dataclass(frozen=True)
class Row:
    message: Message
    text: str
    is_mine: bool
    is_under_way: bool = False
    is_last: bool = False
    meter: Meter | None = None


def row_of(message: Message, *, is_last: bool = False) -> Row:
    if message.role == Message.Role.USER:
        return Row(message, message.text, is_mine=True, is_last=is_last)
    if answers.is_to_be_read(message):
        return Row(message, "", is_mine=False, is_under_way=True, is_last=is_last)
    meter = meters.of_request(message.request) if message.request else None
    return Row(message, answers.spoken(message), is_mine=False, is_last=is_last, meter=meter)


def rows_of(messages: list[Message]) -> list[Row]:
    """The last question and the last answer can be changed."""
    return [row_of(message, is_last=index >= len(messages) - 2) for index, message in enumerate(messages)]
