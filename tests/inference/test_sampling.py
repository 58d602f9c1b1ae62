"""Choosing tokens: each filter against its definition, and a seed that means the same in every batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference import sampling
from inference.sampling import Choice, Sampler
from inference.sampling_params import SamplingParams

VOCABULARY = 300
EOS = 7


def a_choice(seed: int = 1, *, chosen: tuple[int, ...] = (), **params: Any) -> Choice:
    """A request that has chosen some tokens already."""
    choice = Choice(SamplingParams(**params), seed)
    for token in chosen:
        choice.note(token)
    return choice


def choose(logits: Tensor, choices: list[Choice]) -> list[int | None]:
    return Sampler(eos_ids=[EOS]).choose(logits, choices)


def random_logits(rows: int, *, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


# ---------------------------------------------------------------- the definitions, written out


def uniform_by_definition(seed: int, position: int) -> float:
    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    return (mix((mix(seed % 2**64) + (position + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53


def adjusted_by_definition(logits: Tensor, choice: Choice) -> list[float]:
    adjusted = logits.double().tolist()
    params = choice.params
    for token, bias in params.logit_bias.items():
        adjusted[token] += bias
    for token, times in choice.chosen.items():
        adjusted[token] -= params.presence_penalty + params.frequency_penalty * times
    if choice.count < params.min_tokens:
        adjusted[EOS] = -math.inf
    return adjusted


def kept_by_definition(logits: list[float], params: SamplingParams) -> tuple[list[float], float]:
    """What each token's share is after all filters, and how near any filter's border is to a share, relatively."""
    weights = [math.exp((logit - max(logits)) / params.temperature) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    ordered = sorted(shares, reverse=True)
    lowest, nearness = 0.0, 1.0
    kept = ordered[: params.top_k or len(ordered)]
    if params.top_k:
        lowest = kept[-1]
    if params.top_p < 1:
        total, cumulative = sum(kept), 0.0
        for share in kept:
            nearness = min(nearness, abs(cumulative - params.top_p * total))
            if cumulative >= params.top_p * total and cumulative:
                break
            cumulative += share
            lowest = max(lowest, share) if cumulative >= params.top_p * total else lowest
    if params.min_p:
        border = params.min_p * ordered[0]
        nearness = min(nearness, min(abs(share / border - 1) for share in shares))
        lowest = max(lowest, border)
    return [share if share >= lowest else 0.0 for share in shares], nearness


def drawn_by_definition(shares: list[float], uniform: float) -> tuple[int, float]:
    """The token, and how near the number that draws it is to a border."""
    target, cumulative, nearness, found = uniform * sum(shares), 0.0, 1.0, -1
    for token, share in enumerate(shares):
        cumulative += share
        nearness = min(nearness, abs(cumulative - target))
        if found < 0 and cumulative > target:
            found = token
    return found, nearness


A_CHOICE = st.builds(
    a_choice,
    st.integers(-(2**63), 2**63 - 1),
    chosen=st.lists(st.integers(0, 40), max_size=12).map(tuple),
    temperature=st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.9, 40.0]),
    top_p=st.sampled_from([1.0, 1.0, 0.95, 0.5, 0.05, 0.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 64, 65, 200, 5000]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.5, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7, -0.5]),
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY - 1), st.sampled_from([-100.0, -1.0, 3.0, 100.0]), max_size=3),
    min_tokens=st.sampled_from([0, 6, 20]),
)


@settings(max_examples=150, deadline=None)
@given(choices=st.lists(A_CHOICE, min_size=1, max_size=6), seed=st.integers(0, 10**6), spread=st.sampled_from([0.05, 2.0, 9.0]))
def test_tokens_are_chosen_as_the_definitions_say_whoever_shares_the_batch(choices: list[Choice], seed: int, spread: float) -> None:
    sampler = Sampler(eos_ids=[EOS])

    for step in range(3):  # the second and third go on from what the sampler kept
        logits = random_logits(len(choices), seed=seed + step, spread=spread)
        expected = []
        for row, choice in enumerate(choices):
            adjusted = adjusted_by_definition(logits[row], choice)
            if choice.greedy:
                expected.append(max(range(VOCABULARY), key=adjusted.__getitem__))
                continue
            shares, filtered = kept_by_definition(adjusted, choice.params)
            token, drawn = drawn_by_definition(shares, uniform_by_definition(choice.seed, choice.count))
            assume(filtered > 1e-4 and drawn > 1e-6)
            expected.append(token)
        before = logits.clone()

        found = sampler.choose(logits, choices)

        assert found == expected
        assert torch.equal(logits, before)
        for choice, token in zip(choices, expected, strict=True):
            choice.note(token)


def test_drawn_tokens_follow_the_distribution() -> None:
    logits = random_logits(1, spread=1.0)
    draws = 4000
    shares = torch.tensor(kept_by_definition(logits[0].tolist(), SamplingParams(temperature=0.7, top_p=0.9))[0])
    shares /= shares.sum()

    tokens = choose(logits.expand(draws, -1), [a_choice(seed, temperature=0.7, top_p=0.9) for seed in range(draws)])

    counts = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY)
    assert counts[shares == 0].sum() == 0
    likely = shares * draws >= 5
    chi_squared = float(((counts - shares * draws)[likely] ** 2 / (shares * draws)[likely]).sum())
    degrees = int(likely.sum())
    assert chi_squared < degrees + 5 * math.sqrt(2 * degrees)


def test_a_seed_gives_the_same_token_alone_and_among_others() -> None:
    logits = random_logits(8)
    choices = [
        a_choice(seed, temperature=0.5 + seed / 4, top_p=0.9 if seed % 2 else 1.0, chosen=tuple(range(seed)), presence_penalty=seed % 3)
        for seed in range(8)
    ]

    together = choose(logits, choices)

    assert together == [choose(logits[row : row + 1], [choices[row]])[0] for row in range(8)]
    assert together == choose(logits, choices)


def test_the_stream_of_a_seed_moves_on_with_the_answer() -> None:
    numbers = sampling.uniform(torch.tensor([sampling._mixed(7)]).expand(1000), torch.arange(1000)).tolist()

    assert numbers == [uniform_by_definition(7, position) for position in range(1000)]
    assert len(set(numbers)) == 1000
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / 1000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_any_seed_has_a_stream_of_its_own(seed: int) -> None:
    mixed = torch.tensor([sampling._mixed(seed), sampling._mixed(seed ^ 1)])

    own, neighbour = sampling.uniform(mixed, torch.tensor([3, 3])).tolist()

    assert own == uniform_by_definition(seed, 3) != neighbour


@pytest.mark.parametrize("window", [1, 2, 300])
def test_what_the_window_settles_is_what_sorting_all_would_say(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    logits = random_logits(64, spread=0.5)
    choices = [a_choice(seed, temperature=1.3, top_p=(1.0, 0.9)[seed % 2], top_k=(0, 0, 40)[seed % 3]) for seed in range(64)]
    expected = choose(logits, choices)

    monkeypatch.setattr(sampling, "WINDOW", window)

    assert choose(logits, choices) == expected


def test_a_set_of_requests_that_changes_is_seen() -> None:
    sampler = Sampler()
    logits = random_logits(2)
    first, second, third = (a_choice(seed, temperature=1.0, presence_penalty=2.0) for seed in (1, 2, 3))

    for choices in ([first, second], [first, second], [second, first], [third, first], [third, first]):
        found = sampler.choose(logits, choices)
        assert found == choose(logits, choices)
        for choice, token in zip(choices, found, strict=True):
            choice.note(token)


def test_a_token_that_another_took_the_place_of_is_not_remembered() -> None:
    sampler = Sampler()
    logits = random_logits(1)
    choice = a_choice(temperature=0.0, presence_penalty=2.0)
    sampler.choose(logits, [choice])

    choice.note(5)
    choice.note(6)  # two tokens came from elsewhere

    assert sampler.choose(logits, [choice]) == choose(logits, [choice])


def test_penalties_take_from_what_was_said_as_often_as_it_was_said() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 10], logits[:, 20], logits[:, 30] = 3.0, 2.5, 1.2
    penalised = a_choice(temperature=0.0, presence_penalty=0.4, frequency_penalty=0.5, chosen=(10, 20, 10, 20))

    tokens = choose(logits, [penalised, a_choice(temperature=0.0)])

    assert tokens == [10, 10]  # 3.0 - 0.4 - 2 * 0.5 = 1.6 still beats 1.2
    penalised.note(10)
    assert choose(logits, [penalised, a_choice(temperature=0.0)]) == [30, 10]


def test_tokens_as_probable_as_the_last_one_kept_are_kept_too() -> None:
    logits = torch.full((2000, VOCABULARY), -50.0)
    logits[:, [3, 100, 290]] = 1.0

    tokens = choose(logits, [a_choice(seed, temperature=1.0, top_k=2) for seed in range(2000)])

    assert set(tokens) == {3, 100, 290}
    assert tokens.count(290) == pytest.approx(2000 / 3, abs=150)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 100, "top_p": 0.99}])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_row_that_is_no_number_spoils_no_other(params: dict[str, Any], wrong: float) -> None:
    logits = random_logits(3)
    choices = [a_choice(seed, **params) for seed in range(3)]
    expected = choose(logits, choices)
    logits[1, 5] = wrong

    tokens = choose(logits, choices)

    assert tokens == [expected[0], None, expected[2]]
