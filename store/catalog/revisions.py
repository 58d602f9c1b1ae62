"""The moderated texts of a listing: name, summary and description in its languages, drafted, sealed and made live as one unit."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping
from typing import IO, Any

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from store.accounts import audit, lookalikes
from store.accounts.models import Membership, User
from store.accounts.publishers import require_role
from store.catalog import artifacts, editing, pictures, search
from store.catalog.errors import InvalidText, Sealed
from store.catalog.models import Listing, ListingRevision, ListingText
from store.errors import Conflict

EDITORS = (Membership.Role.OWNER, Membership.Role.MAINTAINER)
LANGUAGES = ("en", "zh-hans")
LIMITS = {"name": 60, "summary": 200, "card": 20_000}
TEXT_NAMES = tuple(f"{language}.{field}" for language in LANGUAGES for field in LIMITS)
State = ListingRevision.State


def edit_texts(user: User, listing: Listing, *, texts: Mapping[str, Mapping[str, str]], seen: str | None = None) -> ListingRevision:
    """The draft revision, holding exactly `texts`: {language: {"name", "summary", "card"}}.

    The live revision stays as it is until the draft was submitted and approved. `seen`: the fingerprints of the texts that
    these were written from. Raises InvalidText, and EditedMeanwhile when others have been saved since.
    """
    require_role(user, listing.publisher, *EDITORS)
    cleaned = clean_texts(texts)
    with transaction.atomic():
        Listing.objects.select_for_update().get(pk=listing.pk)  # one draft for each listing, edited by one at a time
        mine = {name: cleaned.get(name.partition(".")[0], {}).get(name.partition(".")[2], "") for name in TEXT_NAMES}
        editing.require_unchanged(seen, theirs=current_texts(listing), mine=mine)
        revision = _draft(user, listing)
        revision.texts.all().delete()
        ListingText.objects.bulk_create(ListingText(revision=revision, language=lang, **fields) for lang, fields in cleaned.items())
        audit.record(user, "revision.edit", revision.public_id, listing=listing.public_id, languages=sorted(cleaned))
    return revision


def set_icon(user: User, listing: Listing, picture: IO[bytes] | None) -> ListingRevision:
    """Puts an icon on the draft revision, made of this picture; without one, it is drawn from the name again. Raises PictureRejected.

    As the texts, it is shown once a reviewer has approved it.
    """
    require_role(user, listing.publisher, *EDITORS)
    digests = {"icon": "", "small_icon": ""}
    if picture is not None:
        drawn = zip(digests, pictures.icons_of(picture), strict=True)
        digests = {name: artifacts.put_blob(io.BytesIO(raw))[0] for name, raw in drawn}
    with transaction.atomic():
        Listing.objects.select_for_update().get(pk=listing.pk)
        revision = _draft(user, listing)
        ListingRevision.objects.filter(pk=revision.pk, state=State.DRAFT).update(**digests)
        audit.record(user, "revision.icon", revision.public_id, listing=listing.public_id, icon=digests["icon"])
    revision.refresh_from_db()
    return revision


def _draft(user: User, listing: Listing) -> ListingRevision:
    """The draft, begun where there is none as a copy of what is current. The listing must be locked."""
    current = latest(listing, State.DRAFT) or latest(listing, State.LIVE) or latest(listing)
    if current is not None and current.state == State.DRAFT:
        return current
    icons = {"icon": current.icon, "small_icon": current.small_icon} if current else {}
    draft = ListingRevision.objects.create(listing=listing, created_by=user, **icons)
    copied = current.texts.all() if current else []
    ListingText.objects.bulk_create(
        ListingText(revision=draft, language=text.language, name=text.name, summary=text.summary, card=text.card) for text in copied
    )
    return draft


def current_texts(listing: Listing) -> dict[str, str]:
    """{"<language>.<field>": text} of the draft, else of what is live, else of the newest there is; empty where there is none."""
    revision = latest(listing, State.DRAFT) or latest(listing, State.LIVE) or latest(listing)
    texts = {text.language: text for text in revision.texts.all()} if revision else {}
    named = {name: name.partition(".") for name in TEXT_NAMES}
    return {name: getattr(texts.get(language), field, "") for name, (language, _dot, field) in named.items()}


def draft_again(user: User, listing: Listing) -> ListingRevision | None:
    """The listing's draft; without one, a new draft with the newest texts it ever had. None when it never had any."""
    newest = latest(listing, State.DRAFT) or latest(listing)
    if newest is None or newest.state == State.DRAFT:
        return newest
    with transaction.atomic():
        Listing.objects.select_for_update().get(pk=listing.pk)
        return _draft(user, listing)


def clean_texts(texts: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The texts, normalised and within their limits. A language all of whose fields are empty is left out."""
    cleaned = {}
    for language, fields in texts.items():
        if language not in LANGUAGES:
            raise InvalidText(_("Texts can be written in English and in Simplified Chinese."), param=language)
        values = {name: clean_text(fields.get(name, ""), param=f"{language}.{name}", limit=limit) for name, limit in LIMITS.items()}
        if not any(values.values()):
            continue
        for name in ("name", "summary"):
            if not values[name]:
                raise InvalidText(_("Every language needs a name and a summary."), param=f"{language}.{name}")
            values[name] = " ".join(values[name].split())
            if not lookalikes.is_seen_as_written(values[name]):
                message = _("It holds characters that hide or turn around what is written. Leave them out.")
                raise InvalidText(message, param=f"{language}.{name}")
        cleaned[language] = values
    if not cleaned:
        raise InvalidText(_("Give the GPT a name and a summary in at least one language."), param="en.name")
    return cleaned


def clean_text(value: Any, *, param: str, limit: int) -> str:
    """`value` in NFC with `\\n` line ends. Raises InvalidText for control characters, lone surrogates and too much text."""
    if not isinstance(value, str):
        raise InvalidText(_("Write this as text."), param=param)
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n")).strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text):
        raise InvalidText(_("The text holds characters that can't be shown. Remove control characters."), param=param)
    if lookalikes.TURNING.intersection(text):
        raise InvalidText(_("It holds characters that hide or turn around what is written. Leave them out."), param=param)
    if len(text) > limit:
        raise InvalidText(_("This is too long: at most %(limit)s characters.") % {"limit": limit}, param=param)
    return text


def seal(revision: ListingRevision) -> None:
    """DRAFT → SEALED: from now on its texts stay as they are."""
    _move(revision, {State.DRAFT}, State.SEALED)


def refuse(revision: ListingRevision) -> None:
    """SEALED → REFUSED."""
    _move(revision, {State.SEALED}, State.REFUSED)


def make_live(revision: ListingRevision) -> None:
    """SEALED → LIVE; the one that was live is superseded, and the search index follows."""
    with transaction.atomic():
        listing = Listing.objects.select_for_update().get(pk=revision.listing_id)
        ListingRevision.objects.filter(listing=listing, state=State.LIVE).update(state=State.SUPERSEDED)
        _move(revision, {State.SEALED}, State.LIVE)
        Listing.objects.filter(pk=listing.pk).update(live_revision=revision)
        search.refresh(listing)


def latest(listing: Listing, *states: str) -> ListingRevision | None:
    """The newest revision in one of `states` (in any, when none is named)."""
    wanted = Q(state__in=states) if states else Q()
    return ListingRevision.objects.filter(wanted, listing=listing).first()


def _move(revision: ListingRevision, expected: set[State], state: State) -> None:
    if not ListingRevision.objects.filter(pk=revision.pk, state__in=expected).update(state=state):
        raise Sealed if state == State.SEALED else Conflict
    revision.state = state
