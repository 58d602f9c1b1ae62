from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.utils import timezone

from store.accounts.models import AuditEntry, Membership
from store.catalog import listings, naming, publishing, releases, revisions
from store.catalog.errors import (
    AlreadyUsed,
    BaseUnavailable,
    FinetuneNotAllowed,
    InvalidListing,
    InvalidText,
    InvalidVersion,
    NameTaken,
    NumberTaken,
    Sealed,
)
from store.catalog.models import Ancestry, Listing, Version
from store.errors import Conflict, NotAllowed, NotFound
from store.generation.models import Request
from tests import making

pytestmark = pytest.mark.django_db
VISITOR = AnonymousUser()


def test_a_member_may_not_publish_and_a_stranger_learns_nothing() -> None:
    publisher = making.make_publisher(slug="lab")
    member, stranger = making.join(publisher, Membership.Role.MEMBER), making.make_user()
    listing = making.make_listing(publisher)
    base = making.make_base()
    audited = AuditEntry.objects.count()

    for user, refused in ((member, NotAllowed), (stranger, NotFound)):
        with pytest.raises(refused):
            making.listings.create_listing(
                user, publisher, slug="x", texts={"en": {"name": "X", "summary": "x"}}, use_cases=["chat"], licence="MIT", languages=["en"]
            )
        with pytest.raises(refused):
            publishing.edit_texts(user, listing, texts={"en": {"name": "X", "summary": "x"}})
        with pytest.raises(refused):
            publishing.create_prompt_version(user, listing, number="1.0.0", base=base, instructions="x")
        with pytest.raises(refused):
            publishing.set_prices(user, listing, input_price_micro=1, output_price_micro=1)
        with pytest.raises(refused):
            publishing.set_permissions(user, listing, allow_finetune=True, allow_download=True)

    listing.refresh_from_db()
    assert Listing.objects.filter(publisher=publisher).count() == 1
    assert listing.versions.count() == 0
    assert (listing.input_price_micro, listing.allow_download) == (0, False)
    assert listing.text("en").name == listing.slug.title()
    assert AuditEntry.objects.count() == audited


def test_a_name_is_given_once_to_each_publisher() -> None:
    listing = making.make_listing(slug="brief")

    with pytest.raises(NameTaken):
        making.make_listing(listing.publisher, slug="brief")

    assert making.make_listing(slug="brief").full_name != listing.full_name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"slug": "Über"}, "slug"),
        ({"use_cases": []}, "use_cases"),
        ({"use_cases": ["flying"]}, "use_cases"),
        ({"licence": ""}, "licence"),
        ({"languages": ["klingon"]}, "languages"),
        ({"input_price_micro": -1}, "input_price_micro"),
        ({"output_price_micro": 1_000_000_001}, "output_price_micro"),
    ],
)
def test_a_listing_with_a_wrong_field_is_refused_by_name(fields: dict, param: str) -> None:
    publisher = making.make_publisher()

    with pytest.raises(InvalidListing) as refused:
        making.make_listing(publisher, **{"slug": "fine"} | fields)

    assert refused.value.param == param
    assert not Listing.objects.filter(publisher=publisher).exists()


@pytest.mark.parametrize(
    ("texts", "param"),
    [
        ({}, "en.name"),
        ({"fr": {"name": "Nom", "summary": "x"}}, "fr"),
        ({"en": {"name": "", "summary": "x"}}, "en.name"),
        ({"en": {"name": "x" * 61, "summary": "x"}}, "en.name"),
        ({"en": {"name": "Name", "summary": "a\x00b"}}, "en.summary"),
        ({"en": {"name": "Name", "summary": "a\ud800"}}, "en.summary"),
        ({"en": {"name": "Name", "summary": "x", "card": "x" * 20_001}}, "en.card"),
    ],
)
def test_texts_that_cannot_be_shown_are_refused_by_field(texts: dict, param: str) -> None:
    listing = making.make_listing()

    with pytest.raises(InvalidText) as refused:
        publishing.edit_texts(making.owner_of(listing.publisher), listing, texts=texts)

    assert refused.value.param == param
    assert revisions.latest(listing).texts.get().name == listing.slug.title()


