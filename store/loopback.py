"""Whether an address can be reached from this machine alone."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses of 127.0.0.0/8 and ::1. Other names are not looked up."""
    if host == "localhost" or host.endswith(".localhost"):  # reserved for it by RFC 6761
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
