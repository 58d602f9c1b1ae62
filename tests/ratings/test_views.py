"""The screens about ratings."""

from __future__ import annotations

import pytest
from django.test import Client

from store.accounts.models import User
from store.catalog.models import Listing
from store.errors import NotFound
from store.ratings import pages, reading, votes
from store.ratings import rating as acts
from store.ratings.models import Flag, HelpfulVote, Rating
from tests import making
from tests.billing.test_views import signed_in
from tests.ratings.test_rating import use

pytestmark = pytest.mark.django_db


@pytest.fixture
def listing() -> Listing:
    return making.make_base(making.make_publisher(slug="lab"), "poet").listing


def make_rating(listing: Listing, stars: int, text: str = "Good at rhymes.") -> Rating:
    user = making.make_user()
    assert listing.current_version is not None
    use(user, listing.current_version)
    return acts.rate(user, listing, stars=stars, text=text)


def test_a_rating_is_written_changed_and_withdrawn_on_the_site(listing: Listing) -> None:
    ann = making.make_user("ann")
    assert listing.current_version is not None
    use(ann, listing.current_version)
    client, path = signed_in(ann), f"/en/ratings/of/{listing.public_id}/rate/"

    assert client.get(path).status_code == 200
    assert client.post(path, {"stars": "9"}).status_code == 422
    assert not Rating.objects.exists()
    answer = client.post(path, {"stars": "4", "text": "Fine"})
    assert answer["Location"] == "/en/gpts/lab/poet/#ratings"
    rating = Rating.objects.get()
    assert (rating.stars, rating.text, rating.language) == (4, "Fine", "en")
    client.post(path.replace("/en/", "/zh-hans/"), {"stars": "5", "text": "很好"})
    rating.refresh_from_db()
    assert (rating.stars, rating.language) == (5, "zh-hans")
    assert "1 earlier version of this rating" in client.get(path).text
    client.post(f"/en/ratings/{rating.public_id}/withdraw/")
    assert Rating.objects.get().withdrawn_at is not None
    assert client.post(f"/en/ratings/{rating.public_id}/withdraw/").status_code == 404
    assert client.get(path).context["mine"] is None


def test_who_may_not_rate_is_told_why(listing: Listing) -> None:
    path = f"/en/ratings/of/{listing.public_id}/rate/"

    assert Client().get(path).status_code == 302
    unused = signed_in(making.make_user()).post(path, {"stars": "5"})
    own = signed_in(making.owner_of(listing.publisher)).post(path, {"stars": "5"})

    assert unused.status_code == 403
    assert "Only people who used a GPT can rate it" in unused.text
    assert own.status_code == 403
    assert not Rating.objects.exists()


def test_the_section_shows_numbers_and_what_this_person_may_do(listing: Listing) -> None:
    first = make_rating(listing, 5)
    make_rating(listing, 2, text="")
    listing = Listing.objects.get()

    shown = pages.section(listing, first.user)["ratings"]
    owner = pages.section(listing, making.owner_of(listing.publisher))["ratings"]
    visitor = pages.section(listing, None)["ratings"]

    assert (shown["summary"].mean, shown["with_text"], shown["page"].rows) == (3.5, 1, [first])
    assert [(bar.stars, bar.count, bar.width) for bar in shown["distribution"]][:2] == [(5, 1, "50.0%"), (4, 0, "0.0%")]
    assert (shown["mine"], shown["may_rate"], shown["may_reply"]) == (first, True, False)
    assert (owner["mine"], owner["may_rate"], owner["may_reply"]) == (None, False, True)
    assert (visitor["mine"], visitor["may_rate"], visitor["may_reply"]) == (None, False, False)


def test_the_listing_page_carries_the_section(listing: Listing) -> None:
    make_rating(listing, 5)

    page = Client().get("/en/gpts/lab/poet/")

    assert "Good at rhymes." in page.text
    assert "1 rating" in page.text


def test_all_ratings_can_be_filtered_and_paged(listing: Listing) -> None:
    for number in range(27):
        make_rating(listing, 5 if number else 1, text=f"Text {number}")
    path = f"/en/ratings/of/{listing.public_id}/"

    page = Client().get(path)
    rest = Client().get(path, {"before": page.context["page"].before})
    bad = Client().get(path, {"stars": "1"})

    assert [len(shown.context["page"].rows) for shown in (page, rest, bad)] == [25, 2, 1]
    Listing.objects.update(visibility="draft")
    assert Client().get(path).status_code == 404


def test_all_ratings_can_be_ordered_and_filtered_by_version_and_language(listing: Listing) -> None:
    first = listing.current_version
    assert first is not None
    old = [make_rating(listing, stars, text=f"Old {stars}") for stars in (3, 5)]
    new = making.make_adapter(first, listing, number="1.1.0")
    person = making.make_user()
    use(person, new)
    chinese = acts.rate(person, listing, stars=1, text="太短。", language="zh-hans")
    votes.vote(making.make_user(), old[0])
    path = f"/en/ratings/of/{listing.public_id}/"

    def shown(**asked: str) -> list[Rating]:
        return list(Client().get(path, asked).context["page"].rows)

    assert shown() == shown(sort="new", version="9.9.9", language="\u202e", stars="six") == [chinese, old[1], old[0]]
    assert shown(sort="high") == [old[1], old[0], chinese]
    assert shown(sort="low") == [chinese, old[0], old[1]]
    assert shown(sort="helpful") == [old[0], chinese, old[1]]
    assert shown(version="1.1.0") == shown(language="zh-hans") == [chinese]
    assert shown(version="1.0.0", stars="5") == [old[1]]
    assert shown(version="1.1.0", stars="5") == []


