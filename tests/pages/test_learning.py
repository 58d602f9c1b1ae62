"""The pages that explain, and the figure that a worker computes of the reader's sentence."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.test import Client

from inference.protocol import Attended, FailureCode, Finished, GenerationRequest, Usage, inflight_key
from store import valkey
from store.generation import attention
from store.generation.models import Request
from store.pages.attention_figure import Figure, example
from tests import making
from tests.generation import workplace

pytestmark = pytest.mark.django_db
PAGE = "/en/learn/gpt/"
ASKED = {"text": "Paris is it.", "layer": "2", "head": "3"}


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def answers(*events: object) -> threading.Thread:
    """A worker that answers the next order with these, made for it."""

    def work() -> None:
        order = workplace.take()
        workplace.write(order, workplace.started(order), *(event(order) for event in events))  # type: ignore[operator]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def attended(order: GenerationRequest) -> Attended:
    return Attended(["Paris", " is", " it"], [[1.0], [0.25, 0.75], [0.005, 0.6, 0.395]], 1, 2, layers=2, heads=4)


def refused(order: GenerationRequest) -> Finished:
    detail = {"param": "layer", "layers": 2, "heads": 4}
    return Finished(order.id, "error", Usage().to_json(), failure=FailureCode.INVALID_PARAMETER, message="no", detail=detail)


def test_a_sentence_is_computed_by_a_worker_and_nothing_of_it_is_kept(client: Client) -> None:
    base = making.make_base()
    workplace.worker_beats()
    worker = answers(attended, workplace.finished)

    page = client.get(PAGE, ASKED).text

    worker.join()
    (order,) = [order for order in workplace.waiting() if order.attention]
    assert (order.base, order.attention, order.messages[0]["content"]) == (base.artifact.digest, {"layer": 1, "head": 2}, ASKED["text"])
    assert "“it” looks at: is 60%, it 40%" in page  # what is less than 1% is left out
    assert f"computed just now by a worker of this store with {base.listing.full_name}" in page.lower()
    assert page.count("<line ") == 5
    assert 'name="robots" content="noindex"' in page
    assert not Request.objects.exists()


def test_without_a_worker_the_page_says_so_and_shows_what_was_computed_beforehand(client: Client) -> None:
    making.make_base()

    page = client.get(PAGE, ASKED).text

    assert "No worker that could answer is running" in page
    assert "Computed beforehand with SmolLM2-135M-Instruct by" in page
    assert f"<code>{example().command.replace(chr(39), '&#x27;')}</code>" in page


def test_a_layer_that_the_model_does_not_have_is_told_with_those_it_has_and_takes_no_place_any_more(client: Client) -> None:
    base = making.make_base()
    workplace.worker_beats()
    answers(refused)

    assert "This model has 2 layers of 4 heads each" in client.get(PAGE, ASKED).text
    assert base.artifact is not None
    assert valkey.client().zcard(inflight_key(base.artifact.digest)) == 0


@pytest.mark.parametrize("wrong", [{"text": ""}, {"text": "a" * 241}, {"layer": "0"}, {"head": "x"}, {"text": "a\0b"}])
def test_what_cannot_be_asked_reaches_no_worker(client: Client, wrong: dict[str, str]) -> None:
    making.make_base()
    workplace.worker_beats()

    response = client.get(PAGE, ASKED | wrong)

    assert response.status_code == 200
    assert 'aria-invalid="true"' in response.text
    assert not workplace.waiting()


def test_one_network_asks_only_so_often(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    making.make_base()
    workplace.worker_beats()
    monkeypatch.setattr(attention, "PER_MINUTE", 1)
    answers(attended, workplace.finished)

    client.get(PAGE, ASKED)

    assert "Too many requests" in client.get(PAGE, ASKED).text
    assert len(workplace.waiting()) == 1


def test_a_figure_tells_first_who_looks_far_back() -> None:
    figure = example()

    assert (figure.telling.token, figure.telling.ranked[0].token, figure.telling.ranked[0].percent) == ("tired", "cat", "74%")
    assert all(sum(look.weight for look in row.looks) <= 1.001 for row in figure.rows)
    blank = Figure.of(Attended([" ", "\n"], [[1.0], [0.5, 0.5]], 0, 0, layers=1, heads=1))
    assert [row.token for row in blank.rows] == ["␣", "↵"]


@pytest.mark.parametrize("name", ["choosing", "quality", "risks", "publishing"])
def test_pages_that_explain_lead_to_each_other(client: Client, name: str) -> None:
    page = client.get(f"/en/learn/{name}/").text

    assert len(set(re.findall(r'href="/en/learn/(\w+)/"', page))) == 5


def test_shares_are_those_that_are_paid(client: Client, settings: pytest.FixtureRequest) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 30, 20  # type: ignore[attr-defined]

    page = client.get("/en/learn/publishing/").text

    assert re.findall(r'class="end num">([\d.]+)<', page) == ["56.00", "14.00", "30.00"]
