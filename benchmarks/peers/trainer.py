"""transformers' Trainer, with PEFT's LoRA or for all weights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments

from benchmarks.peers.lines import serve
from inference.recipe import Recipe


class Steps(Dataset[dict[str, list[int]]]):
    def __init__(self, examples: Sequence[list[int]]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        return {"input_ids": self._examples[number], "labels": self._examples[number]}


class InOrder(transformers.Trainer):  # type: ignore[misc]
    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


class Losses(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: dict[str, float] | None = None, **_rest: Any) -> None:
        if logs and "loss" in logs:
            self.found.append(logs["loss"])


class TrainerSide:
    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self._autocast, self._micro_batch = options["autocast"], options["micro_batch"]
        self._model = AutoModelForCausalLM.from_pretrained(options["folder"], dtype=torch.float32)
        self._model.config.use_cache = False
        self._versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        self._start: dict[str, torch.Tensor] = {}
        if options["adapter"]:
            import peft

            self._model = peft.PeftModel.from_pretrained(self._model, options["adapter"], is_trainable=True)
            self._start = {name: p.detach().clone() for name, p in self._model.named_parameters() if p.requires_grad}
            self._versions["peft"] = peft.__version__

    def versions(self) -> dict[str, str]:
        return self._versions

    def ready(self, settings: dict[str, Any], examples: list[list[int]]) -> None:
        """`examples` in the order in which they are trained."""
        recipe, steps = Recipe.from_json(settings), -(-len(examples) // settings["batch_size"])
        learned = {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        with torch.no_grad():
            for name, start in self._start.items():
                learned[name].copy_(start)
        optimiser = torch.optim.AdamW(learned.values(), lr=recipe.learning_rate, weight_decay=0.0)
        rates = LambdaLR(optimiser, lambda step: recipe.rate(min(step, steps - 1), steps) / recipe.learning_rate)
        micro_batch = self._micro_batch or recipe.batch_size
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=self._autocast,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=recipe.batch_size // micro_batch,
            max_steps=steps,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        self._losses = Losses()
        self._trainer = InOrder(
            self._model,
            arguments,
            train_dataset=Steps(examples),
            data_collator=_together,
            optimizers=(optimiser, rates),
            callbacks=[self._losses],
        )

    def train(self) -> dict[str, Any]:
        self._trainer.train()
        return {"losses": self._losses.found}


def _together(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """All of one length, so nothing is padded."""
    tokens = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
    return {**tokens, "attention_mask": torch.ones_like(tokens["input_ids"])}


if __name__ == "__main__":
    serve(TrainerSide)