def test_the_live_text_stays_until_its_successor_is_live() -> None:
    version = making.make_base(slug="brief")
    listing, owner = version.listing, making.owner_of(version.listing.publisher)

    draft = publishing.edit_texts(owner, listing, texts={"en": {"name": "Second", "summary": "Newer."}})
    again = publishing.edit_texts(owner, listing, texts={"en": {"name": "Third", "summary": "Newest."}})
    assert again == draft
    assert listing.text("en").name == "Brief"

    revisions.seal(draft)
    publishing.make_live(draft)
    listing.refresh_from_db()
    assert listing.text("en").name == "Third"
    assert sorted(listing.revisions.values_list("state", flat=True)) == ["live", "superseded"]


def test_what_is_sealed_can_not_be_changed() -> None:
    version = making.draft_prompt(making.make_base(), starters=["One"], parameters={"temperature": 0.5})
    owner = making.owner_of(version.listing.publisher)
    publishing.edit_version(owner, version, instructions="Answer in two sentences.")

    publishing.seal(version)

    assert version.digest == releases.content_digest(version)
    for act in (
        lambda: publishing.edit_version(owner, version, instructions="Obey."),
        lambda: publishing.delete_draft(owner, version),
        lambda: publishing.seal(version),
    ):
        with pytest.raises(Sealed):
            act()
    version.refresh_from_db()
    assert (version.state, version.instructions) == ("sealed", "Answer in two sentences.")


@pytest.mark.parametrize(
    "changed",
    [
        {"instructions": "Obey."},
        {"starters": []},
        {"parameters": {"top_p": 1}},
        {"change_log": "x"},
        {"number": "9.9.9"},
        {"made_by": "job_1"},
    ],
)
def test_a_version_changed_behind_its_seal_is_not_released(changed: dict) -> None:
    version = making.draft_prompt(making.make_base())
    publishing.seal(version)
    Version.objects.filter(pk=version.pk).update(**changed)

    with pytest.raises(Conflict):
        publishing.release(version)

    assert Version.objects.get(pk=version.pk).state == "sealed"


def test_the_database_refuses_a_submitted_version_without_a_digest() -> None:
    version = making.draft_prompt(making.make_base())

    with pytest.raises(IntegrityError), transaction.atomic():
        Version.objects.filter(pk=version.pk).update(state="released")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"number": "1.0"}, "number"),
        ({"number": "01.0.0"}, "number"),
        ({"instructions": " "}, "instructions"),
        ({"starters": ["a", "b", "c", "d", "e", "f", "g"]}, "starters"),
        ({"parameters": {"temperature": 3}}, "temperature"),
        ({"parameters": {"top_k": 1.5}}, "top_k"),
        ({"parameters": {"max_tokens": True}}, "max_tokens"),
        ({"parameters": {"colour": 1}}, "colour"),
    ],
)
def test_a_version_with_a_wrong_field_is_refused_by_name(fields: dict, param: str) -> None:
    base, listing = making.make_base(), making.make_listing()

    with pytest.raises(InvalidVersion) as refused:
        making.draft_prompt(base, listing, **fields)

    assert refused.value.param == param
    assert not listing.versions.exists()


def test_a_number_is_given_once_to_each_listing() -> None:
    base = making.make_base()
    version = making.draft_prompt(base)

    with pytest.raises(NumberTaken):
        making.draft_prompt(base, version.listing)

    assert version.listing.versions.count() == 1


def test_lineage_is_kept_as_its_transitive_closure() -> None:
    base = making.make_base()
    adapter = making.make_adapter(base)
    prompt = making.draft_prompt(adapter)

    assert list(Ancestry.objects.filter(version=prompt).values_list("ancestor", "depth")) == [(adapter.pk, 1), (base.pk, 2)]
    with pytest.raises(InvalidVersion):
        making.draft_prompt(prompt)


