"""What a GPT costs that builds on others, who pays it, and how it is divided among who asked it."""

from __future__ import annotations

import pytest
from django.utils import timezone

from store.billing import ledger, prices, shares
from store.billing.models import Account, Entry
from store.billing.prices import Price
from store.catalog import search
from store.catalog.listings import set_prices
from store.catalog.models import Version
from store.catalog.search import documents
from tests import making

pytestmark = pytest.mark.django_db


def ask(version: Version, input_micro: int, output_micro: int) -> Version:
    """The listing's price is changed now, after whatever was built on it."""
    listing = version.listing
    set_prices(making.owner_of(listing.publisher), listing, input_price_micro=input_micro, output_price_micro=output_micro)
    return version


def fresh(version: Version) -> Version:
    return Version.objects.select_related("listing__publisher").get(pk=version.pk)


@pytest.fixture
def base() -> Version:
    return making.make_base(making.make_publisher(slug="bases"), slug="base")


@pytest.fixture
def adapter(base: Version) -> Version:
    return making.make_adapter(base, making.make_listing(making.make_publisher(slug="tuners"), slug="tuned"))


@pytest.fixture
def prompt(adapter: Version) -> Version:
    """A released prompt GPT of "writers" on an adapter of "tuners" on weights of "bases", all of them free."""
    return making.make_prompt(adapter, making.make_listing(making.make_publisher(slug="writers"), slug="poet"))


def test_a_gpt_costs_at_least_what_its_base_asks_now_whenever_it_was_built(base: Version, adapter: Version, prompt: Version) -> None:
    assert prices.of_version(fresh(prompt)).is_free

    ask(base, 1_000_000, 2_000_000)
    assert prices.of_version(fresh(prompt)) == prices.of_listing(fresh(prompt).listing) == Price(1_000_000, 2_000_000)

    ask(adapter, 100_000, 0)
    ask(prompt, 5, 7)
    assert prices.of_version(fresh(prompt)) == Price(1_100_005, 2_000_007)
    assert prices.of_version(fresh(adapter)) == Price(1_100_000, 2_000_000)


def test_what_builds_on_a_priced_base_is_no_longer_found_among_the_free(base: Version, prompt: Version) -> None:
    assert prompt.listing in search.find(facts=["free"]).page().listings

    ask(base, 0, 1)

    documents.refresh_stale()
    assert not {prompt.listing, base.listing} & set(search.find(facts=["free"]).page().listings)


def test_who_pays_for_which_part(base: Version, adapter: Version, prompt: Version) -> None:
    ask(base, 100, 200)
    ask(prompt, 10, 20)
    parts = {prompt.public_id: Price(10, 20), base.public_id: Price(100, 200)}

    assert prices.due(fresh(prompt), None) == prices.due(fresh(prompt), making.make_user()) == prices.Due(Price(110, 220), parts)
    assert prices.due(fresh(prompt), making.owner_of(prompt.listing.publisher)).price == Price(100, 200)
    assert prices.due(fresh(prompt), making.owner_of(base.listing.publisher)).price == Price(10, 20)
    assert prices.due(fresh(base), making.owner_of(base.listing.publisher)) == prices.Due()


def test_a_draft_is_tried_for_what_its_base_costs_and_by_a_reviewer_for_nothing(base: Version) -> None:
    draft = making.draft_prompt(ask(base, 100, 200), making.make_listing(input_price_micro=10))
    reviewer = making.make_reviewer()

    assert prices.due(fresh(draft), making.owner_of(draft.listing.publisher)).price == Price(100, 200)
    assert prices.due(fresh(draft), reviewer).price.is_free
    assert prices.due(making.release(draft), reviewer).price == Price(110, 200)


