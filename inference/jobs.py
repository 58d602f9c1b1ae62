"""The worker's side of a job: claim it, have it run, in a child process or in this one, keep its heartbeat, relay what it reports.

Nothing here decides whether a job goes on: every heartbeat and every segment asks the store, and the store's verdict is
obeyed. A worker that loses its claim kills the child and writes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from inference.job_process import LOWEST_PRIORITY, Order
from inference.protocol import (
    EVENTS_QUEUE,
    JOB_CLAIM,
    JOB_FAILED,
    JOB_FINISHED,
    JOB_HEARTBEAT,
    JOB_SEGMENT,
    STREAM_TTL_S,
    Claim,
    JobTask,
    Outcome,
    Segment,
    Verdict,
    progress_key,
)

log = logging.getLogger(__name__)

HEARTBEAT_EVERY_S = 5.0
HUNG_AFTER_S = 300.0  # a child that has said nothing for so long is killed; loading and hashing a large base report progress
CANCEL_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
SEGMENT_TRIES = 6
RETRY_FIRST_S = 1.0
PROGRESS_KEPT = 2000  # entries of the live stream


class StoreUnreachable(Exception):
    """The store did not answer in time, or the broker is away."""


class StoreClient(Protocol):
    """The five things a worker may tell the store about a job. All raise StoreUnreachable."""

    def claim(self, claim: Claim) -> Verdict: ...

    def heartbeat(self, claim: Claim) -> Verdict: ...

    def segment(self, segment: Segment) -> Verdict: ...

    def finished(self, outcome: Outcome) -> None: ...

    def failed(self, outcome: Outcome) -> None: ...


class CeleryStore:
    """StoreClient over the store's event queue; `app` is the worker's Celery application.

    Several threads may use it: one asks after the other, since they would read each other's answers.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._asking = threading.Lock()

    def claim(self, claim: Claim) -> Verdict:
        return self._ask(JOB_CLAIM, claim.to_json())

    def heartbeat(self, claim: Claim) -> Verdict:
        return self._ask(JOB_HEARTBEAT, claim.to_json())

    def segment(self, segment: Segment) -> Verdict:
        return self._ask(JOB_SEGMENT, segment.to_json())

    def finished(self, outcome: Outcome) -> None:
        self._tell(JOB_FINISHED, outcome.to_json())

    def failed(self, outcome: Outcome) -> None:
        self._tell(JOB_FAILED, outcome.to_json())

    def _ask(self, task: str, message: dict[str, Any]) -> Verdict:
        import celery.exceptions
        import kombu.exceptions
        import redis.exceptions

        away = (celery.exceptions.TimeoutError, kombu.exceptions.OperationalError, redis.exceptions.RedisError, ConnectionError)
        try:
            with self._asking:
                # An answer nobody waits for any more is not worth computing.
                answer = self._app.send_task(task, args=[message], queue=EVENTS_QUEUE, expires=ANSWER_WITHIN_S)
                return Verdict(answer.get(timeout=ANSWER_WITHIN_S, disable_sync_subtasks=False))
        except away as error:
            raise StoreUnreachable(f"no answer to {task}: {error!r}") from error

    def _tell(self, task: str, message: dict[str, Any]) -> None:
        import kombu.exceptions

        try:
            self._app.send_task(task, args=[message], queue=EVENTS_QUEUE, ignore_result=True, retry=True)
        except (kombu.exceptions.OperationalError, ConnectionError) as error:
            raise StoreUnreachable(f"{task} could not be sent: {error!r}") from error


