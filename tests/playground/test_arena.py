"""Who meets whom, which votes count, and what they come to."""

from __future__ import annotations

import random
import zipfile
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from store.accounts import exporting
from store.accounts.models import Membership, User
from store.catalog import listings
from store.catalog.models import Listing, UseCase, Version
from store.errors import NotFound, TooMany
from store.generation.models import Request
from store.playground.arena import battles, pairing, signs, standings
from store.playground.errors import AlreadyVoted, BadVote, NoContenders, NotComplete, OwnBattle
from store.playground.models import Battle, Standing, Tally
from store.playground.tasks import rate_arena
from store.ratings.errors import NotUsedYet
from store.ratings.rating import require_may_rate
from store.ratings.text import fingerprint
from tests import making
from tests.generation import workplace

pytestmark = pytest.mark.django_db
LONG = "Which of the two is the better one for a letter to my landlord?"


@pytest.fixture
def base() -> Version:
    """Unlisted, so that it meets nobody."""
    version = making.make_base(slug="base")
    Listing.objects.filter(pk=version.listing_id).update(visibility="unlisted")
    return version


@pytest.fixture
def voter() -> User:
    return making.make_user("voter", date_joined=timezone.now() - timedelta(days=100))


def contender(base: Version, slug: str, **fields: Any) -> Version:
    return making.make_prompt(base, making.make_listing(making.make_publisher(slug=f"house-of-{slug}"), slug=slug, **fields))


def fought(user: User, a: Version, b: Version, *, text: str = "", answers: tuple[str, str] = ("Yes.", "No."), **fields: Any) -> Battle:
    """A battle whose answers came to their end."""
    ended = {"user": user, "source": Request.Source.ARENA, "state": "finished", "completion_tokens": 2, "deadline_at": timezone.now()}
    asked = [Request.objects.create(version=version, **ended) for version in (a, b)]
    text = text or f"Question {Battle.objects.count()}?"
    battle = Battle.objects.create(
        **{"user": user, "text": text, "fingerprint": fingerprint(text), "version_a": a, "version_b": b},
        **{"request_a": asked[0], "request_b": asked[1], "answer_a": answers[0], "answer_b": answers[1], **fields},
    )
    return battles.find(battle.public_id, user)


def voted(user: User, a: Version, b: Version, choice: str, times: int = 1, **fields: Any) -> None:
    """Votes that count, written as they are kept."""
    for _ in range(times):
        battle = fought(user, a, b, **fields)
        Battle.objects.filter(pk=battle.pk).update(vote=choice, voted_at=timezone.now())


def paired(user: User, *, use_case: str = "", language: str = "en", seed: int = 1) -> set[str]:
    chosen = UseCase.objects.filter(slug=use_case).first()
    return {version.listing.slug for version in pairing.choose(user, use_case=chosen, language=language, rng=random.Random(seed))}


# ---------------------------------------------------------------- pairing


def test_only_free_listed_gpts_of_different_publishers_for_one_task_meet(base: Version, voter: User) -> None:
    for slug in ("one", "two"):
        contender(base, slug)
    contender(base, "dear", input_price_micro=1)
    contender(base, "coder", use_cases=["code"])
    making.make_prompt(base, making.make_listing(Listing.objects.get(slug="one").publisher, slug="one-more"))
    listings.suspend(contender(base, "suspended").listing)
    own = contender(base, "own").listing.publisher
    Membership.objects.create(publisher=own, user=voter, role=Membership.Role.MEMBER)

    met = [paired(voter, seed=seed) for seed in range(20)]

    assert {frozenset(pair) for pair in met} == {frozenset({"one", "two"}), frozenset({"one-more", "two"})}


