"""transformers' generate, and PEFT with an adapter per row of the batch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.peers.lines import serve


class HuggingFace:
    """Batches are padded on the left; requests that want different lengths are sorted by them and cut into batches of `padded_batch`."""

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self._model = AutoModelForCausalLM.from_pretrained(options["folder"], dtype=getattr(torch, options["dtype"]))
        self._model.eval()
        self._pad = self._model.config.pad_token_id or 0
        self._batch = options["padded_batch"]
        self._named: dict[str, str] = {}  # adapter's folder -> PEFT's name for it
        for folder in options["adapters"]:
            self._load_adapter(folder)

    def versions(self) -> dict[str, str]:
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def generate(self, prompts: list[list[int]], max_tokens: list[int], adapters: list[str] | None) -> dict[str, int]:
        """Answers every prompt; counts the tokens that were asked for."""
        order = sorted(range(len(prompts)), key=lambda index: max_tokens[index])
        for start in range(0, len(order), self._batch):
            batch = order[start : start + self._batch]
            self._generate_padded(
                [prompts[index] for index in batch],
                max(max_tokens[index] for index in batch),
                None if adapters is None else [self._named[adapters[index]] for index in batch],
            )
        return {"tokens": sum(max_tokens), "failed": 0}

    @torch.inference_mode()
    def _generate_padded(self, prompts: list[list[int]], new_tokens: int, adapters: list[str] | None) -> None:
        width = max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        config = GenerationConfig(
            do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=self._pad, eos_token_id=None
        )
        named = {} if adapters is None else {"adapter_names": adapters}
        base_only = self._named and adapters is None
        with self._model.disable_adapter() if base_only else nullcontext():
            made = self._model.generate(input_ids=tokens, attention_mask=mask, generation_config=config, **named)
        if made.shape[1] != width + new_tokens:
            raise RuntimeError(f"generate made {made.shape[1] - width} tokens instead of {new_tokens}")

    def _load_adapter(self, folder: str) -> None:
        from peft import PeftModel

        name = Path(folder).name
        if not self._named:
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name, autocast_adapter_dtype=False).eval()
        else:
            self._model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=False)
        self._named[folder] = name


if __name__ == "__main__":
    serve(HuggingFace)
