"""The store's Celery application: its own tasks on the queue `store`, and what workers report on `store.events`.

Workers publish to `store.events`, and a task that arrives there is run only if it is on the short list of
`inference.protocol.WORKER_TASKS`. That bounds a worker only where the broker keeps it from other queues (an ACL of
Valkey, permissions of RabbitMQ), which is the operator's to set: the embedded Valkey has none.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "store.settings")

from django.conf import settings

from inference import protocol


class StoreTask(Task):
    """Refuses what did not come by the right queue."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        queue = (self.request.delivery_info or {}).get("routing_key")
        if queue == protocol.EVENTS_QUEUE and self.name not in protocol.WORKER_TASKS:
            raise Reject(f"{self.name} may not be called by a worker", requeue=False)
        return super().__call__(*args, **kwargs)


app = Celery("store", task_cls=StoreTask)


@app.add_defaults
def _configuration() -> dict[str, Any]:
    """Read when first needed: this module is imported while the settings are still being read."""
    return {
        "broker_url": settings.BROKER_URL,
        "result_backend": settings.REDIS_URL,
        "timezone": settings.TIME_ZONE,
        "task_default_queue": "store",
        "task_ignore_result": True,
        "result_expires": 300,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,  # the database is the truth: a reconciler re-sends, never the broker
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"socket_timeout": 30, "socket_connect_timeout": 5},
        "beat_schedule_filename": str(settings.VAR_DIR / "beat-schedule"),
        "task_create_missing_queues": True,
        "beat_schedule": {
            "reconcile-jobs": {"task": "store.jobs.reconcile", "schedule": 5.0, "options": {"expires": 5}},
            "void-stale-generations": {"task": "store.generation.void_stale", "schedule": 30.0, "options": {"expires": 30}},
            "send-unsent-emails": {"task": "store.notifications.send_unsent", "schedule": 60.0, "options": {"expires": 60}},
            "void-expired-reservations": {"task": "store.billing.void_expired", "schedule": 60.0, "options": {"expires": 60}},
        },
    }


app.autodiscover_tasks([f"store.{name}" for name in ("billing", "generation", "jobs", "notifications", "moderation")])


@setup_logging.connect
def _use_django_logging(**_: Any) -> None:
    from logging.config import dictConfig

    dictConfig(settings.LOGGING)
