"""What a page says to machines in the words of schema.org, as JSON-LD. Only what the page says to people too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.urls import reverse
from django.utils.translation import get_language, gettext

from store.accounts.models import Publisher
from store.billing import access
from store.billing.prices import MICRO, Price
from store.catalog.models import Listing, ListingText, Version
from store.pages.templatetags.ui import bcp47
from store.ratings.models import RatingSummary

CONTEXT = "https://schema.org"
CURRENCY = "USD"


def of_listing(
    site: str, listing: Listing, text: ListingText, version: Version | None, price: Price, summary: RatingSummary | None
) -> list[dict[str, Any]]:
    """The GPT as an application with what it costs and, where people rated it, how; and the way to it."""
    place = site + reverse("pages:listing", args=[listing.publisher.slug, listing.slug])
    use_case = next(iter(listing.use_cases.all()), None)
    application = {
        "@type": "SoftwareApplication",
        "@id": f"{place}#gpt",
        "name": text.name,
        "description": text.summary,
        "url": place,
        "applicationCategory": "DeveloperApplication",
        "operatingSystem": "Web",
        "inLanguage": listing.languages,
        "license": {"@type": "CreativeWork", "name": listing.licence},
        "author": _organisation(site, listing.publisher),
        "offers": [_offer(price), _monthly_offer(listing)] if _is_sold_by_the_month(listing, version, price) else _offer(price),
    }
    if version is not None:
        application["softwareVersion"] = version.number
        if version.released_at:
            application["dateModified"] = version.released_at.isoformat()
    if listing.published_at:
        application["datePublished"] = listing.published_at.isoformat()
    if summary is not None and summary.count:
        application["aggregateRating"] = {
            "@type": "AggregateRating",
            "ratingValue": round(summary.total / summary.count, 2),
            "ratingCount": summary.count,
            "bestRating": 5,
            "worstRating": 1,
        }
    steps = [(gettext("Explore"), reverse("pages:explore"))]
    if use_case is not None:
        steps.append((use_case.name, f"{reverse('pages:explore')}?use_case={use_case.slug}"))
    return [{"@context": CONTEXT, **application}, _breadcrumbs(site, [*steps, (text.name, place.removeprefix(site))])]


def of_publisher(site: str, publisher: Publisher) -> list[dict[str, Any]]:
    path = reverse("pages:publisher", args=[publisher.slug])
    steps = [(gettext("Explore"), reverse("pages:explore")), (publisher.name, path)]
    about = {"description": publisher.about} if publisher.about else {}
    return [{"@context": CONTEXT, **_organisation(site, publisher), **about}, _breadcrumbs(site, steps)]


def of_versions(site: str, listing: Listing, text: ListingText) -> list[dict[str, Any]]:
    names = [listing.publisher.slug, listing.slug]
    steps = [(text.name, reverse("pages:listing", args=names)), (gettext("Versions"), reverse("pages:versions", args=names))]
    return [_breadcrumbs(site, steps)]


def of_store(site: str) -> list[dict[str, Any]]:
    language = bcp47(get_language() or "en")
    return [{"@context": CONTEXT, "@type": "WebSite", "name": "GPT Store", "url": site + reverse("pages:home"), "inLanguage": language}]


def _organisation(site: str, publisher: Publisher) -> dict[str, Any]:
    kind = "Person" if publisher.kind == Publisher.Kind.PERSON else "Organization"
    found = {"@type": kind, "name": publisher.name, "url": site + reverse("pages:publisher", args=[publisher.slug])}
    return found | ({"sameAs": f"https://{publisher.domain}/"} if publisher.domain and publisher.verified_at else {})


def _offer(price: Price) -> dict[str, Any]:
    """Free; or the price of a million tokens, those read and those written."""
    if price.is_free:
        return {"@type": "Offer", "price": 0, "priceCurrency": CURRENCY}
    asked = {gettext("input"): price.input_micro, gettext("output"): price.output_micro}
    parts = [
        {
            "@type": "UnitPriceSpecification",
            "name": name,
            "price": micro / MICRO,
            "priceCurrency": CURRENCY,
            "referenceQuantity": {"@type": "QuantitativeValue", "value": 1_000_000, "unitText": gettext("tokens")},
        }
        for name, micro in asked.items()
    ]
    return {"@type": "Offer", "price": price.output_micro / MICRO, "priceCurrency": CURRENCY, "priceSpecification": parts}


def _is_sold_by_the_month(listing: Listing, version: Version | None, price: Price) -> bool:
    """Whether a month costs what it says and no more: what the GPT builds on would be asked by the token all the same."""
    own = (listing.input_price_micro, listing.output_price_micro) == (price.input_micro, price.output_micro)
    return bool(listing.monthly_price_micro) and own and version is not None and version.state == Version.State.RELEASED


def _monthly_offer(listing: Listing) -> dict[str, Any]:
    """Its own price once instead of by the token, for as long, and for as many tokens, as it lasts."""
    asked = {"price": listing.monthly_price_micro / MICRO, "priceCurrency": CURRENCY}
    of = {"referenceQuantity": {"@type": "QuantitativeValue", "value": listing.monthly_tokens, "unitText": gettext("tokens")}}
    lasts = {"@type": "UnitPriceSpecification", **asked, **of, "billingDuration": access.PERIOD.days, "unitCode": "DAY"}
    return {"@type": "Offer", **asked, "priceSpecification": lasts}


def _breadcrumbs(site: str, steps: Sequence[tuple[str, str]]) -> dict[str, Any]:
    rows = [
        {"@type": "ListItem", "position": position, "name": str(name), "item": site + path}
        for position, (name, path) in enumerate(steps, start=1)
    ]
    return {"@context": CONTEXT, "@type": "BreadcrumbList", "itemListElement": rows}
