"""The head of a large catalogue: its best listings, under an index of words of their own.

Of a word that a tenth of all listings have, only the best are shown, and an index of words knows nothing of rank: to find them it
would go through all places of the word. The head has them among HEAD listings. It is made from time to time; what it lacks is
found in the whole index, to which every search goes that the head does not answer. A catalogue of less than LARGE has none.
"""

from __future__ import annotations

from store.catalog.models import SearchEntry, SearchHead, SearchText

HEAD = 10_000
LARGE = 50_000  # listed; below it the whole index is as quick
SLACK = 1_000  # who has fallen by no more than so many stays
MOVED = 0.005  # a smaller change of rank is not worth a new place
SLICE = 500  # that come in by one transaction


def choose() -> int:
    """Makes the head those that are the best by now; how many came in."""
    if not SearchEntry.objects.filter(is_listed=True)[LARGE - 1 : LARGE].exists():
        SearchHead.objects.all().delete()
        return 0
    _leave_out()
    came = 0
    while more := _take_in():
        came += more
    return came


def place_of(listing_id: int, rank: float) -> int:
    """Of each listing another one; a better rank, 0 to 1, is a smaller place."""
    return (round((1 - rank) * 1_000_000) << 40) | listing_id


def _leave_out() -> None:
    """Those that are not among the best any more, and those that stand at a wrong place."""
    ranks = dict(_best(HEAD + SLACK))
    there = SearchHead.objects.values_list("listing", "place")
    wrong = [place for pk, place in there if pk not in ranks or abs(place - place_of(pk, ranks[pk])) > place_of(0, 1 - MOVED)]
    for start in range(0, len(wrong), SLICE):
        SearchHead.objects.filter(place__in=wrong[start : start + SLICE]).delete()


def _take_in() -> int:
    """The next SLICE that are missing; how many there were."""
    there = set(SearchHead.objects.values_list("listing", flat=True))
    missing = {pk: rank for pk, rank in _best(HEAD) if pk not in there}
    texts = dict(SearchText.objects.filter(listing__in=list(missing)[:SLICE]).values_list("listing", "terms"))
    heads = [SearchHead(place=place_of(pk, missing[pk]), listing_id=pk, terms=terms) for pk, terms in texts.items()]
    return len(SearchHead.objects.bulk_create(heads, ignore_conflicts=True))


def _best(number: int) -> list[tuple[int, float]]:
    """The listings and their ranks."""
    return list(SearchEntry.objects.filter(is_listed=True).order_by("-rank", "-listing").values_list("listing", "rank")[:number])


def follow(terms: dict[int, str]) -> None:
    """The new terms of those of these listings that are in the head."""
    heads = list(SearchHead.objects.filter(listing__in=terms).order_by("place"))
    changed = [head for head in heads if head.terms != terms[head.listing_id]]
    for head in changed:
        head.terms = terms[head.listing_id]
    if changed:
        SearchHead.objects.bulk_update(changed, ["terms"], batch_size=SLICE)