@pytest.mark.parametrize("sort", list(reading.ORDERS))
def test_every_order_shows_each_rating_on_one_page(listing: Listing, sort: str) -> None:
    made = {make_rating(listing, 1 + number % 5, text=f"Text {number}") for number in range(11)}
    question = reading.Question(sort=sort)

    page = reading.read(listing, question, size=4)
    seen = page.rows
    while page.before:
        page = reading.read(listing, question, before=page.before, size=4)
        seen += page.rows

    assert len(seen) == 11
    assert set(seen) == made
    assert reading.read(listing, question, before="rat_none", size=4).rows == seen[:4]
    assert reading.read(listing, question, before="\0", size=4).rows == seen[:4]


def test_somebody_else_says_that_a_rating_helps_and_takes_it_back(listing: Listing) -> None:
    rating = make_rating(listing, 4)
    client, path = signed_in(making.make_user()), f"/en/ratings/{rating.public_id}/helpful/"
    shown = f"/en/ratings/of/{listing.public_id}/?sort=high"

    answer = client.post(path, {"vote": "yes", "page": shown})
    client.post(path, {"vote": "yes"})

    assert answer["Location"] == f"{shown}#{rating.public_id}"
    assert Rating.objects.get().helpful_count == 1
    assert "1 person found this helpful" in Client().get(shown).text
    assert 'aria-pressed="true"' in client.get(shown).text
    assert client.post(path, {"vote": "perhaps"}).status_code == 400
    assert client.post(path, {"vote": "no", "page": "https://evil.example/"})["Location"] == "/en/gpts/lab/poet/#ratings"
    client.post(path, {"vote": "no"})
    assert Rating.objects.get().helpful_count == 0


def test_its_author_and_the_publisher_have_no_vote(listing: Listing) -> None:
    rating = make_rating(listing, 4)

    for person in (rating.user, making.owner_of(listing.publisher)):
        assert signed_in(person).post(f"/en/ratings/{rating.public_id}/helpful/", {"vote": "yes"}).status_code == 403
    acts.withdraw(rating.user, rating)
    assert signed_in(making.make_user()).post(f"/en/ratings/{rating.public_id}/helpful/", {"vote": "yes"}).status_code == 404

    assert Rating.objects.get().helpful_count == 0
    assert not HelpfulVote.objects.exists()


def test_what_was_withdrawn_meanwhile_takes_no_vote(listing: Listing) -> None:
    rating = make_rating(listing, 4)
    acts.withdraw(rating.user, Rating.objects.get())

    for act in (votes.vote, votes.take_back):
        with pytest.raises(NotFound):
            act(making.make_user(), rating)

    assert not HelpfulVote.objects.exists()


def test_a_publisher_replies_on_the_site_and_a_stranger_gets_404(listing: Listing) -> None:
    rating = make_rating(listing, 2)
    path = f"/en/ratings/{rating.public_id}/reply/"

    assert signed_in(making.make_user()).post(path, {"text": "Mine!"}).status_code == 404
    assert not hasattr(Rating.objects.get(), "reply")
    client = signed_in(making.owner_of(listing.publisher))
    assert client.get(path).status_code == 200
    client.post(path, {"text": "Thank you <script>alert(1)</script>"})

    page = Client().get(f"/en/ratings/of/{listing.public_id}/").text
    assert "Thank you &lt;script&gt;" in page


def test_flags_are_raised_by_people_and_decided_by_reviewers(listing: Listing) -> None:
    rating = make_rating(listing, 1)
    person = making.make_user()
    path = f"/en/ratings/{rating.public_id}/flag/"
    assert signed_in(person).get(path).status_code == 200
    signed_in(person).post(path, {"reason": "spam"})
    settle = f"/en/ratings/flags/{Flag.objects.get().public_id}/settle/"
    reviewer = signed_in(making.make_reviewer())

    assert signed_in(person).get("/en/ratings/flags/").status_code == 404
    assert signed_in(person).post(settle, {"decision": "uphold"}).status_code == 404
    assert Flag.objects.get().state == "open"
    assert "Good at rhymes." in reviewer.get("/en/ratings/flags/").text
    assert reviewer.post(settle, {"decision": "whatever"}).status_code == 400
    assert Flag.objects.get().state == "open"
    reviewer.post(settle, {"decision": "uphold"})

    assert Flag.objects.get().state == "upheld"
    assert Client().get(path).status_code == 302
    assert signed_in(person).get(path).status_code == 404
    assert reviewer.get("/en/ratings/flags/").context["page"].rows == []


def test_staff_read_ratings_and_change_none(listing: Listing) -> None:
    rating = make_rating(listing, 1)
    client = signed_in(User.objects.create_superuser("root", "root@example.org", "correct horse 9"))

    for name in ("rating", "reply", "flag", "ratingsummary"):
        assert client.get(f"/admin/ratings/{name}/").status_code == 200
    assert client.post(f"/admin/ratings/rating/{rating.pk}/change/", {"stars": "5"}).status_code == 403
    assert Rating.objects.get().stars == 1
