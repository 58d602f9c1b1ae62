"""The badge by domain, and what reading a file from a stranger's domain does not do. The domain is a real TLS server on this machine."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.test import Client

from store.accounts import domains, proofs
from store.accounts.models import Membership, Publisher
from store.errors import NotAllowed, NotFound, TooMany
from tests import making

DOMAIN = "harbour.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def site(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Answers at DOMAIN with the first of these bytes, piece by piece; loopback counts as public for it alone."""
    pieces: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer() -> None:
        while True:
            try:
                connection, _peer = listener.accept()
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(4096)
                    for piece in pieces:
                        secure.sendall(piece)
                        time.sleep(0.02)
            except OSError:
                if listener.fileno() == -1:
                    return

    threading.Thread(target=answer, daemon=True).start()
    port = listener.getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(proofs, "PORT", port)
    monkeypatch.setattr(proofs, "_context", lambda: trusting)
    monkeypatch.setattr(proofs, "is_public", lambda address: address == "127.0.0.1")
    names_lead_to(monkeypatch, "127.0.0.1")
    yield pieces
    listener.close()


def names_lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """What the name service answers for every name; an address stays what it is."""
    found = [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 443)) for a in addresses]
    real = socket.getaddrinfo

    def answer(host: str, *rest: Any, **more: Any) -> Any:
        return found if host.endswith((".example", ".org")) else real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def page(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n{body}".encode()


@pytest.mark.django_db
def test_who_serves_the_line_gets_the_badge_with_the_domain(site: list[bytes], client: Client) -> None:
    publisher = making.make_publisher(slug="harbour")
    other = making.make_publisher(slug="other")
    owner = making.owner_of(publisher)
    site[:] = [page(f"# ours\n{domains.proof_of(publisher)}\n")]

    domains.verify(owner, publisher, domain=" Harbour.Example. ")
    with pytest.raises(domains.NotProven):
        domains.verify(making.owner_of(other), other, domain=DOMAIN)

    assert (publisher.domain, publisher.verified_at is not None) == (DOMAIN, True)
    assert Publisher.objects.get(pk=other.pk).verified_at is None
    assert DOMAIN in client.get("/en/publishers/harbour/").text
    domains.give_up(owner, publisher)
    assert (publisher.domain, publisher.verified_at) == ("", None)


@pytest.mark.parametrize(
    "pieces",
    [
        [page("gpt-store-publisher=harbour:made-up")],
        [page("", "404 Not Found")],
        [b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n\r\n"],
        [b"no http at all"],
        [],
        [page("x" * proofs.MAX_BYTES), b"gpt-store-publisher="],
    ],
)
@pytest.mark.django_db
def test_anything_else_gives_none(site: list[bytes], pieces: list[bytes]) -> None:
    publisher = making.make_publisher(slug="harbour")
    site[:] = pieces

    with pytest.raises((proofs.ProofUnreadable, domains.NotProven)) as refused:
        domains.verify(making.owner_of(publisher), publisher, domain=DOMAIN)

    assert refused.value.param == "domain"
    assert Publisher.objects.get(pk=publisher.pk).verified_at is None


def test_a_site_that_drips_is_left_after_the_time(site: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "TIMEOUT_S", 0.5)
    site[:] = [b"x"] * 2000

    begun = time.monotonic()
    with pytest.raises(proofs.ProofUnreadable):
        proofs.read(DOMAIN, "/")

    assert time.monotonic() - begun < 20  # it would drip for 40 seconds


def test_a_certificate_of_another_name_is_refused(site: list[bytes]) -> None:
    site[:] = [page("x")]

    with pytest.raises(proofs.ProofUnreadable, match="certificate"):
        proofs.read("other.example", "/")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1"),
    ],
)
def test_nothing_inside_is_asked_even_beside_a_public_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    asked: list[str] = []
    monkeypatch.setattr(proofs, "_answer", lambda *args: asked.append(args[0]) or b"")
    names_lead_to(monkeypatch, "93.184.215.14", address)

    with pytest.raises(proofs.ProofUnreadable, match="public address"):
        proofs.read("example.org", "/")

    assert asked == []


def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(proofs, "_answer", lambda *args: asked.append(args[0]) or page("x"))
    names_lead_to(monkeypatch, "2606:2800:21f::1", "93.184.215.14")

    assert proofs.read("example.org", "/") == b"x"
    assert asked == ["93.184.215.14"]


@pytest.mark.parametrize(
    "domain",
    [
        *("", "localhost", "10.0.0.1", "[::1]", "example.org/path", "a@example.org", "example.org:8000", "exa mple.org", "-a.org"),
        *("a..org", "a" * 64 + ".org", ".".join(["a" * 60] * 5) + ".org", "example.org\r\nX: y", "2130706433", "0x7f.1"),
    ],
)
def test_what_is_no_domain_is_not_looked_up(domain: str) -> None:
    with pytest.raises(proofs.ProofUnreadable):
        proofs.clean_domain(domain)


def test_other_letters_become_punycode() -> None:
    assert proofs.clean_domain("Bücher.example") == "xn--bcher-kva.example"


@pytest.mark.django_db
def test_only_owners_show_a_domain_and_not_too_often(site: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = making.make_publisher()
    maintainer, stranger = making.join(publisher, Membership.Role.MAINTAINER), making.make_user()
    for user, refused in ((maintainer, NotAllowed), (stranger, NotFound)):
        with pytest.raises(refused):
            domains.verify(user, publisher, domain=DOMAIN)
        with pytest.raises(refused):
            domains.give_up(user, publisher)

    monkeypatch.setattr(domains, "TRIES_PER_HOUR", 1)
    site[:] = [page("")]
    with pytest.raises(domains.NotProven):
        domains.verify(making.owner_of(publisher), publisher, domain=DOMAIN)
    with pytest.raises(TooMany):
        domains.verify(making.owner_of(publisher), publisher, domain=DOMAIN)
