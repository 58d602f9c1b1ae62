"""What machines ask: is the process alive, could it serve, how is it doing."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Avg, Count, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from store.celery import app
from store.generation import workers
from store.generation.models import Request
from store.jobs.models import Job
from store.pages import queues as waiting_in
from store.valkey import client

log = structlog.get_logger(__name__)
WINDOW = timedelta(minutes=5)  # what is counted of requests: few rows through an index, however many there ever were
ROLES = ("generation", "jobs")


class NotReady(Exception):
    """One of the parts the store needs does not answer; says which and why."""


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. It says nothing of what it depends on, so that a supervisor does not restart it for others' faults."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Everything a request needs is there; 503 and which part is not, otherwise."""
    parts = {name: _state(check) for name, check in _CHECKS.items()}
    ready = all(part["state"] == "ok" for part in parts.values())
    return JsonResponse({"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, for scrapers on this machine or with METRICS_TOKEN."""
    if not _may_scrape(request):
        return HttpResponse("Send METRICS_TOKEN as a bearer token, or ask from this machine.\n", status=403, content_type="text/plain")
    registry = CollectorRegistry()
    registry.register(StoreCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


# ---------------------------------------------------------------- readiness


def _state(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"state": "ok", **check()}
    except NotReady as error:
        return {"state": "unavailable", "reason": str(error)}
    except Exception as error:
        log.warning("not_ready", exc_info=error)
        return {"state": "unavailable", "reason": type(error).__name__}  # its text may name hosts and users


def _database() -> dict[str, Any]:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        raise NotReady(f"{len(missing)} migrations are not applied: run `manage.py migrate`")
    return {"vendor": connection.vendor}


def _broker() -> dict[str, Any]:
    client().ping()
    with app.connection_for_write(connect_timeout=2) as broker:
        broker.ensure_connection(max_retries=1, timeout=2)
    return {}


def _workers() -> dict[str, Any]:
    alive = workers.alive()
    absent = [role for role in ROLES if not alive[role]]
    if absent:
        raise NotReady(f"no worker is running for: {', '.join(absent)}")
    return {role: len(alive[role]) for role in ROLES}


_CHECKS: dict[str, Callable[[], dict[str, Any]]] = {"database": _database, "broker": _broker, "workers": _workers}


# ---------------------------------------------------------------- metrics


def _may_scrape(request: HttpRequest) -> bool:
    token = settings.METRICS_TOKEN
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and secrets.compare_digest(given.encode(), token.encode()):
        return True
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False  # what a proxy on this machine passes on comes from elsewhere
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class StoreCollector(Collector):
    """Reads the database, Valkey and the broker at each scrape, so any web process gives the same answer."""

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._workers()
        yield self._queues()
        jobs = GaugeMetricFamily(
            "gptstore_jobs", "Jobs that have not ended, and those that ended in the last five minutes.", labels=["kind", "state"]
        )
        ended = Job.objects.filter(state__in=Job.ENDED, finished_at__gte=timezone.now() - WINDOW)
        running = Job.objects.exclude(state__in=Job.ENDED)
        for kind, state, count in (ended | running).order_by().values_list("kind", "state").annotate(count=Count("pk")):
            jobs.add_metric([kind, state], count)
        yield jobs

    def _requests(self) -> Iterator[Metric]:
        recent = Request.objects.filter(created_at__gte=timezone.now() - WINDOW).order_by()
        requests = GaugeMetricFamily("gptstore_requests_5m", "Generations that began in the last five minutes.", labels=["source", "state"])
        for source, state, count in recent.values_list("source", "state").annotate(count=Count("pk")):
            requests.add_metric([source, state], count)
        yield requests
        sums = recent.aggregate(
            prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"), cached=Sum("cached_tokens"), first=Avg("first_token_ms")
        )
        tokens = GaugeMetricFamily("gptstore_tokens_5m", "Their tokens.", labels=["kind"])
        for kind in ("prompt", "completion", "cached"):
            tokens.add_metric([kind], sums[kind] or 0)
        yield tokens
        yield GaugeMetricFamily("gptstore_first_token_ms_5m", "Mean time to their first token at the engine.", value=sums["first"] or 0)
        in_flight = Request.objects.filter(state=Request.State.ADMITTED, deadline_at__gte=timezone.now()).count()
        yield GaugeMetricFamily("gptstore_requests_in_flight", "Generations under way.", value=in_flight)

    def _workers(self) -> Iterator[Metric]:
        alive = workers.alive()
        family = GaugeMetricFamily("gptstore_workers", "Workers whose heart beats.", labels=["role"])
        for role in ROLES:
            family.add_metric([role], len(alive[role]))
        yield family
        engines = GaugeMetricFamily("gptstore_engine", "What each engine says of itself.", labels=["engine", "base", "figure"])
        for name, stats in alive["engines"].items():
            for figure, value in stats.items():
                if isinstance(value, int | float):
                    engines.add_metric([name, str(stats.get("base", ""))[:12], figure], value)
        yield engines

    def _queues(self) -> Metric:
        queues = GaugeMetricFamily("gptstore_queue_messages", "Messages that wait in a queue.", labels=["queue"])
        for queue, depth in waiting_in.depths().items():
            queues.add_metric([queue], depth)
        return queues
