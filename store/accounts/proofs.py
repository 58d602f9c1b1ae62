"""Reading one small file from a domain that a stranger named, without being led anywhere else.

The name is resolved once, every address must be a public one, and the connection goes to that address, so that a second answer of the
name service changes nothing. TLS is checked against the domain, redirects are not followed, and size and time are bounded.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time

import dns.exception
import dns.resolver
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.errors import DomainError

PORT = 443
TIMEOUT_S = 5.0  # from the first connection to the last byte
MAX_RECORDS = 50
MAX_BYTES = 16_384  # of head and body together
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_EMBEDDING = tuple(
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)  # an IPv4 address


class ProofUnreadable(DomainError):
    """`param` is "domain"; the message says what was in the way."""

    code = "domain_unreadable"
    status = 422

    def __init__(self, message: str | Promise) -> None:
        super().__init__(message, param="domain")


def clean_domain(domain: str) -> str:
    """In lower case and, where it has other letters, in Punycode. Raises ProofUnreadable for addresses and for what is no domain."""
    try:
        name = domain.strip().rstrip(".").lower().encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ProofUnreadable(_("Write a domain, for example example.org.")) from error
    labels = name.split(".")
    if len(name) > 253 or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ProofUnreadable(_("Write a domain, for example example.org."))
    return name


def read(domain: str, path: str) -> bytes:
    """The beginning of what `https://domain/path` answers, with status 200. Raises ProofUnreadable."""
    address = public_address(domain)
    try:
        head, _blank, body = _answer(address, domain, path).partition(b"\r\n\r\n")
    except ssl.SSLError as error:
        raise ProofUnreadable(_("The domain has no valid certificate for https.")) from error
    except OSError as error:
        raise ProofUnreadable(_("The domain did not answer in time.")) from error
    if not re.match(rb"HTTP/1\.[01] 200\b", head):
        raise ProofUnreadable(_("There is no such file at the domain. It must be there itself: redirects are not followed."))
    return body


def records(name: str) -> list[str]:
    """The texts of its TXT records. Raises ProofUnreadable where there are none, or the name service does not answer in time."""
    try:
        answer = _resolver().resolve(name, "TXT", lifetime=TIMEOUT_S, search=False)
    except dns.exception.Timeout as error:
        raise ProofUnreadable(_("The domain did not answer in time.")) from error
    except (dns.exception.DNSException, OSError, UnicodeError) as error:
        raise ProofUnreadable(_("There is no such TXT record. It may take a while until a new one is seen everywhere.")) from error
    texts = [b"".join(record.strings)[:MAX_BYTES] for record in list(answer)[:MAX_RECORDS]]
    return [text.decode("utf-8", errors="replace") for text in texts]


def _resolver() -> dns.resolver.Resolver:
    return dns.resolver.Resolver()


def public_address(domain: str) -> str:
    """One of its addresses, all of which are public. Raises ProofUnreadable."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(domain, PORT, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise ProofUnreadable(_("No address is known for this domain.")) from error
    if not found or not all(is_public(address) for address in found):
        raise ProofUnreadable(_("This domain does not lead to a public address."))
    return min(found, key=lambda address: (":" in address, address))


def is_public(address: str) -> bool:
    """Whether it leads out into the internet: nothing private, local, reserved, multicast, or that stands for another address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and (parsed.ipv4_mapped or any(parsed in network for network in _EMBEDDING)):
        return False
    return parsed.is_global and not parsed.is_multicast


def _answer(address: str, domain: str, path: str) -> bytes:
    until = time.monotonic() + TIMEOUT_S
    asked = f"GET {path} HTTP/1.1\r\nHost: {domain}\r\nUser-Agent: GPT-Store\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection((address, PORT), timeout=TIMEOUT_S) as plain,
        _context().wrap_socket(plain, server_hostname=domain) as secure,
    ):
        secure.sendall(asked.encode("ascii"))
        answer = b""
        while len(answer) < MAX_BYTES:
            secure.settimeout(max(0.001, until - time.monotonic()))
            piece = secure.recv(MAX_BYTES - len(answer))
            if not piece:
                break
            answer += piece
    return answer


def _context() -> ssl.SSLContext:
    return ssl.create_default_context()
