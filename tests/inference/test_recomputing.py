"""Computing a layer's states twice rather than keeping them: the same bits, in less memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference.batching import losses, pack, room_bytes
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.recipe import Recipe, Scope
from inference.recomputing import recompute
from inference.trainable import trainable_of
from inference.training import run
from tests.inference.job_bench import Place, Told
from tests.inference.tiny import tiny_base

LAYERS = 8
EXAMPLES = [Example(tuple(range(start, start + 60)), (True,) * 60) for start in (3, 40, 90)]


class Peak(TorchDispatchMode):
    """The most bytes that were alive at once of all that is computed within, without what was there `before`."""

    def __init__(self, before: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.bytes = 0
        self._before = {tensor.untyped_storage()._cdata for tensor in before}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for found in tree_leaves(out):
            if isinstance(found, Tensor) and (storage := found.untyped_storage())._cdata not in self._before:
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {at: kept for at, kept in self._alive.items() if not kept[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self._alive.values()))
        return out


def one_step(folder: Path, recipe: Recipe, examples: Sequence[Example] = EXAMPLES) -> tuple[Tensor, list[Tensor | None], int]:
    """(losses, gradients, bytes at the peak) of one pass forward and back."""
    model = load_gpt(folder, dtype=torch.float32)
    trainable = trainable_of(recipe, model)
    for up in getattr(trainable, "up", ()):
        torch.nn.init.normal_(up, std=0.1, generator=torch.Generator().manual_seed(1))
    if recipe.recompute:
        recompute(model)
    torch.manual_seed(5)
    with Peak([*model.parameters(), *trainable.parameters()]) as peak:
        found = losses(model, pack(examples), trainable.adapter)
        found.mean().backward()
    return found.detach(), [parameter.grad for parameter in trainable.parameters()], peak.bytes


@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"scope": Scope.WEIGHTS}], ids=str)
def test_losses_and_gradients_are_the_same_bits_in_less_than_half_the_memory(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tiny_base(tmp_path / "base", num_hidden_layers=LAYERS)

    kept_losses, kept_gradients, kept_bytes = one_step(folder, Recipe(**changes))
    again_losses, again_gradients, again_bytes = one_step(folder, Recipe(**changes, recompute=True))

    assert torch.equal(kept_losses, again_losses)
    for kept, again in zip(kept_gradients, again_gradients, strict=True):
        assert kept is not None
        assert again is not None
        assert torch.equal(kept, again)
    assert again_bytes < kept_bytes / 2


def test_what_a_run_is_said_to_need_is_less_too() -> None:
    sizes = {"layers": 30, "hidden": 576, "inner": 1536, "vocabulary": 49152}

    assert room_bytes(1024, **sizes, recompute=True) < room_bytes(1024, **sizes) / 2


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("scope", [Scope.ADAPTER, Scope.WEIGHTS])
@pytest.mark.parametrize("vocabulary", [2048, 16384])
def test_what_a_pass_is_said_to_hold_is_enough_and_not_much_more(tmp_path: Path, vocabulary: int, scope: Scope, recompute: bool) -> None:
    sizes = {"num_hidden_layers": 6, "hidden_size": 256, "head_dim": 64, "intermediate_size": 640, "vocab_size": vocabulary}
    folder = tiny_base(tmp_path / "base", **sizes)
    examples = [Example(tuple(range(start, start + 128)), (True,) * 128) for start in range(4)]

    _, gradients, taken_bytes = one_step(folder, Recipe(scope=scope, recompute=recompute), examples)

    learned = {"head_learns": scope == Scope.WEIGHTS, "recompute": recompute}
    said_bytes = room_bytes(512, layers=6, hidden=256, inner=640, vocabulary=vocabulary, **learned)
    said_bytes += sum(gradient.nbytes for gradient in gradients if gradient is not None)
    assert taken_bytes < said_bytes < 2.2 * taken_bytes


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"method": "text", "scope": "weights"}], ids=str)
def test_a_whole_run_ends_with_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    place = Place(tmp_path)
    if "method" in changes:
        place.data = place.put_data(b'{"text": "Once upon a time in %d."}' % year for year in range(1900, 1910))

    kept, again = (
        run(place.finetune(job=f"job_{on}", changes={**changes, "recompute": on}), place.bench(Told(), segment_s=60))
        for on in (False, True)
    )

    assert place.learned_bytes(again["manifest"]) == place.learned_bytes(kept["manifest"])
    assert again["validation_loss"] == kept["validation_loss"]
