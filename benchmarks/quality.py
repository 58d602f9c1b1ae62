"""How near what is served is to float32, on the project's English text: `python -m benchmarks.quality [FOLDER]`.

Every path and every precision reads the same text in stretches of --tokens, prompt by prompt as an engine would. Compared with the
torch path in float32: the mean KL divergence of the next token's distribution, how often the most probable token is the
same, the largest difference of a logit, and the perplexity itself. int8 is offered for as long as its KL is at most MOST_KL.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.workload import text_tokens
from inference.attention import Piece
from inference.cache import block_count
from inference.checkpoint import load_gpt
from inference.engine_options import DTYPES
from inference.native import fastest_runner, library
from inference.runner import Runner, TorchRunner

MOST_KL = 0.01
SMOLLM2 = machine.ROOT / "var" / "cache" / "models" / "smollm2"


@dataclass
class Nearness:
    """Sums over all tokens read."""

    tokens: int = 0
    kl: float = 0.0
    same: int = 0
    furthest: float = 0.0
    loss: float = 0.0

    def note(self, exact: Tensor, found: Tensor, following: Tensor) -> None:
        """Logits [n, vocabulary] of float32 and of what is judged, and the tokens that really follow."""
        right, shares = exact.log_softmax(-1), found.log_softmax(-1)
        self.tokens += len(exact)
        self.kl += float((right.exp() * (right - shares)).sum())
        self.same += int((right.argmax(-1) == shares.argmax(-1)).sum())
        self.furthest = max(self.furthest, float((exact - found).abs().max()))
        self.loss -= float(shares.gather(-1, following[:, None]).sum())

    def row(self) -> str:
        perplexity = math.exp(self.loss / self.tokens)
        return f"{self.kl / self.tokens:.6f} | {100 * self.same / self.tokens:.1f} % | {self.furthest:.4f} | {perplexity:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--tokens", type=int, default=256, help="that are read together")
    options = parser.parse_args()
    text = text_tokens(options.folder)
    stretches = [text[at : at + options.tokens + 1] for at in range(0, len(text) - 1, options.tokens)]
    print(machine.in_words(machine.describe()))
    print(f"{options.folder.name}: {len(text) - 1} tokens of real text, {options.tokens} at a time\n")
    print("| precision | path | KL to float32 | same first choice | furthest logit | perplexity |")
    print("|---|---|---|---|---|---|")
    reference = _runner(options.folder, "float32", native=False)
    exact = [_logits(reference, stretch) for stretch in stretches]
    del reference
    for dtype in DTYPES:
        for native in (False, True) if library() is not None else (False,):
            runner, found = _runner(options.folder, dtype, native=native), Nearness()
            for stretch, right in zip(stretches, exact, strict=True):
                found.note(right, _logits(runner, stretch), torch.tensor(stretch[1:]))
            print(f"| {dtype} | {'C++' if native else 'pure torch'} | {found.row()} |", flush=True)
            if found.kl / found.tokens > MOST_KL:
                print(f"\n{dtype} is further from float32 than {MOST_KL}: it should not be offered for this model.\n", flush=True)


def _runner(folder: Path, dtype: str, *, native: bool) -> Runner:
    model = load_gpt(folder, dtype=DTYPES[dtype])
    return (fastest_runner(model) if native else TorchRunner)(model, block_count(model.config.context_length))


@torch.inference_mode()
def _logits(runner: Runner, stretch: Sequence[int]) -> Tensor:
    """As an engine computes them, of every token of the stretch but the last."""
    tokens = list(stretch[:-1])
    blocks = list(range(1, block_count(len(tokens)) + 1))
    return runner.logits(runner.hidden(tokens, [Piece(0, len(tokens), blocks)], None))


if __name__ == "__main__":
    main()
