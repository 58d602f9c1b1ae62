"""The screens about ratings."""

from __future__ import annotations

import pytest
from django.test import Client

from store.accounts.models import User
from store.catalog.models import Listing
from store.ratings import pages
from store.ratings import rating as acts
from store.ratings.models import Flag, Rating
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