def test_each_part_of_a_charge_goes_to_who_asked_it(base: Version, adapter: Version, prompt: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 10  # type: ignore[attr-defined]
    person = making.make_user()
    ledger.grant(None, person, 10_000_000, cause="grant:first")
    ask(prompt, 1_000_000, 0)
    ask(base, 2_000_000, 4_000_000)
    due = prices.due(fresh(prompt), person)
    ledger.reserve(person, cause="generation:a", amount_micro=50_000, expires_at=timezone.now(), parts=due.parts)
    ask(base, 900_000_000, 900_000_000)  # what was agreed stays

    posted = ledger.settle("generation:a", amount_micro=7_000, version=prompt, detail={"prompt_tokens": 1_000, "completion_tokens": 1_000})

    assert posted is not None
    lines = posted.entries.order_by("id").values_list("account__publisher__slug", "amount_micro", "reason", "version")
    assert list(lines) == [
        (None, -7_000, "usage", prompt.pk),
        (None, 1_400, "platform share", prompt.pk),
        ("tuners", 80, "ancestor share", adapter.pk),  # 10 % of the 800 that are left of what the prompt asked
        ("bases", 80 + 4_800, "ancestor share", base.pk),  # the same, and all that is left of what the base asked
        ("writers", 640, "listing share", prompt.pk),
    ]
    assert Account.objects.get(kind="platform").balance_micro == 1_400


@pytest.mark.parametrize("amount_micro", [0, 1, 2, 3, 7, 99, 1_000_003])
@pytest.mark.parametrize("tokens", [(1, 0), (0, 1), (3, 5), (1_000, 7)])
def test_a_division_is_exact_and_leaves_nothing_to_who_asked_nothing(
    base: Version, adapter: Version, prompt: Version, amount_micro: int, tokens: tuple[int, int]
) -> None:
    used = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    asks = {base.public_id: [3, 2], adapter.public_id: [0, 5]}

    divided = shares.divide(amount_micro, prompt, asks=asks, tokens=used)

    assert sum(share.amount_micro for share in divided) == amount_micro
    assert all(share.amount_micro >= 0 for share in divided)
    assert [share.version for share in divided] == [prompt, adapter, base, prompt]
    assert divided[-1] == shares.Share(0, Entry.Reason.LISTING_SHARE, prompt)


def test_weights_cost_what_those_ask_that_they_were_trained_from_and_share_with_them(base: Version) -> None:
    trained = making.make_trained(base, making.make_listing(making.make_publisher(slug="tuners"), slug="trained"))
    ask(base, 1_000_000, 0)
    ask(trained, 500_000, 0)

    due = prices.due(fresh(trained), None)
    asks = {part: [price.input_micro, price.output_micro] for part, price in due.parts.items()}
    divided = shares.divide(1_500, fresh(trained), asks=asks, tokens={"prompt_tokens": 1_000, "completion_tokens": 0})

    assert prices.of_version(fresh(trained)) == prices.of_listing(fresh(trained).listing) == due.price == Price(1_500_000, 0)
    assert [(share.version.listing.slug, share.amount_micro) for share in divided] == [
        ("trained", 300),  # the store's fifth
        ("base", 800 + 40),  # what is left of what it asked, and a tenth of what is left of what the trained one asked
        ("trained", 360),
    ]


def test_a_version_trained_from_an_earlier_one_of_its_listing_asks_its_price_once(base: Version) -> None:
    again = making.make_trained(base, base.listing, number="2.0.0")
    ask(base, 1_000_000, 2_000_000)

    found = fresh(again)

    once = Price(1_000_000, 2_000_000)
    assert (prices.of_version(found), prices.of_listing(found.listing), prices.due(found, None).price) == (once, once, once)
    assert prices.due(found, None).parts == {again.public_id: once}


def test_a_chain_of_trained_weights_leaves_to_the_root_what_is_its_own(base: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 40  # type: ignore[attr-defined]
    chain = [base]
    for _number in range(3):
        chain.append(making.make_trained(chain[-1]))
    last = fresh(chain[-1])

    divided = shares.divide(1_000, last, asks={last.public_id: [1, 0]}, tokens={"prompt_tokens": 1})

    earned = {share.version.pk: share.amount_micro for share in divided[1:]}
    assert [earned[version.pk] for version in chain] == [320, 320, 160, 0]
    assert divided[0].amount_micro == 200


def test_versions_trained_from_each_other_within_a_listing_earn_as_one(base: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 40  # type: ignore[attr-defined]
    second = making.make_trained(base, base.listing, number="2.0.0")
    third = making.make_trained(second, base.listing, number="3.0.0")
    trained = making.make_trained(third)
    again = fresh(making.make_trained(trained, trained.listing, number="2.0.0"))

    divided = shares.divide(1_000, again, asks={again.public_id: [1, 0]}, tokens={"prompt_tokens": 1})

    assert [(share.version, share.amount_micro) for share in divided] == [
        (again, 200),
        (trained, 0),
        (third, 320),
        (second, 0),
        (base, 0),
        (again, 480),
    ]


def test_a_chain_of_listings_of_one_publisher_earns_as_one_and_leaves_others_their_share(base: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 10  # type: ignore[attr-defined]
    chain = [base]
    for _number in range(10):
        chain.append(making.make_trained(chain[-1], making.make_listing(base.listing.publisher, allow_finetune=True)))
    others = making.make_trained(chain[-1])
    last = fresh(making.make_trained(others))

    divided = shares.divide(1_000, last, asks={last.public_id: [1, 0]}, tokens={"prompt_tokens": 1})

    earned = {share.version.pk: share.amount_micro for share in divided[1:] if share.amount_micro}
    assert earned == {base.pk: 80, others.pk: 80, last.pk: 640}


def test_a_publishers_own_listings_take_nothing_of_what_they_ask_themselves(base: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 40  # type: ignore[attr-defined]
    first = making.make_trained(base)
    second = making.make_trained(first, making.make_listing(allow_finetune=True))
    last = fresh(making.make_trained(second, making.make_listing(base.listing.publisher)))

    divided = shares.divide(1_000, last, asks={last.public_id: [1, 0]}, tokens={"prompt_tokens": 1})

    earned = {share.version.pk: share.amount_micro for share in divided[1:] if share.amount_micro}
    assert earned == {first.pk: 320, second.pk: 320, last.pk: 160}


def test_a_price_split_over_a_chain_of_listings_leaves_the_base_what_one_price_would(base: Version, settings: object) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 10  # type: ignore[attr-defined]
    tuner, chain = making.make_publisher(), [base]
    for _number in range(9):
        chain.append(making.make_trained(chain[-1], making.make_listing(tuner, allow_finetune=True)))
    last = fresh(chain[-1])

    divided = shares.divide(18, last, asks={version.public_id: [1, 0] for version in chain[1:]}, tokens={"prompt_tokens": 2})

    assert (divided[0].amount_micro, sum(share.amount_micro for share in divided)) == (3, 18)
    assert {share.version.pk: share.amount_micro for share in divided[1:]}[base.pk] == 1


def test_a_reviewer_pays_for_the_base_of_a_draft_of_their_own(base: Version) -> None:
    reviewer = making.make_reviewer()
    draft = making.draft_prompt(ask(base, 100, 200), making.make_listing(making.make_publisher(reviewer)))

    assert prices.due(fresh(draft), reviewer).price == Price(100, 200)
