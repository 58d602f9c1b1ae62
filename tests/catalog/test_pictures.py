"""Icons that publishers send: what is drawn of a picture, what is refused, and when the store shows it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image

from store.catalog import pictures, publishing, referring, revisions
from store.catalog.errors import PictureRejected
from store.catalog.models import Listing, ListingRevision
from tests import making


def sent(kind: str = "PNG", size: tuple[int, int] = (300, 200), colour: Any = (200, 30, 30), **saved: Any) -> io.BytesIO:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind, **saved)
    return io.BytesIO(out.getvalue())


def claiming(width: int, height: int) -> io.BytesIO:
    """A PNG of a few bytes whose header claims that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_drawn_anew_in_two_sizes_without_what_its_file_said(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "taken at home", 6  # a description, and "turn me clockwise"
    image = Image.new("RGB", (400, 400), "red")
    image.paste("blue", (0, 0, 400, 200))  # blue above, so to the right once it is turned
    out = io.BytesIO()
    image.save(out, kind, exif=exif, quality=95)

    drawn = [Image.open(io.BytesIO(raw)) for raw in pictures.icons_of(io.BytesIO(out.getvalue()))]

    assert [(icon.format, icon.size) for icon in drawn] == [("WEBP", (256, 256)), ("WEBP", (96, 96))]
    assert not any(icon.getexif() or set(icon.info) & {"exif", "xmp", "icc_profile"} for icon in drawn)
    left, right = (drawn[0].convert("RGB").getpixel((x, 128)) for x in (30, 226))
    assert left[0] > 200 > 100 > left[2]
    assert right[2] > 200 > 100 > right[0]


MOVES = {"save_all": True, "append_images": [Image.new("RGB", (300, 200), "blue")], "duration": 100}


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (io.BytesIO(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'), "no PNG, JPEG or WebP"),
        (sent("GIF"), "no PNG, JPEG or WebP"),
        (sent("BMP"), "no PNG, JPEG or WebP"),
        (io.BytesIO(b""), "no PNG, JPEG or WebP"),
        (io.BytesIO(sent().getvalue()[:90]), "damaged"),
        (io.BytesIO(sent("JPEG").getvalue()[:400]), "damaged"),
        (claiming(60_000, 60_000), "million pixels"),
        (claiming(8, 2_000_000), "smaller than"),
        (sent(size=(40, 40)), "smaller than"),
        (sent("WEBP", **MOVES), "moves"),
        (sent("PNG", **MOVES), "moves"),
        (io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"a" * pictures.MAX_BYTES), "larger than 4 MB"),
    ],
)
def test_what_is_no_bounded_still_picture_is_refused(picture: io.BytesIO, why: str) -> None:
    picture.seek(0)
    with pytest.raises(PictureRejected, match=why):
        pictures.icons_of(picture)


@pytest.fixture
def listing(db: None) -> Listing:
    return making.make_prompt().listing


def approve(listing: Listing) -> None:
    draft = revisions.latest(listing, "draft")
    assert draft is not None
    revisions.seal(draft)
    revisions.make_live(draft)


def src(client: Client, listing: Listing) -> str:
    page = client.get(f"/en/gpts/{listing.full_name}/").content.decode()
    _before, _tag, rest = page.partition('<img class="glyph picture large" src="')
    return rest.partition('"')[0]


def test_an_icon_is_shown_once_it_is_approved_and_drawn_from_the_name_again_when_it_is_removed(client: Client, listing: Listing) -> None:
    owner, words = making.owner_of(listing.publisher), revisions.current_texts(listing)

    draft = publishing.set_icon(owner, listing, sent())

    assert revisions.current_texts(listing) == words
    assert not src(client, listing)
    approve(listing)
    address = src(client, listing)
    assert address == reverse("machine:icon", args=[draft.icon])
    served = client.get(address)
    assert (served.headers["Content-Type"], served.headers["X-Content-Type-Options"]) == ("image/webp", "nosniff")
    assert served.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert Image.open(io.BytesIO(served.content)).size == (256, 256)
    assert draft.icon in str(list(referring.digests()))

    publishing.edit_texts(owner, listing, texts={"en": {"name": "Other", "summary": "Other.", "card": ""}})
    approve(listing)
    assert src(client, listing) == address  # other texts keep the icon

    publishing.set_icon(owner, listing, None)
    approve(listing)
    assert not src(client, listing)


def test_nothing_but_icons_is_served_as_one(client: Client, listing: Listing) -> None:
    artifact = making.make_artifact()

    assert client.get(reverse("machine:icon", args=[artifact.manifest["files"][0]["sha256"]])).status_code == 404


def test_the_studio_takes_a_picture_and_says_what_is_wrong_with_another(client: Client, listing: Listing) -> None:
    client.force_login(making.owner_of(listing.publisher))
    url = reverse("pages:studio_icon", args=[listing.publisher.slug, listing.slug])
    svg = io.BytesIO(b"<svg/>")
    svg.name = "icon.png"

    told = client.post(url, {"icon": svg}, follow=True).content.decode()
    assert "This is no PNG, JPEG or WebP picture" in told
    assert not ListingRevision.objects.exclude(icon="").exists()

    shown = client.post(url, {"icon": sent()}, follow=True).content.decode()
    assert "glyph picture large" in shown
    assert "not approved yet" in shown
