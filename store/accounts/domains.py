"""The badge of a publisher who has shown that a domain is theirs: it holds a word that is made for them, in a file or a TXT record.

The store looks again every day. A proof that has gone takes the badge along only after days, of which the owners are told:
a site is down now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

from django.core.signing import Signer
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store import ratelimit
from store.accounts import audit, proofs
from store.accounts.models import Publisher, User
from store.accounts.publishers import OWNER, require_role
from store.errors import Conflict, DomainError

PATH = "/.well-known/gpt-store.txt"
RECORD = "_gpt-store"  # the name below the domain that has the TXT record
WAYS = ("file", "dns")
LOOKED_AT_EVERY = timedelta(days=1)
MISSED_AT_MOST = timedelta(days=5)
TRIES_PER_HOUR = 10
_signer = Signer(salt="store.accounts.domains")


class NotProven(DomainError):
    code = "domain_not_proven"
    status = 422
    message = _("The file or record is there, but the line for this publisher is not in it.")


class Badge(StrEnum):
    """What became of a badge when the store looked again."""

    AT_RISK = "at risk"
    LOST = "lost"


_listeners: list[Callable[[Publisher, str, Badge, datetime], None]] = []


def on_change(function: Callable[[Publisher, str, Badge, datetime], None]) -> None:
    """Has `function(publisher, domain, what, until)` called in the transaction of the change. For higher apps, in `AppConfig.ready`."""
    if function not in _listeners:
        _listeners.append(function)


def proof_of(publisher: Publisher) -> str:
    """The line that the file must hold. It names the publisher and can't be made up by another one."""
    return f"gpt-store-publisher={_signer.sign(publisher.slug)}"


def verify(user: User, publisher: Publisher, *, domain: str, way: str = "file") -> None:
    """Reads the file or the record of the domain and gives the badge. For owners. Raises ProofUnreadable, NotProven, TooMany."""
    require_role(user, publisher, OWNER)
    if way not in WAYS:
        raise NotProven(param="way")
    name = proofs.clean_domain(domain)
    ratelimit.require(f"verify-domain:{user.pk}", limit=TRIES_PER_HOUR, per_s=3600)
    if not _is_proven(publisher, name, way):
        raise NotProven(param="domain")
    with transaction.atomic():
        now = timezone.now()
        shown = {"domain": name, "domain_way": way, "verified_at": now, "domain_checked_at": now, "domain_missing_since": None}
        Publisher.objects.filter(pk=publisher.pk).update(**shown)
        audit.record(user, "publisher.verify_domain", publisher.public_id, domain=name, way=way)
    publisher.refresh_from_db(fields=list(shown))


def _is_proven(publisher: Publisher, domain: str, way: str) -> bool:
    """Raises ProofUnreadable."""
    if way == "dns":
        lines = proofs.records(f"{RECORD}.{domain}")
    else:
        lines = proofs.read(domain, PATH).decode("utf-8", errors="replace").splitlines()
    return proof_of(publisher) in (line.strip() for line in lines)


def look_again(limit: int = 20) -> int:
    """Looks for the proofs that were looked for longest ago; how many. Nothing is locked while a stranger's site answers."""
    now = timezone.now()
    due = Publisher.objects.exclude(domain="").filter(Q(domain_checked_at=None) | Q(domain_checked_at__lt=now - LOOKED_AT_EVERY))
    publishers = list(due.order_by(F("domain_checked_at").asc(nulls_first=True))[:limit])
    for publisher in publishers:
        _look_again(publisher)
    return len(publishers)


def _look_again(publisher: Publisher) -> None:
    try:
        is_there = _is_proven(publisher, publisher.domain, publisher.domain_way)
    except proofs.ProofUnreadable:
        is_there = False
    now = timezone.now()
    same = Publisher.objects.filter(pk=publisher.pk, domain=publisher.domain, domain_checked_at=publisher.domain_checked_at)
    since = None if is_there else publisher.domain_missing_since or now
    with transaction.atomic():
        if since is not None and now - since >= MISSED_AT_MOST:
            gone = {"domain": "", "verified_at": None, "domain_checked_at": None, "domain_missing_since": None}
            if same.update(**gone):
                audit.record(None, "publisher.lose_domain", publisher.public_id, domain=publisher.domain)
                _tell(publisher, Badge.LOST, since + MISSED_AT_MOST)
        elif same.update(domain_checked_at=now, domain_missing_since=since) and since == now:
            _tell(publisher, Badge.AT_RISK, since + MISSED_AT_MOST)


def _tell(publisher: Publisher, what: Badge, until: datetime) -> None:
    for function in _listeners:
        function(publisher, publisher.domain, what, until)


def give_up(user: User, publisher: Publisher) -> None:
    """Takes the domain and its badge away, for example before it is sold."""
    require_role(user, publisher, OWNER)
    with transaction.atomic():
        if not Publisher.objects.filter(pk=publisher.pk).exclude(domain="").update(domain="", verified_at=None, domain_missing_since=None):
            raise Conflict
        audit.record(user, "publisher.give_up_domain", publisher.public_id, domain=publisher.domain)
    publisher.refresh_from_db(fields=["domain", "verified_at"])
