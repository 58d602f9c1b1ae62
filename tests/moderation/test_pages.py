from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from store.accounts.models import Membership, User
from store.catalog import publishing
from store.catalog.models import Version
from store.moderation import decisions, submissions
from store.moderation.models import Decision, Submission
from tests import making
from tests.moderation import acting

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def reviewer() -> User:
    return making.make_reviewer("rita")


@pytest.fixture
def desk(reviewer: User) -> Client:
    return signed_in(reviewer)


def page(client: Client, name: str, *args: str, status: int = 200, **query: str) -> str:
    response = client.get(reverse(f"moderation:{name}", args=args), query)
    assert response.status_code == status
    return response.content.decode()


def test_the_queue_says_what_to_look_at_next_and_why(desk: Client) -> None:
    first, second = acting.queued_prompt(), acting.submit(making.draft_prompt(making.make_base()))

    html = page(desk, "queue")
    assert first.version.full_name in html
    assert second.version.full_name not in html
    for said in ("New GPT", "Nothing of this publisher was approved before", "1 passed", "Medium risk", "nobody"):
        assert said in html
    assert second.version.full_name in page(desk, "queue", show="checking")


def test_the_queue_costs_the_same_however_long(desk: Client) -> None:
    acting.queued_prompt()
    with CaptureQueriesContext(connection) as few:
        page(desk, "queue")
    for _ in range(4):
        acting.queued_prompt()

    with CaptureQueriesContext(connection) as many:
        page(desk, "queue")

    assert len(many) == len(few) <= 20


def test_a_submission_shows_its_checks_its_changes_and_its_instructions(desk: Client) -> None:
    base = making.make_base()
    first = making.make_prompt(base, instructions="Be brief.\nBe kind.", parameters={"temperature": 0.2})
    owner = making.owner_of(first.listing.publisher)
    text = {"name": "Better name", "summary": first.listing.text("en").summary, "card": "# Card"}
    revision = publishing.edit_texts(owner, first.listing, texts={"en": text})
    version = making.draft_prompt(base, first.listing, number="1.1.0", instructions="Be brief.\nBe very kind.")
    submission = submissions.submit(owner, first.listing, version=version, revision=revision, note="Kinder now.")
    failed = {
        "state": "failed",
        "code": "strange",
        "finding": "It said nothing.",
        "evidence": {"answers": [{"prompt": "Hi", "answer": ""}]},
    }
    acting.end_check(submission, "generates", result=failed)

    html = page(desk, "submission", submission.public_id)

    assert "Be<ins> very</ins> kind." in html
    for said in (
        "It said nothing.",
        "Kinder now.",
        "1.0.0, approved",
        "All its instructions",
        "Be very kind.",
        "High risk",
        "Changed texts",
    ):
        assert said in html
    assert "<ins>Better name</ins>" in html


def test_a_decision_opens_the_next_and_writes_its_reasons_in_the_publishers_language(desk: Client, reviewer: User) -> None:
    first, second = acting.queued_prompt(), acting.queued_prompt()
    User.objects.filter(pk=acting.owner(first).pk).update(language="zh-hans")
    given = {"action": "request_changes", "canned": ["licence", "unsafe"], "note": "Please mend."}

    response = desk.post(reverse("moderation:decide", args=[first.public_id]), given)

    assert response.status_code == 302
    assert response["Location"].endswith(f"/{second.public_id}/")
    decision = Decision.objects.get()
    assert (decision.action, decision.decided_by, decision.reason.splitlines()[2]) == ("request_changes", reviewer, "Please mend.")
    assert len(decision.reason.splitlines()) == 3


@pytest.mark.parametrize("given", [{}, {"action": "reject"}, {"action": "reject", "note": "\x00"}, {"action": "burn", "note": "x"}])
def test_a_decision_without_what_it_needs_is_not_written(desk: Client, given: dict) -> None:
    submission = acting.queued_prompt()

    assert desk.post(reverse("moderation:decide", args=[submission.public_id]), given).status_code == 400

    submission.refresh_from_db()
    assert submission.state == "queued"
    assert not Decision.objects.exists()


def test_reviewers_claim_release_suspend_and_restore(desk: Client, reviewer: User) -> None:
    submission = acting.queued_prompt()
    desk.post(reverse("moderation:claim", args=[submission.public_id]))
    submission.refresh_from_db()
    assert submission.claimed_by == reviewer
    assert "Claimed by you" in page(desk, "submission", submission.public_id)
    desk.post(reverse("moderation:release", args=[submission.public_id]))
    submission.refresh_from_db()
    assert submission.claimed_by is None

    decisions.approve(reviewer, submission)
    version, listing = submission.version, submission.listing
    assert desk.post(reverse("moderation:suspend", args=[version.public_id]), {"reason": " "}).status_code == 400
    assert Version.objects.get(pk=version.pk).state == "released"
    desk.post(reverse("moderation:suspend", args=[version.public_id]), {"reason": "It leaks."})
    assert Version.objects.get(pk=version.pk).state == "suspended"
    assert version.full_name in page(desk, "queue", show="suspended")
    assert "It leaks." in page(desk, "listing", listing.public_id)
    desk.post(reverse("moderation:restore", args=[version.public_id]), {"reason": "Mended."})
    assert Version.objects.get(pk=version.pk).state == "released"
    desk.post(reverse("moderation:suspend", args=[listing.public_id]), {"reason": "All of it."})
    listing.refresh_from_db()
    assert listing.suspended_at is not None
    assert listing.full_name in page(desk, "queue", show="suspended")
    assert "All of it." in page(desk, "queue", show="decided")


def test_a_publisher_reads_what_was_decided_and_withdraws() -> None:
    submission = acting.queued_prompt()
    owner, member = acting.owner(submission), making.join(submission.listing.publisher, Membership.Role.MEMBER)
    assert "Waiting for a reviewer" in page(signed_in(member), "listing", submission.listing.public_id)

    assert signed_in(member).post(reverse("moderation:withdraw", args=[submission.public_id])).status_code == 403
    submission.refresh_from_db()
    assert submission.state == "queued"
    signed_in(owner).post(reverse("moderation:withdraw", args=[submission.public_id]))
    submission.refresh_from_db()
    assert submission.state == "withdrawn"


def test_strangers_find_no_review_page_and_change_nothing() -> None:
    submission = acting.queued_prompt()
    released = making.make_prompt()
    sub, listing, version = submission.public_id, submission.listing.public_id, released.public_id
    posts = [("claim", sub), ("release", sub), ("decide", sub), ("withdraw", sub), ("suspend", version), ("restore", version)]

    for client in (signed_in(making.make_user()), signed_in(making.make_user(is_staff=True))):
        for name, args in (("queue", []), ("submission", [sub]), ("listing", [listing])):
            assert client.get(reverse(f"moderation:{name}", args=args)).status_code == 404
        for name, public_id in posts:
            given = {"action": "approve", "reason": "x"}
            assert client.post(reverse(f"moderation:{name}", args=[public_id]), given).status_code == 404
        assert client.post(reverse("moderation:run_check_again", args=[sub, "generates"])).status_code == 404
    assert Client().get(reverse("moderation:queue")).status_code == 302

    submission = Submission.objects.get(pk=submission.pk)
    assert (submission.state, submission.claimed_by) == ("queued", None)
    assert Version.objects.get(pk=released.pk).state == "released"
    assert not Decision.objects.exists()
