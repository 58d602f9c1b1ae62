"""What the users of the API who pinned a version get when its publisher deprecates or withdraws it, with the official client."""

from __future__ import annotations

import openai
import pytest

from store.catalog import publishing
from store.catalog.models import Version
from store.generation.models import Request
from tests import making
from tests.api.conftest import Caller
from tests.api.engine import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def old() -> Version:
    """1.0.0 of acme/poet, whose current version is 1.1.0."""
    first = making.make_prompt(making.make_base(slug="base"), making.make_listing(making.make_publisher(slug="acme"), slug="poet"))
    making.make_prompt(first.base, first.listing, number="1.1.0")
    return Version.objects.select_related("listing__publisher").get(pk=first.pk)


@pytest.fixture
def client(address: str, caller: Caller) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=caller.secret, max_retries=0, timeout=30)


def test_a_deprecated_version_answers_with_a_header_and_the_current_one_without(
    client: openai.OpenAI, engine: ScriptedEngine, old: Version
) -> None:
    publishing.deprecate(making.owner_of(old.listing.publisher), old, notice="Use 1.1.0.")
    assert old.deprecated_at is not None
    since = f"@{int(old.deprecated_at.timestamp())}"

    pinned = client.chat.completions.with_raw_response.create(model="acme/poet@1.0.0", messages=HELLO)  # type: ignore[arg-type]
    current = client.chat.completions.with_raw_response.create(model="acme/poet", messages=HELLO)  # type: ignore[arg-type]
    named = client.models.with_raw_response.retrieve("acme/poet@1.0.0")

    assert pinned.parse().choices[0].message.content == "Hello there"
    assert (pinned.headers["deprecation"], named.headers["deprecation"]) == (since, since)
    assert pinned.headers["link"].endswith('/gpts/acme/poet/>; rel="deprecation"; type="text/html"')
    assert "x-ratelimit-limit-requests" in pinned.headers
    assert "deprecation" not in current.headers


def test_a_withdrawn_version_answers_410_with_its_publishers_words_and_begins_nothing(
    client: openai.OpenAI, engine: ScriptedEngine, old: Version
) -> None:
    publishing.yank(making.owner_of(old.listing.publisher), old, notice="It invents addresses.")

    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="acme/poet@1.0.0", messages=HELLO)  # type: ignore[arg-type]
    with pytest.raises(openai.APIStatusError) as unnamed:
        client.models.retrieve("acme/poet@1.0.0")

    assert (refused.value.status_code, unnamed.value.status_code) == (410, 410)
    assert (refused.value.code, refused.value.param) == ("version_withdrawn", "model")
    assert "It invents addresses." in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert not Request.objects.exists()
    assert not engine.orders
    assert client.chat.completions.create(model="acme/poet", messages=HELLO).choices[0].message.content == "Hello there"  # type: ignore[arg-type]
