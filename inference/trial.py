"""A conversation rendered once by a stranger's chat template and tokenizer, in a process with little time and memory.

`python -m inference.trial FOLDER`, started by `require_bounded`. The sandbox of Jinja bounds one range, but neither loops
inside loops nor the length of a text; a template that needs more than is allowed here would hold up an engine.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

WITHIN_S = 20.0  # of processor time, beginning to end; a good template takes one, nearly all of it for imports
WAITED_S = 120.0  # where other processes take the processor
MEMORY_BYTES = 3 * 1024**3  # of addresses, the libraries' included
FAILED_STATUS = 3
CONVERSATION = [
    {"role": "user", "content": "Hello! 你好"},
    {"role": "assistant", "content": "Hello. What is it about?"},
    {"role": "user", "content": "The sea, its tides and its colours."},
]


def require_bounded(folder: Path) -> None:
    """Raises TemplateFailed when the folder's chat template or tokenizer needs too much, or refuses a plain conversation."""
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "inference.trial", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAITED_S, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise TemplateFailed(_too_much()) from error
    if done.returncode == FAILED_STATUS:
        raise TemplateFailed(done.stdout.strip())
    if done.returncode != 0:
        raise TemplateFailed(_too_much())


def _too_much() -> str:
    return (
        "The model's chat template or tokenizer needs too much time or memory for a plain conversation: "
        f"more than {WITHIN_S:.0f} seconds or {MEMORY_BYTES // 1024**3} GB."
    )


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(WITHIN_S), int(WITHIN_S) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        Tokenizer.from_folder(Path(sys.argv[1])).render(CONVERSATION)
    except (TemplateFailed, TokenizerError) as error:
        if isinstance(error.__cause__, MemoryError):
            sys.exit(1)
        sys.stdout.write(str(error)[:2000])
        sys.exit(FAILED_STATUS)


if __name__ == "__main__":
    main()
