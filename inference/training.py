"""LoRA fine-tuning: a frozen base, small trained matrices beside its projections, resumed to the bit.

Everything random is drawn from the seed and the number of the epoch, never from a running generator, so the state of a
run is its step, its weights and its optimiser. Examples of a batch stand packed in one row, each seeing only itself, and
the loss is the sum over the trained tokens divided by their number in the whole batch: how a batch is cut into
micro-batches changes nothing but rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.attention import CausalAttention
from inference.datasets import Example
from inference.model import GPT

MICRO_BATCH_TOKENS = 2048
VALIDATION_EXAMPLES = 64
WARM_UP_SHARE = 0.05
LEAST_RATE = 0.1  # of the highest, at the end of the cosine
CLIP_NORM = 1.0
BOUNDS: dict[str, tuple[float, float]] = {
    "rank": (1, 256),
    "alpha": (0.01, 1024),
    "epochs": (1, 100),
    "learning_rate": (1e-7, 1.0),
    "batch_size": (1, 512),
    "max_length": (8, 131_072),
    "validation_share": (0.0, 0.5),
    "seed": (0, 2**31 - 1),
}


class BadSettings(ValueError):
    """A setting is missing its bounds; the message names it."""


@dataclass(frozen=True)
class Settings:
    """How to train. `alpha / rank` scales what the adapter adds."""

    rank: int = 8
    alpha: float = 16.0
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 8
    max_length: int = 512
    validation_share: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise BadSettings(f"{name} is {value!r}; it must lie between {low} and {high}")

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        if unknown := sorted(raw.keys() - known):
            raise BadSettings(f"there is no setting {unknown[0]!r}")
        return cls(**raw)


class LoraLinear(nn.Module):
    """A frozen projection and the trained B·A beside it, in float32 whatever the base is kept in."""

    def __init__(self, base: nn.Module, *, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        out_features, in_features = base.weight.shape  # type: ignore[misc]
        bound = 1 / math.sqrt(in_features)  # Kaiming's with a = √5, as PEFT begins
        self.a = nn.Parameter(torch.empty(rank, in_features).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        added = F.linear(F.linear(x.float(), self.a), self.b) * self.scale
        out: Tensor = self.base(x)
        return out + added.to(out.dtype)


def add_lora(model: GPT, settings: Settings) -> dict[str, LoraLinear]:
    """Freezes the model and puts trainable LoRA beside all its projections; by Hugging Face module name."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = {}
    for name, module in model.projections().items():
        parts[name] = LoraLinear(module, rank=settings.rank, alpha=settings.alpha, generator=generator)
        model.replace_projection(name, parts[name])
    return parts


def batch_loss(model: GPT, examples: Sequence[Example]) -> Tensor:
    """Sum of the cross-entropies of the trained tokens, each predicted from those before it in its own example."""
    tokens = torch.tensor([token for example in examples for token in example.tokens])
    positions = torch.cat([torch.arange(len(example.tokens)) for example in examples])
    lengths = [len(example.tokens) for example in examples]
    trained = torch.tensor([flag for example in examples for flag in example.trained])
    targets = (trained & (positions > 0)).nonzero().squeeze(-1)  # the first token of an example is predicted from nothing
    hidden = model(tokens, positions, CausalAttention(lengths))
    logits = model.logits(hidden[targets - 1]).float()
    return F.cross_entropy(logits, tokens[targets], reduction="sum")


def target_count(examples: Sequence[Example]) -> int:
    return sum(sum(example.trained[1:]) for example in examples)


def micro_batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """The examples in order, cut where the next would pass MICRO_BATCH_TOKENS."""
    batch: list[Example] = []
    for example in examples:
        if batch and sum(len(e.tokens) for e in batch) + len(example.tokens) > MICRO_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


@torch.no_grad()
def mean_loss(model: GPT, examples: Sequence[Example]) -> float | None:
    """Mean cross-entropy of the trained tokens, None without any."""
    count = target_count(examples)
    if not count:
        return None
    return float(sum(batch_loss(model, batch).item() for batch in micro_batches(examples)) / count)


@dataclass
class Progress:
    """Where a run is, and what it has seen; kept in the checkpoint."""

    step: int = 0
    tokens: int = 0
    loss: float | None = None  # of the last step
    validation_loss: float | None = None
    base_validation_loss: float | None = None