def test_a_use_case_and_a_language_are_kept_to_where_there_are_enough(base: Version, voter: User) -> None:
    for slug, languages in (("zh-1", ["zh"]), ("zh-2", ["en", "zh"]), ("en-1", ["en"])):
        contender(base, slug, languages=languages, use_cases=["chat", "write"])
    contender(base, "coder", use_cases=["code"], languages=["zh"])

    assert paired(voter, language="zh", use_case="write") == {"zh-1", "zh-2"}
    assert paired(voter, language="fr", use_case="write") < {"zh-1", "zh-2", "en-1"}
    with pytest.raises(NoContenders):
        paired(voter, use_case="code")


def test_nobody_meets_where_who_asks_would_know_the_two(base: Version, voter: User, settings: LazySettings) -> None:
    settings.ARENA_LEAST_CONTENDERS = 3
    for slug, languages in (("zh-1", ["zh"]), ("zh-2", ["zh"])):
        contender(base, slug, languages=languages)

    with pytest.raises(NoContenders):
        paired(voter)
    contender(base, "en-1")

    assert {frozenset(paired(voter, language="zh", seed=seed)) for seed in range(20)} > {frozenset({"zh-1", "zh-2"})}


def test_a_price_or_a_suspension_since_the_index_was_written_keeps_a_gpt_out(base: Version, voter: User) -> None:
    dear, one, two = (contender(base, slug) for slug in ("dear", "one", "two"))
    Listing.objects.filter(pk=dear.listing_id).update(output_price_micro=5)

    assert all(paired(voter, seed=seed) == {"one", "two"} for seed in range(10))
    Listing.objects.filter(pk=base.listing_id).update(output_price_micro=5)  # what all of them build on
    with pytest.raises(NoContenders):
        paired(voter)


def test_those_with_few_votes_come_first_and_sides_are_drawn(base: Version, voter: User) -> None:
    known = (contender(base, "known-1"), contender(base, "known-2"))
    new = contender(base, "new")
    voted(voter, known[0], known[1], "a", times=20)
    standings.compute()
    rng = random.Random(3)

    chosen = [pairing.choose(voter, use_case=None, language="en", rng=rng) for _ in range(60)]

    assert sum(new in pair for pair in chosen) >= 50
    assert 15 <= Counter(pair[0] for pair in chosen)[new] <= 45


# ---------------------------------------------------------------- acts


def test_a_battle_asks_both_for_nothing_in_one_transaction(
    base: Version, voter: User, django_capture_on_commit_callbacks: Any, settings: LazySettings
) -> None:
    versions = {contender(base, slug) for slug in ("one", "two")}
    workplace.worker_beats()

    with django_capture_on_commit_callbacks(execute=True):
        battle = battles.begin(voter, text="Hello\r\nthere", use_case="chat")

    assert {battle.version_a, battle.version_b} == versions
    assert (battle.text, battle.use_case.slug, battles.is_complete(battle)) == ("Hello\nthere", "chat", False)
    orders = workplace.waiting()
    assert {order.id for order in orders} == {battle.request_a.public_id, battle.request_b.public_id}
    assert [order.messages[-1] for order in orders] == [{"role": "user", "content": "Hello\nthere"}] * 2


def test_what_is_refused_begins_nothing_and_uses_up_no_battle(base: Version, voter: User, settings: LazySettings) -> None:
    settings.ARENA_BATTLES_PER_DAY = 1
    workplace.worker_beats()

    with pytest.raises(NoContenders):
        battles.begin(voter, text="Hello")
    for slug in ("one", "two"):
        contender(base, slug)
    battles.begin(voter, text="Hello")
    with pytest.raises(TooMany):
        battles.begin(voter, text="Hello")

    assert (Battle.objects.count(), Request.objects.count()) == (1, 2)


