"""The queue on which workers report. What comes by it is looked at before Celery believes any of it.

A message says of itself by which queue it came, what is to be called after it, and what if it fails; Celery takes its word
and acts with the store's rights. So a worker's message is let through only as a plain call of one of WORKER_TASKS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from kombu import Exchange, Queue

from inference.protocol import EVENTS_QUEUE, WORKER_TASKS

log = structlog.get_logger(__name__)

# Headers that may say something; all others must be empty. The last two are the broker's own.
DESCRIPTIVE = {"task", "id", "lang", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "expires", "ignore_result"}
DESCRIPTIVE |= {"redelivered", "x-delivery-count"}
EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {}, [None, None])


class NotAReport(Exception):
    """The message is no plain call that a worker may make."""


class ReportsQueue(Queue):
    """The events queue, as its consumer in the store sees it."""

    def consume(self, consumer_tag: str = "", callback: Callable[[Any], Any] = lambda raw: None, **options: Any) -> Any:
        return super().consume(consumer_tag, partial(self._admit, callback), **options)

    def _admit(self, callback: Callable[[Any], Any], raw: Any) -> Any:
        message = self.channel.message_to_python(raw)
        try:
            require_report(message)
        except Exception as error:  # whatever a hostile message makes of being looked at
            log.warning("message of a worker refused", error=repr(error)[:300])
            message.reject()
            return None
        return callback(raw)


def reports_queue() -> ReportsQueue:
    return ReportsQueue(EVENTS_QUEUE, Exchange(EVENTS_QUEUE), routing_key=EVENTS_QUEUE)


def require_report(message: Any) -> None:
    """Raises NotAReport, or what reading a malformed message raises."""
    where = (message.delivery_info.get("exchange"), message.delivery_info.get("routing_key"))
    if where != ("", EVENTS_QUEUE):
        raise NotAReport(f"it claims to have come by {where}")
    if message.headers.get("task") not in WORKER_TASKS:
        raise NotAReport(f"workers may not call {message.headers.get('task')!r}")
    if said := sorted(name for name, value in message.headers.items() if name not in DESCRIPTIVE and value not in EMPTY):
        raise NotAReport(f"it has the headers {said}")
    if (message.content_type, message.content_encoding) != ("application/json", "utf-8"):
        raise NotAReport(f"it is {message.content_type} in {message.content_encoding}")
    args, kwargs, embedded = json.loads(message.body)
    if len(args) != 1 or kwargs or any(embedded.values()):
        raise NotAReport("it is more than a call with one message")
