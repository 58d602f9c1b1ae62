"""A catalogue of many listings, inserted in bulk as approvals would have left them: `python -m benchmarks.catalogue_filling 100000`.

Writes to the database of the settings, which should hold nothing else. Goes on where it was broken off. Uses follow Zipf's law, a third
is rated, a third measured beside its base, and the first approvals lie within three years.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import django

CHUNK = 2_000
BASES = 12
PER_PUBLISHER = 40
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "GPL-3.0-only", "BSD-3-Clause")


def main(size: int) -> None:
    django.setup()
    from django.core.management import call_command

    from store.catalog.models import Listing

    call_command("migrate", verbosity=0)
    begun, there = time.monotonic(), Listing.objects.filter(publisher__slug__startswith="maker-").count()
    if there < size:
        _without_index()
        makers, bases = make_ground(size)
        for start in range(there, size, CHUNK):
            make_listings(range(start, min(start + CHUNK, size)), makers, bases)
            print(f"{min(start + CHUNK, size):,} of {size:,}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        finish()
    print(f"{size:,} listings in {time.monotonic() - begun:.0f} s")


def make_ground(size: int) -> tuple[list[Any], list[Any]]:
    """The publishers, and the versions that everything is built on."""
    from store.accounts.models import Publisher
    from store.catalog.models import Listing, ListingRevision, ListingText, Version
    from store.catalog.search import documents

    makers = -(-size // PER_PUBLISHER)
    names = [Publisher(slug=f"maker-{number}", name=f"Maker {number}") for number in range(makers)]
    Publisher.objects.bulk_create([*names, Publisher(slug="bases", name="Base models")], ignore_conflicts=True, batch_size=CHUNK)
    owner = Publisher.objects.get(slug="bases")
    for number in range(BASES):
        fields = {"visibility": "public", "licence": "Apache-2.0", "languages": ["en", "zh"], "allow_finetune": True}
        listing, is_new = Listing.objects.get_or_create(publisher=owner, slug=f"base-{number}", defaults=fields)
        if not is_new:
            continue
        revision = ListingRevision.objects.create(listing=listing, state="live")
        ListingText.objects.create(revision=revision, language="en", name=f"Base {number}", summary="A base model.")
        facts = {"architecture": "LlamaForCausalLM", "parameters": 135_000_000 * 3 ** (number % 5), "context_length": 8192}
        made = {"number": "1.0.0", "kind": "weights", "state": "released", "digest": "0" * 64, "facts": facts}
        version = Version.objects.create(listing=listing, **made)
        Listing.objects.filter(pk=listing.pk).update(live_revision=revision, current_version=version, published_at=_approved(0))
        documents.refresh(listing)
    bases = list(Version.objects.filter(listing__publisher=owner).order_by("pk"))
    return list(Publisher.objects.filter(slug__startswith="maker-").order_by("pk")), bases


def make_listings(numbers: range, makers: list[Any], bases: list[Any]) -> None:
    """One chunk, with everything a released GPT has, in one transaction."""
    from django.db import transaction

    from benchmarks.catalogue_texts import text_of
    from store.catalog.models import Ancestry, Listing, ListingRevision, ListingText, Measurement, SearchEntry, UseCase, Version
    from store.catalog.search import documents
    from store.ratings.models import RatingSummary

    use_cases = dict(UseCase.objects.values_list("slug", "pk"))
    texts = {number: text_of(number) for number in numbers}
    with transaction.atomic():
        listings = Listing.objects.bulk_create([_listing(number, texts[number], makers) for number in numbers])
        revisions = ListingRevision.objects.bulk_create(
            [_revision(number, listing) for number, listing in zip(numbers, listings, strict=True)]
        )
        versions = Version.objects.bulk_create([_version(n, listing, bases) for n, listing in zip(numbers, listings, strict=True)])
        for listing, revision, version in zip(listings, revisions, versions, strict=True):
            listing.live_revision, listing.current_version = revision, version
        _point(listings)
        rows = [row for n, revision in zip(numbers, revisions, strict=True) for row in _texts(texts[n], revision.pk)]
        ListingText.objects.bulk_create(rows)
        through = Listing.use_cases.through
        through.objects.bulk_create(
            through(listing_id=listing.pk, usecase_id=use_cases[slug])
            for n, listing in zip(numbers, listings, strict=True)
            for slug in texts[n].use_cases
        )
        Ancestry.objects.bulk_create(Ancestry(version=version, ancestor=version.base, depth=1) for version in versions)
        Measurement.objects.bulk_create(m for n, version in zip(numbers, versions, strict=True) for m in _measured(n, version, Measurement))
        RatingSummary.objects.bulk_create(
            s for n, listing in zip(numbers, listings, strict=True) for s in _rated(n, listing, RatingSummary)
        )
        SearchEntry.objects.bulk_create(SearchEntry(listing=listing, heat=_heat(listing)) for listing in listings)
        documents.write([listing.pk for listing in listings])


def finish() -> None:
    """Statistics, as autovacuum would have left them after a while."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET maintenance_work_mem = '512MB'")
            cursor.execute(
                "CREATE INDEX IF NOT EXISTS catalog_searchtext_doc ON catalog_searchtext USING gin (doc) WITH (fastupdate = off)"
            )
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
        if connection.vendor == "sqlite":
            cursor.execute("INSERT INTO catalog_searchtext_fts(catalog_searchtext_fts) VALUES ('optimize')")