def test_one_vote_and_only_on_two_whole_answers_by_who_asked(base: Version, voter: User) -> None:
    one, two = contender(base, "one"), contender(base, "two")
    battle = fought(voter, one, two)

    with pytest.raises(NotFound):
        battles.find(battle.public_id, making.make_user())
    with pytest.raises(BadVote):
        battles.vote(battle, choice="c")
    for state, tokens in (("admitted", 2), ("cancelled", 2), ("failed", 0), ("finished", 0)):
        Request.objects.filter(pk=battle.request_b_id).update(state=state, completion_tokens=tokens)
        with pytest.raises(NotComplete):
            battles.vote(battles.find(battle.public_id, voter), choice="a")
    Request.objects.filter(pk=battle.request_b_id).update(state="finished", completion_tokens=1)
    battles.vote(battles.find(battle.public_id, voter), choice="b")
    with pytest.raises(AlreadyVoted):
        battles.vote(battle, choice="a")

    battle.refresh_from_db()
    assert (battle.vote, battle.doubt, battle.winner_id) == ("b", "", two.pk)


def test_who_joined_a_publisher_meanwhile_can_not_vote(base: Version, voter: User) -> None:
    one, two = contender(base, "one"), contender(base, "two")
    battle = fought(voter, one, two)
    Membership.objects.create(publisher=two.listing.publisher, user=voter, role=Membership.Role.MEMBER)

    with pytest.raises(OwnBattle):
        battles.vote(battle, choice="b")

    battle.refresh_from_db()
    assert battle.vote == ""


# ---------------------------------------------------------------- doubts


def doubt_of(battle: Battle, choice: str = "a") -> str:
    battles.vote(battle, choice=choice)
    battle.refresh_from_db()
    return battle.doubt


def test_an_answer_that_gives_a_name_away_makes_no_vote(base: Version, voter: User) -> None:
    texts = {"en": {"name": "Wordsmith 7", "summary": "Writes."}}
    one, two = contender(base, "one", texts=texts), contender(base, "two")

    assert doubt_of(fought(voter, one, two, answers=("I am Wordsmith 7.", "Hi."))) == "named"
    assert doubt_of(fought(voter, one, two, answers=("Hi.", "By house-of-two/two, with love"))) == "named"
    assert doubt_of(fought(making.make_user(), one, two, answers=("I am WORDSMITH 7.", "Hi."))) == "named"
    assert doubt_of(fought(voter, one, two, answers=("A wordsmith writes.", "One, two, three: Wordsmith 77"))) == ""


def test_the_same_question_to_the_same_two_counts_once(base: Version, voter: User) -> None:
    one, two, three = (contender(base, slug) for slug in ("one", "two", "three"))
    other = making.make_user(date_joined=voter.date_joined)

    assert doubt_of(fought(voter, one, two, text=LONG)) == ""
    assert doubt_of(fought(voter, two, one, text=LONG)) == "repeated"
    assert doubt_of(fought(other, one, two, text=LONG.upper())) == "repeated"
    assert doubt_of(fought(voter, one, three, text=LONG)) == ""
    assert doubt_of(fought(voter, one, two, text="Hello")) == ""
    assert doubt_of(fought(other, one, two, text="Hello")) == ""  # by chance
    assert doubt_of(fought(other, two, one, text="Hello")) == "repeated"


def test_many_new_accounts_for_one_gpt_at_once_are_all_doubted(base: Version, voter: User) -> None:
    one, two = contender(base, "one"), contender(base, "two")
    battles.vote(fought(voter, one, two), choice="a")
    for number in range(signs.BURST_VOTES):
        battles.vote(fought(making.make_user(), *((one, two) if number % 2 else (two, one))), choice="a" if number % 2 else "b")

    assert Counter(Battle.objects.values_list("doubt", flat=True)) == {"burst": signs.BURST_VOTES, "": 1}


