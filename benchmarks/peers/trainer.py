"""transformers' Trainer, with PEFT's LoRA or for all weights."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
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
        self._folder, self._adapter = options["folder"], options["adapter"]
        self._autocast, self._micro_batch = options["autocast"], options["micro_batch"]
        self._trainer: transformers.Trainer | None = None

    def versions(self) -> dict[str, str]:
        packages = ("transformers", "torch", "peft") if self._adapter else ("transformers", "torch")
        return {name: version(name) for name in packages}

    def ready(self, settings: dict[str, Any], examples: list[list[int]]) -> None:
        """`examples` in the order in which they are trained."""
        self._trainer = None
        gc.collect()
        model = self._load()
        recipe, steps = Recipe.from_json(settings), -(-len(examples) // settings["batch_size"])
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=0.0)
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
            model,
            arguments,
            train_dataset=Steps(examples),
            data_collator=_together,
            optimizers=(optimiser, rates),
            callbacks=[self._losses],
        )

    def _load(self) -> Any:
        """The weights that every round begins with."""
        model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.float32)
        model.config.use_cache = False
        if not self._adapter:
            return model
        import peft

        return peft.PeftModel.from_pretrained(model, self._adapter, is_trainable=True)

    def train(self) -> dict[str, Any]:
        assert self._trainer is not None
        self._trainer.train()
        return {"losses": self._losses.found}


def _together(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """All of one length, so nothing is padded."""
    tokens = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
    return {**tokens, "attention_mask": torch.ones_like(tokens["input_ids"])}


if __name__ == "__main__":
    serve(TrainerSide)
