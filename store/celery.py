"""The store's Celery application: its own tasks on the queue `store`, and what workers report on `store.events`.

Workers may publish to `store.events` and to the queues they themselves take from, to give back what they did not begin.
The embedded Valkey holds them to that by an access list (`store.supervision.broker`); on a broker of the operator's own,
its users and permissions do. What arrives on `store.events` is run only as `store.worker_messages` lets it through. Remote
control goes by an exchange of the store's own, so that no worker commands the store's processes.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from kombu import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "store.settings")

from django.conf import settings

from store.worker_messages import reports_queue

OWN_QUEUE = "store"

app = Celery("store")


@app.add_defaults
def _configuration() -> dict[str, Any]:
    """Read when first needed: this module is imported while the settings are still being read."""
    return {
        "broker_url": settings.BROKER_URL,
        "result_backend": settings.REDIS_URL,
        "timezone": settings.TIME_ZONE,
        "task_default_queue": OWN_QUEUE,
        "task_queues": [Queue(OWN_QUEUE, Exchange(OWN_QUEUE), routing_key=OWN_QUEUE), reports_queue()],
        "control_exchange": "store",
        "task_ignore_result": True,
        "result_expires": 300,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,  # the database is the truth: a reconciler re-sends, never the broker
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "ack_emulation": False,  # nothing is kept for redelivery: a restored message goes where it says it came from
        },
        "beat_schedule_filename": str(settings.VAR_DIR / "beat-schedule"),
        "task_create_missing_queues": True,
        "beat_schedule": {
            "reconcile-jobs": {"task": "store.jobs.reconcile", "schedule": 5.0, "options": {"expires": 5}},
            "sweep-uploads": {"task": "store.jobs.sweep_uploads", "schedule": 600.0, "options": {"expires": 600}},
            "collect-artifacts": {"task": "store.catalog.collect", "schedule": 3600.0, "options": {"expires": 3600}},
            "erase-due-accounts": {"task": "store.accounts.erase_due", "schedule": 3600.0, "options": {"expires": 3600}},
            "reconcile-batches": {"task": "store.batches.reconcile", "schedule": 5.0, "options": {"expires": 5}},
            "refresh-stale-search-entries": {"task": "store.catalog.refresh_stale", "schedule": 5.0, "options": {"expires": 5}},
            "announce-missed-versions": {"task": "store.catalog.announce_missed", "schedule": 60.0, "options": {"expires": 60}},
            "bring-views": {"task": "store.catalog.bring_views", "schedule": 60.0, "options": {"expires": 60}},
            "rate-arena": {"task": "store.playground.rate_arena", "schedule": 600.0, "options": {"expires": 600}},
            "rerank-listings": {"task": "store.catalog.rerank", "schedule": 20.0, "options": {"expires": 20}},
            "choose-head-of-catalogue": {"task": "store.catalog.choose_head", "schedule": 600.0, "options": {"expires": 600}},
            "void-stale-generations": {"task": "store.generation.void_stale", "schedule": 30.0, "options": {"expires": 30}},
            "send-unsent-emails": {"task": "store.notifications.send_unsent", "schedule": 60.0, "options": {"expires": 60}},
            "send-weekly-digests": {"task": "store.notifications.send_digests", "schedule": 3600.0, "options": {"expires": 3600}},
            "look-for-proofs-again": {"task": "store.accounts.look_again", "schedule": 600.0, "options": {"expires": 600}},
            "end-monthly-access": {"task": "store.billing.end_access", "schedule": 60.0, "options": {"expires": 60}},
            "void-expired-reservations": {"task": "store.billing.void_expired", "schedule": 60.0, "options": {"expires": 60}},
        },
    }


app.autodiscover_tasks(
    [
        f"store.{name}"
        for name in ("accounts", "catalog", "billing", "generation", "jobs", "notifications", "moderation", "playground", "batches")
    ]
)


@setup_logging.connect
def _use_django_logging(**_: Any) -> None:
    from logging.config import dictConfig

    dictConfig(settings.LOGGING)
