"""The page of those who run the store."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis.exceptions
from django.contrib.auth.models import Permission
from django.test import Client

from inference import protocol
from store.accounts.models import User
from store.catalog.models import Version
from store.generation import workers
from store.jobs.models import Job
from store.valkey import client as valkey
from tests import making

pytestmark = pytest.mark.django_db
PAGE = "/en/operations/"


@pytest.fixture
def operator() -> User:
    user = making.make_user("operator")
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_job", "change_job"], content_type__app_label="jobs"))
    return user


@pytest.fixture
def console(operator: User) -> Client:
    console = Client()
    console.force_login(operator)
    return console


def a_job(state: str = Job.State.RUNNING, **fields: Any) -> Job:
    return Job.objects.create(kind=Job.Kind.CHECK, state=state, publisher=making.make_publisher(), **fields)


def an_engine(base: Version, **stats: Any) -> None:
    assert base.artifact is not None
    valkey().zadd(protocol.GENERATION_WORKERS, {"gpu-1": time.time()})
    said = {"base": base.artifact.digest, "worker": "gpu-1", "dtype": "bfloat16", "running": 3, "waiting": 2, **stats}
    valkey().set(protocol.engine_key("engine-7"), json.dumps(said))
    valkey().zadd(protocol.holders_key(base.artifact.digest), {"gpu-1": time.time()})


def test_it_shows_who_works_on_which_model_and_what_waits_for_it(console: Client) -> None:
    base = making.make_base(slug="base")
    assert base.artifact is not None
    an_engine(base, blocks_total=200, blocks_used=50, tokens_per_s=81.5)
    valkey().lpush(protocol.base_queue(base.artifact.digest), "one", "two", "three")
    valkey().lpush(protocol.batch_queue(base.artifact.digest), "one")

    floor = console.get(PAGE).context["floor"]

    (engine,) = floor.engines
    assert (engine.name, engine.worker, engine.base, engine.dtype) == ("engine-7", "gpu-1", base, "bfloat16")
    assert (engine.running, engine.waiting, engine.used_percent, engine.tokens_per_s) == (3, 2, 25, 81.5)
    assert (floor.generation, floor.jobs) == (["gpu-1"], [])
    depths = {queue.name: (queue.holds, queue.depth) for queue in floor.queues}
    assert depths[protocol.base_queue(base.artifact.digest)] == (base.listing.full_name, 3)
    assert depths[protocol.batch_queue(base.artifact.digest)] == (base.listing.full_name, 1)


def test_an_engine_whose_model_is_gone_and_one_of_another_kind_are_shown_too(console: Client) -> None:
    valkey().set(protocol.engine_key("engine-7"), json.dumps({"base": "f" * 64, "worker": "gpu-1", "dtype": "vLLM", "running": 1}))

    answer = console.get(PAGE)

    (engine,) = answer.context["floor"].engines
    assert (engine.base, engine.used_percent, engine.tokens_per_s) == (None, None, None)
    assert "no version any more" in answer.content.decode()


def test_without_a_broker_the_jobs_are_still_shown(console: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise redis.exceptions.ConnectionError("no route")

    monkeypatch.setattr(workers, "alive", away)
    job = a_job()

    answer = console.get(PAGE)

    assert answer.status_code == 200
    assert "The broker does not answer" in answer.content.decode()
    assert job.public_id in answer.content.decode()


@pytest.mark.parametrize(
    ("tab", "states"),
    [("working", {"running"}), ("waiting", {"queued", "waiting", "paused"}), ("failed", {"failed"}), ("nonsense", {"running"})],
)
def test_each_tab_shows_the_jobs_in_its_states(console: Client, tab: str, states: set[str]) -> None:
    jobs = [a_job(state) for state in Job.State.values]

    shown = {row["job"].pk for row in console.get(PAGE, {"show": tab}).context["rows"]}

    assert shown == {job.pk for job in jobs if job.state in states}


def test_a_failure_is_shown_with_its_traceback(console: Client) -> None:
    detail = {"traceback": 'File "training.py", line 7, in <module>'}
    a_job(Job.State.FAILED, error="It broke.", error_code="internal", error_detail=detail)

    page = console.get(PAGE, {"show": "failed"}).content.decode()

    assert "It broke." in page
    assert "line 7, in &lt;module&gt;" in page


def test_a_job_is_stopped_and_tried_again_from_the_page(console: Client, operator: User) -> None:
    queued, failed = a_job(Job.State.QUEUED), a_job(Job.State.FAILED, attempt=3)

    stopped = console.post(f"{PAGE}jobs/{queued.public_id}/cancel/")
    tried = console.post(f"{PAGE}jobs/{failed.public_id}/retry/")

    assert (stopped.url, tried.url) == (f"{PAGE}?show=working", f"{PAGE}?show=failed")
    assert Job.objects.get(pk=queued.pk).state == Job.State.CANCELLED
    again = Job.objects.get(pk=failed.pk)
    assert (again.state, again.attempt) == (Job.State.QUEUED, 4)


def test_what_is_not_possible_any_more_is_said(console: Client) -> None:
    done = a_job(Job.State.SUCCEEDED)

    answer = console.post(f"{PAGE}jobs/{done.public_id}/cancel/", follow=True)

    assert [message.level_tag for message in answer.context["messages"]] == ["error"]
    assert Job.objects.get(pk=done.pk).state == Job.State.SUCCEEDED


def test_who_may_only_look_has_no_buttons_and_changes_nothing(console: Client, operator: User) -> None:
    operator.user_permissions.set(Permission.objects.filter(codename="view_job"))
    job = a_job()

    page = console.get(PAGE).content.decode()

    assert job.public_id in page
    assert "/cancel/" not in page
    assert console.post(f"{PAGE}jobs/{job.public_id}/cancel/").status_code == 404
