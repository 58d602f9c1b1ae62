"""Taking the files of a version, from the real application: by whom, in which pieces, and how often it is counted."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import httpx2
import pytest
from django.test import Client

from store.accounts.models import Membership
from store.catalog import downloads, publishing
from store.catalog.models import Listing, Version
from store.errors import NotFound
from tests import making
from tests.api.conftest import address  # noqa: F401 where it answers

pytestmark = pytest.mark.django_db(transaction=True)
WEIGHTS = random.Random(1).randbytes(3_000_000)
CONFIG = b'{"model_type": "llama"}'
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
PATH = "/en/gpts/labs/base/1.0.0/files/model.safetensors"


def make_weights(**fields: object) -> Version:
    listing = making.make_listing(making.make_publisher(slug="labs"), "base", **{"allow_download": True, "allow_finetune": True} | fields)
    files = {"model.safetensors": WEIGHTS, "config.json": CONFIG}
    owner = making.owner_of(listing.publisher)
    draft = publishing.create_weights_version(owner, listing, number="1.0.0", artifact=making.make_artifact(**files), facts=making.FACTS)
    return making.release(draft)


@pytest.fixture
def get(address: str) -> Callable[..., httpx2.Response]:  # noqa: F811
    def get(path: str = PATH, *, method: str = "GET", **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.request(method, address + path, headers=named, timeout=30)

    return get


def downloads_of(version: Version) -> int:
    return Listing.objects.get(pk=version.listing_id).download_count


def test_a_file_arrives_whole_under_its_digest_and_sets_no_cookie(get: Callable[..., httpx2.Response]) -> None:
    make_weights()

    whole = get()

    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, WEIGHTS, f'"{SHA256}"')
    assert (whole.headers["content-length"], whole.headers["accept-ranges"]) == ("3000000", "bytes")
    assert whole.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert (whole.headers["content-type"], whole.headers["cache-control"]) == ("application/octet-stream", "private, no-cache")
    assert "set-cookie" not in whole.headers
    assert get(PATH.replace("model.safetensors", "config.json")).content == CONFIG


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=1000000-", (1_000_000, 3_000_000)),
        ("bytes=-7", (2_999_993, 3_000_000)),
        ("bytes=-9000000", (0, 3_000_000)),
        ("bytes=2999990-99999999", (2_999_990, 3_000_000)),
    ],
)
def test_what_a_client_still_lacks_is_all_it_gets(get: Callable[..., httpx2.Response], asked: str, part: tuple[int, int]) -> None:
    make_weights()

    answer = get(range=asked)

    start, stop = part
    assert (answer.status_code, answer.content) == (206, WEIGHTS[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/3000000"
    assert get(range=asked, if_range=f'"{SHA256}"').status_code == 206
    assert get(range=asked, if_range='"of an earlier file"').content == WEIGHTS


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=9-3", "bytes=0-1,5-6", "lines=0-9", "bytes=a-b", ""])
def test_a_range_that_means_nothing_gives_the_whole(get: Callable[..., httpx2.Response], asked: str) -> None:
    make_weights()

    answer = get(range=asked)

    assert (answer.status_code, len(answer.content)) == (200, 3_000_000)


def test_beyond_the_end_there_is_nothing_and_what_is_known_is_not_sent_again(get: Callable[..., httpx2.Response]) -> None:
    make_weights()

    beyond = [get(range=asked) for asked in ("bytes=3000000-", "bytes=-0")]
    known = [get(if_none_match=etag) for etag in (f'"{SHA256}"', f'"x", W/"{SHA256}"', "*")]
    head = get(method="HEAD", range="bytes=0-9")

    assert [(answer.status_code, answer.headers["content-range"], answer.content) for answer in beyond] == [
        (416, "bytes */3000000", b"")
    ] * 2
    assert [(answer.status_code, answer.content) for answer in known] == [(304, b"")] * 3
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "3000000", b"")
    assert get(method="POST").status_code == 403


def test_only_a_download_of_the_largest_file_from_its_beginning_is_counted(get: Callable[..., httpx2.Response]) -> None:
    version = make_weights()

    get(PATH.replace("model.safetensors", "config.json"))
    get(method="HEAD")
    get(if_none_match=f'"{SHA256}"')
    get(range="bytes=10-")
    assert downloads_of(version) == 0
    get()
    get(range="bytes=0-99")

    assert downloads_of(version) == 2


def test_nobody_takes_what_its_publisher_does_not_offer_or_what_is_not_there() -> None:
    version = make_weights(allow_download=False)
    owner = making.owner_of(version.listing.publisher)
    named = {"publisher": "labs", "slug": "base", "number": "1.0.0", "path": "config.json"}
    for user in (None, owner, making.make_reviewer()):
        with pytest.raises(NotFound):
            downloads.find(user, **named)

    publishing.set_permissions(owner, version.listing, allow_finetune=True, allow_download=True)
    assert downloads.find(None, **named)[1].sha256 == hashlib.sha256(CONFIG).hexdigest()
    for wrong in ({"path": "nothing.json"}, {"path": "../config.json"}, {"number": "2.0.0"}, {"slug": "other"}):
        with pytest.raises(NotFound):
            downloads.find(None, **named | wrong)


def test_only_what_is_released_and_stands_is_taken(get: Callable[..., httpx2.Response]) -> None:
    version = make_weights()
    adapter = making.make_adapter(version, making.make_listing(making.make_publisher(slug="tuners"), "tuned", allow_download=True))
    member = making.join(adapter.listing.publisher, Membership.Role.MEMBER)
    of_adapter = {"publisher": "tuners", "slug": "tuned", "number": "1.0.0", "path": "config.json"}
    assert downloads.find(None, **of_adapter)

    publishing.suspend(version)

    for user in (None, member, making.make_reviewer()):
        with pytest.raises(NotFound):
            downloads.find(user, **of_adapter)
    assert (get().status_code, downloads_of(version)) == (404, 0)


def test_a_page_lists_the_files_with_their_digests_and_offers_what_may_be_taken(client: Client) -> None:
    version = make_weights(allow_download=False)
    address_of_page = f"/en/gpts/{version.listing.full_name}/"

    page = client.get(address_of_page).text
    assert f'<code class="digest">{SHA256}</code>' in page
    assert "2.9\xa0MB" in page
    assert "Its publisher does not offer them for download." in page
    assert PATH not in page

    Listing.objects.update(allow_download=True, download_count=1)
    page = client.get(address_of_page).text
    assert f'<a class="link" href="{PATH}" download>' in page
    assert "Downloaded 1 time." in page
    assert 'id="files"' not in client.get(f"/en/gpts/{making.make_prompt(version).listing.full_name}/").text
