"""Deprecating and withdrawing versions: what changes for the version, for who pinned it, and for nobody else."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from store.accounts.models import Membership
from store.catalog import naming, publishing, releases
from store.catalog.errors import BuiltOn, InvalidText, InvalidVersion, IsCurrent, VersionWithdrawn
from store.catalog.models import Version
from store.errors import Conflict, NotAllowed, NotFound
from tests import making

pytestmark = pytest.mark.django_db
VISITOR = AnonymousUser()


@pytest.fixture
def old() -> Version:
    """1.0.0 of a GPT whose current version is 1.1.0."""
    first = making.make_prompt()
    making.make_prompt(first.base, first.listing, number="1.1.0")
    return Version.objects.select_related("listing__publisher").get(pk=first.pk)


def test_a_deprecated_version_answers_as_before_and_keeps_its_digest(old: Version) -> None:
    owner, digest = making.owner_of(old.listing.publisher), old.digest

    publishing.deprecate(owner, old, notice="  Slower than 1.1.0. ")

    assert (old.state, old.notice, old.deprecated_at is not None) == ("released", "Slower than 1.1.0.", True)
    assert naming.resolve(old.full_name, VISITOR) == old
    assert releases.content_digest(Version.objects.get(pk=old.pk)) == digest
    since = old.deprecated_at
    publishing.deprecate(owner, old, notice="Much slower.")
    assert (old.notice, old.deprecated_at) == ("Much slower.", since)
    publishing.recommend_again(owner, old)
    assert (old.notice, old.deprecated_at) == ("", None)
    with pytest.raises(Conflict):
        publishing.recommend_again(owner, old)


def test_a_pinned_name_of_a_withdrawn_version_says_so_and_never_means_another(old: Version) -> None:
    owner, name = making.owner_of(old.listing.publisher), old.listing.full_name

    publishing.yank(owner, old, notice="It invents addresses. Use 1.1.0.")

    for asked in (f"{name}@1.0.0", old.public_id, f"{name}@{old.public_id}"):
        for user in (VISITOR, owner, making.make_reviewer()):
            with pytest.raises(VersionWithdrawn, match="It invents addresses") as refused:
                naming.resolve(asked, user)
            assert (refused.value.status, refused.value.code, refused.value.param) == (410, "version_withdrawn", "model")
    assert naming.resolve(name, VISITOR).number == "1.1.0"

    publishing.bring_back(owner, old)
    assert naming.resolve(f"{name}@1.0.0", VISITOR) == old
    assert old.notice == ""


def test_a_withdrawn_version_of_a_gpt_one_cannot_reach_is_unknown(old: Version) -> None:
    publishing.yank(making.owner_of(old.listing.publisher), old, notice="Gone.")
    old.listing.visibility = "draft"
    old.listing.save()

    with pytest.raises(naming.UnknownModel):
        naming.resolve(old.full_name, VISITOR)


def test_the_current_version_and_one_that_others_build_on_stay() -> None:
    base = making.make_base()
    newer = making.make_base(base.listing.publisher, "other")
    owner = making.owner_of(base.listing.publisher)
    with pytest.raises(IsCurrent):
        publishing.yank(owner, newer, notice="Gone.")

    second = publishing.create_weights_version(owner, base.listing, number="1.1.0", artifact=making.make_artifact(), facts=making.FACTS)
    making.release(second)
    derived = making.make_prompt(base)
    with pytest.raises(BuiltOn):
        publishing.yank(owner, base, notice="Gone.")

    assert set(Version.objects.available()) >= {base, newer, derived}


def test_what_was_withdrawn_from_review_is_not_brought_back(old: Version) -> None:
    draft = making.draft_prompt(old.base, old.listing, number="2.0.0")
    publishing.seal(draft)
    releases.withdraw(draft)

    with pytest.raises(Conflict):
        publishing.bring_back(making.owner_of(old.listing.publisher), draft)
    with pytest.raises(naming.UnknownModel):
        naming.resolve(draft.full_name, VISITOR)
    assert not Version.objects.get(pk=draft.pk).is_withdrawn


def test_members_and_strangers_retire_nothing_and_a_notice_is_needed(old: Version) -> None:
    member, stranger = making.join(old.listing.publisher, Membership.Role.MEMBER), making.make_user()

    for act in (publishing.deprecate, publishing.yank):
        for user, refused in ((member, NotAllowed), (stranger, NotFound)):
            with pytest.raises(refused):
                act(user, old, notice="x")
        for notice in ("", "  ", "x" * 301, "a\x07b"):
            with pytest.raises((InvalidVersion, InvalidText)) as wrong:
                act(making.owner_of(old.listing.publisher), old, notice=notice)
            assert wrong.value.param == "notice"

    assert Version.objects.get(pk=old.pk).state == "released"
    assert Version.objects.get(pk=old.pk).deprecated_at is None
