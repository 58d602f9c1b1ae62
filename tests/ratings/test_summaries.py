"""The kept aggregate equals what a recount of the visible ratings gives, whoever writes at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.accounts.models import User
from store.catalog.models import Listing
from store.errors import DomainError
from store.ratings import rating as acts
from store.ratings import summaries, votes
from store.ratings.models import Rating, RatingSummary
from tests import making
from tests.ratings.test_rating import use


def assert_recount_agrees(listing: Listing) -> None:
    stars = list(Rating.objects.filter(listing=listing, hidden_at=None, withdrawn_at=None).values_list("stars", flat=True))
    summary = RatingSummary.objects.filter(listing=listing).first() or RatingSummary()
    assert (summary.count, summary.total) == (len(stars), sum(stars))
    assert [getattr(summary, f"stars_{number}") for number in range(1, 6)] == [stars.count(number) for number in range(1, 6)]
    assert summary.bayesian == pytest.approx(summaries.bayesian(len(stars), sum(stars)))
    for rating in Rating.objects.filter(listing=listing):
        assert rating.helpful_count == rating.helpful_votes.count()


STARS = st.none() | st.integers(1, 5)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(changes=st.lists(STARS, max_size=12))
def test_any_sequence_of_changes_of_one_rating_leaves_the_last(changes: list[int | None]) -> None:
    listing = making.make_listing()
    before = None
    for after in changes:
        summaries.apply(listing.pk, before=before, after=after)
        before = after

    summary = RatingSummary.objects.filter(listing=listing).first() or RatingSummary()
    assert (summary.count, summary.total) == (int(before is not None), before or 0)
    assert summary.bayesian == pytest.approx(summaries.bayesian(summary.count, summary.total))


ACTS = st.tuples(st.sampled_from(["rate", "withdraw", "hide", "vote", "take back"]), st.integers(0, 2), st.integers(1, 5))


@pytest.mark.django_db
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(done=st.lists(ACTS, max_size=12))
def test_any_sequence_of_acts_of_three_people_leaves_what_a_recount_gives(done: list[tuple[str, int, int]]) -> None:
    version, reviewer = making.make_base(), making.make_reviewer()
    people = [making.make_user() for _ in range(3)]
    for person in people:
        use(person, version)

    for act, who, stars in done:
        _act(act, people[who], people[(who + stars) % 3], reviewer, version.listing, stars)

    assert_recount_agrees(version.listing)


def test_few_ratings_are_pulled_towards_the_prior() -> None:
    assert summaries.bayesian(0, 0) == 0.0
    assert summaries.bayesian(1, 5) == pytest.approx(3.75)
    assert summaries.bayesian(100, 480) > summaries.bayesian(2, 10)


@pytest.mark.django_db(transaction=True)
def test_people_who_rate_and_withdraw_at_once_leave_the_right_sums() -> None:
    version = making.make_base()
    listing = version.listing
    people = [making.make_user() for _ in range(4)]
    for person in people:
        use(person, version)
    start = Barrier(8)

    def act(worker: int) -> None:
        chance = random.Random(worker)
        start.wait(timeout=10)
        person = people[worker % 4]  # two threads for each person
        try:
            for _ in range(6):
                _rate_or_withdraw(person, listing, chance.choice)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(8)))

    assert_recount_agrees(listing)
    assert Rating.objects.count() <= 4


@pytest.mark.django_db(transaction=True)
def test_a_rating_withdrawn_in_the_moment_it_was_changed_is_still_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    version, person = making.make_base(), making.make_user()
    use(person, version)
    acts.rate(person, version.listing, stars=2)
    apply = summaries.apply

    def apply_and_withdraw_after(*args: Any, **kwargs: Any) -> None:
        apply(*args, **kwargs)
        transaction.on_commit(lambda: Rating.objects.all().delete())

    monkeypatch.setattr(summaries, "apply", apply_and_withdraw_after)

    assert acts.rate(person, version.listing, stars=5).stars == 5
    assert not Rating.objects.exists()


def _act(act: str, person: User, other: User, reviewer: User, listing: Listing, stars: int) -> None:
    rating = Rating.objects.filter(listing=listing, user=person).first()
    if act == "rate":
        acts.rate(person, listing, stars=stars)
    elif rating is None:
        return
    with suppress(DomainError):  # what is hidden, withdrawn or one's own takes no vote and no flag
        if act == "withdraw":
            acts.withdraw(person, rating)
        elif act == "hide":
            acts.settle_flag(reviewer, acts.flag(other, rating, reason="spam"), uphold=True)
        elif act == "vote":
            votes.vote(other, rating)
        elif act == "take back":
            votes.take_back(other, rating)


def _rate_or_withdraw(person: User, listing: Listing, choose: Callable[[list[Any]], Any]) -> None:
    stars = choose([0, 1, 2, 3, 4, 5])
    with suppress(DomainError):
        for other in Rating.objects.filter(listing=listing).exclude(user=person):
            choose([votes.vote, votes.take_back])(person, other)
        if stars:
            acts.rate(person, listing, stars=stars)
        elif (mine := Rating.objects.filter(listing=listing, user=person).first()) is not None:
            acts.withdraw(person, mine)
