"""What is new, as Atom: held against the rules of RFC 4287."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from django.test import Client

from store.catalog.models import Listing, Version
from tests import making

pytestmark = pytest.mark.django_db
ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture
def version() -> Version:
    texts = {
        "en": {"name": "Tom & <b>Jerry</b>", "summary": "<script>alert(1)</script>\x0b", "card": ""},
        "zh-hans": {"name": "写信", "summary": "把话写成信。", "card": ""},
    }
    made = making.make_prompt(listing=making.make_listing(making.make_publisher(slug="lab"), "letters", texts=texts))
    Version.objects.filter(pk=made.pk).update(change_log="First.\n\n<i>Second</i>")
    return made


def read(client: Client, path: str) -> Element:
    """The feed, which has what RFC 4287 asks of every feed and entry (4.1.1, 4.1.2)."""
    response = client.get(path)
    assert response.status_code == 200
    assert response["content-type"] == "application/atom+xml; charset=utf-8"
    assert not response.cookies
    feed = ElementTree.fromstring(response.content)
    ids = []
    for element in (feed, *feed.findall(f"{ATOM}entry")):
        for name in ("id", "title", "updated"):
            assert len(element.findall(f"{ATOM}{name}")) == 1, name
        assert element.findtext(f"{ATOM}author/{ATOM}name")
        assert datetime.fromisoformat(said(element, "updated")).tzinfo is not None
        ids.append(said(element, "id"))
    assert len(set(ids)) == len(ids)
    links = {link.get("rel"): link.get("href") for link in feed.findall(f"{ATOM}link")}
    assert links["self"] == f"http://testserver{path}"
    return feed


def said(element: Element, name: str) -> str:
    return element.findtext(f"{ATOM}{name}") or ""


@pytest.mark.parametrize("path", ["feeds/gpts.atom", "feeds/use-cases/chat.atom", "publishers/lab/feed.atom"])
def test_a_new_gpt_is_in_the_feeds_in_both_languages(client: Client, version: Version, path: str) -> None:
    english, chinese = read(client, f"/en/{path}"), read(client, f"/zh-hans/{path}")
    entries = {said(entry, "title"): entry for entry in english.findall(f"{ATOM}entry")}

    assert said(entries["Tom & <b>Jerry</b>"], "summary") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert [said(entry, "summary") for entry in chinese.findall(f"{ATOM}entry") if said(entry, "title") == "写信"] == ["把话写成信。"]
    assert said(english, "id") != said(chinese, "id")


def test_the_versions_of_a_gpt_are_a_feed(client: Client, version: Version) -> None:
    making.draft_prompt(version.base or version, version.listing, number="2.0.0")

    (entry,) = read(client, "/en/gpts/lab/letters/feed.atom").findall(f"{ATOM}entry")

    assert said(entry, "title") == "Tom & <b>Jerry</b> 1.0.0"
    assert "&lt;i&gt;Second&lt;/i&gt;" in said(entry, "summary")


def test_what_is_known_is_not_sent_again(client: Client, version: Version) -> None:
    first = client.get("/en/feeds/gpts.atom")

    again = client.get("/en/feeds/gpts.atom", headers={"If-None-Match": first["ETag"]})
    making.make_prompt(version.base)
    changed = client.get("/en/feeds/gpts.atom", headers={"If-None-Match": first["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert changed.status_code == 200


def test_what_is_not_listed_is_in_no_feed(client: Client, version: Version) -> None:
    Listing.objects.filter(pk=version.listing_id).update(visibility="unlisted")

    assert "Jerry" not in client.get("/en/publishers/lab/feed.atom").text
    assert client.get("/en/feeds/use-cases/none.atom").status_code == 404
    read(client, "/en/publishers/lab/feed.atom")