def test_one_persons_votes_on_a_gpt_count_a_few_times_and_then_others_are_drawn(base: Version, voter: User) -> None:
    one, two, three, four = (contender(base, slug) for slug in ("one", "two", "three", "four"))
    voted(voter, one, two, "b", times=signs.VOTES_PER_VERSION - 1)

    assert doubt_of(fought(voter, one, three)) == ""
    assert doubt_of(fought(voter, four, one)) == "enough"
    assert doubt_of(fought(voter, two, four)) == ""
    assert doubt_of(fought(making.make_user(date_joined=voter.date_joined), one, two)) == ""
    assert {frozenset(paired(voter, seed=seed)) for seed in range(9)} == {frozenset({"three", "four"})}


def test_who_votes_faster_than_anybody_reads_is_doubted(base: Version, voter: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "VOTES_PER_VERSION", 100)
    one, two = contender(base, "one"), contender(base, "two")
    for _ in range(signs.HASTY_VOTES - 1):
        battles.vote(fought(voter, one, two), choice="tie")
    assert not Battle.objects.exclude(doubt="").exists()

    battles.vote(fought(voter, one, two), choice="tie")

    assert Battle.objects.filter(doubt="burst").count() == signs.HASTY_VOTES


# ---------------------------------------------------------------- standings


def test_the_ratings_are_written_at_once_with_when_and_how_many(base: Version, voter: User) -> None:
    one, two, three = (contender(base, slug) for slug in ("one", "two", "three"))
    chat = UseCase.objects.get(slug="chat")
    voted(voter, one, two, "a", times=9)
    voted(voter, two, one, "a", times=3)
    voted(voter, one, two, "bad", times=2, use_case=chat)
    voted(voter, one, three, "tie")
    voted(voter, three, one, "b", times=5, doubt="burst")
    fought(voter, two, three)

    rate_arena()
    rate_arena()

    tally = Tally.objects.get()
    assert (tally.vote_count, tally.doubted_count) == (15, 5)
    assert timezone.now() - tally.computed_at < timedelta(minutes=1)
    overall = {row.version_id: (row.votes, row.wins, row.ties) for row in tally.standings.filter(use_case=None)}
    assert overall == {one.pk: (15, 9, 3), two.pk: (14, 3, 2), three.pk: (1, 0, 1)}
    assert set(tally.standings.filter(use_case=chat).values_list("version", "ties")) == {(one.pk, 2), (two.pk, 2)}
    rated = {row.version_id: row for row in tally.standings.filter(use_case=None)}
    assert rated[one.pk].rating > rated[two.pk].rating
    assert rated[three.pk].margin > rated[two.pk].margin


def test_what_is_suspended_or_withdrawn_is_out_with_its_votes_until_it_comes_back(base: Version, voter: User) -> None:
    one, two, three = (contender(base, slug) for slug in ("one", "two", "three"))
    voted(voter, one, two, "a", times=4)
    voted(voter, two, three, "a", times=2)

    listings.suspend(one.listing)
    assert set(standings.compute().standings.values_list("version", "votes")) == {(two.pk, 2), (three.pk, 2)}
    listings.restore(one.listing)
    assert standings.compute().vote_count == 6


def test_a_place_is_a_range_and_takes_enough_votes(base: Version, voter: User, client: Client) -> None:
    best, second, third, new = (contender(base, slug) for slug in ("best", "second", "third", "new"))
    tally = Tally.objects.create(vote_count=90, doubted_count=1)
    for version, rating, votes in ((best, 1300, 40), (second, 1010, 40), (third, 990, 40), (new, 1500, standings.FEWEST_VOTES - 1)):
        Standing.objects.create(tally=tally, version=version, rating=rating, margin=50, votes=votes, wins=1, ties=0)

    board = standings.board()

    assert [(place.listing.slug, place.first, place.last) for place in board.places] == [("best", 1, 1), ("second", 2, 3), ("third", 2, 3)]
    assert [place.listing.slug for place in board.unplaced] == ["new"]
    page = client.get("/en/chat/arena/board/").text
    assert "<b>1,300</b> ± 50" in page
    assert "29 votes" in page
    assert "from 90 votes." in page
    assert "There are no votes for this use case." in client.get("/en/chat/arena/board/?use_case=%00").text
    Listing.objects.filter(pk=best.listing_id).update(visibility="unlisted")
    assert [place.listing.slug for place in standings.board().places] == ["second", "third"]


