"""Conversations and texts made tokens by a stranger's chat template and tokenizer, in a process with little time and memory.

`python -m inference.renderer FOLDER SECONDS`, started by `Renderer`. The sandbox of Jinja bounds one range, but neither loops
inside loops nor the length of a text, and a tokenizer's pattern may backtrack for long; in the engine's own process, where a thread
cannot be ended, either would hold up everybody's answers. The process loads what this needs, no torch, and forks: the kernel ends
the fork that needs too long, and the next is there at once.

Wire form, one JSON object per line. In: {"number", "call": a method of Tokenizer's, "arguments"}. Out: first {"ready"} or
{"unfit": message}, then for each line {"number", "tokens"} or {"number", "refused": message}, or {"overstepped"} when the fork has died
of it.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from inference.job_process import take_standard_output
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

WITHIN_S = 2.0  # by the clock, since others wait for it; a conversation of 32,000 characters takes a fiftieth of it
READY_WITHIN_S = 120.0  # where other processes take the processor; alone it is ready within two
LATE_S = 1.0  # after which a process that does not even say that it overstepped is killed
LOADING_BYTES = 3 * 1024**3  # of addresses, the libraries' included
ROOM_BYTES = 512 * 1024**2  # of addresses, beside what was loaded
MOST_SAID = 2000  # characters of a refusal


class TookTooMuch(TemplateFailed):
    """Time or memory, where others may have needed less."""


class Renderer:
    """The process for one model folder, started when first needed. To be used by one thread. A `prompts.Encoder`."""

    def __init__(self, folder: Path, *, within_s: float = WITHIN_S) -> None:
        self._folder = folder
        self._within_s = within_s
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket
        self._received = bytearray()
        self._ready = False
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Lets the process begin to load, when there is none; does not wait for it."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._line, theirs = socket.socketpair()
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "inference.renderer", str(self._folder.resolve()), str(self._within_s)]
        root = Path(__file__).resolve().parent.parent
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), env=environment, cwd=root)

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """The prompt for a conversation, as tokens. Raises TemplateFailed, at the latest a second after the time allowed."""
        return self._call("render", messages=list(messages), tools=None if tools is None else list(tools))

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """As the tokenizer's, but raises TemplateFailed."""
        return self._call("encode", text=text, add_special_tokens=add_special_tokens)

    def encode_plain(self, text: str) -> list[int]:
        """As the tokenizer's, but raises TemplateFailed."""
        return self._call("encode_plain", text=text)

    def close(self) -> None:
        """Ends the process. The next conversation would start another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._line.close()
        self._process, self._ready = None, False
        self._received.clear()

    def _call(self, method: str, **arguments: Any) -> list[int]:
        self.start()
        try:
            self._await_ready()
            return self._ask({"call": method, "arguments": arguments})
        except TemplateFailed:
            raise
        except (OSError, ValueError) as error:  # silent, ended, or no JSON
            self.close()
            self.start()
            raise TookTooMuch(self._too_much()) from error

    def _await_ready(self) -> None:
        if self._ready:
            return
        said = self._read(time.monotonic() + READY_WITHIN_S)
        if "ready" not in said:
            self.close()
            raise TemplateFailed(f"The model's prompt could not be made: {said.get('unfit')}")
        self._ready = True

    def _ask(self, question: Mapping[str, Any]) -> list[int]:
        until = time.monotonic() + self._within_s + LATE_S
        number = next(self._numbers)
        self._line.settimeout(self._within_s)
        self._line.sendall(json.dumps({"number": number, **question}).encode() + b"\n")
        while "overstepped" not in (said := self._read(until)):
            if said.get("number") != number:  # asked before
                continue
            if "tokens" not in said:
                raise TemplateFailed(said["refused"])
            tokens: list[int] = said["tokens"]
            return tokens
        raise TookTooMuch(self._too_much())

    def _read(self, until: float) -> dict[str, Any]:
        """The next line of the process. Raises OSError when there is none in time or none any more."""
        while (end := self._received.find(b"\n")) < 0:
            self._line.settimeout(max(until - time.monotonic(), 0.001))
            if not (found := self._line.recv(1 << 20)):
                raise ConnectionError("the renderer has ended")
            self._received += found
        line = self._received[:end]
        del self._received[: end + 1]
        said: dict[str, Any] = json.loads(line)
        return said

    def _too_much(self) -> str:
        return (
            "The model's chat template or tokenizer needs too much time or memory for this conversation or text: "
            f"more than {self._within_s:g} seconds or {ROOM_BYTES // 1024**2} MB."
        )


# ---------------------------------------------------------------- in the process


def main() -> None:
    output = take_standard_output()
    folder, within_s = Path(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_addresses(LOADING_BYTES)
    try:
        tokenizer = Tokenizer.from_folder(folder)
    except TokenizerError as error:
        _say(output, unfit=str(error)[:MOST_SAID])
        return
    import transformers.utils.chat_template_utils  # noqa: F401 - so that each fork has it

    _limit_addresses(_addresses() + ROOM_BYTES)
    _say(output, ready=True)
    while True:
        fork = os.fork()
        if fork == 0:
            _serve(tokenizer, output, within_s)
            os._exit(0)
        _, status = os.waitpid(fork, 0)
        if status == 0:  # the input has ended
            return
        _say(output, overstepped=True)


def _serve(tokenizer: Tokenizer, output: TextIO, within_s: float) -> None:
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, within_s)  # whose signal ends the process, whatever it does
        asked = json.loads(line)
        try:
            answer: dict[str, Any] = {"tokens": getattr(tokenizer, asked["call"])(**asked["arguments"])}
        except (TemplateFailed, TokenizerError) as error:
            if isinstance(error.__cause__, MemoryError):
                os._exit(1)
            answer = {"refused": str(error)[:MOST_SAID]}
        _say(output, number=asked["number"], **answer)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _say(output: TextIO, **facts: Any) -> None:
    try:
        output.write(json.dumps(facts) + "\n")
        output.flush()
    except BrokenPipeError:  # whoever asked is gone
        os._exit(0)


def _limit_addresses(count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (count if most == resource.RLIM_INFINITY else min(count, most), most))


def _addresses() -> int:
    """Bytes of addresses this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    # Run as a script this module would exist twice, and so would its exceptions.
    from inference.renderer import main as serve

    serve()
