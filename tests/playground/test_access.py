"""Who has a month's access to a GPT talks with it without its price per token, and what they use is counted."""

from __future__ import annotations

import pytest

from store.billing import access, ledger
from store.billing.models import Access
from store.generation import settlement
from store.generation.models import Request
from tests import making
from tests.api.engine import ScriptedEngine, says
from tests.playground.conftest import Browser

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_covered_chat_costs_nothing_and_is_counted(visitor: Browser, engine: ScriptedEngine) -> None:
    asks = {"input_price_micro": 1_000_000, "output_price_micro": 1_000_000, "monthly_price_micro": 50, "monthly_tokens": 100_000}
    gpt = making.make_prompt(making.make_base(), making.make_listing(making.make_publisher(slug="acme"), slug="poet", **asks)).listing
    buyer = making.make_user()
    ledger.grant(None, buyer, 50, cause="grant:access")
    access.buy(buyer, gpt, price_micro=50, tokens=100_000)
    visitor.sign_in(buyer)
    engine.script = says("A", " verse")

    begun = visitor.act("/en/chat/try/acme/poet/", text="Write.").json()

    assert visitor.finished(begun["events"])["text"] == "A verse"
    settlement.finish(engine.finished[0])
    assert (Request.objects.get().cost_micro, Access.objects.get().tokens_used) == (0, 9)