def _without_index() -> None:
    """PostgreSQL builds an index of many words faster at once than word by word."""
    from django.db import connection

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX IF EXISTS catalog_searchtext_doc")


def _point(listings: list[Any]) -> None:
    """Each listing to its live texts and its current version, in one statement."""
    from django.db.models import OuterRef, Subquery

    from store.catalog.models import Listing, ListingRevision, Version

    Listing.objects.filter(pk__gte=listings[0].pk, pk__lte=listings[-1].pk).update(
        live_revision=Subquery(ListingRevision.objects.filter(listing=OuterRef("pk")).order_by().values("pk")[:1]),
        current_version=Subquery(Version.objects.filter(listing=OuterRef("pk")).order_by().values("pk")[:1]),
    )


def _approved(number: int) -> Any:
    from django.utils import timezone

    return timezone.now() - timedelta(seconds=random.Random(number).random() * 3 * 365 * 86_400)


def _listing(number: int, text: Any, makers: list[Any]) -> Any:
    from store.catalog.models import Listing

    rng = random.Random(-number - 1)
    price = rng.choice((0, 0, 0, 100_000, 500_000))
    return Listing(
        public_id=f"lst_many{number}",
        publisher=makers[number // PER_PUBLISHER],
        slug=text.slug,
        visibility="public",
        licence=rng.choice(LICENCES),
        languages=["en", "zh"] if text.zh else ["en"],
        input_price_micro=price,
        output_price_micro=2 * price,
        allow_download=rng.random() < 0.2,
        request_count=int(1_000_000 / (1 + rng.randrange(100_000))),
        published_at=_approved(number),
    )


def _revision(number: int, listing: Any) -> Any:
    from store.catalog.models import ListingRevision

    return ListingRevision(public_id=f"rev_many{number}", listing=listing, state="live")


def _version(number: int, listing: Any, bases: list[Any]) -> Any:
    from store.catalog.models import Version

    rng = random.Random(number * 7 + 1)
    is_prompt = rng.random() < 0.7
    made = {"kind": "prompt", "instructions": "Answer in one sentence."} if is_prompt else {"kind": "adapter"}
    base = bases[min(int(rng.expovariate(0.5)), BASES - 1)]
    return Version(
        public_id=f"ver_many{number}",
        listing=listing,
        number="1.0.0",
        state="released",
        digest="0" * 64,
        base=base,
        released_at=listing.published_at,
        **made,
    )


def _texts(text: Any, revision_id: int) -> Iterator[Any]:
    from store.catalog.models import ListingText

    for language, values in (("en", text.en), ("zh-hans", text.zh)):
        if values:
            yield ListingText(revision_id=revision_id, language=language, name=values[0], summary=values[1], card=values[2])


def _measured(number: int, version: Any, measurement: Any) -> Iterator[Any]:
    rng = random.Random(number * 11 + 2)
    if rng.random() < 0.33:
        base, gain = 40 + 20 * rng.random(), rng.gauss(2, 4)
        values = {"value": base + gain, "base_value": base, "difference_low": gain - 2, "difference_high": gain + 2, "unit": "%"}
        yield measurement(version=version, name="answer.f1", low=base + gain - 2, high=base + gain + 2, **values)


def _rated(number: int, listing: Any, summary: Any) -> Iterator[Any]:
    from store.ratings.summaries import bayesian

    rng = random.Random(number * 13 + 3)
    if rng.random() < 0.33:
        stars = [rng.choice((1, 2, 3, 4, 4, 5, 5, 5)) for _ in range(1 + int(rng.expovariate(0.1)))]
        counts = {f"stars_{star}": stars.count(star) for star in range(1, 6)}
        yield summary(listing=listing, count=len(stars), total=sum(stars), bayesian=bayesian(len(stars), sum(stars)), **counts)


def _heat(listing: Any) -> float:
    """As if one in ten of its answers were of this week."""
    from django.utils import timezone

    from store.catalog.search.ranking import heat_at

    recent = listing.request_count / 10
    return heat_at(timezone.now().timestamp()) + math.log(recent) if recent >= 1 else 0.0


if __name__ == "__main__":
    main(int(sys.argv[1]))
