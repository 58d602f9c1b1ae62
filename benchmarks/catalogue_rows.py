"""Everything the database holds of one made-up GPT, as an approval and some use would have left it; the same number is always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from benchmarks.catalogue_texts import Text, text_of
from store.accounts.models import Publisher
from store.catalog.models import Ancestry, Listing, ListingRevision, ListingText, Measurement, UseCase, Version
from store.catalog.search import documents, ranking
from store.ratings.models import RatingSummary
from store.ratings.summaries import bayesian

PER_PUBLISHER = 40
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "GPL-3.0-only", "BSD-3-Clause")
AGES_S = 3 * 365 * 86_400  # the first approvals lie within


@dataclass(frozen=True)
class Ground:
    """What all of them stand on; listing, revision and version number n have the primary key first + n."""

    first: int
    publishers: Sequence[Publisher]
    bases: Sequence[Version]  # with their listings and publishers
    use_cases: Mapping[str, UseCase]
    now: datetime


def rows_of(number: int, ground: Ground) -> tuple[list[Any], set[str]]:
    """Its rows, in no order, and the words that spelling learns of it."""
    pk, rng, text = ground.first + number, random.Random(-number - 1), text_of(number)
    listing = _listing(number, pk, text, ground, rng)
    base = ground.bases[min(int(rng.expovariate(0.5)), len(ground.bases) - 1)]
    version = _version(number, listing, base, rng)
    use_cases = [ground.use_cases[slug] for slug in text.use_cases]
    through = Listing.use_cases.through
    measured, rated = list(_measured(version, rng)), list(_rated(listing, rng))
    source = documents.Source(
        _row(listing, ground.publishers[number // PER_PUBLISHER], version, rated),
        texts=list(_texts(text)),
        use_cases=[(use_case.slug, use_case.name_en, use_case.name_zh) for use_case in use_cases],
        above=[_above(base)],
        measured=[ranking.Measured(m.name, m.value, m.base_value, m.difference_low, m.difference_high, False) for m in measured],
        is_listed=True,
    )
    entry, kept, words = documents.made_of(source, heat=_heat(listing, ground.now))
    rows = [
        listing,
        ListingRevision(pk=pk, public_id=f"rev_many{number}", listing_id=pk, state="live"),
        version,
        *(ListingText(pk=2 * pk + at, revision_id=pk, language=one[0], name=one[1], summary=one[2], card=one[3])
          for at, one in enumerate(_texts(text))),
        *(through(pk=2 * pk + at, listing_id=pk, usecase_id=use_case.pk) for at, use_case in enumerate(use_cases)),
        Ancestry(pk=pk, version_id=pk, ancestor_id=base.pk, depth=1),
        *measured, *rated, entry, kept,
    ]  # fmt: skip
    return rows, words


def _listing(number: int, pk: int, text: Text, ground: Ground, rng: random.Random) -> Listing:
    price = rng.choice((0, 0, 0, 100_000, 500_000))
    return Listing(
        pk=pk,
        public_id=f"lst_many{number}",
        publisher_id=ground.publishers[number // PER_PUBLISHER].pk,
        slug=text.slug,
        visibility="public",
        licence=rng.choice(LICENCES),
        languages=["en", "zh"] if text.zh else ["en"],
        input_price_micro=price,
        output_price_micro=2 * price,
        allow_download=rng.random() < 0.2,
        request_count=int(1_000_000 / (1 + rng.randrange(100_000))),  # Zipf's law
        published_at=ground.now - timedelta(seconds=rng.random() * AGES_S),
        live_revision_id=pk,
        current_version_id=pk,
    )


def _version(number: int, listing: Listing, base: Version, rng: random.Random) -> Version:
    made = {"kind": "prompt", "instructions": "Answer in one sentence."} if rng.random() < 0.7 else {"kind": "adapter"}
    return Version(
        pk=listing.pk,
        public_id=f"ver_many{number}",
        listing_id=listing.pk,
        number="1.0.0",
        state="released",
        digest="0" * 64,
        base_id=base.pk,
        released_at=listing.published_at,
        announced_at=listing.published_at,
        **made,
    )


def _texts(text: Text) -> Iterator[tuple[str, str, str, str]]:
    for language, values in (("en", text.en), ("zh-hans", text.zh)):
        if values:
            yield (language, *values)


def _measured(version: Version, rng: random.Random) -> Iterator[Measurement]:
    if rng.random() < 0.33:
        base, gain = 40 + 20 * rng.random(), rng.gauss(2, 4)
        values = {"value": base + gain, "base_value": base, "difference_low": gain - 2, "difference_high": gain + 2, "unit": "%"}
        yield Measurement(pk=version.pk, version_id=version.pk, name="answer.f1", low=base + gain - 2, high=base + gain + 2, **values)


def _rated(listing: Listing, rng: random.Random) -> Iterator[RatingSummary]:
    if rng.random() < 0.33:
        stars = [rng.choice((1, 2, 3, 4, 4, 5, 5, 5)) for _ in range(1 + int(rng.expovariate(0.1)))]
        counts = {f"stars_{star}": stars.count(star) for star in range(1, 6)}
        average = bayesian(len(stars), sum(stars))
        yield RatingSummary(pk=listing.pk, listing_id=listing.pk, count=len(stars), total=sum(stars), bayesian=average, **counts)


def _heat(listing: Listing, now: datetime) -> float:
    """As if one in ten of its answers were of this week."""
    recent = listing.request_count / 10
    return ranking.heat_at(now.timestamp()) + math.log(recent) if recent >= 1 else 0.0


def _row(listing: Listing, publisher: Publisher, version: Version, rated: Sequence[RatingSummary]) -> dict[str, Any]:
    """What `documents` would read of the listing."""
    own = [name for name in documents.OF_LISTING if "__" not in name and name not in ("current_version", "live_revision")]
    return {name: getattr(listing, name) for name in own} | {
        "current_version": version.pk,
        "current_version__kind": version.kind,
        "current_version__facts": {},
        "live_revision": listing.pk,
        "publisher__slug": publisher.slug,
        "publisher__name": publisher.name,
        "rating_summary__bayesian": rated[0].bayesian if rated else None,
    }


def _above(base: Version) -> dict[str, Any]:
    return {
        "ancestor__kind": base.kind,
        "ancestor__facts": base.facts,
        "ancestor__listing": base.listing_id,
        "ancestor__listing__slug": base.listing.slug,
        "ancestor__listing__publisher__slug": base.listing.publisher.slug,
        "ancestor__listing__input_price_micro": base.listing.input_price_micro,
        "ancestor__listing__output_price_micro": base.listing.output_price_micro,
    }
