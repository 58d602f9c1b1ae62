"""The pictures that go with shared links."""

from __future__ import annotations

import io
import time

import pytest
from django.test import Client
from PIL import Image

from store.catalog import revisions
from store.catalog.models import Listing
from store.pages.cards import drawing, views
from store.pages.cards.drawing import Card
from tests import making


def picture(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw))


@pytest.fixture
def listing() -> Listing:
    texts = {
        "en": {"name": "Letters", "summary": "Turns notes into letters.", "card": ""},
        "zh-hans": {"name": "写信", "summary": "把笔记写成信。", "card": ""},
    }
    return making.make_prompt(listing=making.make_listing(making.make_publisher(slug="lab"), "letters", texts=texts)).listing


def test_every_character_that_is_said_to_be_drawable_has_a_glyph_of_its_own() -> None:
    font = drawing._font(32)
    hole = bytes(font.getmask("\ue000"))
    drawn = [chr(code) for first, last in drawing._RANGES for code in range(first, last + 1)] + [*drawing._SINGLE, *"的一是写信龙齄"]

    assert [mark for mark in drawn if drawing._has_glyph(mark) and mark.strip() and bytes(font.getmask(mark)) == hole] == []


@pytest.mark.parametrize("name", ["A ⚙ B", "信\u202e", "مرحبا", "龘", "\u200b", " "])
def test_a_name_that_the_font_lacks_is_not_drawn_with_holes(name: str) -> None:
    card = Card(name, "lab/letters", "Lab", "", "prompt")

    assert not drawing.is_drawable(name)
    assert drawing.png(card) == drawing.png(Card("lab/letters", "lab/letters", "Lab", "", "prompt"))


def test_long_texts_stay_inside_and_say_that_they_go_on() -> None:
    for text in ("W" * 300, "word " * 60, "长" * 300):
        lines = drawing.wrapped(text, 36, width=1056, most=3)

        assert len(lines) <= 3
        assert max(drawing._font(36).getlength(line) for line in lines) <= 1056
        assert lines[-1].endswith("…")
    assert drawing.wrapped("把笔记写成信。" * 12, 36, width=1056, most=3)[1][0] not in "，。"


@pytest.mark.django_db
def test_a_listing_has_a_card_in_each_language(client: Client, listing: Listing) -> None:
    english, chinese = (client.get(f"/{code}/gpts/lab/letters/card.png") for code in ("en", "zh-hans"))

    for response in (english, chinese):
        assert response["Content-Type"] == "image/png"
        assert picture(response.content).size == (1200, 630)
        assert len(response.content) < 60_000
    assert english.content != chinese.content
    page = client.get("/en/gpts/lab/letters/").text
    assert f'<meta property="og:image" content="http://testserver/en/gpts/lab/letters/card.png?v={english["ETag"][1:9]}">' in page


@pytest.mark.django_db
def test_an_icon_that_a_publisher_gave_is_on_the_card(client: Client, listing: Listing) -> None:
    red = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(red, "PNG")
    red.seek(0)
    before = client.get("/en/gpts/lab/letters/card.png")
    revision = revisions.set_icon(making.owner_of(listing.publisher), listing, red)
    revisions.seal(revision)
    revisions.make_live(revision)

    after = client.get("/en/gpts/lab/letters/card.png")

    middle, corner = ((drawing.MARGIN + at, drawing.MARGIN + at) for at in (drawing.ICON_PX // 2, 1))
    red_seen, green_seen, _blue = picture(after.content).convert("RGB").getpixel(middle)
    assert (red_seen > 200, green_seen < 60) == (True, True)
    assert picture(after.content).convert("RGB").getpixel(corner)[1] > 200
    assert before["ETag"] != after["ETag"]


@pytest.mark.django_db
def test_a_card_is_drawn_once_and_sent_once(client: Client, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Card] = []
    monkeypatch.setattr(drawing, "png", lambda card, icon: drawn.append(card) or b"picture")

    first = client.get("/en/gpts/lab/letters/card.png")
    second = client.get("/en/gpts/lab/letters/card.png")
    known = client.get("/en/gpts/lab/letters/card.png", headers={"If-None-Match": first["ETag"]})
    Listing.objects.filter(pk=listing.pk).update(output_price_micro=5)
    client.get("/en/gpts/lab/letters/card.png", headers={"If-None-Match": first["ETag"]})

    assert (first.content, second.content, known.status_code) == (b"picture", b"picture", 304)
    assert [card.name for card in drawn] == ["Letters", "Letters"]


@pytest.mark.django_db
def test_who_would_wait_long_for_a_card_is_asked_to_come_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "WAIT_S", 0.01)
    started = time.monotonic()

    with views._drawing:
        response = client.get("/en/card.png")

    assert (response.status_code, response["Retry-After"]) == (503, "10")
    assert time.monotonic() - started < 5