class ProgressStream:
    """Relays a job's live progress to its Valkey stream. Losing an entry is no failure: the segments are the record."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def add(self, job: str, event: Mapping[str, Any]) -> None:
        import redis.exceptions

        key = progress_key(job)
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xadd(key, {"event": json.dumps(event)}, maxlen=PROGRESS_KEPT, approximate=True)
            pipeline.expire(key, STREAM_TTL_S)
            pipeline.execute()
        except redis.exceptions.RedisError as error:
            log.warning("progress of %s not relayed: %s", job, error)


class Work(Protocol):
    """What runs a job, as this module sees it: a child process, or a thread that answers a shard."""

    said: queue.Queue[str | None]  # lines as `inference.job_process` describes them; None: it has ended

    def begin(self, order: Order) -> None: ...

    def tell(self, line: str) -> None: ...

    def waited_s(self) -> float:
        """How long, of all its life, it has waited for a processor that others had."""

    def kill(self) -> int:
        """Ends it if it still runs; returns its exit status."""

    def wait(self) -> int: ...


@dataclass(frozen=True)
class Share:
    """What of the machine a job process takes."""

    threads: int = 1  # that compute
    nice: int = LOWEST_PRIORITY  # how much it yields to what else the machine does, from 0 to 19


@dataclass(frozen=True)
class Place:
    """Where and how this worker runs jobs."""

    worker: str
    artifacts: str  # URL
    cache: Path
    progress: Callable[[str, Mapping[str, Any]], None]
    memory_bytes: int = 0
    segment_s: float = 20.0
    heartbeat_every_s: float = HEARTBEAT_EVERY_S
    hung_after_s: float = HUNG_AFTER_S
    retry_first_s: float = RETRY_FIRST_S
    stopping: threading.Event = field(default_factory=threading.Event)  # set: end the segment under way, then leave the job
    work: Callable[[], Work] = lambda: Child(Share())  # makes what runs an attempt


class Child:
    """A job process, which waits for its order, and the lines it says."""

    def __init__(self, share: Share) -> None:
        threads = str(share.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "inference.job_process", str(share.nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).resolve().parent.parent,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that it can yield to all others, and Ctrl-C in a terminal reaches the worker alone
        )
        self.said: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[str] = self._process.stdin
        threading.Thread(target=self._read, args=(self._process.stdout,), name="job-output", daemon=True).start()

    def begin(self, order: Order) -> None:
        self.tell(json.dumps(order.to_json()))

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.said.put(line)
        self.said.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def tell(self, line: str) -> None:
        try:
            self._input.write(line + "\n")
            self._input.flush()
        except BrokenPipeError:
            log.info("job process %s has ended already", self.pid)

    def waited_s(self) -> float:
        """Of its first thread, which computes; 0 where the system keeps no account (proc_pid_schedstat(5))."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def kill(self) -> int:
        """Ends the process if it still runs; returns its exit status."""
        self._process.kill()
        return self._process.wait()

    def wait(self) -> int:
        return self._process.wait()


class Spare:
    """A job process that is there before its job: loading torch takes seconds, in which a person waits for the first step.

    It serves one attempt and is then made anew, so no job finds anything of another's.
    """

    def __init__(self, share: Share) -> None:
        self.share = share
        self._child: Child | None = None

    def prepare(self) -> None:
        if self._child is None or not self._child.lives:
            self._child = Child(self.share)

    def take(self) -> Child:
        self.prepare()
        child, self._child = self._child, None
        assert child is not None
        return child


def run(task: JobTask, send: StoreClient, *, place: Place) -> None:
    """Runs one attempt of a job to its end, or as far as the store lets it. Returns without effect when it is not ours."""
    claim = Claim(job=task.job, attempt=task.attempt, claim=secrets.token_hex(16), worker=place.worker)
    try:
        verdict = send.claim(claim)
    except StoreUnreachable as error:
        log.warning("job %s not claimed: %s", task.job, error)
        return
    if verdict is not Verdict.GO_ON:
        log.info("job %s attempt %s not taken: %s", task.job, task.attempt, verdict)
        return
    order = Order(
        task=task.to_json(),
        artifacts=place.artifacts,
        cache=str(place.cache),
        parent=os.getpid(),
        memory_bytes=place.memory_bytes,
        segment_s=place.segment_s,
    )
    child = place.work()
    try:
        child.begin(order)
        _Attempt(task, claim, send=send, place=place, child=child).follow()
    finally:
        child.kill()


