"""What is kept of listings so that they are found: their terms, and the entry that filters, counts and sorts.

`write` makes both anew for any number of listings in a constant number of queries. Acts on one listing call `refresh`; what
touches everything built on a version, a price or a suspension, marks it stale at once (`outdate`, `recheck`) and lets the
store's worker write it again (`refresh_stale`). `rerank` goes round and brings ranks up to date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from store import kept_pages
from store.catalog import licences
from store.catalog.models import (
    Ancestry,
    Listing,
    ListingRevision,
    ListingText,
    Measurement,
    SearchEntry,
    SearchText,
    Tag,
    UseCase,
    Version,
)
from store.catalog.search import heading, ranking, spelling, terms
from store.catalog.search.ranking import Measured

CARD_CHARS = 2000  # of each description that can be found
SLICE = 500  # listings that are written in one transaction
SIZES = (("s", 500_000_000), ("m", 2_000_000_000), ("l", 10_000_000_000))  # parameters below; "xl" is more
RANK_MOVES = 0.002  # a smaller change of rank is not worth a write
DYNAMIC = {"heat"}  # moved by uses meanwhile: never written here once the row exists


@dataclass
class Source:
    """Everything the index says of one listing, as it was read."""

    row: dict[str, Any]
    texts: list[tuple[str, str, str, str]] = field(default_factory=list)  # language, name, summary, card
    use_cases: list[tuple[str, str, str]] = field(default_factory=list)  # slug, name_en, name_zh
    tags: list[str] = field(default_factory=list)
    above: list[dict[str, Any]] = field(default_factory=list)  # ancestors of the current version, nearest first
    measured: list[Measured] = field(default_factory=list)
    is_listed: bool = False


def refresh(listing: Listing) -> None:
    write([listing.pk])


def refresh_all(after: int = 0) -> int:
    """Writes every listing, from the oldest on; how many."""
    done = 0
    while pks := list(Listing.objects.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:SLICE]):
        write(pks)
        done, after = done + len(pks), pks[-1]
    return done


def outdate(listings: QuerySet[Listing]) -> None:
    """Their entries are written again within seconds."""
    with transaction.atomic():
        entries = SearchEntry.objects.filter(listing__in=listings.values("pk"))
        _locked(entries)
        entries.update(is_stale=True)
        kept_pages.outdate_all()


def _locked(entries: QuerySet[SearchEntry]) -> dict[int, float]:
    """Their heats by listing; until the transaction ends nobody else writes them. Locked in one order everywhere: no deadlock."""
    return dict(entries.select_for_update().order_by("pk").values_list("pk", "heat"))


def built_on(listing: Listing) -> QuerySet[Listing]:
    """The listing, and those whose current version has one of its versions as an ancestor."""
    above = Ancestry.objects.filter(version=OuterRef("current_version"), ancestor__listing=listing)
    return Listing.objects.filter(Q(pk=listing.pk) | Exists(above))


def recheck(listing: Listing) -> None:
    """Whether it and what is built on it are listed: at once, in a constant number of queries."""
    now_listed = Listing.objects.listed().filter(pk=OuterRef("listing"))
    with transaction.atomic():
        entries = SearchEntry.objects.filter(listing__in=built_on(listing).values("pk"))
        _locked(entries)
        entries.update(is_listed=Exists(now_listed))
        kept_pages.outdate_all()


def refresh_stale(limit: int = 2000) -> int:
    """Writes up to `limit` stale entries again; how many."""
    pks = list(SearchEntry.objects.filter(is_stale=True).order_by("listing").values_list("listing", flat=True)[:limit])
    for start in range(0, len(pks), SLICE):
        write(pks[start : start + SLICE])
    return len(pks)


def rerank(after: int = 0, limit: int = 5000) -> int:
    """Brings the next `limit` ranks after that listing up to date; the last listing looked at, 0 at the end of the round.

    Writes only what has moved, in short transactions, and never the heat. Whose facts have changed (a rating that rose to
    four stars) is written again whole.
    """
    pks = list(SearchEntry.objects.filter(listing__gt=after).order_by("listing").values_list("listing", flat=True)[:limit])
    for start in range(0, len(pks), SLICE):
        _rerank(pks[start : start + SLICE])
    return pks[-1] if len(pks) == limit else 0


def _rerank(pks: Sequence[int]) -> None:
    kept = {entry.listing_id: entry for entry in SearchEntry.objects.filter(listing__in=pks)}
    moved, changed = [], []
    for pk, source in _read(pks).items():
        if (entry := kept.get(pk)) is None:
            continue
        now = _entry(source, entry.heat)
        if now.facts != entry.facts or now.is_listed != entry.is_listed:
            changed.append(pk)
        elif abs(now.rank - entry.rank) > RANK_MOVES or now.rating != entry.rating:
            moved.append(now)
    if moved:
        with transaction.atomic():
            _locked(SearchEntry.objects.filter(listing__in=[entry.listing_id for entry in moved]))
            SearchEntry.objects.bulk_update(moved, ["rank", "rating"], batch_size=SLICE)
    if changed:
        write(changed)


def write(pks: Sequence[int]) -> None:
    """Terms and entries of these listings as everything stands now. Raises nothing for one that is gone."""
    if not pks:
        return
    with transaction.atomic():
        # Locked before anything is read: a suspension meanwhile waits, or has been read; it is never written over.
        heats = _locked(SearchEntry.objects.filter(listing__in=pks))
        sources = _read(pks)
        entries, texts, words = [], [], set()
        for pk, source in sources.items():
            entry, text, its_words = made_of(source, heat=heats.get(pk, 0.0))
            entries.append(entry)
            texts.append(text)
            words |= its_words
        fields = [f.attname for f in SearchEntry._meta.concrete_fields if not f.primary_key and f.name not in DYNAMIC]
        keep: dict[str, Any] = {"update_conflicts": True, "unique_fields": ["listing"]}
        SearchEntry.objects.bulk_create(entries, update_fields=fields, batch_size=SLICE, **keep)
        SearchText.objects.bulk_create(texts, update_fields=["terms"], batch_size=SLICE, **keep)
        heading.follow({text.listing_id: text.terms for text in texts})
        spelling.learn(words)
        kept_pages.outdate(f"{source.row['publisher__slug']}/{source.row['slug']}" for source in sources.values())


# ---------------------------------------------------------------- what is said of one


def made_of(source: Source, *, heat: float) -> tuple[SearchEntry, SearchText, set[str]]:
    """Its rows, not saved, and the words that spelling should know."""
    entry = _entry(source, heat)
    names, lead, body = _words(source)
    return entry, SearchText(listing_id=entry.listing_id, terms=_terms(source, entry.facts, names, lead, body)), {*names, *lead}


def _words(source: Source) -> tuple[list[str], list[str], list[str]]:
    """Terms of its names, of what leads to it, and of everything."""
    row = source.row
    names = terms.index_terms(" ".join([row["slug"], *(name for _language, name, _summary, _card in source.texts)]))
    lead = [row["publisher__slug"], row["publisher__name"], *source.tags]
    lead += [part for use_case in source.use_cases for part in use_case]
    lead += [summary for _language, _name, summary, _card in source.texts]
    in_lead = list(dict.fromkeys([*names, *terms.index_terms(" ".join(lead))]))
    rest = [row["licence"], *(base["ancestor__listing__slug"] for base in source.above)]
    rest += [card[:CARD_CHARS] for _language, _name, _summary, card in source.texts]
    return names, in_lead, list(dict.fromkeys([*in_lead, *terms.index_terms(" ".join(rest))]))


def _terms(source: Source, facts: str, names: list[str], lead: list[str], body: list[str]) -> str:
    whole = {whole_name(name) for _language, name, _summary, _card in source.texts} | {whole_name(source.row["slug"])}
    facts_terms = terms.marked(terms.FILTER, facts.split())
    every = [*sorted(whole), *facts_terms, *terms.marked(terms.NAME, names), *terms.marked(terms.LEAD, lead), *body]
    return f" {' '.join(dict.fromkeys(every))} "


def whole_name(name: str) -> str:
    """A name as one term: who asks for exactly it finds it first."""
    return f"={'.'.join(terms.runs(name))[:120]}"


def _entry(source: Source, heat: float) -> SearchEntry:
    row, now_s = source.row, timezone.now().timestamp()
    published = row["published_at"].timestamp() if row["published_at"] else 0.0
    rating, quality = row["rating_summary__bayesian"] or 0.0, ranking.quality_of(source.measured)
    price = row["input_price_micro"] + row["output_price_micro"] + sum(_asked_above(source))
    names = {language: name for language, name, _summary, _card in source.texts}
    first = names.get("en") or next(iter(names.values()), row["slug"])
    return SearchEntry(
        listing_id=row["pk"],
        is_listed=source.is_listed,
        is_stale=False,
        facts=_facts(source, price=price, rating=rating, quality=quality),
        rank=round(ranking.rank_of(rating=rating, quality=quality, uses=ranking.uses_of(heat, now_s), age_s=now_s - published), 6),
        heat=heat,
        rating=rating,
        published=published,
        price=price,
        name_en=terms.sort_key(first),
        name_zh=terms.sort_key(names.get("zh-hans", first)),
    )


def _asked_above(source: Source) -> Iterable[int]:
    """What each other listing in the lineage asks, each once."""
    others = {base["ancestor__listing"]: base for base in source.above if base["ancestor__listing"] != source.row["pk"]}
    return [base["ancestor__listing__input_price_micro"] + base["ancestor__listing__output_price_micro"] for base in others.values()]


def _facts(source: Source, *, price: float, rating: float, quality: float | None) -> str:
    row, fact = source.row, terms.fact
    facts = [fact("use", slug) for slug, _en, _zh in source.use_cases]
    facts += [fact("lang", str(language)) for language in row["languages"]]
    if kind := row["current_version__kind"]:
        facts.append(fact("kind", kind))
    root = next((base for base in source.above if base["ancestor__kind"] == Version.Kind.WEIGHTS), None)
    of_root = row["current_version__facts"] if kind == Version.Kind.WEIGHTS else root and root["ancestor__facts"]
    if isinstance(parameters := (of_root or {}).get("parameters"), int):
        facts.append(fact("size", next((size for size, below in SIZES if parameters < below), "xl")))
    if root is not None:
        facts.append(fact("base", f"{root['ancestor__listing__publisher__slug']}/{root['ancestor__listing__slug']}"))
    facts += [fact("licence", licence) for licence in licences.symbols(row["licence"])[:4]]
    facts += [fact(name) for name, holds in (("free", price == 0), ("download", row["allow_download"])) if holds]
    facts += [fact("stars", str(stars)) for stars in (3, 4) if rating >= stars]
    if quality is not None:
        facts += [fact("measured"), *([fact("better")] if quality > 0.5 else [])]
    return f" {' '.join(facts)} "[:600]


# ---------------------------------------------------------------- reading


OF_LISTING = (
    *("pk", "slug", "publisher__slug", "publisher__name", "licence", "languages", "current_version", "current_version__kind"),
    *("current_version__facts", "live_revision", "input_price_micro", "output_price_micro", "allow_download", "published_at"),
    "rating_summary__bayesian",
)
_ANCESTOR = (
    *("version", "ancestor__kind", "ancestor__facts", "ancestor__listing", "ancestor__listing__slug"),
    *("ancestor__listing__publisher__slug", "ancestor__listing__input_price_micro", "ancestor__listing__output_price_micro"),
)
_MEASURED = ("name", "value", "base_value", "difference_low", "difference_high", "lower_is_better")


def _read(pks: Sequence[int]) -> dict[int, Source]:
    """By listing; in a constant number of queries. Named columns only, so that the migration that fills the index can call it."""
    rows = Listing.objects.filter(pk__in=pks).order_by("pk").values(*OF_LISTING)
    sources = {row["pk"]: Source(row) for row in rows}
    for listing_id in Listing.objects.listed().filter(pk__in=pks).values_list("pk", flat=True):
        sources[listing_id].is_listed = True
    _read_texts(sources)
    through = Listing.use_cases.through.objects.filter(listing__in=pks).order_by("usecase__position", "usecase__slug")
    for listing_id, *use_case in through.values_list("listing", "usecase__slug", "usecase__name_en", "usecase__name_zh"):
        sources[listing_id].use_cases.append((use_case[0], use_case[1], use_case[2]))
    for listing_id, tag in Tag.objects.filter(listings__in=pks).values_list("listings", "slug"):
        if listing_id in sources:
            sources[listing_id].tags.append(tag)
    current = {source.row["current_version"]: source for source in sources.values() if source.row["current_version"]}
    for base in Ancestry.objects.filter(version__in=current).order_by("depth", "pk").values(*_ANCESTOR):
        current[base["version"]].above.append(base)
    for version_id, *values in Measurement.objects.filter(version__in=current).values_list("version", *_MEASURED):
        current[version_id].measured.append(Measured(*values))
    return sources


def _read_texts(sources: dict[int, Source]) -> None:
    """The live texts; the newest ones of what never had any that were live."""
    wanted = {source.row["live_revision"]: pk for pk, source in sources.items() if source.row["live_revision"]}
    if without := [pk for pk, source in sources.items() if not source.row["live_revision"]]:
        newest = ListingRevision.objects.filter(listing__in=without).order_by().values_list("listing").annotate(newest=Max("pk"))
        wanted |= {revision: listing for listing, revision in newest}
    found = defaultdict(list)
    for revision, *text in (
        ListingText.objects.filter(revision__in=wanted).order_by("language").values_list("revision", "language", "name", "summary", "card")
    ):
        found[wanted[revision]].append((text[0], text[1], text[2], text[3]))
    for pk, texts in found.items():
        sources[pk].texts = texts


def use_cases() -> list[UseCase]:
    return list(UseCase.objects.order_by("position", "slug"))
