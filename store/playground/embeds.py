"""A GPT on another site: where its publisher lets it be shown, and how many tokens a day that may take.

Only what costs nobody anything can be embedded, since whoever asks there has no account. Each answer takes the most it can need from the
day's tokens of its GPT, and gives back what it did not use. Whoever reads the page is known by a signed token in it, never by a cookie;
the tries of visitors and of their networks hold for them as on the store's own pages.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.utils.translation import gettext_lazy as _

from inference.protocol import Finished
from store import ratelimit
from store.accounts import audit
from store.accounts.models import User
from store.accounts.public_ids import new_public_id
from store.accounts.publishers import MAINTAINER, OWNER, require_role
from store.billing import prices
from store.catalog import naming
from store.catalog.models import Listing
from store.errors import AWAY, DomainError, NotAllowed, NotFound, TooMany
from store.generation import admission
from store.generation import messages as reading
from store.generation.models import Request
from store.loopback import is_loopback
from store.playground.models import Embed
from store.valkey import client

DAY_S = 86_400
MOST_ANSWER_TOKENS = 400
MOST_TEXT_BYTES = 4_000  # of all that is sent along
MOST_MESSAGES = 9
PAGE_LIVES_S = 12 * 3600
MOST_ORIGINS = 10
TOKENS_PER_DAY = (5_000, 5_000_000)
_PAGE, _ANSWER = "store.playground.embed", "store.playground.embed.answer"
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class NotEmbeddable(DomainError):
    code = "not_embeddable"
    message = _("Only a GPT that is approved and costs nobody anything, with all it builds on, can be on another site.")


class NotFree(NotAllowed):
    code = "embed_not_free"
    message = _("This GPT costs something now, so it answers in the store alone.")


class InvalidEmbed(DomainError):
    code = "invalid_embed"


class EmbedUsedUp(TooMany):
    code = "embed_used_up"
    message = _("This chat has answered as much as it may today. Come back tomorrow.")


def of_listing(listing: Listing) -> Embed:
    """As it is kept, or as it is proposed: switched off."""
    return Embed.objects.filter(listing=listing).first() or Embed(listing=listing)


def configure(user: User, listing: Listing, *, is_on: bool, origins: str, tokens_per_day: int) -> Embed:
    """Where the listing may be shown from now on. Raises NotEmbeddable and InvalidEmbed."""
    require_role(user, listing.publisher, OWNER, MAINTAINER)
    places = [_origin(line) for line in origins.split()]
    if is_on and not is_embeddable(listing):
        raise NotEmbeddable
    if len(places) > MOST_ORIGINS or (is_on and not places):
        raise InvalidEmbed(_("Name 1 to 10 sites that may show it."), param="origins")
    if not TOKENS_PER_DAY[0] <= tokens_per_day <= TOKENS_PER_DAY[1]:
        raise InvalidEmbed(_("Choose from 5,000 to 5,000,000 tokens a day."), param="tokens_per_day")
    fields = {"is_on": is_on, "origins": list(dict.fromkeys(places)), "tokens_per_day": tokens_per_day}
    embed, _made = Embed.objects.update_or_create(listing=listing, defaults=fields)
    audit.record(user, "embed.configure", listing.public_id, **fields)
    return embed


def _origin(written: str) -> str:
    """https://host or https://host:port; without TLS only on one's own machine. Raises InvalidEmbed."""
    wrong = InvalidEmbed(_("Write each site like https://example.org, one on each line, without a path."), param="origins")
    try:
        parts = urlsplit(written.rstrip("/").lower())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise wrong from error
    is_bare = not (parts.path or parts.query or parts.fragment or parts.username)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not (is_bare and is_safe and _HOST.fullmatch(host)):
        raise wrong
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def is_embeddable(listing: Listing) -> bool:
    return _is_reachable(listing) and prices.of_listing(listing).is_free


def find(public_id: str) -> Embed:
    """One that may be shown: switched on, of a GPT that everybody can reach. Raises NotFound."""
    loaded = Embed.objects.select_related("listing__publisher", "listing__live_revision")
    embed = loaded.filter(public_id=public_id, is_on=True).first()
    if embed is None or not _is_reachable(embed.listing):
        raise NotFound
    return embed


def require_free(embed: Embed) -> None:
    """Raises NotFree where it got a price, or what it builds on did, after it was switched on."""
    if not prices.of_listing(embed.listing).is_free:
        raise NotFree


