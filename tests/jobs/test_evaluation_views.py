"""The pages of evaluations: starting one, watching it, its numbers, and what a wrong suite is told."""

from __future__ import annotations

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from inference.protocol import Segment
from store import valkey
from store.catalog.listings import set_prices
from store.catalog.models import Measurement, Version
from store.jobs import claims, evaluations
from store.jobs.models import Job, UploadedFile
from tests import making
from tests.jobs.test_evaluations import finish, owner, result_of
from tests.jobs.test_views import signed_in
from tests.jobs.working import claim_of, fresh, outcome_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def adapter() -> Version:
    return making.make_adapter(making.make_base())


def start_page(version: Version) -> str:
    return reverse("jobs:evaluate", args=[version.listing.publisher.slug, version.public_id])


def page_of(job: Job, client: Client) -> str:
    response = client.get(reverse("jobs:job", args=[job.public_id]))
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_a_maintainer_measures_a_version_from_the_studio(adapter: Version) -> None:
    client = signed_in(making.join(adapter.listing.publisher, "maintainer"))
    dashboard = client.get(reverse("pages:studio_listing", args=[adapter.listing.publisher.slug, adapter.listing.slug]))

    shown = client.get(start_page(adapter))
    started = client.post(start_page(adapter), {"suites": ["answer", "code"]})

    job = Job.objects.get(kind=Job.Kind.EVALUATION)
    assert start_page(adapter) in dashboard.content.decode()
    assert shown.context["form"].initial["suites"][:2] == ["perplexity", "summarise"]
    assert started["Location"] == reverse("jobs:job", args=[job.public_id])
    assert job.params["suites"] == ["answer", "code"]
    assert "Answer questions" in page_of(job, client)


def test_a_suite_of_ones_own_is_brought_once_and_can_be_chosen_again(adapter: Version) -> None:
    client = signed_in(owner(adapter))
    brought = SimpleUploadedFile("mine.jsonl", b'{"prompt": "Why?", "expected": "So."}\n')

    client.post(start_page(adapter), {"file": brought, "limit": "5"})
    first, file = Job.objects.get(), UploadedFile.objects.get()
    finish(first, result_of(adapter, suite="own"))
    client.post(start_page(adapter), {"earlier": file.public_id})

    again = Job.objects.latest("pk")
    assert (first.params["file"], first.params["limit"], first.params["suites"]) == (file.sha256, 5, [])
    assert (again.params["file"], again.params["name"], again.params["limit"]) == (file.sha256, "mine.jsonl", None)
    assert file.purpose == "evaluation"
    assert "Measured with a limit" in page_of(fresh(first), client)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, "Choose a suite, or bring one of your own."),
        ({"suites": "telepathy"}, "telepathy"),
        ({"suites": "answer", "limit": "0"}, "greater than or equal to 1"),
        ({"file": SimpleUploadedFile("a.csv", b"x")}, "A suite is a file of JSON lines"),
    ],
)
def test_what_will_not_do_is_said_at_its_field(adapter: Version, sent: dict[str, object], said: str) -> None:
    response = signed_in(owner(adapter)).post(start_page(adapter), sent)

    assert response.status_code == 422
    assert said in response.content.decode()
    assert not Job.objects.exists()


def test_a_second_one_is_told_that_the_first_is_under_way(adapter: Version) -> None:
    client = signed_in(owner(adapter))
    client.post(start_page(adapter), {"suites": "answer"})

    response = client.post(start_page(adapter), {"suites": "answer"})

    assert response.status_code == 422
    assert "is being measured already" in response.content.decode()


def test_a_running_evaluation_shows_what_is_measured_and_what_is_known(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=["answer", "code"])
    claims.claim(claim_of(job))
    event = {"suite": "answer", "of": "own", "seconds": 8.0, "values": {"f1": 31.25, "exact_match": 5.0}}
    claims.segment(Segment(job=job.public_id, attempt=1, claim="c1", number=0, checkpoint="0" * 64, events=[event], done=0.5))
    said = {"type": "progress", "stage": "measuring", "done": 0.5, "suite": "code", "of": "beside"}
    valkey.client().xadd(f"jobs:{job.public_id}:progress", {"event": json.dumps(said)})

    page = page_of(job, signed_in(making.join(adapter.listing.publisher, "member")))

    assert "<b>50%</b> · measuring" in page
    assert "F1 31.25" in page
    assert "its base is being measured" in page
    assert "about 8.0 s left" in page
    assert reverse("jobs:events", args=[job.public_id]) in page
    assert reverse("jobs:pause", args=[job.public_id]) not in page


