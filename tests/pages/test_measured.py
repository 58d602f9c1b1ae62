"""The numbers of a version on its listing's page, and all of them with their method on their own."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from store.catalog.models import Measurement, Version
from store.pages import measured
from tests import making

pytestmark = pytest.mark.django_db
METHOD = {
    "engine": {"version": "0.1.0", "source_sha256": "e" * 64, "torch": "2.13"},
    **{"precision": "float32", "device": "x86_64", "runner": "native", "threads": 1, "seed": 1, "draws": 2000},
    **{"base": "b" * 64, "adapter": "a" * 64, "instructions_sha256": "", "record": "7" * 64},
}


@pytest.fixture
def adapter() -> Version:
    return making.make_adapter(making.make_base(slug="small-base"))


def measure(version: Version, name: str, value: float, **fields: Any) -> Measurement:
    suite = name.partition(".")[0].partition("-")[0]
    method = METHOD | {"suite": suite, "suite_sha256": "5" * 64, "items": 20}
    return Measurement.objects.create(version=version, name=name, value=value, method=method, **fields)


def page(client: Client, version: Version, language: str = "en") -> str:
    response = client.get(f"/{language}/gpts/{version.listing.full_name}/{version.number}/measured/")
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_every_number_stands_beside_its_bases_with_the_difference_and_its_interval(client: Client, adapter: Version) -> None:
    difference = {"base_value": 20.0, "difference": 10.0, "difference_low": 8.0, "difference_high": 12.0}
    measure(adapter, "answer.f1", 30.0, low=25.0, high=35.0, unit="%", **difference)

    shown = page(client, adapter)

    assert "Answer questions: F1" in shown
    assert "25.00 … 35.00" in shown
    assert '<span class="delta up">+10.00</span><br><span class="note">+8.00 … +12.00</span>' in shown
    assert "small-base" in shown
    assert "回答问题：F1" in page(client, adapter, "zh-hans")


def test_the_method_names_all_that_gives_the_same_number_again(client: Client, adapter: Version) -> None:
    measure(adapter, "answer.f1", 30.0)
    measure(adapter, "code.acc", 60.0)

    shown = page(client, adapter)

    assert "python -m inference evaluate FOLDER --suite answer --suite code --dtype float32 --adapter ADAPTER_FOLDER" in shown
    for said in ("b" * 64, "a" * 64, "e" * 64, "5" * 64, "torch 2.13", "1 thread", "2,000 draws of items, seed 1"):
        assert said in shown, said


def test_a_publishers_own_suite_stands_apart_and_names_nothing_of_theirs(client: Client, adapter: Version) -> None:
    measure(adapter, "own-55555555.f1", 90.0, unit="%")

    shown = page(client, adapter)

    assert "Its items were chosen by the publisher" in shown
    assert "5" * 64 in shown
    assert "--suite" not in shown
    assert measured.bars(adapter) == []


def test_a_version_without_numbers_says_so_and_one_that_is_not_released_is_its_publishers(client: Client, adapter: Version) -> None:
    draft = making.draft_prompt(adapter, adapter.listing, number="2.0.0")
    path = reverse("pages:measured", args=[*adapter.listing.full_name.split("/"), "2.0.0"])

    assert "Nothing measured yet" in page(client, adapter)
    assert client.get(path).status_code == 404
    client.force_login(making.owner_of(draft.listing.publisher), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(path).status_code == 200
    assert client.get(path.replace("2.0.0", "9.9.9")).status_code == 404


def test_the_listing_shows_one_number_of_each_suite_and_the_way_to_all(client: Client, adapter: Version) -> None:
    for name in ("bias.stereotype", "answer.exact_match", "answer.f1", "perplexity", "speed.tokens_per_s"):
        measure(adapter, name, 30.0, base_value=31.0, low=29.5, high=30.5)

    shown = client.get(reverse("pages:listing", args=adapter.listing.full_name.split("/"))).content.decode()

    assert [str(bar.label) for bar in measured.bars(adapter)] == [
        "Perplexity",
        "Answer questions: F1",
        "Stereotypes: The prejudice is likelier",
    ]
    assert "All 5 numbers and their method" in shown
    assert reverse("pages:measured", args=[*adapter.listing.full_name.split("/"), "1.0.0"]) in shown


@pytest.mark.parametrize(
    ("name", "fields", "verdict"),
    [
        ("answer.f1", {"difference_low": 1.0, "difference_high": 9.0}, "up"),
        ("answer.f1", {"difference_low": -1.0, "difference_high": 9.0, "low": 29.0, "high": 31.0}, "same"),
        ("perplexity", {"low": 29.0, "high": 31.0, "lower_is_better": True}, "down"),
        ("perplexity", {"low": 24.0, "high": 31.0, "lower_is_better": True}, "same"),
        ("bias.stereotype", {"difference_low": 1.0, "difference_high": 9.0}, "same"),
    ],
)
def test_better_is_said_only_where_it_is_no_chance(adapter: Version, name: str, fields: dict[str, Any], verdict: str) -> None:
    assert measured.bar(measure(adapter, name, 30.0, base_value=25.0, **fields)).verdict == verdict