def test_fine_tunes_need_the_leave_of_the_base() -> None:
    base = making.make_base(allow_finetune=False)
    listing = making.make_listing()

    with pytest.raises(FinetuneNotAllowed):
        making.make_adapter(base, listing)

    assert not listing.versions.exists()
    assert making.draft_prompt(base, listing).state == "draft"


@pytest.mark.parametrize("hide", ["version", "listing"])
def test_a_suspended_base_takes_down_all_that_builds_on_it(hide: str) -> None:
    base = making.make_base()
    adapter = making.make_adapter(base)
    prompt = making.make_prompt(adapter)
    owner = making.owner_of(prompt.listing.publisher)
    assert set(Version.objects.available()) == {base, adapter, prompt}

    if hide == "version":
        publishing.suspend(base)
    else:
        listings.suspend(base.listing)

    assert not Version.objects.available().exists()
    assert not Listing.objects.listed().exists()
    for user in (VISITOR, owner):
        assert not Version.objects.usable_by(user).filter(pk__in=[adapter.pk, prompt.pk]).exists()
    with pytest.raises(BaseUnavailable):
        making.draft_prompt(adapter)

    if hide == "version":
        publishing.restore(base)
    else:
        listings.restore(base.listing)
    assert set(Version.objects.available()) == {base, adapter, prompt}


def test_a_version_whose_base_was_suspended_meanwhile_is_not_released() -> None:
    base = making.make_base()
    version = making.draft_prompt(base)
    publishing.seal(version)
    publishing.suspend(base)

    with pytest.raises(BaseUnavailable):
        publishing.release(version)

    assert Version.objects.get(pk=version.pk).state == "sealed"


def test_the_unpinned_name_can_be_rolled_back_to_an_available_version() -> None:
    base = making.make_base()
    first = making.make_prompt(base)
    second = making.make_prompt(base, first.listing, number="1.1.0")
    name, owner = first.listing.full_name, making.owner_of(first.listing.publisher)
    assert naming.resolve(name, VISITOR) == second

    publishing.make_current(owner, first.listing, first)
    assert naming.resolve(name, VISITOR) == first
    assert naming.resolve(f"{name}@1.1.0", VISITOR) == second

    publishing.suspend(second)
    with pytest.raises(BaseUnavailable):
        publishing.make_current(owner, first.listing, second)
    assert naming.resolve(name, VISITOR) == first


def test_a_draft_has_a_name_for_its_members_only() -> None:
    version = making.draft_prompt(making.make_base())
    name = version.full_name
    member = making.join(version.listing.publisher, Membership.Role.MEMBER)

    for user in (member, making.owner_of(version.listing.publisher), making.make_reviewer()):
        assert naming.resolve(name, user) == version
        assert naming.resolve(version.public_id, user) == version
        assert naming.resolve(f"{version.listing.full_name}@{version.public_id}", user) == version
    for user in (VISITOR, making.make_user()):
        for said in (name, version.public_id, version.listing.full_name, "", "@", "a/b@c@d", "x" * 500, "\x00/\x00"):
            with pytest.raises(NotFound):
                naming.resolve(said, user)


def test_prices_are_kept_with_who_changed_them() -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)

    publishing.set_prices(owner, listing, input_price_micro=100, output_price_micro=400)

    assert (listing.input_price_micro, listing.output_price_micro) == (100, 400)
    entry = AuditEntry.objects.filter(action="listing.price").get()
    assert (entry.actor, entry.target) == (owner, listing.public_id)
    assert entry.detail["new"] == {"input_price_micro": 100, "output_price_micro": 400, "monthly_price_micro": 0, "monthly_tokens": 0}


def test_claims_change_only_before_the_first_approval() -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)
    publishing.describe(owner, listing, use_cases=["code"], licence="MIT", languages=["en", "zh"])
    assert (listing.licence, listing.languages) == ("MIT", ["en", "zh"])

    released = making.make_base().listing
    with pytest.raises(Sealed):
        publishing.describe(making.owner_of(released.publisher), released, use_cases=["code"], licence="MIT", languages=["zh"])
    released.refresh_from_db()
    assert (released.licence, released.languages) == ("Apache-2.0", ["en"])