def test_a_finished_one_shows_every_number_beside_the_base_and_the_first_answers(adapter: Version) -> None:
    result = result_of(adapter)
    result["results"][0]["samples"] = [{"prompt": "Who?", "expected": ["Ada"], "answer": "<b>Ada</b>"}]
    job = finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result)
    client = signed_in(owner(adapter))

    numbers = reverse("pages:measured", args=[adapter.listing.publisher.slug, adapter.listing.slug, "1.0.0"])
    page = page_of(job, client)
    listed = client.get(reverse("jobs:evaluations", args=[adapter.listing.publisher.slug])).content.decode()
    chinese = client.get(f"/zh-hans/studio/jobs/{job.public_id}/").content.decode()

    assert "Answer questions: F1" in page
    assert "29.00 … 31.00" in page
    assert '<span class="delta up">+10.00</span><br><span class="note">+8.00 … +12.00</span>' in page
    assert "&lt;b&gt;Ada&lt;/b&gt;" in page
    assert numbers in page
    assert adapter.full_name in listed
    assert "回答问题" in chinese


def test_a_wrong_suite_is_told_line_by_line_and_not_tried_again(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=["answer"])
    problem = {"line": 7, "column": 12, "code": "wrong_answer", "message": "", "detail": {"choices": 3}, "skips": False}
    claims.claim(claim_of(job))
    claims.failed(outcome_of(job, error="Wrong.", code="suite_invalid", detail={"error_count": 1, "problems": [problem]}))
    client = signed_in(owner(adapter))

    page = page_of(job, client)
    refused = client.post(reverse("jobs:retry", args=[job.public_id]), follow=True)

    assert "1 line of the suite can&#x27;t be used" in page
    assert "“answer” must be the place of the right choice, a number from 0 to 3." in page
    assert "Try again</button>" not in page
    assert fresh(job).state == Job.State.FAILED
    assert refused.status_code == 200


def test_the_form_says_how_often_a_day_what_builds_on_a_priced_base_may_be_measured(adapter: Version) -> None:
    client, base = signed_in(owner(adapter)), adapter.base
    assert base is not None
    before = client.get(start_page(adapter)).content.decode()

    set_prices(owner(base), base.listing, input_price_micro=1_000, output_price_micro=2_000)

    assert "such evaluation" not in before
    assert "you may begin at most 5 such evaluations a day" in client.get(start_page(adapter)).content.decode()


def test_a_stranger_finds_no_evaluation(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=["answer"])
    client = signed_in(making.make_user())

    for path in (start_page(adapter), reverse("jobs:job", args=[job.public_id]), reverse("jobs:evaluations", args=[job.publisher.slug])):  # type: ignore[union-attr]
        assert client.get(path).status_code == 404
    assert client.post(start_page(adapter), {"suites": "answer"}).status_code == 404
    assert Job.objects.count() == 1


def test_the_version_of_another_publisher_is_not_found_under_ones_own_name(adapter: Version) -> None:
    mine = making.make_publisher()

    response = signed_in(making.owner_of(mine)).get(reverse("jobs:evaluate", args=[mine.slug, adapter.public_id]))

    assert response.status_code == 404


def test_the_list_asks_as_often_for_one_as_for_many(adapter: Version) -> None:
    client = signed_in(owner(adapter))
    path = reverse("jobs:evaluations", args=[adapter.listing.publisher.slug])

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            client.get(path)
        return len(captured)

    counts = []
    for _ in range(4):
        finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result_of(adapter))
        counts.append(queries())

    assert len(set(counts[1:])) == 1
    assert Measurement.objects.exists()