def _is_reachable(listing: Listing) -> bool:
    return Listing.objects.reachable_by(None).filter(pk=listing.pk).exists()


# ---------------------------------------------------------------- talking


def begin(embed: Embed) -> str:
    """What a page that is shown now carries: a reader that nobody was before."""
    return signing.dumps([embed.public_id, new_public_id("vis")], salt=_PAGE)


def reader_of(embed: Embed, token: str) -> str:
    """Raises NotFound for a token of another embed, of none, or of a page that was opened too long ago."""
    try:
        named, visitor = signing.loads(token, salt=_PAGE, max_age=PAGE_LIVES_S)
    except (signing.BadSignature, ValueError) as error:
        raise NotFound(_("This page was opened long ago. Reload it.")) from error
    if named != embed.public_id:
        raise NotFound
    return str(visitor)


def ask(embed: Embed, *, visitor: str, messages: str) -> Request:
    """`messages` is JSON, as in the API: what was said, the question last. Raises NotFree, InvalidEmbed and
    EmbedUsedUp, and what `admit` does.
    """
    require_free(embed)
    version = naming.resolve(embed.listing.full_name, AnonymousUser())
    said = _read(messages)
    allowance = _allowance(embed) | {"cost": MOST_ANSWER_TOKENS + reading.most_prompt_tokens(version, reading.complete(version, said)[0])}
    try:
        ratelimit.require(**allowance)
    except TooMany as error:
        raise EmbedUsedUp(retry_after_s=error.retry_after_s) from error
    sampling = {"max_tokens": MOST_ANSWER_TOKENS}
    try:
        asker: dict[str, Any] = {"user": AnonymousUser(), "visitor": visitor, "source": Request.Source.EMBED}
        asked = admission.admit(version, messages=said, sampling=sampling, **asker)
    except (DomainError, *AWAY):
        ratelimit.give_back(**allowance)
        raise
    client().set(_held(asked.public_id), json.dumps(allowance), ex=DAY_S)
    return asked


def _read(messages: str) -> list[dict[str, str]]:
    wrong = InvalidEmbed(_("Ask a question of at most 4,000 bytes."), param="messages")
    try:
        said: Any = json.loads(messages) if len(messages) <= 4 * MOST_TEXT_BYTES else None
        pairs = [(one["role"], one["content"].strip()) for one in said][-MOST_MESSAGES:]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise wrong from error
    while pairs and (pairs[0][0] != "user" or sum(len(text.encode(errors="replace")) for _role, text in pairs) > MOST_TEXT_BYTES):
        pairs.pop(0)  # the oldest first
    if not pairs or any(role not in ("user", "assistant") or not text for role, text in pairs) or pairs[-1][0] != "user":
        raise wrong
    return [{"role": role, "content": text} for role, text in pairs]


def settle(request: Request, finished: Finished) -> None:
    """Gives back what an answer did not use; called whenever a request has ended, of whatever kind."""
    if request.source != Request.Source.EMBED:
        return
    try:
        held = client().getdel(_held(request.public_id))
        if held is None:
            return
        allowance = json.loads(held)
        used = int(finished.usage.get("prompt_tokens", 0)) + int(finished.usage.get("completion_tokens", 0))
        if used < allowance["cost"]:
            ratelimit.give_back(**allowance | {"cost": allowance["cost"] - used})
    except AWAY:
        return  # it is worth less than the record of the answer, whose transaction this is


def tokens_left(embed: Embed) -> int:
    """Of today's, as far as they are not held."""
    return ratelimit.take(**_allowance(embed), cost=0).remaining


def ticket(request: Request) -> str:
    """Lets whoever asked read the answer."""
    return signing.dumps(request.public_id, salt=_ANSWER)


def find_request(ticket_: str) -> Request:
    try:
        public_id = signing.loads(ticket_, salt=_ANSWER, max_age=DAY_S)
    except signing.BadSignature as error:
        raise NotFound from error
    found = Request.objects.filter(public_id=public_id, user=None).first()
    if found is None:
        raise NotFound
    return found


def _allowance(embed: Embed) -> dict[str, Any]:
    return {"key": f"embed:{embed.public_id}", "limit": embed.tokens_per_day, "per_s": DAY_S}


def _held(request: str) -> str:
    return f"embed:held:{request}"
