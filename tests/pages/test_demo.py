from __future__ import annotations

import io
from pathlib import Path

import pytest
from allauth.account.models import EmailAddress
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from store.accounts.models import Publisher, User
from store.billing import ledger
from store.billing.models import Transaction
from store.catalog.models import Listing, UseCase, Version
from store.generation.models import Request
from store.moderation.models import Decision
from store.pages.demo.catalogue import BASE, GPTS, DemoGPT
from store.pages.demo.people import CREDIT_MICRO, LOGINS
from store.ratings.models import Rating
from tests import making

BY_SLUG = pytest.mark.parametrize("gpt", GPTS, ids=lambda gpt: gpt.slug)
ROWS = (User, EmailAddress, Publisher, Listing, Version, Decision, Transaction)


def seed() -> str:
    said = io.StringIO()
    call_command("seed_demo", stdout=said)
    return said.getvalue()


@pytest.fixture
def _packaged_model(settings: LazySettings, tmp_path: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ARTIFACT_URL = (tmp_path / "artifacts").as_uri()
    monkeypatch.setenv("WORKER_CACHE_DIR", str(smollm2_folder.parent.parent))


@pytest.mark.real_model
@pytest.mark.django_db
@pytest.mark.usefixtures("_packaged_model")
def test_the_demo_is_seeded_once_and_true() -> None:
    said = seed()
    assert said.count("is published") == 1 + len(GPTS)

    base = Version.objects.get(kind="weights")
    assert (base.full_name, base.state, base.listing.allow_finetune, base.listing.licence) == (
        BASE.full_name,
        "released",
        True,
        "Apache-2.0",
    )
    assert base.facts["parameters"] == 134_515_008
    for gpt in GPTS:
        version = Version.objects.usable_by(None).get(listing__slug=gpt.slug)
        listing = version.listing
        assert (version.full_name, version.base, version.instructions) == (gpt.full_name, base, gpt.instructions)
        assert (listing.languages, listing.licence, listing.visibility) == (["en"], "Apache-2.0", "public")
        assert sorted(text.language for text in listing.live_revision.texts.all()) == ["en", "zh-hans"]
    assert all(publisher.is_demo for publisher in Publisher.objects.all())
    assert Listing.objects.filter(output_price_micro__gt=0).count() == 1
    assert not Rating.objects.exists()
    assert not Request.objects.exists()
    assert ledger.wallet_of(User.objects.get(username="user")).balance_micro == CREDIT_MICRO

    roles = {login.role: User.objects.get(username=login.username) for login in LOGINS}
    assert [role for role, user in roles.items() if user.is_superuser] == ["admin"]
    assert [role for role, user in roles.items() if user.is_reviewer] == ["admin", "reviewer"]
    assert {making.owner_of(publisher) for publisher in Publisher.objects.all()} == {roles["publisher"]}
    for login in LOGINS:
        client = Client()
        client.post(reverse("account_login"), {"login": login.username, "password": login.password})
        assert client.session["_auth_user_id"] == str(roles[login.role].pk), login

    before = [model.objects.count() for model in ROWS]
    with CaptureQueriesContext(connection) as queries:
        assert seed() == ""
    assert [model.objects.count() for model in ROWS] == before
    assert len(queries) <= 4


@pytest.mark.django_db
def test_somebody_elses_account_named_admin_gets_no_rights() -> None:
    stranger = making.make_user("admin")

    with pytest.raises(CommandError, match="DEMO=0"):
        seed()

    stranger.refresh_from_db()
    assert not stranger.is_superuser
    assert stranger.check_password("correct horse 9")
    assert not Listing.objects.exists()


@BY_SLUG
def test_it_was_tried_with_ten_prompts_and_at_least_seven_answers_are_acceptable(gpt: DemoGPT) -> None:
    answers = gpt.trial.answers

    assert len({answer.prompt for answer in answers}) == 10
    assert all(answer.output.strip() and answer.reason for answer in answers)
    assert gpt.trial.acceptable >= 7
    assert gpt.parameters["temperature"] == 0


@BY_SLUG
def test_its_page_claims_what_was_tried_and_no_more(gpt: DemoGPT) -> None:
    english, chinese = gpt.texts["en"], gpt.texts["zh-hans"]
    well_answered = {answer.prompt for answer in gpt.trial.answers if answer.acceptable}

    assert gpt.languages == ("en",)
    assert f"{gpt.trial.acceptable} of 10 fixed prompts" in english["card"]
    assert f"10 个固定提示中有 {gpt.trial.acceptable} 个" in chinese["card"]
    assert "English only" in english["card"]
    assert "只支持英语" in chinese["summary"]
    assert gpt.starters
    assert set(gpt.starters) <= well_answered


@pytest.mark.django_db
def test_the_demo_covers_what_the_model_can_do() -> None:
    covered = {slug for gpt in GPTS for slug in gpt.use_cases}

    assert covered >= {"summarise", "rewrite", "answer", "extract", "explain", "chat"}
    assert covered <= set(UseCase.objects.values_list("slug", flat=True))


def test_the_documented_scores_are_those_of_the_committed_answers(settings: LazySettings) -> None:
    documented = (settings.BASE_DIR / "docs" / "demo.md").read_text(encoding="utf-8")

    for gpt in GPTS:
        (row,) = [line for line in documented.splitlines() if line.startswith(f"| `{gpt.publisher}/{gpt.slug}`")]
        assert row.endswith(f"| {gpt.trial.acceptable} of 10 |")
