"""The badge of a publisher who has shown that a domain is theirs: the domain serves a file with a word that is made for them."""

from __future__ import annotations

from django.core.signing import Signer
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store import ratelimit
from store.accounts import audit, proofs
from store.accounts.models import Publisher, User
from store.accounts.publishers import OWNER, require_role
from store.errors import Conflict, DomainError

PATH = "/.well-known/gpt-store.txt"
TRIES_PER_HOUR = 10
_signer = Signer(salt="store.accounts.domains")


class NotProven(DomainError):
    code = "domain_not_proven"
    status = 422
    message = _("The file is there, but the line for this publisher is not in it.")


def proof_of(publisher: Publisher) -> str:
    """The line that the file must hold. It names the publisher and can't be made up by another one."""
    return f"gpt-store-publisher={_signer.sign(publisher.slug)}"


def verify(user: User, publisher: Publisher, *, domain: str) -> None:
    """Reads the file at the domain and gives the badge. For owners. Raises ProofUnreadable, NotProven, TooMany."""
    require_role(user, publisher, OWNER)
    name = proofs.clean_domain(domain)
    ratelimit.require(f"verify-domain:{user.pk}", limit=TRIES_PER_HOUR, per_s=3600)
    lines = proofs.read(name, PATH).decode("utf-8", errors="replace").splitlines()
    if proof_of(publisher) not in (line.strip() for line in lines):
        raise NotProven(param="domain")
    with transaction.atomic():
        Publisher.objects.filter(pk=publisher.pk).update(domain=name, verified_at=timezone.now())
        audit.record(user, "publisher.verify_domain", publisher.public_id, domain=name)
    publisher.refresh_from_db(fields=["domain", "verified_at"])


def give_up(user: User, publisher: Publisher) -> None:
    """Takes the domain and its badge away, for example before it is sold."""
    require_role(user, publisher, OWNER)
    with transaction.atomic():
        if not Publisher.objects.filter(pk=publisher.pk).exclude(domain="").update(domain="", verified_at=None):
            raise Conflict
        audit.record(user, "publisher.give_up_domain", publisher.public_id, domain=publisher.domain)
    publisher.refresh_from_db(fields=["domain", "verified_at"])
