"""Requests made ready beside the steps: who waits for whom, who need not, and what is left of those that nobody wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inference import preparation as module
from inference.preparation import Preparation
from inference.prompts import Prompt, RequestRefused
from inference.protocol import FailureCode, GenerationRequest, Priority
from inference.renderer import TookTooMuch
from tests.inference.asking import a_request
from tests.inference.serving import wait_until


class Place:
    """A preparation in which "slow" takes too long for the first encoder, and the second until it is `released`; each waits for `open`."""

    def __init__(self) -> None:
        self.open, self.released = threading.Event(), threading.Event()
        self.made: list[tuple[str, Any]] = []  # texts in the order in which they were handed on, and what was made of them
        self.preparation = Preparation(self.prepare, self.note, quick="quick", patient="patient")  # type: ignore[arg-type]

    def prepare(self, request: GenerationRequest, encoder: Any) -> Prompt:
        text = request.messages[0]["content"]
        self.open.wait(10)
        if "slow" in text and encoder == "quick":
            raise RequestRefused(FailureCode.TEMPLATE_FAILED, "too long") from TookTooMuch("too long")
        if "slow" in text:
            self.released.wait(10)
        if "broken" in text:
            raise ZeroDivisionError
        return Prompt([1, 2, 3])

    def note(self, request: GenerationRequest, made: Prompt | Exception) -> None:
        self.made.append((request.messages[0]["content"], made))

    def take(self, text: str, tenant: str = "one", **fields: Any) -> GenerationRequest:
        request = a_request(text, tenant=tenant, **fields)
        self.preparation.take(request)
        return request

    def texts(self, count: int) -> list[str]:
        wait_until(lambda: len(self.made) == count, within_s=10)
        return [text for text, _ in self.made]


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.open.set()
    place.released.set()
    place.preparation.close()


def test_what_takes_long_holds_up_its_own_tenant_alone(place: Place) -> None:
    place.open.set()
    place.take("slow")
    place.take("after it")
    place.take("another's", tenant="another")

    assert place.texts(1) == ["another's"]
    assert len(place.preparation) == 2
    place.released.set()
    assert place.texts(3) == ["another's", "slow", "after it"]
    wait_until(lambda: len(place.preparation) == 0, within_s=10)


def test_tenants_take_turns_and_people_go_before_batches(place: Place) -> None:
    place.take("one 1")
    wait_until(lambda: place.preparation._under_way)
    place.take("batch", tenant="batch", priority=Priority.BATCH)
    for text in ("one 2", "one 3", "one 4"):
        place.take(text)
    place.take("two 1", tenant="two")

    place.open.set()

    assert place.texts(6) == ["one 1", "one 2", "two 1", "one 3", "one 4", "batch"]


def test_of_those_that_nobody_wants_nothing_is_left(place: Place) -> None:
    place.open.set()
    place.take("slow", tenant="first")
    unwanted = place.take("slow too", tenant="second")
    place.take("behind it", tenant="second")
    wait_until(lambda: list(place.preparation._slow), within_s=10)
    place.open.clear()
    place.take("under way")
    dropped = [place.take(text) for text in ("waits", "waits too")]

    for request in (unwanted, *dropped):
        place.preparation.drop(request)

    place.open.set()
    assert sorted(place.texts(2)) == ["behind it", "under way"]
    place.released.set()
    assert place.texts(3)[-1] == "slow"
    wait_until(lambda: len(place.preparation) == 0, within_s=10)
    assert (place.preparation._lines, place.preparation._under_way) == ({}, set())


def test_what_fails_is_handed_on_as_its_error_and_too_many_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_AT_MOST", 1)
    assert place.preparation.has_room
    place.take("broken")
    assert not place.preparation.has_room
    place.take("whole")

    with pytest.raises(RequestRefused, match="as many requests as it can hold"):
        place.take("too many")

    place.open.set()
    assert place.texts(2) == ["broken", "whole"]
    assert [type(made) for _, made in place.made] == [ZeroDivisionError, Prompt]
