"""How well search finds: questions in English and Chinese, with the listings that each should find and how well they fit (1 to 3).

    python -m benchmarks.relevance          # in a database of its own; --worst 10 lists the questions that fare worst

The score is nDCG@10 (gain 2^grade - 1, discounted by log2 of the place plus one, over the best there could be) and recall@5 (of those
with grade 3). A question that should find nothing scores 1 when it does. `tests/catalog/test_relevance.py` holds it above bounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SET = Path(__file__).with_name("relevance.json")
DEEP, FIRST, BEST = 10, 5, 3


@dataclass(frozen=True)
class Score:
    language: str
    q: str
    ndcg: float
    recall: float
    found: tuple[str, ...]


def fill() -> None:
    """The listings of the set, as approvals would have left them. Call it in an empty database that has its use cases."""
    from django.utils import timezone

    from store.accounts.models import Publisher
    from store.catalog.models import Listing, ListingRevision, ListingText, UseCase, Version
    from store.catalog.search import documents

    publisher = Publisher.objects.create(slug="relevance", name="Relevance")
    use_cases = {use_case.slug: use_case for use_case in UseCase.objects.all()}
    for slug, uses, name, summary, name_zh, summary_zh, card in json.loads(SET.read_text())["listings"]:
        fields = {"visibility": "public", "licence": "MIT", "languages": ["en", "zh"], "published_at": timezone.now()}
        listing = Listing.objects.create(publisher=publisher, slug=slug, **fields)
        listing.use_cases.set(use_cases[use] for use in uses)
        revision = ListingRevision.objects.create(listing=listing, state="live")
        ListingText.objects.create(revision=revision, language="en", name=name, summary=summary, card=card)
        ListingText.objects.create(revision=revision, language="zh-hans", name=name_zh, summary=summary_zh)
        version = Version.objects.create(listing=listing, number="1.0.0", kind="weights", state="released", digest="0" * 64)
        Listing.objects.filter(pk=listing.pk).update(live_revision=revision, current_version=version)
    documents.refresh_all()


def score() -> list[Score]:
    from store.catalog import search

    scores = []
    for language, q, wanted in json.loads(SET.read_text())["queries"]:
        found = tuple(listing.slug for listing in search.find(q=q).page(size=DEEP).listings)
        scores.append(Score(language, q, ndcg(found, wanted), recall(found, wanted), found))
    return scores


def ndcg(found: tuple[str, ...], wanted: dict[str, int]) -> float:
    if not wanted:
        return float(not found)
    best = _gain(sorted(wanted.values(), reverse=True)[:DEEP])
    return _gain([wanted.get(slug, 0) for slug in found]) / best


def recall(found: tuple[str, ...], wanted: dict[str, int]) -> float:
    best = {slug for slug, grade in wanted.items() if grade == BEST}
    return len(best & set(found[:FIRST])) / min(len(best), FIRST) if best else float(not found)


def _gain(grades: list[int]) -> float:
    return sum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades))


def means(scores: list[Score]) -> dict[str, tuple[float, float]]:
    """nDCG@10 and recall@5 of each language."""
    by_language: dict[str, tuple[float, float]] = {}
    for language in ("en", "zh"):
        own = [one for one in scores if one.language == language]
        by_language[language] = sum(one.ndcg for one in own) / len(own), sum(one.recall for one in own) / len(own)
    return by_language


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worst", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own: dict[str, Any] = {"VAR_DIR": folder, "DATABASE_URL": f"sqlite:///{folder}/store.sqlite3", "LOG_LEVEL": "ERROR"}
        os.environ.update(own, DJANGO_SETTINGS_MODULE="store.settings")
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        fill()
        scores = score()
    for language, (gained, recalled) in means(scores).items():
        count = sum(one.language == language for one in scores)
        print(f"{language}: nDCG@{DEEP} {gained:.3f}, recall@{FIRST} {recalled:.3f} over {count} questions")
    for one in sorted(scores, key=lambda one: one.ndcg)[: options.worst]:
        print(f"{one.ndcg:.2f} {one.q}: {', '.join(one.found) or 'nothing'}")


if __name__ == "__main__":
    main()
