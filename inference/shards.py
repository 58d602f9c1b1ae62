"""Shards of batches on a generation worker: each request of a shard goes to the base's engine, behind everybody who waits for an answer.

To `inference.jobs` a shard is what a job's child process is: it is told words and says lines, so claim, heartbeats, segments
and outcome are those of every job. What an engine has answered stands in the request's stream until a segment holds it;
a shard that was lost with its worker takes it from there, and only what was never answered to its end is asked again.
"""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
import structlog

from inference.artifacts import ArtifactError, ArtifactStore, ArtifactUnreachable
from inference.delivery import Delivery
from inference.engines import Engines
from inference.job_process import Order
from inference.protocol import Answered, Delta, FailureCode, FinishReason, GenerationRequest, JobTask, Priority, Usage, stream_key

log = structlog.get_logger(__name__)

UNDER_WAY_AT_MOST = 16  # requests of one shard, given to the engines or waiting there
TRIES = 3  # of one request whose engine died, by one worker
SAID_EVERY_S = 2.0
LOOKED_AT_EVERY_S = 0.5
VALKEY_RETRY_S = 1.0
ENDED = frozenset({FinishReason.STOP, FinishReason.LENGTH})
ELSEWHERE = frozenset({FailureCode.BASE_UNAVAILABLE, FailureCode.OVERLOADED, FailureCode.NO_WORKER})  # perhaps another worker can, or later


