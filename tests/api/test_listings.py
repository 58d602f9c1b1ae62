import re

import pytest
from django.test import Client

from store.catalog.listings import set_prices
from store.catalog.models import Listing
from store.catalog.search import documents
from tests import making
from tests.api.conftest import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def gpts() -> None:
    base = making.make_base(making.make_publisher(slug="labs"), slug="base")
    acme = making.make_publisher(slug="acme")
    for slug in ("poet", "summariser"):
        making.make_prompt(base, making.make_listing(acme, slug=slug), instructions="Say nothing of the secret word.")
    making.draft_prompt(base, making.make_listing(acme, slug="unfinished"))


def names(query: str = "") -> list[str]:
    return [row["name"] for row in Client().get(f"/api/listings{query}").json()["results"]]


def test_listings_are_found_filtered_and_paged() -> None:
    assert sorted(names()) == ["acme/poet", "acme/summariser", "labs/base"]
    assert names("?q=poet") == ["acme/poet"]
    assert names("?kind=weights") == ["labs/base"]
    first = Client().get("/api/listings?sort=name&limit=1").json()
    second = Client().get(first["next"]).json()
    assert (first["count"], first["count_is_least"], first["results"][0]["name"]) == (3, False, "labs/base")
    assert ([row["name"] for row in second["results"]], second["count"]) == (["acme/poet"], 3)
    assert Client().get(second["next"]).json()["next"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [("kind=robot", "kind"), ("sort=random", "sort"), ("use_case=nothing", "use_case"), ("after=x", "after"), ("limit=1000", "limit")],
)
def test_a_bad_filter_is_refused_by_name(query: str, param: str) -> None:
    answer = Client().get(f"/api/listings?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_number_of_queries_does_not_grow_with_the_page(django_assert_max_num_queries: object) -> None:
    with django_assert_max_num_queries(7):  # type: ignore[operator]
        names()


def test_one_listing_says_everything_but_its_instructions() -> None:
    answer = Client().get("/api/listings/acme/poet")

    value = answer.json()
    assert value["texts"]["en"] == {"name": "Poet", "summary": "What poet does.", "card": "# Card"}
    assert value["current_version"]["name"] == "acme/poet@1.0.0"
    assert value["current_version"]["base"] == "labs/base@1.0.0"
    assert [version["name"] for version in value["versions"]] == ["acme/poet@1.0.0"]
    assert "secret word" not in answer.content.decode()


def test_the_price_of_a_listing_is_what_people_pay_for_it() -> None:
    base = Listing.objects.get(slug="base")
    Listing.objects.filter(slug="poet").update(output_price_micro=5, monthly_price_micro=900, monthly_tokens=100_000)
    set_prices(making.owner_of(base.publisher), base, input_price_micro=100, output_price_micro=200)

    one = Client().get("/api/listings/acme/poet").json()
    found = {row["name"]: (row["input_price_micro"], row["output_price_micro"]) for row in Client().get("/api/listings").json()["results"]}

    assert (one["input_price_micro"], one["output_price_micro"]) == (100, 205)
    assert (one["monthly_price_micro"], one["monthly_tokens"]) == (900, 100_000)
    assert found == {"acme/poet": (100, 205), "acme/summariser": (100, 200), "labs/base": (100, 200)}
    documents.refresh_stale()
    assert names("?free=true") == []


def test_an_unfinished_listing_exists_for_its_members_only(caller: Caller) -> None:
    address = "/api/listings/acme/unfinished"

    assert Client().get(address).status_code == 404
    stranger = Client().get(address, headers=caller.headers)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "not_found")
    acme = making.Publisher.objects.get(slug="acme")
    acme.memberships.create(user=caller.user, role="member")
    assert Client().get(address, headers=caller.headers).json()["name"] == "acme/unfinished"


def test_the_schema_describes_every_endpoint() -> None:
    schema = Client().get("/api/schema/?format=json").json()

    assert {"/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/api/listings"} <= schema["paths"].keys()
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["temperature"] == {"type": "number", "minimum": 0, "maximum": 2}


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_the_reference_is_a_page_without_any_script_of_its_own(language: str) -> None:
    answer = Client().get("/api/docs/", headers={"Accept-Language": language})

    html = answer.content.decode()
    assert answer.status_code == 200
    assert "/v1/chat/completions" in html
    assert "max_completion_tokens" in html
    assert not re.findall(r"\sstyle=|\son\w+=|<script(?![^>]*src=)", html)
