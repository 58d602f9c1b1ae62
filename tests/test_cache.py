"""The cache holds JSON and nothing that runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from allauth.core.internal import ratelimit
from django.core.cache import cache
from django.test import RequestFactory

from store.valkey import client


class Planted:
    """What somebody with a hand on the cache's server would put there: unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    cache.set("history", [1.5])
    client().set(cache.make_key("history"), pickle.dumps(Planted(mark), protocol=0).decode())

    with pytest.raises(ValueError, match="Expecting value"):
        cache.get("history")

    assert not mark.exists()


@pytest.mark.parametrize("value", [None, True, 0, 7, 1.5, "", "五", [1.5, 2.5], {"left": [1]}])
def test_values_come_back_as_they_were(value: object) -> None:
    cache.set("key", value)

    assert cache.get("key", "absent") == value
    assert cache.get_many(["key"]) == {"key": value}


def test_the_server_counts() -> None:
    cache.set("count", 41)

    assert cache.incr("count") == 42
    assert cache.get("count") == 42


def test_what_json_does_not_know_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache.set("key", object())


def test_the_rate_limits_of_signing_in_count_in_it() -> None:
    request = RequestFactory().post("/", REMOTE_ADDR="192.0.2.7")

    granted = [bool(ratelimit.consume(request, app="allauth.account", action="probe", config={"probe": "2/m/ip"})) for _ in range(3)]

    assert granted == [True, True, False]
