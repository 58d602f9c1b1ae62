"""The allowance of a key: taken all or nothing by any number at once, and given back where nothing began."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from store import ratelimit
from store.valkey import client

DAY = {"limit": 3, "per_s": 86_400}


def remaining() -> int:
    return ratelimit.take("here", **DAY, cost=0).remaining


def test_of_many_that_take_at_once_only_as_many_get_something_as_there_is() -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: ratelimit.take("here", **DAY).allowed, range(20)))

    assert (taken.count(True), remaining()) == (3, 0)
    assert 28_000 < ratelimit.take("here", **DAY).retry_after_s <= 28_800


def test_what_is_given_back_can_be_taken_again_and_nothing_more() -> None:
    ratelimit.take("here", **DAY, cost=3)

    ratelimit.give_back("here", **DAY)
    assert remaining() == 1
    for _ in range(5):
        ratelimit.give_back("here", **DAY)

    assert remaining() == 3
    assert not client().exists("ratelimit:here")
