"""What a publisher submits is checked, reviewed and listed; and a fine-tune to its end."""

from __future__ import annotations

import io
import json

import pytest
from playwright.sync_api import Page

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.jobs import files, finetunes
from store.jobs.models import Job
from store.moderation import submissions
from store.moderation.models import Submission
from store.notifications.models import Notification
from store.notifications.sentences import sentence
from tests.journeys.conftest import real_password, sign_in
from tests.making import draft_prompt, make_listing, make_publisher, make_reviewer
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
CHECKED_WITHIN_S = 300.0
BASE = "smollm2-135m-instruct"


@pytest.mark.postgresql
def test_what_is_submitted_is_checked_reviewed_and_listed(site: Page, stack: Stack, somebody: User) -> None:
    base, reviewer = Version.objects.available().get(kind="weights", listing__slug=BASE), real_password(make_reviewer())
    listing = draft_prompt(base, make_listing(make_publisher(somebody))).listing

    submission = submissions.submit(somebody, listing, version=listing.versions.get())
    wait_until(
        lambda: Submission.objects.filter(pk=submission.pk, state="queued").exists(),
        within_s=CHECKED_WITHIN_S,
        what="the end of the checks",
    )
    assert set(submission.checks.values_list("state", flat=True)) <= {"passed", "warned"}
    assert not Listing.objects.listed().filter(pk=listing.pk).exists()

    sign_in(site, stack, reviewer)
    site.goto(f"{stack.url}/en/review/submissions/{submission.public_id}/")
    site.locator("[data-decide] input[value=approve]").check()
    site.locator("[data-decide] button.primary").click()
    wait_until(lambda: Submission.objects.filter(pk=submission.pk, state="approved").exists(), what="the approval")
    assert Listing.objects.listed().filter(pk=listing.pk).exists()
    assert sentence(Notification.objects.get(user=somebody)).endswith("was approved.")


def test_a_fine_tune_of_the_real_base_learns_and_becomes_a_version(stack: Stack, somebody: User) -> None:
    publisher = make_publisher(somebody)
    lines = [
        json.dumps({"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]})
        for n in range(24)
    ]
    file = files.save(somebody, publisher, name="numbers.jsonl", stream=io.BytesIO("\n".join(lines).encode()), purpose="fine-tune")
    base = finetunes.trainable_bases(somebody).get(listing__slug=BASE)
    job = finetunes.start(
        somebody,
        publisher,
        base=base,
        file=file,
        settings={"epochs": 3, "batch_size": 4, "rank": 4, "learning_rate": 1e-3, "max_length": 128},
    )

    wait_until(lambda: Job.objects.get(pk=job.pk).has_ended, within_s=400, what="the end of the fine-tune")

    job.refresh_from_db()
    assert (job.state, job.error, job.attempt) == ("succeeded", "", 1)
    numbers = list(job.segments.values_list("number", flat=True))
    assert numbers == list(range(len(numbers)))
    assert job.result["validation_loss"] < job.result["base_validation_loss"]
    listing = make_listing(publisher)
    version = finetunes.make_version(somebody, job, listing=listing, number="1.0.0")
    assert (version.kind, version.base, version.made_by, version.state) == ("adapter", base, job.public_id, "draft")
