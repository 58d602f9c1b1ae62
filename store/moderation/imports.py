"""A base brought in by an operator of the store: imported, listed and, where wanted, published without a queue.

Whoever runs commands on the store's machine answers for what they import, so an approval is written in their name and
its automated checks follow as jobs, for their measurements. Everybody else's GPTs go through the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import create_publisher
from store.catalog import importing, licences, listings, publishing, releases, revisions
from store.catalog.models import Artifact, Listing, ListingRevision, Version
from store.errors import Conflict, DomainError
from store.moderation import checks
from store.moderation.models import Decision, Submission


def import_base(
    source: str,
    *,
    operator: User,
    publisher: str,
    slug: str,
    number: str,
    texts: Mapping[str, Mapping[str, str]],
    use_cases: Sequence[str] = ("chat",),
    licence: str = "",
    languages: Sequence[str] = ("en",),
    allow_finetune: bool = True,
    allow_download: bool = True,
    starters: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    progress: Callable[[str, float | None], None],
) -> Version:
    """The version of `publisher/slug` that holds the weights of `source`, made as a draft unless it is there already.

    A publisher that does not exist yet is made, with `operator` as its owner. A refused source leaves nothing behind.
    """
    imported = importing.run(source, progress)
    known = _known(publisher, slug, imported.artifact)
    if known is not None:
        return known
    licence = licence or imported.licence
    if not licence:
        raise DomainError(_("The source states no licence. Name it with --licence."), param="licence")
    stated: dict[str, Any] = licences.imported(licence)
    with transaction.atomic():
        name = publisher.replace("-", " ").title()
        lister = Publisher.objects.filter(slug=publisher).first() or create_publisher(operator, slug=publisher, name=name)
        owner = owner_of(lister)
        listing = Listing.objects.filter(publisher=lister, slug=slug).first() or publishing.create_listing(
            owner,
            lister,
            slug=slug,
            texts=texts,
            use_cases=use_cases,
            **stated,
            languages=languages,
            allow_finetune=allow_finetune,
            allow_download=allow_download,
        )
        content: dict[str, Any] = {"artifact": imported.artifact, "facts": imported.facts, "starters": starters, "parameters": parameters}
        return publishing.create_weights_version(owner, listing, number=number, **content)


def approve_as_operator(operator: User, version: Version, *, reason: str, visibility: str = "public") -> Decision | None:
    """Publishes a draft version, and the draft texts of its listing, by the word of an operator. None when that is done already.

    Never called for a request that came by the network.
    """
    if not (operator.is_active and operator.is_superuser):
        raise Conflict(_("%(name)s is no operator: only a superuser may publish without review.") % {"name": operator.username})
    listing = version.listing
    with transaction.atomic():
        Listing.objects.select_for_update().get(pk=listing.pk)
        version.refresh_from_db()
        if version.state == Version.State.RELEASED:
            return None
        draft = revisions.latest(listing, ListingRevision.State.DRAFT)
        releases.seal(version)
        if draft is not None:
            revisions.seal(draft)
        now = timezone.now()
        submission = Submission.objects.create(
            listing=listing,
            version=version,
            revision=draft,
            state=Submission.State.APPROVED,
            submitted_by=operator,
            due_at=now,
            closed_at=now,
        )
        decision = Decision.objects.create(
            submission=submission, listing=listing, version=version, action=Decision.Action.APPROVE, reason=reason, decided_by=operator
        )
        releases.release(version)
        if draft is not None:
            revisions.make_live(draft)
        listings.want_visibility(listing, visibility)
        listings.publish(listing, version=version)
        checks.start(submission)
        audit.record(operator, "submission.approve_as_operator", submission.public_id, version=version.full_name, reason=reason)
    return decision


def owner_of(publisher: Publisher) -> User:
    """Its first owner, in whose name its listings are made."""
    membership = publisher.memberships.filter(role=Membership.Role.OWNER).select_related("user").order_by("pk").first()
    if membership is None:
        raise Conflict(_("The publisher %(name)s has no owner.") % {"name": publisher.slug})
    return membership.user


def _known(publisher: str, slug: str, artifact: Artifact) -> Version | None:
    versions = Version.objects.filter(listing__publisher__slug=publisher, listing__slug=slug, artifact=artifact)
    return versions.select_related("listing__publisher").first()
