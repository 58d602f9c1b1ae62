"""Decoding steps over memory that stays the same, beside the same step computed as it comes; on CUDA they are recorded and replayed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference import graphs
from inference.attention import KeyValueStore, Piece, slots_of
from inference.checkpoint import load_gpt
from inference.flash_runner import FlashRunner
from inference.graphs import ROWS, DecodingGraphs
from inference.lora import Adapter
from inference.lora_batch import LoraBatch, Stacks
from inference.model import GPT
from inference.protocol import FinishReason
from inference.runner import TorchRunner
from inference.varlen import PAGE_SIZE, StepTables, VarlenAttention
from tests.inference.asking import PROMPTS, a_request, an_engine, an_engine_with, finish, outcomes, run, texts
from tests.inference.flash import DEVICES, NAN, kernel_of, written_out_kernel
from tests.inference.tiny import tiny_adapter, tiny_base

BLOCKS = 140


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@dataclass
class Bench:
    """A model, the keys and values of everybody, and the recorded steps."""

    model: GPT
    store: KeyValueStore
    stacks: Stacks
    graphs: DecodingGraphs
    device: str
    folder: Path
    workspace: Path

    def adapter(self, seed: int, rank: int = 4) -> Adapter:
        made = tiny_adapter(self.workspace / f"{seed}-{rank}", self.folder, seed=seed, rank=rank)
        return Adapter.load(made, self.model.config, dtype=self.model.dtype, pinned=self.device == "cuda")

    def decoding(self, count: int, chance: random.Random) -> list[Piece]:
        """Sequences of any length that add a token, whose blocks hold random numbers; all other blocks hold NaN."""
        free = chance.sample(range(1, BLOCKS + 1), BLOCKS)
        starts = [chance.choice([0, 1, 40, 255, 256, 257, 511]) for _ in range(count)]
        pieces = [Piece(start, 1, [free.pop() for _ in range(start // PAGE_SIZE + 1)]) for start in starts]
        owned = [block for piece in pieces for block in piece.blocks]
        for numbers in (self.store.keys, self.store.values):
            numbers.fill_(NAN)
            numbers[:, owned] = torch.randn_like(numbers[:, owned])
        return pieces

    def as_it_comes(self, tokens: list[int], pieces: list[Piece], adapters: list[Adapter | None]) -> Tensor:
        """Each token by itself, unpadded."""
        out = []
        for token, piece, adapter in zip(tokens, pieces, adapters, strict=True):
            attention = VarlenAttention(self.store, StepTables.of([piece], self.store), kernel_of(self.device))
            lora = None if adapter is None else LoraBatch.for_all(self.on_device(adapter))
            ids, positions = (torch.tensor([number], device=self.device) for number in (token, piece.start))
            out.append(self.model(ids, positions, attention, lora))
        return torch.cat(out)

    def on_device(self, adapter: Adapter) -> Adapter:
        return Adapter(adapter.flat.to(self.device), adapter.layout, adapter.rank, adapter.parameter_count)


@pytest.fixture(params=DEVICES)
def bench(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Bench:
    device = str(request.param)
    model = load_gpt(folder, dtype=torch.float32 if device == "cpu" else torch.bfloat16, device=device)
    store = KeyValueStore(model.config, blocks=BLOCKS, block_size=PAGE_SIZE, dtype=model.dtype, device=model.device, by_head=False)
    stacks = Stacks(device=model.device, dtype=model.dtype)
    return Bench(model, store, stacks, DecodingGraphs(model, store, kernel_of(device), stacks), device, folder, tmp_path)


@pytest.mark.parametrize("adapted", [False, True])
@torch.inference_mode()
def test_a_padded_step_over_fixed_memory_gives_each_row_what_it_gets_alone(bench: Bench, adapted: bool) -> None:
    """Time and again over the same memory, so that what a step leaves behind would show in the next."""
    chance = random.Random(5)
    known: list[Adapter | None] = [*(bench.adapter(seed) for seed in range(5)), None]
    tolerance = 1e-4 if bench.device == "cpu" else 0.1

    for count in (3, 1, 2, 7, 5, 20, 4, 33):
        pieces = bench.decoding(count, chance)
        tokens = [chance.randrange(448) for _ in pieces]
        adapters = [chance.choice(known) if adapted else None for _ in pieces]
        adapters[0] = known[0] if adapted else None
        before = bench.store.keys.clone()
        got = bench.graphs.hidden(tokens, pieces, adapters if adapted else None)
        after = bench.store.keys.clone()

        assert got is not None
        assert (got - bench.as_it_comes(tokens, pieces, adapters)).abs().max() < tolerance
        assert set(changed_slots(before, after)) == set(slots_of(pieces, PAGE_SIZE))


def changed_slots(before: Tensor, after: Tensor) -> list[int]:
    """Places of tokens whose keys are others now, but for those of block 0."""
    layers, blocks, size = before.shape[:3]
    same = (before == after) | (before.isnan() & after.isnan())
    changed = (~same).flatten(3).any(-1).view(layers, blocks * size).any(0)
    return [slot for slot in changed.nonzero().flatten().tolist() if slot >= size]


@torch.inference_mode()
def test_what_no_graph_can_compute_is_left_to_the_usual_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    alone, chunk = Piece(3, 1, [1]), Piece(0, 2, [2])
    many = [Piece(0, 1, [block]) for block in range(1, ROWS[-1] + 2)]
    before = bench.store.keys.clone()

    assert bench.graphs.hidden([1, 2, 3], [alone, chunk], None) is None
    assert bench.graphs.hidden([1] * len(many), many, None) is None
    assert bench.graphs.hidden([1, 2], [alone, Piece(0, 1, [2])], [bench.adapter(1, rank=4), bench.adapter(2, rank=12)]) is None
    assert torch.equal(bench.store.keys, before)
    monkeypatch.setattr(graphs, "MOST_BLOCKS", 2)
    narrow = DecodingGraphs(bench.model, bench.store, kernel_of(bench.device), bench.stacks)
    assert narrow.hidden([1], [Piece(2 * PAGE_SIZE, 1, [1, 2, 3])], None) is None
    bench.decoding(1, chance)
    assert narrow.hidden([1], [Piece(2 * PAGE_SIZE - 1, 1, [1, 2])], None) is not None


@torch.inference_mode()
def test_a_stack_that_is_made_anew_takes_its_graphs_along(bench: Bench) -> None:
    few, more = ([bench.adapter(seed) for seed in range(count)] for count in (2, 9))

    for adapters in (few, more):
        pieces = bench.decoding(len(adapters), random.Random(2))
        tokens = list(range(len(adapters)))
        got = bench.graphs.hidden(tokens, pieces, adapters)

        assert got is not None
        assert (got - bench.as_it_comes(tokens, pieces, list(adapters))).abs().max() < (1e-4 if bench.device == "cpu" else 0.1)
        assert len(bench.graphs._adapted) == 1


def test_an_engine_with_adapters_answers_the_same_over_fixed_memory(folder: Path, tmp_path: Path) -> None:
    adapters = {f"a{seed}": tiny_adapter(tmp_path / str(seed), folder, seed=seed) for seed in range(5)}
    names = [None, *adapters, "a1", "a3"]
    found = []
    for run_with in (TorchRunner, partial(FlashRunner, kernel=written_out_kernel)):
        engine = an_engine_with(folder, run_with, cache_tokens=16_384)
        requests = [a_request(prompt, adapter=name) for prompt, name in zip(PROMPTS, names, strict=True)]
        for request in requests:
            engine.submit(request, adapter_folder=adapters[request.adapter] if request.adapter else None)
        found.append(texts(outcomes(finish(engine), requests)))
        runner = engine._runner

    assert found[0] == found[1]
    assert isinstance(runner, FlashRunner)
    assert len(runner._graphs._adapted) == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_an_engine_in_bfloat16_decodes_from_graphs(folder: Path) -> None:
    engine = an_engine(folder, device="cuda", dtype="bfloat16", cache_tokens=65_536)

    answers = run(engine, *(a_request(prompt) for prompt in PROMPTS))

    assert isinstance(engine._runner, FlashRunner)
    assert all(answer.finished.reason == FinishReason.LENGTH and answer.text for answer in answers)
    assert texts(run(engine, *(a_request(prompt) for prompt in PROMPTS))) == texts(answers)
