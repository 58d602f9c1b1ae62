"""Everything the database holds of one made-up GPT, as an approval and some use would have left it; the same number is always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model

from benchmarks.catalogue_texts import Text, text_of
from store.accounts.models import Publisher
from store.catalog.models import (
    Ancestry,
    Listing,
    ListingRevision,
    ListingText,
    Measurement,
    SearchEntry,
    SearchText,
    UseCase,
    Version,
)
from store.catalog.search import documents, ranking
from store.ratings.models import RatingSummary
from store.ratings.summaries import bayesian

PER_PUBLISHER = 40
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "GPL-3.0-only", "BSD-3-Clause")
MEASURED = ("name", "value", "base_value", "difference_low", "difference_high")
AGES_S = 3 * 365 * 86_400  # the first approvals lie within


@dataclass(frozen=True)
class Ground:
    """What all of them stand on; listing, revision and version number n have the primary key first + n."""

    first: int
    publishers: Sequence[Publisher]
    bases: Sequence[Version]  # with their listings and publishers
    use_cases: Mapping[str, UseCase]
    now: datetime


Row = tuple[type[Model], dict[str, Any]]  # what is not the field's default, by attribute


def rows_of(number: int, ground: Ground) -> tuple[list[Row], set[str]]:
    """Its rows, in no order, and the words that spelling learns of it."""
    pk, rng, text = ground.first + number, random.Random(-number - 1), text_of(number)
    listing = _listing(number, pk, text, ground, rng)
    base = ground.bases[min(int(rng.expovariate(0.5)), len(ground.bases) - 1)]
    version = _version(number, listing, base, rng)
    use_cases = [ground.use_cases[slug] for slug in text.use_cases]
    through = Listing.use_cases.through
    measured, rated = _measured(pk, rng), _rated(pk, rng)
    source = documents.Source(
        _read(listing, ground.publishers[number // PER_PUBLISHER], version, rated),
        texts=list(_texts(text)),
        use_cases=[(use_case.slug, use_case.name_en, use_case.name_zh) for use_case in use_cases],
        above=[_above(base)],
        measured=[ranking.Measured(**{name: one[name] for name in MEASURED}, lower_is_better=False) for one in measured],
        is_listed=True,
    )
    entry, kept, words = documents.made_of(source, heat=_heat(listing, ground.now))
    rows: list[Row] = [
        (Listing, listing),
        (ListingRevision, {"id": pk, "public_id": f"rev_many{number}", "listing_id": pk, "state": "live"}),
        (Version, version),
        (Ancestry, {"id": pk, "version_id": pk, "ancestor_id": base.pk, "depth": 1}),
        (SearchEntry, entry.__dict__),
        (SearchText, kept.__dict__),
    ]
    rows += [
        (ListingText, {"id": 2 * pk + at, "revision_id": pk, "language": one[0], "name": one[1], "summary": one[2], "card": one[3]})
        for at, one in enumerate(source.texts)
    ]
    rows += [(through, {"id": 2 * pk + at, "listing_id": pk, "usecase_id": one.pk}) for at, one in enumerate(use_cases)]
    rows += [(Measurement, one) for one in measured] + [(RatingSummary, one) for one in rated]
    return rows, words


def _listing(number: int, pk: int, text: Text, ground: Ground, rng: random.Random) -> dict[str, Any]:
    price = rng.choice((0, 0, 0, 100_000, 500_000))
    return {
        "id": pk,
        "public_id": f"lst_many{number}",
        "publisher_id": ground.publishers[number // PER_PUBLISHER].pk,
        "slug": text.slug,
        "visibility": "public",
        "licence": rng.choice(LICENCES),
        "languages": ["en", "zh"] if text.zh else ["en"],
        "input_price_micro": price,
        "output_price_micro": 2 * price,
        "allow_download": rng.random() < 0.2,
        "request_count": int(1_000_000 / (1 + rng.randrange(100_000))),  # Zipf's law
        "published_at": ground.now - timedelta(seconds=rng.random() * AGES_S),
        "live_revision_id": pk,
        "current_version_id": pk,
    }


def _version(number: int, listing: dict[str, Any], base: Version, rng: random.Random) -> dict[str, Any]:
    made = {"kind": "prompt", "instructions": "Answer in one sentence."} if rng.random() < 0.7 else {"kind": "adapter"}
    return made | {
        "id": listing["id"],
        "public_id": f"ver_many{number}",
        "listing_id": listing["id"],
        "number": "1.0.0",
        "state": "released",
        "digest": "0" * 64,
        "base_id": base.pk,
        "released_at": listing["published_at"],
        "announced_at": listing["published_at"],
    }


def _texts(text: Text) -> Iterator[tuple[str, str, str, str]]:
    for language, values in (("en", text.en), ("zh-hans", text.zh)):
        if values:
            yield (language, *values)


def _measured(pk: int, rng: random.Random) -> list[dict[str, Any]]:
    if rng.random() >= 0.33:
        return []
    base, gain = 40 + 20 * rng.random(), rng.gauss(2, 4)
    values = {"value": base + gain, "base_value": base, "difference_low": gain - 2, "difference_high": gain + 2, "unit": "%"}
    return [{"id": pk, "version_id": pk, "name": "answer.f1", "low": base + gain - 2, "high": base + gain + 2, **values}]


def _rated(pk: int, rng: random.Random) -> list[dict[str, Any]]:
    if rng.random() >= 0.33:
        return []
    stars = [rng.choice((1, 2, 3, 4, 4, 5, 5, 5)) for _ in range(1 + int(rng.expovariate(0.1)))]
    counts = {f"stars_{star}": stars.count(star) for star in range(1, 6)}
    average = bayesian(len(stars), sum(stars))
    return [{"id": pk, "listing_id": pk, "count": len(stars), "total": sum(stars), "bayesian": average, **counts}]


def _heat(listing: dict[str, Any], now: datetime) -> float:
    """As if one in ten of its answers were of this week."""
    recent = listing["request_count"] / 10
    return ranking.heat_at(now.timestamp()) + math.log(recent) if recent >= 1 else 0.0


def _read(listing: dict[str, Any], publisher: Publisher, version: dict[str, Any], rated: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `documents` would read of the listing."""
    return listing | {
        "pk": listing["id"],
        "current_version": version["id"],
        "current_version__kind": version["kind"],
        "current_version__facts": {},
        "live_revision": listing["id"],
        "publisher__slug": publisher.slug,
        "publisher__name": publisher.name,
        "rating_summary__bayesian": rated[0]["bayesian"] if rated else None,
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
