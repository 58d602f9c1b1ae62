"""The sides of a benchmark, each a child process with an environment, threads and memory of its own.

Between its turns a side's processes are stopped, so that nobody's spinning or polling threads take time from another's turn.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import PEERS, ROOT, is_installed, python_of

LOGS = ROOT / "var" / "benchmarks" / "logs"
ANSWER_WITHIN_S = 3600.0
OURS, PURE, NATIVE = "ours", "pure", "native"


class SideFailed(Exception):
    """A side that cannot be measured; the message says why."""


@dataclass(frozen=True)
class Side:
    """Whom to measure, in which numbers. `column` is for this project's sides only."""

    name: str  # ours, transformers, peft, llama.cpp, vllm
    dtype: str
    column: str = ""

    @property
    def key(self) -> str:
        return "/".join(part for part in (self.name, self.column, self.dtype) if part)

    @property
    def title(self) -> str:
        return f"{self.name} {self.dtype}"


@dataclass(frozen=True)
class Program:
    """How a side's process is started."""

    module: str
    environment: str | None = None  # one of benchmarks.environments; None: the project's own
    variables: dict[str, str] = field(default_factory=dict)


PROGRAMS = {
    "ours": Program("benchmarks.peers.ours"),
    "ours_arrivals": Program("benchmarks.peers.ours_arrivals"),
    "transformers": Program("benchmarks.peers.hugging_face"),
    "peft": Program("benchmarks.peers.hugging_face"),
    "llama.cpp": Program("benchmarks.peers.llama_cpp", "llamacpp"),
    "vllm": Program(
        "benchmarks.peers.vllm_cpu",
        "vllm",
        {
            "VLLM_CACHE_ROOT": str(PEERS / "vllm-cache"),
            "VLLM_USE_AOT_COMPILE": "0",  # with this torch it cannot load again what it compiled ahead of time
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the process that is measured, not in a third and fourth
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
            "VLLM_NO_USAGE_STATS": "1",
            "LD_PRELOAD": str(PEERS / "vllm" / "lib" / "libiomp5.so"),  # as its documentation asks for on x86
        },
    ),
}
PURE_ONLY = {"INFERENCE_NATIVE": "0"}


@dataclass(frozen=True)
class Answered:
    """What became of some prompts."""

    seconds: float
    tokens: int
    failed: int


class Child:
    """A running side. `ask` raises SideFailed when it cannot answer, and it is of no use after that."""

    def __init__(self, side: Side, program: Program, options: dict[str, Any]) -> None:
        """Starts the process and waits until its model is loaded."""
        self.side = side
        if not is_installed(program.environment):
            raise SideFailed(f"not installed: python -m benchmarks.core --install {program.environment}")
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log = LOGS / f"{side.key.replace('/', '-')}.log"
        self._answers = b""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python_of(program.environment)), "-m", program.module],
                cwd=ROOT,
                env=self._variables(program, options["threads"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._say(options)
            self._answer()
            self.versions: dict[str, str] = self.ask("versions")["value"]
        except SideFailed:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """{"seconds", "value"} of a method of the side."""
        self._signal(signal.SIGCONT)
        self._say({"do": do, "with": arguments})
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def generate(self, prompts: list[list[int]], max_tokens: int | list[int], adapters: Sequence[Path] | None = None) -> Answered:
        """Has every prompt answered to its full length, greedily."""
        counts = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
        folders = None if adapters is None else [str(folder) for folder in adapters]
        answer = self.ask("generate", prompts=prompts, max_tokens=counts, adapters=folders)
        return Answered(answer["seconds"], **answer["value"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _variables(self, program: Program, threads: int) -> dict[str, str]:
        cores = sorted(os.sched_getaffinity(0))[:threads]
        ours = PURE_ONLY if self.side.column == PURE else {}
        return {
            **{name: value for name, value in os.environ.items() if name != "INFERENCE_NATIVE"},
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **program.variables,
            **ours,
        }

    def _say(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(self._end()) from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._answers:
            readable, _, _ = select.select([self._process.stdout], [], [], ANSWER_WITHIN_S)
            if not readable:
                raise SideFailed(f"no answer within {ANSWER_WITHIN_S:.0f} s (log: {os.path.relpath(self._log, ROOT)})")
            part = os.read(self._process.stdout.fileno(), 65_536)
            if not part:
                raise SideFailed(self._end())
            self._answers += part
        line, _, self._answers = self._answers.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideFailed(f"{answer['error']} (log: {os.path.relpath(self._log, ROOT)})")
        return answer

    def _end(self) -> str:
        """How a process that answers no more came to its end."""
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        last = f", after saying: {said[-1].strip()[:200]}" if said else ""
        return f"its process {how}{last} (log: {os.path.relpath(self._log, ROOT)})"

    def _signal(self, number: signal.Signals) -> None:
        """To the side's whole group of processes, as long as there is one."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
