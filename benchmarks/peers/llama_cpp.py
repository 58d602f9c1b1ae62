"""llama.cpp through the C functions that llama-cpp-python binds, so that little Python stands between two steps."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import llama_cpp as c  # type: ignore[import-not-found]

from benchmarks.peers.lines import serve

PREFILL_TOKENS = 512  # given to one llama_decode at most; llama.cpp's own default for the physical batch


@dataclass
class Stream:
    """One request under way."""

    number: int  # llama.cpp's sequence id
    length: int  # of what was computed
    lacking: int
    made: list[int] = field(default_factory=list)


class LlamaCpp:
    def __init__(self, options: dict[str, Any]) -> None:
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(options["gguf"].encode(), c.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {options['gguf']}")
        params = c.llama_context_default_params()
        params.n_seq_max = options["batch"]
        params.n_ctx = options["context_tokens"] * options["batch"]
        params.n_batch = params.n_ubatch = PREFILL_TOKENS
        params.n_threads = params.n_threads_batch = options["threads"]
        self._context = c.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context")
        self._batch = c.llama_batch_init(PREFILL_TOKENS, 0, 1)
        self._greedy = c.llama_sampler_init_greedy()

    def versions(self) -> dict[str, str]:
        return {"llama-cpp-python": version("llama-cpp-python"), "llama.cpp": c.llama_print_system_info().decode().strip()}

    def generate(self, prompts: list[list[int]], max_tokens: list[int], adapters: None) -> dict[str, int]:
        """Answers every prompt, all of them at once."""
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        streams = [self._prefill(number, prompt, count) for number, (prompt, count) in enumerate(zip(prompts, max_tokens, strict=True))]
        while answering := [stream for stream in streams if stream.lacking]:
            for row, stream in enumerate(answering):
                self._put(row, stream.made[-1], stream.length, stream.number, wanted=True)
                stream.length += 1
            self._decode(len(answering))
            for row, stream in enumerate(answering):
                self._take(stream, row)
        return {"tokens": sum(len(stream.made) for stream in streams), "failed": 0}

    def _prefill(self, number: int, prompt: list[int], max_tokens: int) -> Stream:
        for start in range(0, len(prompt), PREFILL_TOKENS):
            chunk = prompt[start : start + PREFILL_TOKENS]
            for row, token in enumerate(chunk):
                self._put(row, token, start + row, number, wanted=start + row == len(prompt) - 1)
            self._decode(len(chunk))
        stream = Stream(number, len(prompt), max_tokens)
        self._take(stream, len(chunk) - 1)
        return stream

    def _put(self, row: int, token: int, position: int, number: int, *, wanted: bool) -> None:
        self._batch.token[row] = token
        self._batch.pos[row] = position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = number
        self._batch.logits[row] = wanted

    def _decode(self, rows: int) -> None:
        self._batch.n_tokens = ctypes.c_int32(rows)
        if code := c.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode returned {code}")

    def _take(self, stream: Stream, row: int) -> None:
        stream.made.append(c.llama_sampler_sample(self._greedy, self._context, row))
        stream.lacking -= 1


if __name__ == "__main__":
    serve(LlamaCpp)
