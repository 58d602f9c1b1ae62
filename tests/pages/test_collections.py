"""A person's own lists of GPTs: private until they are shared, and changed by nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.accounts.models import User
from store.catalog import collections, listings
from store.catalog.errors import InvalidText
from store.catalog.models import Collection, Listing, Version
from store.errors import NotFound
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(making.make_publisher(slug="lab"), slug="base")


@pytest.fixture
def ann() -> User:
    return making.make_user("ann")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def collection_of(user: User, *gpts: Listing, **fields: object) -> Collection:
    made = collections.create(user, **{"name": "For letters"} | fields)  # type: ignore[arg-type]
    for listing in gpts:
        collections.put(user, made.public_id, listing)
    return made


def test_a_person_makes_one_on_a_gpts_page_and_puts_in_and_takes_out(ann: User, base: Version) -> None:
    client, page = client_of(ann), "/en/gpts/lab/base/"
    assert "new-collection" not in Client().get(page).text

    client.post(f"{page}collect/", {"name": " For  letters "})
    made = ann.collections.get()
    held = client.get(page).text
    client.post(f"{page}collect/", {"out_of": made.public_id})
    out = client.get(page).text
    client.post(f"{page}collect/", {"into": made.public_id})

    assert made.name == "For letters"
    assert not made.is_public
    assert "Take out of For letters" in held
    assert "Put into For letters" in out
    assert [item.listing for item in made.items.all()] == [base.listing]


def test_what_is_shared_is_seen_by_all_and_what_is_not_by_its_owner_alone(ann: User, base: Version) -> None:
    made = collection_of(ann, base.listing, about="Short and kind.")
    address = f"/en/collections/{made.public_id}/"

    assert [client.get(address).status_code for client in (Client(), client_of(making.make_user()), client_of(ann))] == [404, 404, 200]
    client_of(ann).post(address, {"name": "Letters", "about": "Short and kind.", "is_public": "on"})
    shared = Client().get(address)

    assert shared.status_code == 200
    assert not shared.cookies
    assert "Short and kind." in shared.text
    assert "noindex" in shared.text
    assert "ann" not in shared.text.replace("language", "").replace("Sign", "")
    assert "Take out" not in shared.text


def test_nobody_changes_anothers(ann: User, base: Version) -> None:
    made, other = collection_of(ann, base.listing, is_public=True), client_of(making.make_user())
    address = f"/en/collections/{made.public_id}/"

    for path, body in (
        (address, {"name": "Mine"}),
        (f"{address}delete/", {}),
        (f"{address}take-out/{base.listing.public_id}/", {}),
        ("/en/gpts/lab/base/collect/", {"into": made.public_id}),
        ("/en/gpts/lab/base/collect/", {"out_of": made.public_id}),
    ):
        assert other.post(path, body).status_code == 404, path

    made.refresh_from_db()
    assert (made.name, made.items.count()) == ("For letters", 1)


def test_others_see_only_what_is_listed_and_the_owner_can_take_out_what_is_gone(ann: User, base: Version) -> None:
    hidden = making.release(making.draft_prompt(base, making.make_listing(slug="hidden")), "unlisted").listing
    gone = making.make_prompt(base, making.make_listing(slug="gone")).listing
    made = collection_of(ann, base.listing, hidden, gone, is_public=True)
    listings.suspend(gone)
    address = f"/en/collections/{made.public_id}/"

    public, own = Client().get(address).text, client_of(ann).get(address).text

    assert "Base" in public
    assert "/hidden/" not in public
    assert "gone" not in public
    assert "/hidden/" in own
    assert f"Take out {gone.full_name}" in own
    client_of(ann).post(f"{address}take-out/{gone.public_id}/")
    assert made.items.count() == 2


def test_there_is_an_end_to_collections_and_to_what_is_in_one(ann: User, base: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    made = collection_of(ann, base.listing)
    monkeypatch.setattr(collections, "MOST", 1)
    monkeypatch.setattr(collections, "MOST_ITEMS", 1)

    with pytest.raises(collections.EnoughCollections):
        collections.create(ann, name="Another")
    collections.put(ann, made.public_id, base.listing)
    with pytest.raises(collections.CollectionFull):
        collections.put(ann, made.public_id, making.make_prompt(base).listing)
    with pytest.raises(NotFound):
        collections.put(ann, made.public_id, making.make_listing())
    assert made.items.count() == 1


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "For letters", "a\x00b"])
def test_a_name_is_refused_at_its_field(ann: User, name: str) -> None:
    collection_of(ann)

    answer = client_of(ann).post("/en/collections/", {"name": name})

    assert answer.status_code == 422
    assert "name" in answer.context["form"].errors
    assert ann.collections.count() == 1


def test_markup_in_a_name_stays_text(ann: User) -> None:
    made = collection_of(ann, name="<script>alert(1)</script>", is_public=True)

    assert "<script>alert" not in Client().get(f"/en/collections/{made.public_id}/").text
    assert "<script>alert" not in client_of(ann).get("/en/collections/").text


def test_a_long_text_is_refused_by_the_act(ann: User) -> None:
    with pytest.raises(InvalidText):
        collections.create(ann, name="x", about="x" * 301)


def test_a_full_collection_costs_as_many_queries_as_a_small_one(ann: User, base: Version) -> None:
    made, client = collection_of(ann, base.listing, is_public=True), client_of(ann)
    counts = []
    for more in (2, 10):
        for _ in range(more):
            collections.put(ann, made.public_id, making.make_prompt(base).listing)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"/en/collections/{made.public_id}/").status_code == 200
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_its_owner_orders_it_and_says_why_each_is_there(base: Version, ann: User) -> None:
    first, second, third = (making.make_prompt(base).listing for _ in range(3))
    made = collection_of(ann, first, second, third, is_public=True)
    address, mine = f"/en/collections/{made.public_id}/", client_of(ann)

    def order() -> list[Listing]:
        return [item.listing for item in made.items.select_related("listing__publisher")]

    assert order() == [third, second, first]
    mine.post(f"{address}arrange/{first.public_id}/", {"move": "up"})
    assert order() == [third, first, second]
    mine.post(f"{address}arrange/{third.public_id}/", {"move": "down"})
    assert order() == [first, third, second]
    mine.post(f"{address}arrange/{first.public_id}/", {"move": "up"})  # it is there already
    mine.post(f"{address}arrange/{third.public_id}/", {"note": " The best   at letters. "})
    assert order() == [first, third, second]
    assert '<p class="note">The best at letters.</p>' in Client().get(address).text
    assert mine.post(f"{address}arrange/{third.public_id}/", {"note": "a" * 201}).status_code == 400
    assert client_of(making.make_user()).post(f"{address}arrange/{first.public_id}/", {"move": "down"}).status_code == 404
    assert order() == [first, third, second]


def test_home_shows_what_staff_features_while_it_is_shared(base: Version, ann: User) -> None:
    made = collection_of(ann, making.make_prompt(base).listing, name="Letters that work", is_public=True)
    empty = collection_of(ann, name="Nothing yet", is_public=True)
    Collection.objects.filter(pk__in=[made.pk, empty.pk]).update(featured=1)

    def home() -> str:
        cache.clear()
        return Client().get("/en/").text

    assert "Letters that work" in home()
    assert "Nothing yet" not in home()
    Collection.objects.filter(pk=made.pk).update(is_public=False)
    assert "Letters that work" not in home()


def test_what_staff_featured_stays_so_only_while_it_says_and_holds_the_same(base: Version, ann: User) -> None:
    first, second, third = (making.make_prompt(base).listing for _ in range(3))
    made = collection_of(ann, first, second, is_public=True)
    texts = {"name": made.name, "about": made.about, "is_public": True}

    def featured_after(act: Any, *arguments: Any, **fields: Any) -> bool:
        Collection.objects.update(featured=1)
        act(ann, made.public_id, *arguments, **fields)
        return Collection.objects.get().featured == 1

    assert featured_after(collections.edit, **texts)
    assert featured_after(collections.move, first.public_id, by=-1)
    assert featured_after(collections.annotate, first.public_id, note="")
    assert featured_after(collections.put, first)
    assert not featured_after(collections.edit, **texts | {"name": "Casino"})
    assert not featured_after(collections.edit, **texts | {"about": "Win now"})
    assert not featured_after(collections.annotate, first.public_id, note="Win now")
    assert not featured_after(collections.put, third)
    assert not featured_after(collections.take_out, first.public_id)
    Collection.objects.update(featured=1)
    assert "as it is" in client_of(ann).get(f"/en/collections/{made.public_id}/").text
