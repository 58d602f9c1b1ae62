"""Licences by the SPDX list (https://spdx.org/licenses/): single ones and expressions; what is not on it has a name and an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.utils.text import slugify
from django.utils.translation import gettext as _
from license_expression import ExpressionError, Licensing, get_license_index, get_spdx_licensing

from store.catalog.errors import InvalidListing

MAX_CHARS = 60
OWN = "LicenseRef-"  # how SPDX names what is not on its list
_OWN_ID = re.compile(r"LicenseRef-[A-Za-z0-9][A-Za-z0-9.-]{0,48}")
_TOKEN = re.compile(r"[^\s()]+")


@dataclass(frozen=True)
class Term:
    """A piece of an expression as a page shows it; `url` of the licence's text, where it is one."""

    text: str
    url: str = ""


def cleaned(licence: Any, *, name: str = "", url: str = "") -> dict[str, str]:
    """{"licence", "licence_name", "licence_url"} as a listing keeps them: an SPDX expression as SPDX writes it, or one's own licence.

    One's own has a name, from which its identifier is made when it has none. Raises InvalidListing.
    """
    licence, name, url = str(licence).strip(), " ".join(str(name).split()), str(url).strip()
    if url and (not url.startswith("https://") or not _is_address(url)):
        raise InvalidListing(_("Give the address of the licence's text, with https://."), param="licence_url")
    if len(name) > MAX_CHARS or not name.isprintable():
        raise InvalidListing(_("The licence's name has at most %(limit)s characters.") % {"limit": MAX_CHARS}, param="licence_name")
    if name and not licence.startswith(OWN):
        licence = f"{OWN}{slugify(name)[:40].strip('-') or 'custom'}"
    if licence.startswith(OWN):
        if not _OWN_ID.fullmatch(licence) or not name:
            raise InvalidListing(_("A licence that is not on the SPDX list needs a name."), param="licence_name")
        return {"licence": licence, "licence_name": name, "licence_url": url}
    return {"licence": _expression(licence), "licence_name": "", "licence_url": ""}


def imported(licence: str) -> dict[str, str]:
    """What a source says of itself, which need not be on the list: `gemma` becomes a licence of that name."""
    try:
        return cleaned(licence)
    except InvalidListing:
        return cleaned("", name=licence[:MAX_CHARS])


def terms(licence: str, *, name: str = "", url: str = "") -> list[Term]:
    """The licence in pieces, each with the address of its text."""
    if licence.startswith(OWN):
        return [Term(name or licence.removeprefix(OWN), url)]
    return [Term(piece, f"https://spdx.org/licenses/{piece}.html" if piece in identifiers() else "") for piece in _pieces(licence)]


def _pieces(licence: str) -> list[str]:
    """Words, and what stands between them."""
    pieces, end = [], 0
    for found in _TOKEN.finditer(licence):
        pieces += [licence[end : found.start()]] * (found.start() > end) + [found[0]]
        end = found.end()
    return [*pieces, licence[end:]] if end < len(licence) else pieces


def symbols(licence: str) -> list[str]:
    """The licences that an expression names, each once: what people filter by."""
    return list(dict.fromkeys(piece for piece in _pieces(licence) if piece in identifiers())) or [licence]


@lru_cache(maxsize=1)
def identifiers() -> dict[str, None]:
    """Of the list, in order, without those that are deprecated; exceptions too."""
    keys = [
        str(entry["spdx_license_key"]) for entry in get_license_index() if entry.get("spdx_license_key") and not entry.get("is_deprecated")
    ]
    return dict.fromkeys(sorted((key for key in keys if not key.startswith(OWN)), key=str.casefold))


@lru_cache(maxsize=1)
def _list() -> Licensing:
    return get_spdx_licensing()


def _expression(licence: str) -> str:
    refused = InvalidListing(
        _("%(licence)s is not on the SPDX list of licences. Choose one of it, such as Apache-2.0, or give your own a name.")
        % {"licence": licence[:MAX_CHARS] or "–"},
        param="licence",
    )
    if not 1 <= len(licence) <= MAX_CHARS or not licence.isascii() or not licence.isprintable():
        raise refused
    try:
        parsed = _list().parse(licence, validate=True, strict=True)
    except (ExpressionError, AttributeError, TypeError, ValueError, IndexError) as error:  # the parser's own slips among them
        raise refused from error
    written = str(parsed) if parsed is not None else ""
    if not written or len(written) > MAX_CHARS or OWN in written:
        raise refused
    return written


def _is_address(url: str) -> bool:
    try:
        URLValidator(schemes=["https"])(url)
    except ValidationError:
        return False
    return len(url) <= 300