class NotHere(Exception):
    """This worker can't go on with the shard."""

    def __init__(self, code: str, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


class Shard:
    """One attempt at one shard, in a thread of its own."""

    def __init__(self, *, engines: Engines, delivery: Delivery, valkey: redis.Redis) -> None:
        self.said: queue.Queue[str | None] = queue.Queue()
        self._engines, self._delivery, self._valkey = engines, delivery, valkey
        self._told: queue.Queue[str | dict[str, Any]] = queue.Queue()  # words of the parent, and last events
        self._requests: dict[int, GenerationRequest] = {}  # by number
        self._waiting: deque[int] = deque()
        self._under_way: dict[str, int] = {}  # number by request id
        self._tries: Counter[int] = Counter()
        self._answered: list[Answered] = []  # in no segment yet
        self._offered: list[Answered] = []  # in a segment that the store has not recorded yet
        self._recorded = 0
        self._stop = ""  # the word that ends it early
        self._over = threading.Event()
        self._said_at = self._offered_at = time.monotonic()

    # ------------------------------------------------------------ the parent's side

    def begin(self, order: Order) -> None:
        self._task = order.job
        self._segment_s = order.segment_s
        self._artifacts = ArtifactStore(order.artifacts)
        self._before, self._segment = self._task.checkpoint, self._task.segment
        threading.Thread(target=self._run, name=f"shard-{self._task.job}", daemon=True).start()

    def tell(self, line: str) -> None:
        self._told.put(line)

    def waited_s(self) -> float:
        return 0.0

    def kill(self) -> int:
        self._over.set()
        return 0

    def wait(self) -> int:
        return 0

    # ------------------------------------------------------------ its course

    def _run(self) -> None:
        try:
            self._say(**self._work())
        except ArtifactUnreachable as error:
            self._fail("artifacts_unreachable", f"The artifact store could not be reached: {error}", retriable=True)
        except ArtifactError as error:
            self._fail("artifact_unusable", f"A file of the batch cannot be used: {error}")
        except NotHere as error:
            self._fail(error.code, str(error), retriable=error.retriable)
        except Exception as error:  # the edge of the thread: the store must hear of it
            log.exception("shard broken off", job=self._task.job)
            self._fail("internal", f"{type(error).__name__}: {error}", retriable=True)
        finally:
            self._give_up()

    def _work(self) -> dict[str, Any]:
        """The line that ends the attempt."""
        self._read()
        self._find_answered()
        try:
            while (self._waiting or self._under_way) and not self._stop and not self._over.is_set():
                self._feed()
                self._listen()
                self._offer_when_due()
        finally:
            self._give_up()
            self._record_all()
        endings = {"cancel": "cancelled", "pause": "paused"}
        return {"type": endings[self._stop]} if self._stop else {"type": "result", "result": {}}

    def _read(self) -> None:
        """What is to be answered, but for what the segments before hold."""
        for line in _lines(self._artifacts.read(self._task.params["shard"])):
            if "request" in line:
                self._requests[line["number"]] = GenerationRequest.from_json(line["request"])
        answered: set[int] = set()
        before = self._before
        while before:
            head, *rest = _lines(self._artifacts.read(before))
            answered |= {line["number"] for line in rest}
            before = head["before"]
        self._recorded = len(answered)
        self._waiting.extend(number for number in self._requests if number not in answered)

    def _find_answered(self) -> None:
        """Takes what was answered to its end before, by a worker that was lost or stopped before it could say so."""
        for number in list(self._waiting):
            newest: Any = self._patiently(partial(self._valkey.xrevrange, stream_key(self._requests[number].id), count=1))
            last = json.loads(newest[0][1]["event"]) if newest else {}
            if last.get("type") == "finished" and last["reason"] in ENDED and self._take(number, last):
                self._waiting.remove(number)

    def _feed(self) -> None:
        while self._waiting and len(self._under_way) < UNDER_WAY_AT_MOST:
            number = self._waiting.popleft()
            self._tries[number] += 1
            attempt = self._task.attempt * TRIES + self._tries[number]  # above every attempt of a worker before this one
            request = replace(self._requests[number], attempt=attempt, priority=Priority.BATCH, leased=False)
            self._under_way[request.id] = number
            self._requests[number] = request
            self._delivery.listen(request, self._told.put)
            self._engines.submit(request)

    def _listen(self) -> None:
        """Waits for a word or an event, and acts on all that there are."""
        try:
            self._hear(self._told.get(timeout=LOOKED_AT_EVERY_S))
            while True:
                self._hear(self._told.get_nowait())
        except queue.Empty:
            pass
        if time.monotonic() - self._said_at > SAID_EVERY_S:
            self._said_at = time.monotonic()
            self._say("progress", stage="answering", done=self._done)

    def _hear(self, said: str | dict[str, Any]) -> None:
        if isinstance(said, dict):
            self._end(said)
        elif said == "recorded":
            self._forget_offered()
        else:
            self._stop = self._stop or said

    def _end(self, event: dict[str, Any]) -> None:
        number = self._under_way.get(event["request"])
        if number is None or event["attempt"] != self._requests[number].attempt:
            return
        del self._under_way[event["request"]]
        failure = event.get("failure")
        if event["reason"] == FinishReason.CANCELLED:  # not by this shard, which forgets what it cancels
            raise NotHere(FailureCode.OVERLOADED, "People wait for another base, which needs the room of this one.")
        if failure in ELSEWHERE:
            raise NotHere(failure, event["message"])
        again = failure == FailureCode.ENGINE_DIED and self._tries[number] < TRIES
        if event["reason"] != FinishReason.DEADLINE and (again or not self._take(number, event)):
            self._waiting.append(number)

    def _take(self, number: int, event: dict[str, Any]) -> bool:
        """Keeps the answer; False when what was said is lost."""
        choices = self._said_of(self._requests[number].id, event["attempt"]) if event["reason"] in ENDED else []
        if choices is None:
            log.warning("an answer is lost, it is asked again", generation=event["request"])
            return False
        self._answered.append(Answered(number, choices, event))
        return True

    def _said_of(self, request: str, attempt: int) -> list[dict[str, Any]] | None:
        """Each choice in one piece; None when the stream no longer holds the whole attempt."""
        entries: Any = self._patiently(partial(self._valkey.xrevrange, stream_key(request)))
        told = [(entry.partition("-")[2], fields["event"]) for entry, fields in reversed(entries) if entry.startswith(f"{attempt}-")]
        if not told or told[0][0] != "1":
            return None
        return joined(json.loads(event) for _, event in told)

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """What Valkey answers, however long it is away."""
        while not self._over.is_set():
            try:
                return ask()
            except redis.exceptions.RedisError as error:
                log.warning("Valkey is away", job=self._task.job, error=repr(error))
                self._say("progress", stage="answering", done=self._done)
                time.sleep(VALKEY_RETRY_S)
        raise NotHere("lost", "The shard is another worker's now.")

    # ------------------------------------------------------------ segments

    def _offer_when_due(self) -> None:
        if self._answered and not self._offered and time.monotonic() - self._offered_at > self._segment_s:
            self._offer()

    def _offer(self) -> None:
        """Stores what was answered, and asks the store to make it count."""
        lines: Iterable[Mapping[str, Any]] = ({"before": self._before}, *(answered.to_json() for answered in self._answered))
        with tempfile.TemporaryDirectory(prefix="shard-") as folder:
            file = Path(folder) / "answers.jsonl"
            file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
            self._before = self._artifacts.put_file(file).sha256
        self._offered, self._answered, self._offered_at = self._answered, [], time.monotonic()
        self._say("segment", number=self._segment, checkpoint=self._before, events=[counted(self._offered)], done=self._done)

    def _record_all(self) -> None:
        """The last segment, also of what is left early: nobody asks again what was answered."""
        while (self._answered or self._offered) and not self._over.is_set():
            if not self._offered:
                self._offer()
            try:
                said = self._told.get(timeout=LOOKED_AT_EVERY_S)
            except queue.Empty:
                continue
            if said == "recorded":
                self._forget_offered()
            elif isinstance(said, str):
                self._stop = self._stop or said

    def _forget_offered(self) -> None:
        """It counts now: the segment holds it, and its streams need not."""
        self._segment += 1
        self._recorded += len(self._offered)
        streams = [stream_key(answered.finished["request"]) for answered in self._offered]
        self._offered = []
        try:
            self._valkey.delete(*streams)
        except redis.exceptions.RedisError as error:
            log.warning("streams left to expire", job=self._task.job, error=repr(error))

    # ------------------------------------------------------------ what it says

    @property
    def _done(self) -> float:
        """Share of its requests that are answered."""
        return (self._recorded + len(self._offered) + len(self._answered)) / max(len(self._requests), 1)

    def _say(self, type: str, **facts: Any) -> None:
        self.said.put(json.dumps({"type": type, **facts}))

    def _fail(self, code: str, message: str, *, retriable: bool = False) -> None:
        self._say("error", code=code, message=message, detail={}, retriable=retriable)

    def _give_up(self) -> None:
        """Wants no more of what is under way."""
        self._engines.cancel([self._requests[number] for number in self._under_way.values()])
        self._under_way.clear()


class Shards:
    """The shards this worker answers: a few of each base at once, so that others find some too.

    `run` runs one to its end, with the work it is given (`inference.jobs.run`).
    """

    def __init__(self, run: Callable[[JobTask], None], *, of_a_base_at_most: int = 2) -> None:
        self._run = run
        self._most = of_a_base_at_most
        self._of_base: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, message: Mapping[str, Any]) -> bool:
        """Begins the shard, unless there are enough of its base here: then the store sends it again, perhaps to another."""
        task = JobTask.from_json(message)
        base = task.params["base"]
        with self._changed:
            if self._of_base[base] >= self._most:
                log.info("shard left to others", job=task.job)
                return False
            self._of_base[base] += 1
        threading.Thread(target=self._follow, args=(task, base), name=f"follow-{task.job}", daemon=True).start()
        return True

    def _follow(self, task: JobTask, base: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=task.trace, job=task.job):
            try:
                log.info("shard begins", attempt=task.attempt, segment=task.segment)
                self._run(task)
            except Exception:  # the edge of the thread; the store gives the shard to another when its heartbeat stops
                log.exception("shard not followed to its end")
            finally:
                with self._changed:
                    self._of_base[base] -= 1
                    self._changed.notify_all()

    def wait_for_room(self, base: str, *, within_s: float) -> bool:
        """Whether one more shard of the base would be begun; waits for that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._of_base[base] < self._most, timeout=within_s)

    def wait_for_end(self, *, within_s: float) -> bool:
        """Whether none is under way any more; waits for that."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._of_base.values()), timeout=within_s)


def joined(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pieces of each choice as one, in the form of a piece."""
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["type"] != "delta":
            continue
        number = event.get("choice", 0)
        whole = choices.setdefault(number, Delta(text="", tokens=0, choice=number).to_json())
        whole["text"] += event["text"]
        whole["tokens"] = event["tokens"]
        if event.get("reason"):
            whole["reason"] = event["reason"]
        if event.get("logprobs"):
            whole.setdefault("logprobs", []).extend(event["logprobs"])
    return [choices[number] for number in sorted(choices)]


def counted(answers: Iterable[Answered]) -> dict[str, int]:
    """How many answers and failures, and the tokens of the answers: what a batch has been given so far is the sum of these."""
    counts = {"completed": 0, "failed": 0, **Usage().to_json()}
    for answered in answers:
        if answered.finished["reason"] not in ENDED:
            counts["failed"] += 1
            continue
        counts["completed"] += 1
        for name in Usage().to_json():
            counts[name] += int(answered.finished["usage"].get(name, 0))
    return counts


def _lines(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.splitlines() if line]
