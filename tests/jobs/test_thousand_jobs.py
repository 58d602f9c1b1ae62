"""What a thousand jobs cost: every list, round and claim asks the database as often as for ten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from store.accounts.models import Publisher
from store.jobs import claims, dispatch
from store.jobs.models import Job
from store.jobs.reconciliation import reconcile
from store.jobs.sending import SENT_AT_ONCE
from tests.jobs.test_views import signed_in
from tests.jobs.working import claim_of, fresh, outcome_of, segment_of
from tests.making import make_base, make_publisher, make_user, owner_of

pytestmark = pytest.mark.django_db(transaction=True)
FEW, MANY = 10, 1000


def queries_of(act: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        act()
    return len(captured)


def add_jobs(publisher: Publisher, count: int, **fields: Any) -> list[Job]:
    """Rows written at once, of which nothing was sent."""
    params = {"settings": {}, "suites": ["answer"], "name": "data.jsonl"}
    of = {"kind": Job.Kind.FINETUNE, "publisher": publisher, "created_by": owner_of(publisher), "params": params, **fields}
    return Job.objects.bulk_create(Job(**of) for _ in range(count))


@pytest.mark.parametrize(
    ("address", "kind"), [("jobs:finetunes", "finetune"), ("jobs:finetunes", "pretraining"), ("jobs:evaluations", "evaluation")]
)
@pytest.mark.parametrize("state", ["waiting", "queued", "running", "succeeded"])
def test_the_owners_list(address: str, kind: str, state: str) -> None:
    publisher = make_publisher()
    client, path = signed_in(owner_of(publisher)), reverse(address, args=[publisher.slug])
    add_jobs(publisher, FEW, kind=kind, state=state, subject=make_base().public_id)
    client.get(path)  # what is kept from the first time on
    for_few = queries_of(lambda: client.get(path))
    for _ in range(9):
        add_jobs(publisher, MANY // 10, kind=kind, state=state, subject=make_base().public_id)
    add_jobs(publisher, MANY // 10 - FEW, kind=kind, state=state)

    shown: list[Any] = []
    for_many = queries_of(lambda: shown.append(client.get(path)))

    assert publisher.jobs.count() == MANY
    assert (len(shown[0].context["rows"]), bool(shown[0].context["before"])) == (25, True)
    assert for_many == for_few


@pytest.mark.parametrize(
    ("tab", "fields"),
    [
        ("working", {"state": "running", "claim": "c1", "worker": "cpu-1", "heartbeat_at": timezone.now()}),
        ("waiting", {"state": "queued"}),
        ("failed", {"state": "failed", "error": "It broke.", "error_code": "internal", "error_detail": {"traceback": "line 7"}}),
    ],
)
def test_the_operations_page(tab: str, fields: dict[str, Any]) -> None:
    operator = make_user(is_staff=True)
    operator.user_permissions.set(Permission.objects.filter(codename__in=["view_job", "change_job"], content_type__app_label="jobs"))
    client, path = signed_in(operator), reverse("pages:operations") + f"?show={tab}"
    add_jobs(make_publisher(), FEW, **fields)
    client.get(path)
    for_few = queries_of(lambda: client.get(path))
    for _ in range(30):  # every row of the page is another person's
        add_jobs(make_publisher(), MANY // 30, **fields)

    shown: list[Any] = []
    for_many = queries_of(lambda: shown.append(client.get(path)))

    assert len(shown[0].context["rows"]) == 25
    assert for_many == for_few


def test_a_round_of_the_reconciler(settings: Any) -> None:
    settings.JOBS_PER_PUBLISHER = 3
    reconcile()
    add_jobs_of_all_kinds(make_publisher(), FEW // 5)
    sent = []
    for_few = queries_of(lambda: sent.append(reconcile().sent))
    for _ in range(10):
        add_jobs_of_all_kinds(make_publisher(), MANY // 50)

    for_many = queries_of(lambda: sent.append(reconcile().sent))

    assert sent == [3 * FEW // 5, SENT_AT_ONCE]
    assert for_many == for_few


def add_jobs_of_all_kinds(publisher: Publisher, count: int) -> None:
    """As many of each: some that may be sent, some that wait for those, and some that run."""
    validations = add_jobs(publisher, count, kind=Job.Kind.VALIDATION)
    add_jobs(publisher, count, state=Job.State.WAITING, after=validations[0])
    add_jobs(publisher, count, kind=Job.Kind.EVALUATION, state=Job.State.RUNNING, claim="c1", heartbeat_at=timezone.now())
    Job.objects.bulk_create(Job(kind=Job.Kind.CHECK, params={}) for _ in range(count))
    Job.objects.bulk_create(Job(kind=Job.Kind.BATCH, params={"base": "b" * 64}) for _ in range(count))


def test_what_a_worker_says_about_a_job_and_what_its_owner_does() -> None:
    for_few, for_many = (queries_of_each_act(among=count) for count in (FEW, MANY))

    assert for_many == for_few


def queries_of_each_act(*, among: int) -> list[int]:
    publisher = make_publisher()
    add_jobs(publisher, among)
    first, second = (dispatch.create(Job.Kind.FINETUNE, params={}, publisher=publisher) for _ in range(2))
    acts: list[Callable[[], Any]] = [
        lambda: dispatch.create(Job.Kind.FINETUNE, params={}, publisher=publisher),
        lambda: claims.claim(claim_of(first)),
        lambda: claims.heartbeat(claim_of(first)),
        lambda: claims.segment(segment_of(first, 0)),
        lambda: claims.finished(outcome_of(first, result={"steps": 1})),
        lambda: dispatch.cancel(owner_of(publisher), second),
    ]
    counts = [queries_of(act) for act in acts]
    assert (fresh(first).state, fresh(second).state) == (Job.State.SUCCEEDED, Job.State.CANCELLED)
    return counts
