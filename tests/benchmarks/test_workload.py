from __future__ import annotations

import random

from benchmarks.workload import STRIDE, Prompts, zipf


def test_every_beginning_in_the_text_comes_once_before_any_comes_again() -> None:
    for length in (1378, 20 * STRIDE):
        prompts = Prompts(range(length))
        size = length - (length % STRIDE == 0)

        firsts = [prompts.one(2)[0] for _ in range(size)]

        assert sorted(firsts) == list(range(size))


def test_a_prompt_longer_than_what_is_left_of_the_text_goes_on_at_its_beginning() -> None:
    prompts = Prompts(range(40))
    prompts.one(1)

    assert prompts.one(5) == [37, 38, 39, 0, 1]


def test_two_sides_of_a_row_are_asked_the_same() -> None:
    one, other = Prompts(range(100)), Prompts(range(100))

    assert [one.take(3, 7), one.random.random()] == [other.take(3, 7), other.random.random()]


def test_by_zipfs_law_the_first_is_drawn_about_twice_as_often_as_the_second() -> None:
    drawn = zipf(20_000, among=1000, chooser=random.Random(0))

    assert set(drawn) <= set(range(1000))
    assert 1.8 < drawn.count(0) / drawn.count(1) < 2.2