class _Attempt:
    """One claimed attempt under way: reads the child, asks the store, tells the child."""

    def __init__(self, task: JobTask, claim: Claim, *, send: StoreClient, place: Place, child: Work) -> None:
        self._task = task
        self._claim = claim
        self._send = send
        self._place = place
        self._child = child
        self._beat_at = time.monotonic()
        self._hear()
        self._cancel_by: float | None = None
        self._told_to_pause = False

    def follow(self) -> None:
        """Returns when the attempt is over."""
        while True:
            line = self._next_line()
            if line is not None:
                self._hear()
                if self._over(json.loads(line)):
                    return
            if self._must_end():
                return

    def _next_line(self) -> str | None:
        """The child's next line, or None when the next heartbeat is due. The child's end reads as an error line."""
        due = self._beat_at + self._place.heartbeat_every_s - time.monotonic()
        try:
            line = self._child.said.get(timeout=max(0.0, min(due, 0.5)))
        except queue.Empty:
            return None
        if line is not None:
            return line
        status = self._child.wait()
        message = f"The process that ran the job ended without a result (status {status})."
        if status == -9:
            message += " The system may have killed it for want of memory."
        return json.dumps({"type": "error", "code": "process_died", "message": message, "detail": {"status": status}, "retriable": True})

    def _over(self, event: dict[str, Any]) -> bool:
        """Acts on what the child said; True when the attempt has ended."""
        match event["type"]:
            case "progress":
                self._place.progress(self._task.job, event)
                return False
            case "segment":
                return self._segment_ends_attempt(event)
            case "result":
                self._report(self._send.finished, self._outcome(result=event["result"]))
            case "error":
                outcome = self._outcome(error=event["message"], code=event["code"], detail=event["detail"], retriable=event["retriable"])
                self._report(self._send.failed, outcome)
            case "cancelled":
                self._report_cancelled()
            case "paused":  # the store knows when it asked for it; when this worker is stopping, it does not
                self._report(self._send.failed, self._outcome(error="The job was left at a checkpoint.", code="paused", retriable=True))
        return True

    def _segment_ends_attempt(self, event: dict[str, Any]) -> bool:
        segment = Segment(
            job=self._claim.job,
            attempt=self._claim.attempt,
            claim=self._claim.claim,
            number=event["number"],
            checkpoint=event["checkpoint"],
            events=event["events"],
            done=event["done"],
        )
        verdict = self._asked_until_answered(segment)
        if verdict is Verdict.LOST:
            log.warning("job %s is no longer ours", self._task.job)
            return True
        self._obey(verdict)
        self._hear()
        self._child.tell("recorded")
        self._place.progress(self._task.job, {"type": "segment", "number": segment.number, "done": segment.done})
        return False

    def _asked_until_answered(self, segment: Segment) -> Verdict:
        """The store's verdict; LOST when it could not be asked, since by then the reconciler has given the job away."""
        pause_s = self._place.retry_first_s
        for _ in range(SEGMENT_TRIES):
            try:
                return self._send.segment(segment)
            except StoreUnreachable as error:
                log.warning("segment %s of %s not recorded: %s", segment.number, segment.job, error)
                time.sleep(pause_s)
                pause_s *= 2
        return Verdict.LOST

    def _must_end(self) -> bool:
        """Looks at the clock: heartbeat, hang, overdue cancellation, shutdown. True when the attempt has ended."""
        now = time.monotonic()
        if self._cancel_by is not None and now > self._cancel_by:
            self._report_cancelled()
            return True
        if self._silent_s() > self._place.hung_after_s:
            silent_s = round(self._silent_s())
            self._child.kill()
            message = f"The job gave no sign of life for {silent_s} s and was ended."
            self._report(self._send.failed, self._outcome(error=message, code="hung", detail={"silent_s": silent_s}, retriable=True))
            return True
        if self._place.stopping.is_set():
            self._obey(Verdict.PAUSE)
        if now - self._beat_at < self._place.heartbeat_every_s:
            return False
        self._beat_at = now
        verdict = self._beat()
        self._obey(verdict)
        return verdict is Verdict.LOST

    def _hear(self) -> None:
        self._heard_at, self._waited_before_s = time.monotonic(), self._child.waited_s()

    def _silent_s(self) -> float:
        """Without the time in which the child waited for its turn: what gives way to a busy machine is slow, and does not hang."""
        waited_s = max(0.0, self._child.waited_s() - self._waited_before_s)
        return time.monotonic() - self._heard_at - waited_s

    def _beat(self) -> Verdict:
        try:
            return self._send.heartbeat(self._claim)
        except StoreUnreachable as error:
            log.warning("heartbeat of %s not answered: %s", self._task.job, error)
            return Verdict.GO_ON  # work goes on unseen; the next segment settles whose job it is

    def _obey(self, verdict: Verdict) -> None:
        if verdict is Verdict.PAUSE and not self._told_to_pause:
            self._told_to_pause = True
            self._child.tell("pause")
        if verdict is Verdict.CANCEL and self._cancel_by is None:
            self._cancel_by = time.monotonic() + CANCEL_WITHIN_S
            self._child.tell("cancel")

    def _outcome(self, **said: Any) -> Outcome:
        return Outcome(job=self._claim.job, attempt=self._claim.attempt, claim=self._claim.claim, **said)

    def _report_cancelled(self) -> None:
        self._report(self._send.failed, self._outcome(error="The job was cancelled.", code="cancelled"))

    def _report(self, tell: Callable[[Outcome], None], outcome: Outcome) -> None:
        """Tells the store how it ended, trying again while the broker is away; after that the reconciler takes over."""
        pause_s = self._place.retry_first_s
        for _ in range(SEGMENT_TRIES):
            try:
                return tell(outcome)
            except StoreUnreachable as error:
                log.warning("outcome of %s not delivered: %s", outcome.job, error)
                time.sleep(pause_s)
                pause_s *= 2
