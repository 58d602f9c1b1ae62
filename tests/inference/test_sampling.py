"""Choosing tokens: each filter against its definition, and a seed that means the same in every batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference import sampling
from inference.protocol import SamplingParams
from inference.sampling import Choice, choose

VOCABULARY = 300


def a_choice(seed: int = 1, *, count: int = 0, chosen: dict[int, int] | None = None, **params: Any) -> Choice:
    choice = Choice(SamplingParams(**params), seed)
    choice.count = count
    choice.chosen.update(chosen or {})
    return choice


def random_logits(rows: int, *, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def kept_by_definition(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities after every filter, straight from the definitions, over the whole vocabulary."""
    shares = (logits.double() / params.temperature).softmax(-1)
    order = shares.argsort(descending=True)
    kept = torch.zeros(len(shares), dtype=torch.bool)
    kept[order[: params.top_k or len(shares)]] = True
    total, cumulative = shares[kept].sum(), 0.0
    for token in order:
        if not kept[token]:
            break
        if cumulative >= params.top_p * total:
            kept[token] = False
        cumulative += float(shares[token])
        if params.min_p and shares[token] < params.min_p * shares.max():
            kept[token] = False
    shares = torch.where(kept, shares, 0.0)
    return shares / shares.sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.2, 3.0),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    top_k=st.sampled_from([0, 1, 5, 64, 65, 200]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_a_token_is_drawn_as_the_definitions_say(seed: int, temperature: float, top_p: float, top_k: int, min_p: float) -> None:
    logits = random_logits(1, seed=seed)
    choice = a_choice(seed, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    shares = kept_by_definition(logits[0], choice.params)
    ordered, order = shares.sort(descending=True)
    expected = int(order[int((ordered.cumsum(0) > choice.uniform()).nonzero()[0])])

    (token,) = choose(logits, [choice])

    assert token is not None
    assert token == expected or abs(ordered.cumsum(0) - choice.uniform()).min() < 1e-5


def test_drawn_tokens_follow_the_distribution() -> None:
    logits = random_logits(1, spread=1.0)
    draws = 4000
    shares = kept_by_definition(logits[0], SamplingParams(temperature=0.7, top_p=0.9))

    tokens = choose(logits.expand(draws, -1), [a_choice(seed, temperature=0.7, top_p=0.9) for seed in range(draws)])

    counts = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY)
    assert counts[shares == 0].sum() == 0
    likely = shares * draws >= 5
    chi_squared = float(((counts - shares * draws)[likely] ** 2 / (shares * draws)[likely]).sum())
    degrees = int(likely.sum())
    assert chi_squared < degrees + 5 * math.sqrt(2 * degrees)


def test_a_seed_gives_the_same_token_alone_and_among_others() -> None:
    logits = random_logits(8)
    choices = [a_choice(seed, temperature=0.5 + seed / 4, top_p=0.9 if seed % 2 else 1.0, count=seed) for seed in range(8)]

    together = choose(logits, choices)

    assert together == [choose(logits[row : row + 1], [choices[row]])[0] for row in range(8)]
    assert together == choose(logits, choices)


def test_the_stream_moves_on_with_the_answer() -> None:
    numbers = [a_choice(7, count=count).uniform() for count in range(1000)]

    assert len(set(numbers)) == 1000
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / 1000 == pytest.approx(0.5, abs=0.05)
    assert a_choice(-(2**63)).uniform() != a_choice(2**63 - 1).uniform()


@pytest.mark.parametrize(("window", "wider"), [(2, 8), (2, 300), (300, 300)])
def test_the_fast_path_and_the_slow_ones_agree(monkeypatch: pytest.MonkeyPatch, window: int, wider: int) -> None:
    logits = random_logits(64, spread=0.5)
    choices = [a_choice(seed, temperature=1.3, top_p=(1.0, 0.9)[seed % 2], top_k=(0, 0, 40)[seed % 3]) for seed in range(64)]
    expected = choose(logits, choices)

    monkeypatch.setattr(sampling, "WINDOW", window)
    monkeypatch.setattr(sampling, "WIDER_WINDOW", wider)

    assert choose(logits, choices) == expected


def test_greedy_and_sampled_requests_share_a_batch() -> None:
    logits = random_logits(3)

    tokens = choose(logits, [a_choice(temperature=0.0), a_choice(temperature=1.0), a_choice(temperature=0.0)])

    assert tokens[0] == int(logits[0].argmax())
    assert tokens[2] == int(logits[2].argmax())


def test_penalties_take_from_what_was_said_as_often_as_it_was_said() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 10], logits[:, 20], logits[:, 30] = 3.0, 2.5, 1.2
    penalised = a_choice(temperature=0.0, presence_penalty=0.4, frequency_penalty=0.5, chosen={10: 2, 20: 2})

    tokens = choose(logits, [penalised, a_choice(temperature=0.0)])

    assert tokens == [10, 10]  # 3.0 - 0.4 - 2 * 0.5 = 1.6 still beats 1.2
    penalised.note(10)
    assert choose(logits, [penalised, a_choice(temperature=0.0)]) == [30, 10]
    assert logits[0, 10] == 3.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_no_number_spoils_no_other(temperature: float) -> None:
    logits = random_logits(3)
    expected = choose(logits, [a_choice(seed, temperature=temperature) for seed in range(3)])
    logits[1, 5] = float("nan")

    tokens = choose(logits, [a_choice(seed, temperature=temperature) for seed in range(3)])

    assert tokens == [expected[0], None, expected[2]]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.0]),
    top_k=st.sampled_from([0, 1, 7, 16, 40]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    width=st.sampled_from([16, 30]),
)
def test_all_rows_at_once_are_drawn_as_each_alone(seed: int, spread: float, top_p: float, top_k: int, min_p: float, width: int) -> None:
    shares = random_logits(3, seed=seed, spread=spread)[:, :30].double().softmax(-1).sort(descending=True).values[:, :width]
    choices = [a_choice(seed + row, count=row, top_p=top_p, top_k=top_k, min_p=min_p) for row in range(3)]
    whole = width == 30

    table = sampling._Table.of(choices, device=torch.device("cpu"))
    places = sampling._places(shares, table, whole=whole).tolist()

    alone = [sampling.draw(row, choice, whole=whole) for row, choice in zip(shares.tolist(), choices, strict=True)]
    assert places == [-1 if place is None else place for place in alone]
