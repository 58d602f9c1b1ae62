"""Requests per second of a GPT's page for anonymous visitors, beside a bare Django view that returns the same bytes.

    python -m benchmarks.pages

Serves a catalogue of 1,000 listings and the bare view (`benchmarks.bare`: no middleware, one route) with the web server that `manage.py up`
starts, one process each, and asks one after the other for some seconds, round by round, with the same number of connections that
are kept open. Prints the medians and, as the median of the rounds' ratios, what part of the bare view's rate the page has.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import urllib.request
from urllib.parse import urlsplit

import django

LISTINGS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each side in each round")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "store.settings")
    django.setup()
    from benchmarks.serving import free_port, served_catalogue, serving

    with served_catalogue(LISTINGS) as (site, listing), tempfile.NamedTemporaryFile() as file:
        page = f"{site}/en/gpts/{listing}/"
        body = urllib.request.urlopen(page).read()
        file.write(body)
        file.flush()
        port = free_port()
        with serving("benchmarks.bare:application", port, {**os.environ, "BARE_PAGE": file.name}):
            bare = f"http://127.0.0.1:{port}"
            sides = {"the page of a GPT": page, "a bare view": f"{bare}/", "a bare async view": f"{bare}/async/"}
            _measure(sides, len(body), options)


def _measure(sides: dict[str, str], size: int, options: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for url in sides.values():
        asyncio.run(_rate(url, 1.0, options.connections, size))  # warms up
    for _round in range(options.rounds):
        for name, url in sides.items():
            rates[name].append(asyncio.run(_rate(url, options.seconds, options.connections, size)))
    print(f"{size:,} bytes, {options.connections} connections, {options.rounds} rounds of {options.seconds:g} s")
    print("| side | requests/s | the page's part of it |")
    print("|---|---|---|")
    ours = rates["the page of a GPT"]
    for name, theirs in rates.items():
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        print(f"| {name} | {statistics.median(theirs):,.0f} | {ratio:.2f} |")


async def _rate(url: str, seconds: float, connections: int, size: int) -> float:
    """Answers per second. Raises AssertionError for one that is not whole."""
    begun = time.perf_counter()
    answers = await asyncio.gather(*(_ask(url, begun + seconds, size) for _ in range(connections)))
    return sum(answers) / (time.perf_counter() - begun)


async def _ask(url: str, until: float, size: int) -> int:
    parts, done = urlsplit(url), 0
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
    question = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/html\r\n\r\n".encode()
    while time.perf_counter() < until:
        writer.write(question)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        assert f"content-length: {size}\r\n".encode() in head, head
        await reader.readexactly(size)
        done += 1
    writer.close()
    return done


if __name__ == "__main__":
    main()
