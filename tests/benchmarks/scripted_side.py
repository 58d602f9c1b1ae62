"""A side of a benchmark that does what its options say."""

from __future__ import annotations

import os
import signal
from typing import Any

from benchmarks.peers.lines import serve


class ScriptedSide:
    def __init__(self, options: dict[str, Any]) -> None:
        if options["load"] == "refuse":
            raise ValueError("this model is not for me")
        os.write(1, b"what libraries say on standard output is no answer\n")

    def versions(self) -> dict[str, str]:
        return {"threads": os.environ["OMP_NUM_THREADS"], "native": os.environ.get("INFERENCE_NATIVE", "default")}

    def generate(self, prompts: list[list[int]], max_tokens: list[int], adapters: list[str] | None) -> dict[str, int]:
        return {"tokens": sum(max_tokens), "failed": 0}

    def die(self) -> None:
        os.write(1, b"the last words\n")
        os.kill(os.getpid(), signal.SIGILL)


if __name__ == "__main__":
    serve(ScriptedSide)
