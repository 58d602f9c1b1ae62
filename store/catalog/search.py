"""Finding listings by words, in Chinese and Latin scripts alike.

A listing has one normalised column of terms: NFKC, case-folded, each Latin word a term, each run of Chinese, Japanese or
Korean characters its overlapping pairs and its last character. So every word and every single character of a run begins
some term, and a query finds what it is a beginning of. A term of the name stands there twice, once behind NAME_MARK.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, Subquery, TextField, Value, When
from django.db.models.expressions import OrderBy
from django.db.models.functions import Cast, Coalesce, Lower
from django.utils.translation import get_language

from store.catalog.models import Ancestry, Listing, ListingText, UseCase

NAME_MARK = "^"
CARD_CHARS = 4000  # of each description that can be found
MAX_TERMS = 12  # of a query
SORTS = ("popular", "new", "rating", "name")

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0002ffff"
_RUNS = re.compile(f"[{_CJK}]+|[^\\W_{_CJK}]+")


def runs(text: str) -> Iterator[str]:
    """The Latin words and the CJK runs of `text`, normalised."""
    return iter(_RUNS.findall(unicodedata.normalize("NFKC", text).casefold()))


def index_terms(text: str) -> list[str]:
    """The terms under which `text` is found; the same one twice counts once."""
    terms: dict[str, None] = {}
    for run in runs(text):
        if _is_cjk(run):
            terms |= dict.fromkeys([*_pairs(run), run[-1]])
        else:
            terms[run] = None
    return list(terms)


def query_terms(text: str) -> list[str]:
    """What must all be found: `摘要工具 AI` → `摘要 要工 工具 ai`."""
    terms: dict[str, None] = {}
    for run in runs(text):
        terms |= dict.fromkeys(_pairs(run) if _is_cjk(run) and len(run) > 1 else [run])
    return list(terms)[:MAX_TERMS]


def find(
    *, q: str = "", use_case: str = "", sort: str = "popular", language: str = "", kind: str = "", free: bool = False
) -> QuerySet[Listing]:
    """The listed GPTs that match everything that is given, those whose name matches first, then in the order of `sort`."""
    found = Listing.objects.listed().for_cards()
    terms = query_terms(q)
    if q.strip() and not terms:
        return found.none()
    for term in terms:
        found = found.filter(search_text__contains=f" {term}")
    if use_case:
        found = found.filter(use_cases__slug=use_case)
    if language:
        found = found.annotate(languages_text=Cast("languages", TextField())).filter(languages_text__contains=f'"{language}"')
    if kind:
        found = found.filter(current_version__kind=kind)
    if free:
        priced = Q(ancestor__listing__input_price_micro__gt=0) | Q(ancestor__listing__output_price_micro__gt=0)
        priced_below = Ancestry.objects.filter(priced, version=OuterRef("current_version"))
        found = found.filter(~Exists(priced_below), input_price_micro=0, output_price_micro=0)
    return _ordered(found, terms, sort)


def use_case_counts(found: QuerySet[Listing]) -> list[tuple[UseCase, int]]:
    """Each use case and how many of `found` serve it, in the order of the use cases; those of none are left out."""
    pks = found.order_by().values("pk")
    counted = (
        UseCase.objects.annotate(found=Count("listings", filter=Q(listings__in=pks), distinct=True))
        .filter(found__gt=0)
        .order_by("position", "slug")
    )
    return [(use_case, use_case.found) for use_case in counted]


def refresh(listing: Listing) -> None:
    """Writes the listing's terms again from its live texts, or from its newest ones before it has any that are live."""
    revision = listing.revisions.filter(state="live").first() or listing.revisions.first()
    texts = list(revision.texts.all()) if revision else []
    names = index_terms(" ".join([listing.slug, *(text.name for text in texts)]))
    bases = Listing.objects.filter(versions__descendants__version__listing=listing).values_list("slug", flat=True).distinct()
    others = [listing.publisher.slug, listing.publisher.name, listing.licence, *bases]
    for use_case in listing.use_cases.all():
        others += [use_case.slug, use_case.name_en, use_case.name_zh]
    others += list(listing.tags.values_list("slug", flat=True))
    others += [part for text in texts for part in (text.summary, text.card[:CARD_CHARS])]
    terms = [f"{NAME_MARK}{term}" for term in names] + list(dict.fromkeys([*names, *index_terms(" ".join(others))]))
    Listing.objects.filter(pk=listing.pk).update(search_text=" " + " ".join(terms))


def _ordered(found: QuerySet[Listing], terms: list[str], sort: str) -> QuerySet[Listing]:
    order: list[str | OrderBy] = []
    if terms:
        in_name = Q()
        for term in terms:
            in_name &= Q(search_text__contains=f" {NAME_MARK}{term}")
        found = found.annotate(name_rank=Case(When(in_name, then=Value(0)), default=Value(1), output_field=IntegerField()))
        order.append("name_rank")
    if sort == "name":
        texts = ListingText.objects.filter(revision=OuterRef("live_revision"))
        own = texts.filter(language=(get_language() or "en").lower()).values("name")[:1]
        any_name = texts.order_by("language").values("name")[:1]  # English before Chinese
        found = found.annotate(shown_name=Lower(Coalesce(Subquery(own), Subquery(any_name))))
        order.append("shown_name")
    elif sort == "new":
        order.append(F("published_at").desc(nulls_last=True))
    elif sort == "rating":
        order.append(F("rating_summary__bayesian").desc(nulls_last=True))
    else:
        order += ["-request_count", F("rating_summary__bayesian").desc(nulls_last=True)]
    return found.order_by(*order, "-pk")


def _is_cjk(run: str) -> bool:
    return re.match(f"[{_CJK}]", run) is not None


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]