@dataclass
class Run:
    """One fine-tune: `examples` are split into training and validation by the seed."""

    model: GPT
    examples: Sequence[Example]
    settings: Settings
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.parts = add_lora(self.model, self.settings)
        self.parameters = [parameter for part in self.parts.values() for parameter in (part.a, part.b)]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=self.settings.learning_rate, weight_decay=0.0)
        order = _order(len(self.examples), self.settings.seed, -1)
        held_out = min(round(len(order) * self.settings.validation_share), VALIDATION_EXAMPLES, len(order) - 1)
        self.validation = [self.examples[index] for index in order[:held_out]]
        self.training = [self.examples[index] for index in order[held_out:]]
        self.steps_per_epoch = math.ceil(len(self.training) / self.settings.batch_size)
        self.total_steps = self.steps_per_epoch * self.settings.epochs

    @property
    def is_over(self) -> bool:
        return self.progress.step >= self.total_steps

    def batch(self, step: int) -> list[Example]:
        """The examples of a step: each epoch has an order of its own, drawn from the seed and its number."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(len(self.training), self.settings.seed, epoch)
        first = place * self.settings.batch_size
        return [self.training[index] for index in order[first : first + self.settings.batch_size]]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to LEAST_RATE of the highest (Loshchilov and Hutter, 2017)."""
        warm_up = max(1, round(self.total_steps * WARM_UP_SHARE))
        if step < warm_up:
            return self.settings.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.total_steps - warm_up)
        return self.settings.learning_rate * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))

    def advance(self) -> dict[str, Any]:
        """One step of the optimiser; returns its event."""
        began, step = time.monotonic(), self.progress.step
        batch, rate = self.batch(step), self.learning_rate(step)
        count, loss_sum = target_count(batch), 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for part in micro_batches(batch):
            loss = batch_loss(self.model, part) / max(count, 1)
            loss.backward()
            loss_sum += loss.item()
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM).item()
        if not math.isfinite(loss_sum) or not math.isfinite(norm):
            raise FloatingPointError(f"the loss is no longer a number at step {step + 1}; choose a lower learning rate")
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        tokens = sum(len(example.tokens) for example in batch)
        self.progress.step, self.progress.loss = step + 1, loss_sum
        self.progress.tokens += tokens
        speed = round(tokens / max(time.monotonic() - began, 1e-6), 1)
        return {"step": step + 1, "loss": loss_sum, "learning_rate": rate, "grad_norm": norm, "tokens_per_s": speed}

    def validate(self) -> dict[str, Any] | None:
        """The loss on what was held out, as an event; None when nothing was."""
        loss = mean_loss(self.model, self.validation)
        if loss is None:
            return None
        self.progress.validation_loss = loss
        if self.progress.step == 0:
            self.progress.base_validation_loss = loss
        return {"step": self.progress.step, "validation_loss": loss}

    # ------------------------------------------------------------ checkpoints

    def save(self, folder: Path) -> None:
        """Writes everything `load` needs to go on as if nothing had happened."""
        weights, moments = {}, {}
        for name, part in self.parts.items():
            for side in ("a", "b"):
                parameter = getattr(part, side)
                weights[f"{name}.{side}"] = parameter.detach().contiguous()
                for moment, value in self.optimiser.state.get(parameter, {}).items():
                    moments[f"{name}.{side}.{moment}"] = torch.as_tensor(value).contiguous().clone()
        save_file(weights, folder / "adapter.safetensors")
        save_file(moments, folder / "optimiser.safetensors")
        state = {"format": 1, "settings": asdict(self.settings), "progress": asdict(self.progress), "examples": len(self.examples)}
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint. Raises ValueError when it is of another run."""
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if state["settings"] != asdict(self.settings) or state["examples"] != len(self.examples):
            raise ValueError("the checkpoint belongs to a run with other settings or other data")
        weights, moments = load_file(folder / "adapter.safetensors"), load_file(folder / "optimiser.safetensors")
        with torch.no_grad():
            for name, part in self.parts.items():
                for side in ("a", "b"):
                    parameter = getattr(part, side)
                    parameter.copy_(weights[f"{name}.{side}"])
                    start = f"{name}.{side}."
                    kept = {key.removeprefix(start): value for key, value in moments.items() if key.startswith(start)}
                    if kept:
                        self.optimiser.state[parameter] = kept
        self.progress = Progress(**state["progress"])


def _order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)
    return torch.randperm(count, generator=generator).tolist()
