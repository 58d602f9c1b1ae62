"""The store's tasks about jobs: what workers report, and the reconciler. Thin callers of the acts."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task

from inference import protocol
from store.jobs import claims, folders, reconciliation, uploads

log = logging.getLogger(__name__)


@shared_task(name=protocol.JOB_CLAIM, ignore_result=False)
def claim(message: dict[str, Any]) -> str:
    return claims.claim(protocol.Claim.from_json(message)).value


@shared_task(name=protocol.JOB_HEARTBEAT, ignore_result=False)
def heartbeat(message: dict[str, Any]) -> str:
    return claims.heartbeat(protocol.Claim.from_json(message)).value


@shared_task(name=protocol.JOB_SEGMENT, ignore_result=False)
def segment(message: dict[str, Any]) -> str:
    return claims.segment(protocol.Segment.from_json(message)).value


@shared_task(name=protocol.JOB_FINISHED)
def finished(message: dict[str, Any]) -> None:
    outcome = protocol.Outcome.from_json(message)
    if not claims.finished(outcome):
        log.info("result of %s attempt %s not taken: it is not theirs", outcome.job, outcome.attempt)


@shared_task(name=protocol.JOB_FAILED)
def failed(message: dict[str, Any]) -> None:
    outcome = protocol.Outcome.from_json(message)
    if not claims.failed(outcome):
        log.info("failure of %s attempt %s not taken: it is not theirs", outcome.job, outcome.attempt)


@shared_task(name="store.jobs.reconcile")
def reconcile() -> None:
    done = reconciliation.reconcile()
    if done.sent or done.lost or done.followed or done.stopped:
        log.info("reconciled: %s sent, %s lost, %s followed, %s stopped", done.sent, done.lost, done.followed, done.stopped)


@shared_task(name="store.jobs.sweep_uploads")
def sweep_uploads() -> None:
    if removed := uploads.sweep():
        log.info("uploads: %s pieces that belong to none removed", removed)
    if forgotten := folders.sweep():
        log.info("folders: %s that nobody went on with forgotten", forgotten)