def test_a_long_board_costs_as_many_queries_as_a_short_one(base: Version, client: Client) -> None:
    tally, counts = Tally.objects.create(vote_count=1, doubted_count=0), []
    for more in (2, 6):
        for at in range(more):
            Standing.objects.create(
                tally=tally, version=contender(base, f"gpt-{more}-{at}"), rating=1000, margin=9, votes=99, wins=1, ties=0
            )
        with CaptureQueriesContext(connection) as queries:
            client.get("/en/chat/arena/board/")
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 12


# ---------------------------------------------------------------- blindness


def exported(user: User) -> str:
    with exporting.write(user) as file, zipfile.ZipFile(file) as archive:
        return "".join(archive.read(name).decode() for name in archive.namelist())


def test_names_are_shown_only_after_the_vote(base: Version, voter: User, client: Client) -> None:
    one, two = contender(base, "one"), contender(base, "two")
    battle = fought(voter, one, two, text=LONG)
    page = f"/en/chat/arena/{battle.public_id}/"
    assert client.get(page).status_code == 302  # to sign in
    client.force_login(voter)
    names = {word for version in (one, two) for word in (version.full_name, version.public_id, version.listing.publisher.name)}

    before = client.get(page).text
    assert not {name for name in names if name in before}
    assert client.post(f"/en/chat/requests/{battle.request_a.public_id}/keep", {"text": "x"}).status_code == 404
    with pytest.raises(NotUsedYet):
        require_may_rate(voter, one.listing)
    assert not {version.public_id for version in (one, two) if version.public_id in exported(voter)}
    assert client.post(f"{page}vote/", {"vote": "a"}).headers["Location"] == page
    after = client.get(page).text
    assert one.public_id in exported(voter)

    assert one.full_name in after
    assert two.full_name in after
    assert "Your vote: A is better." in after
    assert one.instructions not in before + after
    client.force_login(making.make_user())
    assert client.get(page).status_code == 404
    assert client.post(f"{page}vote/", {"vote": "a"}).status_code == 404


def test_the_arena_is_explained_to_a_visitor_and_asks_them_to_sign_in(client: Client) -> None:
    page = client.get("/en/chat/arena/")

    assert page.status_code == 200
    assert "/en/account/login/?next=/en/chat/arena/" in page.text
    assert not client.cookies
    refused = client.post("/en/chat/arena/start/", {"text": "Hello"}, headers={"accept": "application/json"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "sign_in_required")


def test_the_api_tells_the_leaderboard(base: Version, voter: User, client: Client) -> None:
    assert client.get("/api/arena").json() == {"computed_at": None, "votes": 0, "doubted_votes": 0, "results": []}
    tally = Tally.objects.create(vote_count=40, doubted_count=1)
    for slug, votes, rating in (("best", 40, 1100.0), ("new", 3, 900.0)):
        fields = {"rating": rating, "margin": 50, "votes": votes, "wins": 2, "ties": 1}
        Standing.objects.create(tally=tally, version=contender(base, slug), **fields)

    found = client.get("/api/arena").json()

    assert (found["votes"], found["doubted_votes"]) == (40, 1)
    assert found["results"][0] == {
        **{"model": "house-of-best/best@1.0.0", "first_place": 1, "last_place": 1, "rating": 1100.0},
        **{"low": 1050.0, "high": 1150.0, "votes": 40, "wins": 2, "ties": 1},
    }
    assert (found["results"][1]["model"], found["results"][1]["first_place"]) == ("house-of-new/new@1.0.0", None)
    assert client.get("/api/arena?use_case=chat").json()["results"] == []
    assert client.get("/api/arena?use_case=nothing").status_code == 400
