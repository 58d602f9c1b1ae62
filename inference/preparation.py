"""Prompts made beside an engine's steps, so that a conversation which takes its time holds up nobody's tokens.

Two threads, each with an encoder of its own. The first gives every request little time, and tenants take turns; what needs more goes
to the second, which gives it all there is. A tenant's requests are prepared in their order, one at a time. So a hostile conversation
holds up other tenants' next ones for no longer than the first allows, and beyond that its own tenant's alone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from inference.prompts import Encoder, Prompt, RequestRefused
from inference.protocol import FailureCode, GenerationRequest, Priority
from inference.renderer import TookTooMuch

QUICK_S = 0.5  # what most requests need a hundredth of
WAITING_AT_MOST = 64  # from here on there is no room; refused is one at twice that number

Prepare = Callable[[GenerationRequest, Encoder], Prompt]  # raises RequestRefused
HandOn = Callable[[GenerationRequest, Prompt | Exception], None]


@dataclass(frozen=True, eq=False)
class Waiting:
    request: GenerationRequest
    received_at: float = field(default_factory=time.monotonic)

    @property
    def line(self) -> tuple[bool, str]:
        """In which it stands: its tenant's, those of batches apart."""
        return (self.request.priority == Priority.BATCH, self.request.tenant)


class Preparation:
    """`hand_on` is called from the threads, with each request that was not dropped and, perhaps, one that was dropped too late."""

    def __init__(self, prepare: Prepare, hand_on: HandOn, *, quick: Encoder, patient: Encoder) -> None:
        self._prepare, self._hand_on = prepare, hand_on
        self._changed = threading.Condition()
        self._lines: dict[tuple[bool, str], deque[Waiting]] = {}  # in the order of their turns
        self._under_way: set[tuple[bool, str]] = set()  # lines of which one is with a thread
        self._slow: deque[Waiting] = deque()  # for the second thread
        self._closed = False
        work = {"preparation": (self._next, quick, True), "preparation-slow": (self._next_slow, patient, False)}
        self._threads = [threading.Thread(target=self._work, args=args, name=name, daemon=True) for name, args in work.items()]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Requests that are not handed on yet."""
        with self._changed:
            return len(self._under_way) + sum(map(len, self._lines.values()))

    @property
    def has_room(self) -> bool:
        return len(self) < WAITING_AT_MOST

    def take(self, request: GenerationRequest) -> None:
        """Raises RequestRefused when there are too many."""
        if len(self) >= 2 * WAITING_AT_MOST:
            raise RequestRefused(FailureCode.OVERLOADED, "The engine has as many requests as it can hold.")
        waiting = Waiting(request)
        with self._changed:
            self._lines.setdefault(waiting.line, deque()).append(waiting)
            self._changed.notify_all()

    def drop(self, request: GenerationRequest) -> None:
        """Forgets one that waits. One that is with a thread is prepared to its end."""
        line = Waiting(request).line
        with self._changed:
            if any(waiting.request is request for waiting in self._slow):
                self._slow = deque(waiting for waiting in self._slow if waiting.request is not request)
                self._under_way.remove(line)
            elif left := deque(waiting for waiting in self._lines.get(line, ()) if waiting.request is not request):
                self._lines[line] = left
            else:
                self._lines.pop(line, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Begins no more, and waits for what is under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------ in the threads

    def _work(self, following: Callable[[], Waiting | None], encoder: Encoder, may_pass_on: bool) -> None:
        while (waiting := self._await(following)) is not None:
            made: Prompt | Exception
            try:
                made = replace(self._prepare(waiting.request, encoder), received_at=waiting.received_at)
            except Exception as error:  # the edge of the thread: whoever handed the request in must hear of it
                made = error
            passed_on = may_pass_on and isinstance(made, RequestRefused) and isinstance(made.__cause__, TookTooMuch)
            if not passed_on:
                self._hand_on(waiting.request, made)  # before the tenant's next one can be
            with self._changed:
                if passed_on:
                    self._slow.append(waiting)
                else:
                    self._under_way.remove(waiting.line)
                self._changed.notify_all()

    def _await(self, following: Callable[[], Waiting | None]) -> Waiting | None:
        """What comes next, once there is something; None at the end."""
        with self._changed:
            while not self._closed:
                if (waiting := following()) is not None:
                    return waiting
                self._changed.wait()
        return None

    def _next(self) -> Waiting | None:
        free = sorted((line for line in self._lines if line not in self._under_way), key=lambda line: line[0])
        if not free:
            return None
        waiting = self._lines.pop(free[0])
        first = waiting.popleft()
        if waiting:
            self._lines[free[0]] = waiting  # behind the others
        self._under_way.add(free[0])
        return first

    def _next_slow(self) -> Waiting | None:
        return self._slow.popleft() if self._slow else None
