"""A publisher makes a GPT and submits it, a reviewer approves it, it is listed, a user rates it; and a fine-tune to its end."""

from __future__ import annotations

import io
import json
import os
import signal

import pytest
from playwright.sync_api import Browser, Page, expect

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.generation.models import Request
from store.jobs import files, finetunes
from store.jobs.models import Job
from store.moderation.models import Submission
from tests.journeys.conftest import real_password, sign_in
from tests.making import make_listing, make_publisher, make_reviewer, make_user
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
CHECKED_WITHIN_S = 300.0
BASE = "smollm2-135m-instruct"


@pytest.mark.postgresql
def test_made_submitted_reviewed_listed_and_rated(site: Page, stack: Stack, browser: Browser, somebody: User) -> None:
    publisher = make_publisher(somebody)
    reviewer, reader = real_password(make_reviewer()), real_password(make_user())
    sign_in(site, stack, somebody)

    site.goto(f"{stack.url}/en/studio/publishers/{publisher.slug}/new/")
    _fill_new_gpt(site)
    site.get_by_role("button", name="Save the draft").click()
    expect(site.get_by_role("heading", level=1)).to_have_text("Plain Answers")
    listing = Listing.objects.get(publisher=publisher)
    assert not Listing.objects.listed().filter(pk=listing.pk).exists()
    site.locator("form[action$='/submit/'] button.primary").click()
    submission = wait_until(lambda: Submission.objects.filter(listing=listing).first())
    wait_until(
        lambda: Submission.objects.filter(pk=submission.pk, state="queued").exists(),
        within_s=CHECKED_WITHIN_S,
        what="the end of the checks",
    )
    assert set(submission.checks.values_list("state", flat=True)) <= {"passed", "warned"}

    _approve(browser, stack, reviewer, submission)
    listing.refresh_from_db()
    assert Listing.objects.listed().filter(pk=listing.pk).exists()
    site.goto(f"{stack.url}/en/inbox/")
    expect(site.locator("main")).to_contain_text("was approved")

    _use_and_rate(browser, stack, reader, listing)
    assert listing.ratings.get().stars == 4
    site.goto(f"{stack.url}/en/gpts/{listing.full_name}/")
    expect(site.locator("#ratings")).to_contain_text("Does what it says.")


def _fill_new_gpt(page: Page) -> None:
    base = Version.objects.available().get(kind="weights", listing__slug=BASE)
    option = page.locator("select[name=base] option").filter(has_text=base.full_name).first
    page.locator("select[name=base]").select_option(value=option.get_attribute("value"))
    page.locator("[name=instructions]").fill("Answer in one short sentence.")
    page.locator("[name=starters]").fill("What is a glacier?\nWhat is a vaccine?")
    page.locator("[name=slug]").fill("plain-answers")
    page.locator("[name=name_en]").fill("Plain Answers")
    page.locator("[name=summary_en]").fill("Answers in one short sentence.")
    page.locator("[name=use_cases]").first.check()
    page.locator("[name=languages][value=en]").check()


def _approve(browser: Browser, stack: Stack, reviewer: User, submission: Submission) -> None:
    page = browser.new_page()
    sign_in(page, stack, reviewer)
    page.goto(f"{stack.url}/en/review/submissions/{submission.public_id}/")
    page.locator("[data-decide] input[value=approve]").check()
    page.locator("[data-decide] button.primary").click()
    wait_until(lambda: Submission.objects.filter(pk=submission.pk, state="approved").exists(), what="the approval")
    page.close()


def _use_and_rate(browser: Browser, stack: Stack, reader: User, listing: Listing) -> None:
    page = browser.new_page()
    sign_in(page, stack, reader)
    page.goto(f"{stack.url}/en/gpts/{listing.full_name}/")
    page.locator("[data-try] [data-send]").click()
    wait_until(lambda: Request.objects.filter(user=reader, state="finished").exists(), within_s=120, what="the answer")
    page.goto(f"{stack.url}/en/ratings/of/{listing.public_id}/rate/")
    page.locator("[name=stars][value='4']").check(force=True)
    page.locator("[name=text]").fill("Does what it says.")
    page.get_by_role("button", name="Publish rating").click()
    wait_until(lambda: listing.ratings.exists(), what="the rating")
    page.close()


def test_a_fine_tune_survives_its_killed_worker_and_becomes_a_version(stack: Stack, somebody: User) -> None:
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

    wait_until(lambda: Job.objects.filter(pk=job.pk, segment__gt=0).exists(), within_s=240, what="the first checkpoint")
    for pid in stack.pids("inference.worker", "jobs.training"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: Job.objects.get(pk=job.pk).has_ended, within_s=400, what="the end of the fine-tune")

    job.refresh_from_db()
    assert (job.state, job.error, job.attempt) == ("succeeded", "", 2)
    numbers = list(job.segments.values_list("number", flat=True))
    assert numbers == list(range(len(numbers)))
    assert job.result["validation_loss"] < job.result["base_validation_loss"]
    listing = make_listing(publisher)
    version = finetunes.make_version(somebody, job, listing=listing, number="1.0.0")
    assert (version.kind, version.base, version.made_by, version.state) == ("adapter", base, job.public_id, "draft")
