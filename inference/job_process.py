"""The process a job runs in: `python -m inference.job_process NICENESS`, one for each attempt, started by `inference.jobs`.

That may be before its job comes: until then it only loads what jobs need, which takes seconds.

Wire form, one line each. In: first an order as JSON (`Order`), later the words `recorded`, `pause` and `cancel`.
Out: JSON objects whose `type` is progress, segment, result, paused, cancelled or error. After a segment the child waits
for `recorded` before it goes on, so that it never works past a checkpoint the store has refused. The end of the
input means that the parent is gone: the process ends at once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from inference.protocol import JobTask, Message

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOWEST_PRIORITY = 19
AUTOGROUP = Path("/proc/self/autogroup")  # sched(7): how much the whole session yields, where sessions share the processor
AUTOGROUP_TRIES = 5  # one in a tenth of a second is heard, of all on the machine
CANCELLED_STATUS = 3
STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE})
WANT_OF_MEMORY = ("can't allocate memory", "annot allocate memory", "out of memory", "bad_alloc")


@dataclass(frozen=True)
class Order(Message):
    """What the parent asks of the child."""

    task: dict[str, Any]  # JobTask.to_json()
    artifacts: str  # URL of the artifact store
    cache: str  # folder where artifacts are kept by digest
    parent: int  # process id of whoever started this process
    memory_bytes: int = 0  # a model that needs more is refused; 0: no limit
    segment_s: float = 20.0

    @property
    def job(self) -> JobTask:
        return JobTask.from_json(self.task)


class JobError(Exception):
    """Ends the job with a reason for its owner. `retriable` says whether another attempt may do better."""

    def __init__(self, code: str, message: str, *, detail: Mapping[str, Any] | None = None, retriable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.detail = dict(detail or {})
        self.retriable = retriable


class Cancelled(Exception):
    """The job was cancelled: end without a result."""


class Paused(Exception):
    """The job was paused after a recorded segment."""


class Channel:
    """The child's side of the conversation with its parent. Safe to use from one working thread."""

    def __init__(self, orders: TextIO, events: TextIO) -> None:
        self._orders = orders
        self._events = events
        self._recorded = threading.Semaphore(0)
        self._pausing = threading.Event()
        self._cancelled = threading.Event()

    def read_order(self) -> Order:
        """Waits for it. Ends the process when the input ends before it comes."""
        if not (line := self._orders.readline()):
            os._exit(0)
        return Order.from_json(json.loads(line))

    def listen(self) -> None:
        """Obeys further lines from a thread of its own until the input ends, then ends the process."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _listen(self) -> None:
        for line in self._orders:
            word = line.strip()
            if word == "recorded":
                self._recorded.release()
            elif word == "pause":
                self._pausing.set()
            elif word == "cancel":
                self._cancelled.set()
                self._recorded.release()
        os._exit(CANCELLED_STATUS)

    def send(self, event: Mapping[str, Any]) -> None:
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        """Tells the parent that work goes on, and how far it is (`done` from 0 to 1). Raises Cancelled when asked to stop."""
        self.raise_if_cancelled()
        self.send({"type": "progress", "stage": stage, "done": done, **facts})

    @property
    def pausing(self) -> bool:
        """True when the segment under way should end now."""
        return self._pausing.is_set()

    def raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def segment(self, *, number: int, checkpoint: str, events: list[dict[str, Any]], done: float) -> None:
        """Offers a segment and waits until the store has made it current. Raises Paused or Cancelled."""
        self.send({"type": "segment", "number": number, "checkpoint": checkpoint, "events": events, "done": done})
        self._recorded.acquire()
        self.raise_if_cancelled()
        if self.pausing:
            raise Paused


def die_with(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends (Linux), also when that has happened already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(CANCELLED_STATUS)


def give_way(nice: int) -> None:
    """Lowers the priority of this process, for the processor and, since the kernel derives it, for the disk (ioprio_set(2)).

    Where the kernel shares the processor among sessions, niceness counts only inside one: the processes of a worker and of
    an engine would get as much as each other. So the session of this process, which it has for itself, yields too.
    """
    priority = os.nice(nice)
    for _ in range(AUTOGROUP_TRIES):
        try:
            AUTOGROUP.write_text(str(priority))
            return
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # a kernel without
            return


def take_standard_output() -> TextIO:
    """A private stream on the standard output; whatever a library prints goes to the standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def work(order: Order, channel: Channel) -> dict[str, Any]:
    """The event that ends the job."""
    from inference import job_kinds  # loads torch, so not with this module, and only once the process has its priority

    try:
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            result = job_kinds.run(order, channel, work=Path(folder))
            json.dumps(result, allow_nan=False)  # a number that is none, no database takes
            return {"type": "result", "result": result}
    except Paused:
        return {"type": "paused"}
    except Cancelled:
        return {"type": "cancelled"}
    except JobError as error:
        return _failure(error.code, str(error), detail=error.detail, retriable=error.retriable)
    except Exception as error:
        traceback.print_exc()
        if _is_for_want_of_memory(error):
            said = str(error).partition("\n")[0] or type(error).__name__
            advice = "Choose smaller batches, fewer tokens per example or a smaller base."
            return _failure("out_of_memory", f"The worker ran out of memory: {said}. {advice}")
        if _is_of_storage(error):
            return _failure("worker_storage", f"The worker could not read or write a file: {error}.", retriable=True)
        detail = {"traceback": traceback.format_exc()[-4000:]}
        return _failure("internal", f"{type(error).__name__}: {error}", detail=detail, retriable=True)


def _is_of_storage(error: Exception) -> bool:
    """Whether the worker's disk has no room or fails, which may be over at the next attempt."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRNOS
    return isinstance(error, SafetensorError) and "I/O error" in str(error)


def _is_for_want_of_memory(error: Exception) -> bool:
    """Python, the system and torch each say it in their own way; torch and safetensors by their words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError | SafetensorError):
        return any(word in str(error) for word in WANT_OF_MEMORY)
    return isinstance(error, MemoryError)


def _failure(code: str, message: str, *, detail: Mapping[str, Any] | None = None, retriable: bool = False) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": message, "detail": dict(detail or {}), "retriable": retriable}


def main() -> None:
    events = take_standard_output()
    give_way(int(sys.argv[1]))
    import transformers.utils.chat_template_utils  # noqa: F401 and what renders conversations, which is loaded when first needed

    import inference.job_kinds  # noqa: F401 so that the order finds it loaded

    channel = Channel(sys.stdin, events)
    order = channel.read_order()
    die_with(order.parent)
    channel.listen()
    channel.send(work(order, channel))
    events.flush()
    os._exit(0)  # the listening thread holds the standard input; ending normally would wait for its lock


if __name__ == "__main__":
    # Run as a script this module would exist twice, and the exceptions raised through the other copy would not be caught.
    from inference.job_process import main as run_job

    run_job()
