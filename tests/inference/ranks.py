"""A run in two processes, told what they are as torchrun tells it, but forked from one that has loaded what they need.

To load it takes each process, and torchrun itself, many times as long as the runs of the tests.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from inference.__main__ import main

COUNT = 2
LOADED = ["inference.terminal", "torch._dynamo", "torch.distributed.fsdp", "transformers", __name__]
WITHIN_S = 120.0


def together(said: Path, *arguments: Any) -> dict[str, Any]:
    """The result of `inference train` in COUNT processes. What they say goes into `said`, a folder that is made."""
    said.mkdir()
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(LOADED)
    meeting = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [forks.Process(target=_run, args=(rank, meeting.port, said, ["train", *map(str, arguments)])) for rank in range(COUNT)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(WITHIN_S)
    ended = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    assert ended == [0] * COUNT, "\n".join(file.read_text()[-3000:] for file in sorted(said.glob("*.err")))
    result: dict[str, Any] = json.loads((said / "0.out").read_text().splitlines()[-1])
    return result


def _run(rank: int, port: int, said: Path, command: Sequence[str]) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": COUNT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()}, TORCHELASTIC_USE_AGENT_STORE="True")
    os.dup2(os.open(said / f"{rank}.err", os.O_CREAT | os.O_WRONLY), sys.stderr.fileno())
    with (said / f"{rank}.out").open("w") as out, redirect_stdout(out):
        status = main(command)
    sys.exit(status)
