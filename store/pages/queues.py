"""How much waits in the broker's queues, which any process may ask."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import KombuError

from inference import protocol
from store.celery import app
from store.valkey import client

FIXED = ("store", protocol.EVENTS_QUEUE, protocol.LOAD_QUEUE, protocol.TRAINING_QUEUE, protocol.CHECKS_QUEUE)


def depths() -> dict[str, int]:
    """Messages in each queue; those of bases are there for every base that a worker has held lately."""
    bases = sorted(key.split(":")[1] for key in client().scan_iter(protocol.holders_key("*"), count=200))
    with app.connection_for_read(connect_timeout=2) as broker:
        of_bases = [queue for base in bases for queue in (protocol.base_queue(base), protocol.batch_queue(base))]
        return {queue: _depth(broker, queue) for queue in [*FIXED, *of_bases]}


def _depth(broker: Any, queue: str) -> int:
    try:
        with broker.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)
    except (KombuError, *broker.channel_errors):
        return 0  # nobody has sent anything there yet
