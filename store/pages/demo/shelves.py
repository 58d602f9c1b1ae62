"""Puts the demo's catalogue on the shelves: publishers, the base, and the prompt GPTs, each published as an operator's decision."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import transaction

from store.accounts.models import Publisher, User
from store.accounts.publishers import create_publisher
from store.catalog import publishing
from store.catalog.models import Listing, Version
from store.moderation import imports
from store.pages.demo.catalogue import BASE, GPTS, PUBLISHERS, DemoGPT

REASON = "Part of the demo of this installation; its fixed prompts and their outputs are in the source code."


def seed_base(*, operator: User, owner: User, progress: Callable[[str, float | None], None]) -> list[str]:
    """Its full name, if it was missing and is published now. What is there, in whichever state, stays as it is."""
    if BASE.full_name in _there():
        return []
    _seed_publishers(owner)
    _import_base(operator, progress)
    return [BASE.full_name]


def seed_gpts(*, operator: User, owner: User) -> list[str]:
    """Full names of those that were missing and are published now, on the base, which must be there. At most `DEMO_GPTS` are listed."""
    there = _there()
    missing = [gpt for gpt in GPTS[: settings.DEMO_GPTS] if gpt.full_name not in there]
    publishers = _seed_publishers(owner) if missing else {}
    for gpt in missing:
        _publish(gpt, publishers[gpt.publisher], there[BASE.full_name], operator=operator, owner=owner)
    return [gpt.full_name for gpt in missing]


def _there() -> dict[str, Version]:
    """The demo's versions that have left the state of a draft, by full name."""
    slugs = {slug for slug, _name, _about in PUBLISHERS}
    versions = Version.objects.filter(listing__publisher__slug__in=slugs).exclude(state=Version.State.DRAFT)
    return {version.full_name: version for version in versions.select_related("listing__publisher")}


def _seed_publishers(owner: User) -> dict[str, Publisher]:
    there = Publisher.objects.in_bulk([slug for slug, _name, _about in PUBLISHERS], field_name="slug")
    for slug, name, about in PUBLISHERS:
        if slug not in there:
            there[slug] = create_publisher(owner, slug=slug, name=name, about=about, is_demo=True)
    return there


def _import_base(operator: User, progress: Callable[[str, float | None], None]) -> None:
    version = imports.import_base(
        BASE.source,
        operator=operator,
        publisher=BASE.publisher,
        slug=BASE.slug,
        number=BASE.number,
        texts=BASE.texts,
        use_cases=BASE.use_cases,
        licence=BASE.licence,
        languages=BASE.languages,
        starters=BASE.starters,
        parameters=BASE.parameters,
        progress=progress,
    )
    imports.approve_as_operator(operator, version, reason=REASON)


def _publish(gpt: DemoGPT, publisher: Publisher, base: Version, *, operator: User, owner: User) -> None:
    with transaction.atomic():
        listing = Listing.objects.filter(publisher=publisher, slug=gpt.slug).first()
        if listing is None:
            listing = publishing.create_listing(
                owner,
                publisher,
                slug=gpt.slug,
                texts=gpt.texts,
                use_cases=gpt.use_cases,
                licence=gpt.licence,
                languages=gpt.languages,
                input_price_micro=gpt.input_price_micro,
                output_price_micro=gpt.output_price_micro,
            )
        else:
            publishing.edit_texts(owner, listing, texts=gpt.texts)
        version = listing.versions.filter(number=gpt.number).first() or publishing.create_prompt_version(
            owner,
            listing,
            number=gpt.number,
            base=base,
            instructions=gpt.instructions,
            starters=gpt.starters,
            parameters=gpt.parameters,
        )
        imports.approve_as_operator(operator, version, reason=REASON)
