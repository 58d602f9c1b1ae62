"""Who may rate, reply, flag and decide, and what a refused act leaves as it was."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from store.accounts.models import AuditEntry, Membership, User
from store.catalog.models import Listing, Version
from store.errors import NotAllowed, NotFound
from store.generation.models import Request
from store.notifications.models import Notification
from store.ratings import rating as acts
from store.ratings.errors import AlreadySettled, InvalidRating, NotUsedYet, OwnListing
from store.ratings.models import Flag, Rating, RatingSummary, Reply
from tests import making

pytestmark = pytest.mark.django_db


def use(user: User, version: Version, state: str = "finished", *, tokens: int = 30) -> None:
    """One request of the user to the version, of 20 tokens and an answer of `tokens`."""
    asked = {"version": version, "user": user, "source": "chat", "deadline_at": timezone.now() + timedelta(minutes=1)}
    Request.objects.create(**asked, state=state, prompt_tokens=20, completion_tokens=tokens)


@pytest.fixture
def version() -> Version:
    return making.make_base(making.make_publisher(slug="lab"), "poet")


@pytest.fixture
def listing(version: Version) -> Listing:
    return version.listing


@pytest.fixture
def ann(version: Version) -> User:
    """Somebody who used the GPT once."""
    user = making.make_user("ann")
    use(user, version)
    return user


@pytest.mark.parametrize("state", ["admitted", "cancelled", "failed", "voided"])
def test_only_an_answer_that_came_to_its_end_lets_somebody_rate(version: Version, state: str) -> None:
    user = making.make_user()
    use(user, version, state)

    with pytest.raises(NotUsedYet):
        acts.rate(user, version.listing, stars=5)

    assert not Rating.objects.exists()
    assert not RatingSummary.objects.exists()
    assert not Notification.objects.exists()


def test_an_answer_without_a_token_lets_nobody_rate(version: Version) -> None:
    user = making.make_user()
    use(user, version, tokens=0)

    with pytest.raises(NotUsedYet):
        acts.rate(user, version.listing, stars=5)

    assert not Rating.objects.exists()


def test_members_cannot_rate_their_own_gpt(version: Version) -> None:
    member = making.join(version.listing.publisher, Membership.Role.MEMBER)
    use(member, version)

    with pytest.raises(OwnListing):
        acts.rate(member, version.listing, stars=5)

    assert not Rating.objects.exists()


def test_a_listing_nobody_else_can_see_cannot_be_rated(ann: User, listing: Listing) -> None:
    Listing.objects.update(visibility="draft")

    with pytest.raises(NotFound):
        acts.rate(ann, listing, stars=5)

    assert not Rating.objects.exists()


@pytest.mark.parametrize(("stars", "text"), [(0, ""), (6, ""), (3, "x" * 4001), (3, "a\x00b")])
def test_a_rating_must_make_sense(ann: User, listing: Listing, stars: int, text: str) -> None:
    with pytest.raises(InvalidRating):
        acts.rate(ann, listing, stars=stars, text=text)

    assert not Rating.objects.exists()
    assert not RatingSummary.objects.exists()


def test_a_rating_is_bound_to_the_version_used_last_and_changed_in_place(ann: User, version: Version) -> None:
    listing = version.listing
    use(ann, version)
    first = acts.rate(ann, listing, stars=2, text=" Forgets rhymes. ")
    newer = making.make_adapter(version, listing, number="1.1.0")
    use(ann, newer)

    second = acts.rate(ann, listing, stars=4, text="Rhymes now.", language="zh-hans")

    assert first.pk == second.pk
    assert (first.version, first.text, first.requests_used, first.tokens_used) == (version, "Forgets rhymes.", 2, 100)
    assert (second.version, second.stars, second.text, second.language, second.requests_used) == (newer, 4, "Rhymes now.", "zh-hans", 3)
    summary = RatingSummary.objects.get()
    assert (summary.count, summary.total, summary.stars_2, summary.stars_4) == (1, 4, 0, 1)
    assert summary.bayesian == pytest.approx((5 * 3.5 + 4) / 6)


def test_owners_and_maintainers_hear_of_a_rating_once(ann: User, version: Version) -> None:
    publisher = version.listing.publisher
    maintainer = making.join(publisher, Membership.Role.MAINTAINER)
    making.join(publisher, Membership.Role.MEMBER)

    acts.rate(ann, version.listing, stars=4, text="Nice")
    acts.rate(ann, version.listing, stars=3, text="Less nice")

    told = Notification.objects.filter(kind="rating_received")
    assert {row.user for row in told} == {making.owner_of(publisher), maintainer}
    assert {row.url for row in told} == {"/gpts/lab/poet/#ratings"}
    assert told[0].params == {"listing": "lab/poet", "stars": 4, "text": "Nice"}


def test_only_its_author_withdraws_a_rating(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=4)

    with pytest.raises(NotFound):
        acts.withdraw(making.make_user(), rating)
    assert RatingSummary.objects.get().count == 1

    acts.withdraw(ann, rating)

    assert Rating.objects.get().withdrawn_at is not None
    summary = RatingSummary.objects.get()
    assert (summary.count, summary.total, summary.stars_4, summary.bayesian) == (0, 0, 0, 0.0)
    with pytest.raises(NotFound):
        acts.withdraw(ann, rating)
    assert RatingSummary.objects.get().count == 0


def test_what_a_rating_said_before_is_kept(ann: User, listing: Listing) -> None:
    first = acts.rate(ann, listing, stars=2, text="Forgets rhymes.")
    acts.rate(ann, listing, stars=2, text="Forgets rhymes.")
    acts.rate(ann, listing, stars=3, text="Forgets fewer.")
    acts.withdraw(ann, first)
    last = acts.rate(ann, listing, stars=5, text="Rhymes.")

    newer, older = last.past.all()
    assert (older.stars, older.text, older.written_at, older.withdrawn_at) == (2, "Forgets rhymes.", first.created_at, None)
    assert (newer.stars, newer.text, newer.requests_used, newer.tokens_used) == (3, "Forgets fewer.", 1, 50)
    assert newer.withdrawn_at is not None
    assert (last.pk, last.withdrawn_at, last.is_visible) == (first.pk, None, True)
    summary = RatingSummary.objects.get()
    assert (summary.count, summary.total, summary.stars_5) == (1, 5, 1)


def test_what_is_withdrawn_is_out_of_everybodys_reach(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=4)
    acts.withdraw(ann, rating)
    rating.refresh_from_db()

    with pytest.raises(NotFound):
        acts.reply(making.owner_of(listing.publisher), rating, text="Why?")
    with pytest.raises(NotFound):
        acts.flag(making.make_user(), rating, reason="spam")

    assert not Reply.objects.exists()
    assert not Flag.objects.exists()


def test_withdrawing_does_not_undo_what_a_moderator_hid(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=1, text="Buy at evil.example")
    acts.settle_flag(making.make_reviewer(), acts.flag(making.make_user(), rating, reason="spam"), uphold=True)
    acts.withdraw(ann, rating)

    again = acts.rate(ann, listing, stars=5, text="Buy again")

    assert not again.is_visible
    assert RatingSummary.objects.get().count == 0


def test_hiding_what_was_withdrawn_takes_nothing_off_twice(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=1)
    flag = acts.flag(making.make_user(), rating, reason="spam")
    acts.withdraw(ann, rating)

    acts.settle_flag(making.make_reviewer(), flag, uphold=True)

    assert (RatingSummary.objects.get().count, RatingSummary.objects.get().total) == (0, 0)


def test_a_reply_to_what_a_rating_said_before_says_so(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=2)
    acts.reply(making.owner_of(listing.publisher), rating, text="Try 1.1.")
    assert not Rating.objects.get().is_newer_than_reply

    acts.rate(ann, listing, stars=4)

    assert Rating.objects.get().is_newer_than_reply


def test_a_publisher_replies_and_the_author_is_told_once(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=2, text="Too short")
    maintainer = making.join(listing.publisher, Membership.Role.MAINTAINER)

    acts.reply(maintainer, rating, text="Fixed in 1.1.")
    acts.reply(maintainer, rating, text="Fixed in 1.1.0.")

    assert Reply.objects.get().text == "Fixed in 1.1.0."
    told = Notification.objects.get(kind="rating_reply")
    assert (told.user, told.params["publisher"]) == (ann, "Lab")
    assert AuditEntry.objects.filter(action="rating.reply", target=rating.public_id).count() == 2


def test_nobody_else_replies(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=2)
    member = making.join(listing.publisher, Membership.Role.MEMBER)

    with pytest.raises(NotAllowed):
        acts.reply(member, rating, text="No!")
    for stranger in (ann, making.make_user()):
        with pytest.raises(NotFound):
            acts.reply(stranger, rating, text="No!")

    assert not Reply.objects.exists()
    assert not Notification.objects.filter(kind="rating_reply").exists()


def test_an_upheld_flag_hides_the_rating_and_settles_the_others(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=1, text="Buy at evil.example")
    first = acts.flag(making.make_user(), rating, reason="spam")
    second = acts.flag(making.make_user(), rating, reason="abuse")
    reviewer = making.make_reviewer()

    acts.settle_flag(reviewer, first, uphold=True)

    rating.refresh_from_db()
    assert rating.hidden_at is not None
    assert RatingSummary.objects.get().count == 0
    assert set(Flag.objects.values_list("state", flat=True)) == {"upheld"}
    assert AuditEntry.objects.get(action="rating.hide").actor == reviewer
    with pytest.raises(AlreadySettled):
        acts.settle_flag(reviewer, second, uphold=False)
    acts.rate(ann, listing, stars=5, text="Buy again")
    assert RatingSummary.objects.get().count == 0


def test_a_dismissed_flag_changes_nothing_else(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=1)
    flagger = making.make_user()
    flag = acts.flag(flagger, rating, reason="spam")

    assert acts.flag(flagger, rating, reason="abuse") == flag
    acts.settle_flag(making.make_reviewer(), flag, uphold=False)

    rating.refresh_from_db()
    assert rating.hidden_at is None
    assert RatingSummary.objects.get().count == 1
    assert Flag.objects.get().state == "dismissed"


def test_only_an_uninvolved_reviewer_decides(ann: User, listing: Listing) -> None:
    rating = acts.rate(ann, listing, stars=1)
    flag = acts.flag(making.make_user(), rating, reason="spam")
    partial = making.make_reviewer()
    Membership.objects.create(publisher=listing.publisher, user=partial, role=Membership.Role.MEMBER)

    with pytest.raises(NotFound):
        acts.settle_flag(making.owner_of(listing.publisher), flag, uphold=True)
    with pytest.raises(OwnListing):
        acts.settle_flag(partial, flag, uphold=True)
    with pytest.raises(NotAllowed):
        acts.flag(ann, rating, reason="spam")

    rating.refresh_from_db()
    assert rating.hidden_at is None
    assert Flag.objects.get().state == "open"
