"""Interactive requests that arrive at this project's engine while batch requests keep it busy, or while nothing does."""

from __future__ import annotations

import random
import secrets
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.lines import serve
from benchmarks.peers.ours import check_native
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.protocol import Delta, Finished, FinishReason, GenerationRequest, Priority
from inference.sampling_params import SamplingParams

LONGEST_PAUSE_S = 1.0
WITHIN_S = 3600


class OursArrivals:
    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        check_native(wanted=options["native"])
        self._engine = EngineCore.load(Path(options["folder"]), EngineOptions(dtype=options["dtype"], **options["engine"]))
        self._batch_prompts: list[list[int]] = []
        self._batch_tokens = 0
        self._batch_made = 0

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def first_tokens(
        self, prompts: list[list[int]], max_tokens: int, batch_prompts: list[list[int]], batch_tokens: int, seed: int
    ) -> dict[str, Any]:
        """Milliseconds from each prompt's arrival to its first token, while as many batch requests as `batch_prompts` run.

        A batch request that ends is followed by another. Prompts arrive one after the other, each at a moment drawn from the
        second after the answer before, whatever the engine is doing then; the wait for the step under way is counted.
        """
        self._batch_prompts, self._batch_tokens, self._batch_made = batch_prompts, batch_tokens, 0
        moments = random.Random(seed)
        under_way = {self._submit(prompt, batch_tokens, Priority.BATCH) for prompt in batch_prompts}
        for _ in range(4):  # the engine is amid its work when the first one arrives
            self._step(under_way, None)
        first_ms = [self._first_token_ms(prompt, max_tokens, moments.uniform(0, LONGEST_PAUSE_S), under_way) for prompt in prompts]
        for name in under_way:
            self._engine.cancel(name)
        while self._engine.has_work:
            self._engine.step()
        return {"first_ms": first_ms}

    def _first_token_ms(self, prompt: list[int], max_tokens: int, pause_s: float, under_way: set[str]) -> float:
        arrives_at = time.perf_counter() + pause_s
        while (left_s := arrives_at - time.perf_counter()) > 0:
            if under_way:
                self._step(under_way, None)
            else:
                time.sleep(left_s)
        name = self._submit(prompt, max_tokens, Priority.INTERACTIVE)
        first_at = None
        ended = False
        while not ended:
            spoke, ended = self._step(under_way, name)
            if spoke and first_at is None:
                first_at = time.perf_counter()
        if first_at is None:
            raise RuntimeError("an interactive request ended without a token")
        return (first_at - arrives_at) * 1000

    def _step(self, under_way: set[str], awaited: str | None) -> tuple[bool, bool]:
        """One step of the engine: whether the awaited request said something, and whether it ended."""
        spoke = ended = False
        for name, event in self._engine.step():
            if isinstance(event, Finished) and event.reason not in (FinishReason.LENGTH, FinishReason.CANCELLED):
                raise RuntimeError(f"a request ended with {event.reason}: {event.message}")
            if name == awaited:
                spoke |= isinstance(event, Delta | Finished)
                ended |= isinstance(event, Finished)
            elif isinstance(event, Finished):
                under_way.discard(name)
                self._batch_made += 1
                following = self._batch_prompts[self._batch_made % len(self._batch_prompts)]
                under_way.add(self._submit(following, self._batch_tokens, Priority.BATCH))
        return spoke, ended

    def _submit(self, prompt: list[int], max_tokens: int, priority: Priority) -> str:
        request = GenerationRequest(
            id=f"req_{secrets.token_hex(8)}",
            base="benchmark",
            version="benchmark",
            tenant=secrets.token_hex(4),  # of its own: nothing is answered from the prefix cache
            messages=[],
            prompt_tokens=prompt,
            sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True).to_json(),
            deadline=time.time() + WITHIN_S,
            priority=priority,
        )
        self._engine.submit(request)
        return request.id


if __name__ == "__main__":
    serve(OursArrivals)
