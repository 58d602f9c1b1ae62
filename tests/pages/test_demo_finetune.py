"""The demo's own fine-tune: started once, paid as any other, and watched by everybody without a right to touch it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
from django.conf import LazySettings
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import create_publisher
from store.billing.models import Reservation, Transaction
from store.catalog.models import Version
from store.jobs import files, finetunes
from store.jobs.models import Job, UploadedFile
from store.pages.demo import finetune
from store.pages.demo.catalogue import BASE
from store.supervision.management.commands.up import Command
from store.supervision.processes import Site
from tests import making
from tests.jobs.test_claims import at_once

HERE = Site("127.0.0.1", 8000, "http://127.0.0.1:8000")


@pytest.fixture
def owner() -> User:
    """Of the demo's publishers, with its base on the shelf."""
    owner = making.make_user("publisher")
    making.make_base(create_publisher(owner, slug=BASE.publisher, name="Models", is_demo=True), slug=BASE.slug, number=BASE.number)
    create_publisher(owner, slug=finetune.PUBLISHER, name="Demo Lab", is_demo=True)
    return owner


@pytest.fixture
def operator() -> User:
    return making.make_user("admin", is_staff=True, is_superuser=True)


@pytest.fixture
def job(operator: User, owner: User) -> Job:
    started = finetune.seed(operator=operator, owner=owner)
    assert started is not None
    return started


@pytest.fixture
def seed_again(operator: User, owner: User) -> Callable[[], Job | None]:
    return lambda: finetune.seed(operator=operator, owner=owner)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


# ---------------------------------------------------------------- starting it


@pytest.mark.django_db
def test_it_is_started_as_its_owner_would_start_it(job: Job, owner: User) -> None:
    assert (job.kind, job.state, job.created_by, job.publisher.slug) == ("finetune", "waiting", owner, "demo-lab")
    assert job.after is not None
    assert (job.after.kind, job.after.state) == ("validation", "queued")
    assert job.params["settings"] == finetunes.checked_settings(finetune.recipe())
    assert UploadedFile.objects.get().size_bytes == finetune.DATA.stat().st_size
    assert not Transaction.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("state", Job.State.values)
def test_it_is_started_only_once_whatever_became_of_it(job: Job, seed_again: Callable[[], Job | None], state: str) -> None:
    Job.objects.filter(pk=job.pk).update(state=state)

    assert seed_again() is None
    assert list(Job.objects.filter(kind="finetune")) == [job]


@pytest.mark.django_db(transaction=True)
def test_of_two_that_seed_at_once_one_starts_it(seed_again: Callable[[], Job | None]) -> None:
    started = at_once(seed_again, seed_again)

    assert len([job for job in started if job is not None]) == 1
    assert Job.objects.filter(kind="finetune").count() == 1


@pytest.mark.django_db
def test_where_fine_tunes_cost_an_operator_gives_what_it_can_cost(
    operator: User, owner: User, seed_again: Callable[[], Job | None], settings: LazySettings
) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10

    job = finetune.seed(operator=operator, owner=owner)
    seed_again()

    assert job is not None
    grant = Transaction.objects.get()
    held = Reservation.objects.get()
    assert (grant.kind, grant.cause, held.cause) == ("grant", finetune.CREDIT_CAUSE, job.cause)
    assert grant.entries.get(account__user=owner).amount_micro == held.amount_micro > 0


@pytest.mark.django_db
def test_without_the_base_nothing_is_started(operator: User, owner: User) -> None:
    Version.objects.get().listing.versions.update(state=Version.State.SUSPENDED)

    assert finetune.seed(operator=operator, owner=owner) is None
    assert not UploadedFile.objects.exists()


# ---------------------------------------------------------------- seeding the demo


def said_by_seed_demo() -> tuple[str, str]:
    said, wrong = io.StringIO(), io.StringIO()
    call_command("seed_demo", stdout=said, stderr=wrong)
    return said.getvalue(), wrong.getvalue()


@pytest.mark.django_db
def test_seeding_the_demo_starts_it(owner: User, operator: User) -> None:
    said, _wrong = said_by_seed_demo()

    assert "a fine-tune on glossary-cards.jsonl is started" in said
    assert Job.objects.filter(kind="finetune").count() == 1


