"""A rule for answers compiled and followed a little once, in a process with little time and memory.

`python -m inference.grammar_trial`, started by `require_bounded`, reads the rule from its input. The library recurses as deep as
a schema's references go, which ends a process, and a long chain of optional parts costs it minutes and gigabytes. What it
cannot do here it must not begin in an engine. The vocabulary is that of the bytes: little depends on it, and it takes no time.

Tried alone a small schema took 0.1 s of processor time, most of it to begin the process (measured on two shared cores).
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
from pathlib import Path

from llguidance import LLTokenizer

from inference.grammar import NO_TEXT, GrammarRefused, compiled, next_allowed, says_nothing, schemas_of_calls
from inference.sampling_params import Form, Grammar

WITHIN_S = 2  # of processor time, beginning to end
WAITED_S = 30.0  # where other processes take the processor
MEMORY_BYTES = 64 * 1024**2  # of addresses, for the rule alone
STACK_BYTES = 1024**2  # an engine's threads have several times as much
STEPS = 48  # tokens that are followed
END = 256  # the token that ends a text, behind those of the bytes
REFUSED_STATUS = 3
TOO_MUCH = "it needs too much time or memory, or is nested too deeply"


class TrialOverdue(Exception):
    """The machine had no time for the trial: nothing is known about the rule."""


def require_bounded(grammar: Grammar) -> int:
    """The bytes that the rule took.

    Raises GrammarRefused when it is not supported or needs too much, TrialOverdue when that was not found out in time.
    """
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # each reserves far more addresses than a rule may take
    command = [sys.executable, "-m", "inference.grammar_trial"]
    text = json.dumps(grammar.to_json())
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAITED_S, check=False, env=environment, cwd=root)
    except subprocess.TimeoutExpired as error:
        raise TrialOverdue from error
    if done.returncode == REFUSED_STATUS:
        raise GrammarRefused(done.stdout)
    if done.returncode != 0:
        raise GrammarRefused(TOO_MUCH)
    return int(done.stdout)


class Bytes:
    """A vocabulary of 256 bytes and an end, as the library asks for one."""

    is_tokenizer_wrapper = True
    eos_token_id = END
    bos_token_id = None
    tokens = [*(bytes([byte]) for byte in range(END)), b"<end>"]
    special_token_ids = [END]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def judge(grammar: Grammar) -> None:
    """Follows a rule, or what it is made of. Raises GrammarRefused."""
    if grammar.kind != Form.TOOLS:
        _follow(grammar)
        return
    for name, arguments in schemas_of_calls(grammar).items():  # which lie too far behind the beginning of the whole
        try:
            _follow(arguments)
        except GrammarRefused as error:
            raise GrammarRefused(f"{name}: {error}") from error
    _follow(grammar)


def _follow(grammar: Grammar) -> None:
    matcher = compiled(grammar, LLTokenizer(Bytes()))  # type: ignore[arg-type]
    choose = random.Random(1)
    for step in range(STEPS):
        allowed = next_allowed(matcher)
        if says_nothing(allowed, 1 << END):
            if step == 0:
                raise GrammarRefused(NO_TEXT)
            return
        bits = int.from_bytes(allowed, "little")
        matcher.consume_token(choose.choice([byte for byte in range(END) if bits >> byte & 1]))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (WITHIN_S, WITHIN_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    grammar = Grammar.from_json(json.load(sys.stdin))
    before = _peak_bytes()
    most = _addresses() + STACK_BYTES + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    outcomes: list[str] = []  # one: why the rule is refused, "" when it is not

    def note() -> None:
        try:
            judge(grammar)
            outcomes.append("")
        except GrammarRefused as error:
            outcomes.append(str(error))

    threading.stack_size(STACK_BYTES)
    judging = threading.Thread(target=note)
    judging.start()
    judging.join()
    if not outcomes:
        sys.exit(1)
    if outcomes[0]:
        sys.stdout.write(outcomes[0])
        sys.exit(REFUSED_STATUS)
    sys.stdout.write(str(_peak_bytes() - before))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _addresses() -> int:
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
