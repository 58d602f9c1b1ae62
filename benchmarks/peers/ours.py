"""This project's engine through its library front, in pure torch (INFERENCE_NATIVE=0) or with the C++ path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.lines import resident_bytes, serve
from inference import Engine, SamplingParams
from inference.footprint import fit, renderers_bytes
from inference.native import library
from inference.protocol import FinishReason

NO_LIMIT_BYTES = 2**50


def check_native(*, wanted: bool) -> None:
    """Raises RuntimeError when this process would not measure the column it is for."""
    if (library() is not None) is not wanted:
        raise RuntimeError(f"the C++ path is {'not there' if wanted else 'used in spite of INFERENCE_NATIVE=0'}")


class Ours:
    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        check_native(wanted=options["native"])
        # No peer guesses ahead, and text without an end soon repeats itself.
        self._folder, self._options = Path(options["folder"]), {"dtype": options["dtype"], "lookahead": 0, **options["engine"]}
        self._engine = Engine.load(self._folder, **self._options)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def generate(self, prompts: list[list[int]], max_tokens: list[int], adapters: list[str] | None) -> dict[str, int]:
        """Answers every prompt."""
        params = [SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True) for count in max_tokens]
        folders = None if adapters is None else [Path(folder) for folder in adapters]
        outputs = self._engine.generate(prompts, params, adapters=folders)
        failed = sum(output.finish_reason != FinishReason.LENGTH for output in outputs)
        return {"tokens": sum(len(output.token_ids) for output in outputs), "failed": failed}

    def memory(self) -> dict[str, int]:
        """What the process holds, ready for grammars as an engine's is, and what `inference.footprint` says that it takes; without
        the process that renders conversations, which is not started here.
        """
        self._engine._core.prepare_grammars()
        stated = fit(self._folder, budget_bytes=NO_LIMIT_BYTES, options=self._options).bytes
        return {"resident_bytes": resident_bytes(), "stated_bytes": stated - renderers_bytes(self._folder)}


if __name__ == "__main__":
    serve(Ours)