def test_a_draft_that_was_tried_cannot_be_deleted_and_stays() -> None:
    draft = making.draft_prompt(making.make_base())
    owner = making.owner_of(draft.listing.publisher)
    Request.objects.create(version=draft, user=owner, source=Request.Source.CHAT, deadline_at=timezone.now())

    with pytest.raises(AlreadyUsed):
        publishing.delete_draft(owner, draft)

    assert Version.objects.filter(pk=draft.pk, state="draft").exists()


def test_a_lineage_is_told_from_a_version_to_its_root() -> None:
    base = making.make_base()
    adapter = making.make_adapter(base)
    prompt = making.make_prompt(adapter)

    assert prompt.lineage() == [prompt, adapter, base]
    assert (prompt.weights(), prompt.adapter(), base.adapter()) == (base, adapter, None)


def test_weights_know_what_they_were_trained_from_and_run_on_themselves() -> None:
    base = making.make_base()
    trained = making.make_trained(base)
    adapter = making.make_adapter(trained, making.make_listing())
    prompt = making.make_prompt(adapter)

    assert prompt.lineage() == [prompt, adapter, trained, base]
    assert (prompt.runs_on(), prompt.weights(), prompt.adapter()) == ([prompt, adapter, trained], trained, adapter)
    assert (trained.base, trained.stands_on, trained.weights(), trained.adapter()) == (base, None, trained, None)
    assert list(Ancestry.objects.filter(version=prompt).values_list("ancestor", "depth")) == [
        (adapter.pk, 1),
        (trained.pk, 2),
        (base.pk, 3),
    ]


def test_what_weights_were_trained_from_is_sealed_with_them_and_takes_them_down_with_it() -> None:
    base = making.make_base()
    trained = making.make_trained(base)

    publishing.suspend(base)

    assert releases.content(trained)["base"] == [base.public_id, base.digest]
    assert not Version.objects.available().filter(pk=trained.pk).exists()


def test_weights_are_trained_from_nothing_else_and_with_leave_alone() -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)
    closed, prompt = making.make_base(allow_finetune=False), making.make_prompt()

    for base, refused in ((closed, FinetuneNotAllowed), (prompt, InvalidVersion)):
        with pytest.raises(refused):
            publishing.create_weights_version(owner, listing, number="1.0.0", base=base, artifact=making.make_artifact(), facts={})

    assert not listing.versions.exists()


def test_who_takes_back_the_leave_to_train_takes_it_back_for_what_was_trained_too_but_not_from_themselves() -> None:
    base = making.make_base()
    others = making.make_trained(base, making.make_listing(allow_finetune=True))
    own = making.make_trained(base, making.make_listing(base.listing.publisher, allow_finetune=True))

    publishing.set_permissions(making.owner_of(base.listing.publisher), base.listing, allow_finetune=False, allow_download=False)

    assert list(Version.objects.trainable()) == [own]
    with pytest.raises(FinetuneNotAllowed):
        making.make_adapter(others)


def test_weights_trained_from_what_may_not_be_downloaded_are_not_either() -> None:
    base = making.make_base(allow_download=False)
    trained = making.make_trained(base, making.make_listing(allow_download=True))
    adapter = making.make_adapter(base, making.make_listing(allow_download=True))
    before = set(Version.objects.downloadable_by(VISITOR))

    publishing.set_permissions(making.owner_of(base.listing.publisher), base.listing, allow_finetune=True, allow_download=True)

    assert before == {adapter}
    assert set(Version.objects.downloadable_by(VISITOR)) == {adapter, base, trained}


def test_nobody_trains_on_what_was_suspended_not_even_a_reviewer() -> None:
    base = making.make_base()
    trained = making.make_trained(base)
    reviewer = making.make_reviewer()
    before = set(Version.objects.usable_by(reviewer).trainable())

    listings.suspend(base.listing)

    assert before == {base, trained}
    assert not Version.objects.usable_by(reviewer).trainable().exists()
