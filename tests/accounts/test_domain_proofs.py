"""The badge by a TXT record, read from a real name server on this machine, and what becomes of a badge whose proof has gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import time_machine
from django.utils import timezone

from store.accounts import domains, proofs
from store.accounts.models import AuditEntry, Publisher
from store.notifications.models import Notification
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """The TXT records of a name server, by name."""
    records: dict[str, list[str]] = {}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, asker = server.recvfrom(4096)
            except OSError:
                return
            asked = dns.message.from_wire(raw)
            answer = dns.message.make_response(asked)
            name = str(asked.question[0].name).rstrip(".")
            if texts := records.get(name):
                answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "TXT", *(f'"{text}"' for text in texts)))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            server.sendto(answer.to_wire(), asker)

    threading.Thread(target=serve, daemon=True).start()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
    monkeypatch.setattr(proofs, "_resolver", lambda: resolver)
    yield records
    server.close()


@pytest.fixture
def publisher(zone: dict[str, list[str]]) -> Publisher:
    publisher = making.make_publisher(slug="harbour")
    zone["_gpt-store.harbour.example"] = ["v=spf1 -all", domains.proof_of(publisher)]
    domains.verify(making.owner_of(publisher), publisher, domain="Harbour.Example", way="dns")
    return publisher


def test_the_record_gives_the_badge_and_anothers_gives_none(publisher: Publisher) -> None:
    other = making.make_publisher(slug="other")

    for domain, error in (("harbour.example", domains.NotProven), ("elsewhere.example", proofs.ProofUnreadable)):
        with pytest.raises(error):
            domains.verify(making.owner_of(other), other, domain=domain, way="dns")

    assert (publisher.domain, publisher.domain_way) == ("harbour.example", "dns")
    assert Publisher.objects.get(pk=other.pk).verified_at is None


def looked(publisher: Publisher, *, days: float) -> Publisher:
    with time_machine.travel(timezone.now() + timedelta(days=days)):
        domains.look_again()
        assert domains.look_again() == 0  # once a day is enough
    return Publisher.objects.get(pk=publisher.pk)


def test_a_proof_that_stays_away_takes_the_badge_along_after_days_and_a_notice(publisher: Publisher, zone: dict[str, list[str]]) -> None:
    assert looked(publisher, days=1.1).domain_missing_since is None
    zone.clear()
    at_risk = looked(publisher, days=2.2)
    assert (at_risk.domain, at_risk.domain_missing_since is not None) == ("harbour.example", True)
    assert looked(publisher, days=6).verified_at is not None

    gone = looked(publisher, days=7.3)

    assert (gone.domain, gone.verified_at) == ("", None)
    owner = making.owner_of(publisher)
    assert list(Notification.objects.filter(user=owner).order_by("pk").values_list("kind", flat=True)) == ["badge_at_risk", "badge_lost"]
    assert AuditEntry.objects.filter(action="publisher.lose_domain").exists()


def test_a_proof_that_comes_back_in_time_keeps_it(publisher: Publisher, zone: dict[str, list[str]]) -> None:
    kept = dict(zone)
    zone.clear()
    looked(publisher, days=1.1)
    zone.update(kept)

    assert looked(publisher, days=2.2).domain_missing_since is None
    zone.clear()
    assert looked(publisher, days=6.5).verified_at is not None  # the days begin anew