@pytest.mark.django_db
def test_what_is_in_its_way_does_not_keep_the_store_shut(owner: User, operator: User) -> None:
    said_by_seed_demo()
    Job.objects.update(params={})
    Membership.objects.filter(publisher__slug=finetune.PUBLISHER, user=owner).update(user=making.make_user())

    said, wrong = said_by_seed_demo()

    assert "was not started" in wrong
    assert "is started" not in said


@pytest.mark.django_db
def test_an_operator_can_do_without_it(owner: User, operator: User, settings: LazySettings) -> None:
    settings.DEMO_FINETUNE = False

    said_by_seed_demo()

    assert not Job.objects.filter(kind="finetune").exists()


@pytest.mark.django_db
def test_a_start_says_where_it_can_be_watched(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    Command()._say_finetune(HERE)

    assert f"http://127.0.0.1:8000/studio/jobs/{job.public_id}/" in capsys.readouterr().out


# ---------------------------------------------------------------- watching it


@pytest.mark.django_db
def test_everybody_watches_it_without_an_account(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(state="running", worker="training-some-host-17")

    response = Client().get(reverse("jobs:job", args=[job.public_id]))
    live = Client().get(reverse("jobs:events", args=[job.public_id]))

    page = response.content.decode()
    assert (response.status_code, live.status_code, response.cookies) == (200, 200, {})
    assert finetune.NAME in page
    assert "some-host" not in page
    assert "Started by" not in page
    assert "Cancel job" not in page


@pytest.mark.django_db
def test_its_owner_sees_more_and_may_stop_it(job: Job, owner: User) -> None:
    client = signed_in(owner)

    page = client.get(reverse("jobs:job", args=[job.public_id])).content.decode()
    client.post(reverse("jobs:cancel", args=[job.public_id]))

    assert "Started by publisher" in page
    assert "Cancel job" in page
    assert Job.objects.get(pk=job.pk).state == "cancelled"


@pytest.mark.django_db
@pytest.mark.parametrize("act", ["pause", "resume", "cancel", "retry", "make_version"])
def test_who_only_watches_cannot_act_on_it(job: Job, act: str) -> None:
    path = reverse(f"jobs:{act}", args=[job.public_id])
    stranger = signed_in(making.make_user())

    as_visitor, as_stranger = Client().post(path), stranger.post(path)

    assert as_visitor.headers["Location"].startswith(reverse("account_login"))
    assert as_stranger.status_code == 404
    assert Job.objects.get(pk=job.pk).state == "waiting"


def job_on(publisher: Publisher, raw: bytes, *, name: str, prompts: Sequence[str] = ()) -> Job:
    owner = making.owner_of(publisher)
    file = files.save(owner, publisher, name=name, stream=io.BytesIO(raw), purpose=UploadedFile.Purpose.FINETUNE)
    return finetunes.start(owner, publisher, base=Version.objects.get(kind="weights"), file=file, settings={}, prompts=prompts)


@pytest.mark.django_db
def test_other_data_of_the_demos_publisher_and_other_publishers_jobs_stay_their_own(owner: User) -> None:
    demo = Publisher.objects.get(slug=finetune.PUBLISHER)
    hidden = [
        job_on(demo, b'{"prompt": "mine", "completion": "alone"}\n', name=finetune.NAME),
        job_on(making.make_publisher(), finetune.DATA.read_bytes(), name=finetune.NAME),
        job_on(demo, finetune.DATA.read_bytes(), name=finetune.NAME, prompts=["A question of my own"]),
    ]

    for job in hidden:
        page, live = reverse("jobs:job", args=[job.public_id]), reverse("jobs:events", args=[job.public_id])
        assert Client().get(page).headers["Location"].startswith(reverse("account_login"))
        assert Client().get(live).status_code == 404
        assert signed_in(making.make_user()).get(page).status_code == 404


@pytest.mark.django_db
def test_the_home_page_leads_to_it_while_it_is_worth_a_look(job: Job) -> None:
    link = reverse("jobs:job", args=[job.public_id])

    before = Client().get(reverse("pages:home")).content.decode()
    Job.objects.filter(pk=job.pk).update(state="failed")
    cache.clear()  # home is kept for some seconds
    after = Client().get(reverse("pages:home")).content.decode()

    assert link in before
    assert link not in after
