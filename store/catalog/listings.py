"""Making a listing, what its publisher may change of it at any time, and taking it down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.models import Publisher, User, slug_validator
from store.accounts.publishers import require_role
from store.catalog import editing, licences, search
from store.catalog.errors import BaseUnavailable, InvalidListing, NameTaken, Sealed
from store.catalog.models import FormerAddress, Listing, ListingRevision, ListingText, UseCase, Version
from store.catalog.revisions import EDITORS, clean_texts
from store.catalog.tasks import announce
from store.errors import Conflict, NotFound

MAX_PRICE_MICRO = 1_000_000_000  # for a million tokens
LEAST_MONTHLY, MOST_MONTHLY = 100_000, 10_000_000_000  # tokens that a month of access covers
MAX_USE_CASES = 4
SHOWN = (Listing.Visibility.PUBLIC, Listing.Visibility.UNLISTED)
LANGUAGE_TAGS = ("en", "zh", "es", "fr", "de", "it", "pt", "ru", "ja", "ko", "ar", "hi")


def create_listing(
    user: User,
    publisher: Publisher,
    *,
    slug: str,
    texts: Mapping[str, Mapping[str, str]],
    use_cases: Sequence[str],
    licence: str,
    languages: Sequence[str],
    licence_name: str = "",
    licence_url: str = "",
    input_price_micro: int = 0,
    output_price_micro: int = 0,
    monthly_price_micro: int = 0,
    monthly_tokens: int = 0,
    allow_finetune: bool = False,
    allow_download: bool = False,
) -> Listing:
    """A draft listing with a draft of its texts, seen by the publisher's members only. Raises InvalidListing, InvalidText, NameTaken."""
    require_role(user, publisher, *EDITORS)
    slug = slug.strip().lower()
    try:
        slug_validator(slug)
    except ValidationError as error:
        raise InvalidListing(error.message, param="slug") from error
    cleaned = clean_texts(texts)
    chosen = clean_use_cases(use_cases)
    fields: dict[str, Any] = {"languages": clean_languages(languages)}
    fields |= licences.cleaned(licence, name=licence_name, url=licence_url)
    fields |= clean_prices(input_price_micro, output_price_micro, monthly_price_micro, monthly_tokens)
    if FormerAddress.objects.filter(publisher=publisher, slug=slug).exists():
        raise NameTaken(_("A GPT that another publisher has now is still found under this name. Choose another one."), param="slug")
    with transaction.atomic():
        try:
            with transaction.atomic():
                listing = Listing.objects.create(
                    publisher=publisher, slug=slug, allow_finetune=allow_finetune, allow_download=allow_download, **fields
                )
        except IntegrityError as error:
            raise NameTaken(param="slug") from error
        listing.use_cases.set(chosen)
        revision = ListingRevision.objects.create(listing=listing, created_by=user)
        ListingText.objects.bulk_create(ListingText(revision=revision, language=lang, **text) for lang, text in cleaned.items())
        audit.record(user, "listing.create", listing.public_id, name=listing.full_name)
        search.refresh(listing)
    return listing


def describe(
    user: User,
    listing: Listing,
    *,
    use_cases: Sequence[str],
    licence: str,
    languages: Sequence[str],
    licence_name: str = "",
    licence_url: str = "",
) -> None:
    """What the listing claims of itself. It was approved with these, so they change only before its first approval."""
    require_role(user, listing.publisher, *EDITORS)
    chosen = clean_use_cases(use_cases)
    fields: dict[str, Any] = {**licences.cleaned(licence, name=licence_name, url=licence_url), "languages": clean_languages(languages)}
    with transaction.atomic():
        if not Listing.objects.filter(pk=listing.pk, visibility=Listing.Visibility.DRAFT).update(**fields):
            raise Sealed(_("Use cases, licence and languages were approved with the listing and can't be changed any more."))
        listing.use_cases.set(chosen)
        audit.record(user, "listing.describe", listing.public_id, **fields, use_cases=[u.slug for u in chosen])
        search.refresh(listing)
    listing.refresh_from_db()


def set_permissions(user: User, listing: Listing, *, allow_finetune: bool, allow_download: bool, seen: str | None = None) -> None:
    """What others may do with the weights from now on. `seen` as in `set_prices`."""
    require_role(user, listing.publisher, *EDITORS)
    allowed = {"allow_finetune": allow_finetune, "allow_download": allow_download}
    with transaction.atomic():
        old = Listing.objects.select_for_update().values(*allowed).get(pk=listing.pk)
        editing.require_unchanged(seen, theirs=old, mine=allowed)
        Listing.objects.filter(pk=listing.pk).update(**allowed)
        audit.record(user, "listing.permit", listing.public_id, finetune=allow_finetune, download=allow_download)
        search.refresh(listing)
    listing.refresh_from_db(fields=["allow_finetune", "allow_download"])


def set_prices(
    user: User,
    listing: Listing,
    *,
    input_price_micro: int,
    output_price_micro: int,
    monthly_price_micro: int = 0,
    monthly_tokens: int = 0,
    seen: str | None = None,
) -> None:
    """Prices of a million tokens and of 30 days of access, in micro-units, for requests and purchases from now on.

    `seen`: the fingerprints of the prices that these were written from. Raises EditedMeanwhile when others were saved since.
    """
    require_role(user, listing.publisher, *EDITORS)
    prices = clean_prices(input_price_micro, output_price_micro, monthly_price_micro, monthly_tokens)
    with transaction.atomic():
        old = Listing.objects.select_for_update().values(*prices).get(pk=listing.pk)
        editing.require_unchanged(seen, theirs=old, mine=prices)
        Listing.objects.filter(pk=listing.pk).update(**prices)
        audit.record(user, "listing.price", listing.public_id, old=old, new=prices)
        search.outdate(search.built_on(listing))  # each of them costs what it asks too
        search.refresh(listing)
    listing.refresh_from_db(fields=list(prices))


