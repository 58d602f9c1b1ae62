"""What the store itself notices about ratings, and that a moderator, not the store, decides about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection
from django.utils import timezone

from store.accounts.models import User
from store.catalog.models import Listing
from store.errors import DomainError
from store.ratings import rating as acts
from store.ratings import signs
from store.ratings.models import Flag, Rating, RatingSummary
from tests import making
from tests.billing.test_views import signed_in
from tests.ratings.test_rating import use

PRAISE = "The best GPT for poems that I have ever tried."


@pytest.fixture
def listing(db: None) -> Listing:
    return making.make_base(making.make_publisher(slug="lab"), "poet").listing


def give(listing: Listing, *, text: str = "", age: timedelta = timedelta()) -> Rating:
    """A rating by an account that is so old."""
    user = making.make_user()
    User.objects.filter(pk=user.pk).update(date_joined=timezone.now() - age)
    assert listing.current_version is not None
    use(user, listing.current_version)
    return acts.rate(user, listing, stars=5, text=text)


def test_a_text_that_was_said_before_is_flagged_and_still_counts(listing: Listing) -> None:
    first = give(listing, text=PRAISE)
    assert not Flag.objects.exists()

    second = give(making.make_base().listing, text=PRAISE.upper().replace(" ", "  "))

    flag = Flag.objects.get()
    assert (flag.rating, flag.user, flag.reason, flag.state) == (second, None, "duplicate", "open")
    assert first.is_visible
    assert second.is_visible
    assert RatingSummary.objects.get(listing=second.listing).count == 1


def test_changing_one_s_own_text_or_saying_little_is_no_repetition(listing: Listing) -> None:
    mine = give(listing, text=PRAISE)
    acts.rate(mine.user, listing, stars=4, text=PRAISE)
    give(listing, text="Very good!")
    give(listing, text="Very good!")

    assert not Flag.objects.exists()


def test_a_text_changed_into_somebody_else_s_is_flagged_once(listing: Listing) -> None:
    give(listing, text=PRAISE)
    other = give(listing, text="Nice.")

    acts.rate(other.user, listing, stars=5, text=PRAISE)
    acts.rate(other.user, listing, stars=4, text=PRAISE)

    assert Flag.objects.get().rating == other


def test_many_new_accounts_within_an_hour_are_flagged_each(listing: Listing) -> None:
    old = give(listing, age=timedelta(days=30))
    for _ in range(signs.BURST_RATINGS - 1):
        give(listing)
    assert not Flag.objects.exists()

    give(listing)
    give(listing)

    flagged = Flag.objects.filter(reason="burst", user=None).values_list("rating", flat=True)
    assert sorted(flagged) == sorted(Rating.objects.exclude(pk=old.pk).values_list("pk", flat=True))


def test_ratings_that_come_slowly_or_from_old_accounts_are_no_burst(listing: Listing) -> None:
    for _ in range(signs.BURST_RATINGS):
        give(listing)
        Rating.objects.update(created_at=timezone.now() - signs.BURST_WINDOW - timedelta(minutes=1))
    other = making.make_base().listing
    for _ in range(signs.BURST_RATINGS + 1):
        give(other, age=timedelta(days=30))

    assert not Flag.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_ten_who_rate_at_once_all_are_seen() -> None:
    listing = making.make_base().listing
    assert listing.current_version is not None
    people = [making.make_user() for _ in range(signs.BURST_RATINGS)]
    for person in people:
        use(person, listing.current_version)
    start = Barrier(len(people))

    def act(person: User) -> None:
        try:
            start.wait(timeout=60)
            acts.rate(person, listing, stars=5, text=PRAISE)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(act, people))

    assert Flag.objects.filter(reason="burst").count() == signs.BURST_RATINGS
    assert Flag.objects.filter(reason="duplicate").count() >= signs.BURST_RATINGS - 1
    assert RatingSummary.objects.get().count == signs.BURST_RATINGS


def test_a_moderator_decides_about_a_sign_as_about_any_flag(listing: Listing) -> None:
    give(listing, text=PRAISE)
    copied = give(listing, text=PRAISE)
    reviewer = making.make_reviewer()
    client = signed_in(reviewer)

    page = client.get("/en/ratings/flags/").text
    assert "The text of another rating" in page
    assert "noticed by the store" in page
    client.post(f"/en/ratings/flags/{Flag.objects.get().public_id}/settle/", {"decision": "uphold"})

    copied.refresh_from_db()
    assert not copied.is_visible
    assert RatingSummary.objects.get(listing=listing).count == 1


@pytest.mark.parametrize("reason", ["duplicate", "burst"])
def test_nobody_raises_a_sign_by_hand(listing: Listing, reason: str) -> None:
    rating = give(listing)
    client = signed_in(making.make_user())

    assert client.post(f"/en/ratings/{rating.public_id}/flag/", {"reason": reason}).status_code == 422
    with pytest.raises(DomainError):
        acts.flag(making.make_user(), rating, reason=reason)

    assert not Flag.objects.exists()
