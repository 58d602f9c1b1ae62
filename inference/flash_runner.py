"""The runner on CUDA: attention over block tables in one kernel call per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from torch import Tensor

from inference.attention import Piece
from inference.graphs import DecodingGraphs
from inference.lora import Adapter
from inference.model import GPT, Attention
from inference.runner import Runner, TorchRunner, Watched
from inference.varlen import PAGE_SIZE, Kernel, StepTables, VarlenAttention, check_pages, flash_kernel, kernel_refusal

log = structlog.get_logger(__name__)


def cuda_runner(model: GPT) -> Callable[[GPT, int], Runner]:
    """FlashRunner where its kernel can serve the model, else TorchRunner, with the reason in the log."""
    refusal = kernel_refusal(model.config, dtype=model.dtype, device=model.device)
    if refusal is None:
        return FlashRunner
    log.warning("the attention kernel over block tables is not used", reason=refusal)
    return TorchRunner


class FlashRunner(TorchRunner):
    name = "flash"
    block_size = PAGE_SIZE
    by_head = False

    def __init__(self, model: GPT, blocks: int, *, kernel: Kernel | None = None) -> None:
        """`kernel`: torch's own where none is given. Raises UnfitForKernel."""
        super().__init__(model, blocks)
        check_pages(self._store)
        self._kernel = kernel or flash_kernel()
        self._graphs = DecodingGraphs(model, self._store, self._kernel, self._stacks)

    def hidden(
        self, tokens: Sequence[int], pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None, watched: Watched | None = None
    ) -> Tensor:
        replayed = None if watched is not None else self._graphs.hidden(tokens, pieces, adapters)
        return super().hidden(tokens, pieces, adapters, watched) if replayed is None else replayed

    def _attention(self, pieces: Sequence[Piece]) -> Attention:
        return VarlenAttention(self._store, StepTables.of(pieces, self._store), self._kernel)