def set_visibility(user: User, listing: Listing, *, visibility: str) -> None:
    """Takes an approved listing off the lists, or puts it back on them. A draft is shown by an approval only.

    What is in review meanwhile is published with this choice, not with the one it was submitted with.
    """
    require_role(user, listing.publisher, *EDITORS)
    chosen = clean_visibility(visibility)
    with transaction.atomic():
        if not Listing.objects.filter(pk=listing.pk, visibility__in=SHOWN).update(visibility=chosen, wanted_visibility=chosen):
            raise Conflict(_("A draft is shown in the store once a reviewer has approved it."))
        audit.record(user, "listing.show", listing.public_id, visibility=chosen)
        search.recheck(listing)
    listing.visibility = listing.wanted_visibility = chosen


def want_visibility(listing: Listing, visibility: str | None) -> None:
    """Remembers what the next approval shows the listing as: by default what it is, and a draft as its publisher chose last.

    Called by moderation, which has checked who asks.
    """
    chosen = clean_visibility(visibility or (listing.visibility if listing.visibility in SHOWN else listing.wanted_visibility))
    Listing.objects.filter(pk=listing.pk).update(wanted_visibility=chosen)
    listing.wanted_visibility = chosen


def make_current(user: User, listing: Listing, version: Version) -> None:
    """Lets the unpinned name mean `version`, an available one of this listing: roll back, or forward again."""
    require_role(user, listing.publisher, *EDITORS)
    if version.listing_id != listing.pk:
        raise NotFound
    with transaction.atomic():
        available = Version.objects.select_for_update().filter(pk__in=Version.objects.available().filter(pk=version.pk).values("pk"))
        if not available.exists():
            raise BaseUnavailable(_("This version can't be used at the moment, so it can't be made the current one."))
        audit.record(user, "listing.make_current", listing.public_id, version=version.public_id)
        Listing.objects.filter(pk=listing.pk).update(current_version=version)
        search.refresh(listing)
    listing.current_version = version


def publish(listing: Listing, *, version: Version | None) -> None:
    """Shows an approved listing as its publisher wants it by now; a new version becomes the current one. Called by moderation."""
    now = timezone.now()
    with transaction.atomic():
        Listing.objects.filter(pk=listing.pk).update(visibility=F("wanted_visibility"), **({"current_version": version} if version else {}))
        Listing.objects.filter(pk=listing.pk, published_at__isnull=True).update(published_at=now)
        search.refresh(listing)
        if version is not None:
            published = version.public_id
            transaction.on_commit(lambda: announce.delay(published), robust=True)  # what the broker loses, beat sends
    listing.refresh_from_db()


def suspend(listing: Listing) -> None:
    """Takes every version down at once, and with them whatever builds on one. Called by moderation."""
    with transaction.atomic():
        if not Listing.objects.filter(pk=listing.pk, suspended_at__isnull=True).update(suspended_at=timezone.now()):
            raise Conflict
        search.recheck(listing)
    listing.refresh_from_db(fields=["suspended_at"])


def restore(listing: Listing) -> None:
    with transaction.atomic():
        if not Listing.objects.filter(pk=listing.pk, suspended_at__isnull=False).update(suspended_at=None):
            raise Conflict
        search.recheck(listing)
    listing.refresh_from_db(fields=["suspended_at"])


def clean_prices(input_price_micro: int, output_price_micro: int, monthly_price_micro: int = 0, monthly_tokens: int = 0) -> dict[str, int]:
    """Monthly access is offered beside a price per token, never instead: what builds on a GPT pays that by the token."""
    prices = {"input_price_micro": input_price_micro, "output_price_micro": output_price_micro}
    for name, price in {**prices, "monthly_price_micro": monthly_price_micro}.items():
        if not isinstance(price, int) or isinstance(price, bool) or not 0 <= price <= MAX_PRICE_MICRO:
            raise InvalidListing(_("A price is a number from 0 to 1,000 for a million tokens."), param=name)
    if not monthly_price_micro:
        return prices | {"monthly_price_micro": 0, "monthly_tokens": 0}
    if not any(prices.values()):
        message = _("Access for a month is offered beside a price per token, which holds for everybody else.")
        raise InvalidListing(message, param="monthly_price_micro")
    if not isinstance(monthly_tokens, int) or isinstance(monthly_tokens, bool) or not LEAST_MONTHLY <= monthly_tokens <= MOST_MONTHLY:
        raise InvalidListing(_("Say how many tokens the month covers: from 100,000 to 10,000,000,000."), param="monthly_tokens")
    return prices | {"monthly_price_micro": monthly_price_micro, "monthly_tokens": monthly_tokens}


def clean_visibility(visibility: str) -> str:
    if visibility not in SHOWN:
        raise InvalidListing(_("An approved GPT is public or unlisted."), param="visibility")
    return visibility


def clean_use_cases(slugs: Iterable[str]) -> list[UseCase]:
    wanted = list(dict.fromkeys(slugs))
    found = list(UseCase.objects.filter(slug__in=wanted))
    if not 1 <= len(wanted) <= MAX_USE_CASES or len(found) != len(wanted):
        raise InvalidListing(_("Choose one to four of the use cases."), param="use_cases")
    return found


def clean_languages(tags: Iterable[str]) -> list[str]:
    wanted = sorted(set(tags))
    if not wanted or any(tag not in LANGUAGE_TAGS for tag in wanted):
        raise InvalidListing(_("Choose the languages it works in."), param="languages")
    return wanted
