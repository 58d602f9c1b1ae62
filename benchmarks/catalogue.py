"""What the size of the catalogue costs: explore, search and listing pages of a large store over those of a small one.

    python -m benchmarks.catalogue --sizes 1000 100000                                   # SQLite, under var/benchmarks/catalogue
    python -m benchmarks.catalogue --sizes 1000 1000000 --url 'postgres://postgres@127.0.0.1:5432/catalogue_{size}'

Makes each catalogue once (`benchmarks.catalogue_filling`; a million listings take a while), then measures them in turn, round by
round, each in a process of its own that asks the store's pages through Django with all its middleware, signed out, cold
connections and first requests aside. Prints the median time of every page at each size and the large one's over the small one's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "var" / "benchmarks" / "catalogue"
PAGES = {  # what is asked for; {listing} is another one each time
    "explore": ["/en/explore/", "/zh-hans/explore/?sort=new", "/en/explore/?sort=popular", "/en/explore/?sort=name"],
    "explore with facets": [
        "/en/explore/?use_case=translate",
        "/en/explore/?use_case=code&language=en&free=1",
        "/zh-hans/explore/?kind=adapter&language=zh",
        "/en/explore/?use_case=write&sort=rating",
        "/en/explore/?better=1&size=s&licence=MIT",
    ],
    "search": [
        "/en/explore/?q=contracts",
        "/en/explore/?q=summarise+court+rulings",
        "/zh-hans/explore/?q=合同摘要",
        "/zh-hans/explore/?q=翻译",
        "/en/explore/?q=quick",
        "/en/explore/?q=a+GPT+for+nurses+that+explains+lab+reports",
        "/en/explore/?q=trnslate+recpes",
        "/zh-hans/explore/?q=唐诗&use_case=explain",
    ],
    "suggestions": ["/en/explore/suggest/?q=su", "/en/explore/suggest/?q=patient+con", "/zh-hans/explore/suggest/?q=合"],
    "listing": ["{listing}"],
    "home, not kept": ["/en/"],
}


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(_measure(options.repeats)))
        return
    urls = {size: url_of(options.url, size) for size in options.sizes}
    for size, url in urls.items():
        if not options.as_they_are:
            fill(size, url)
    if options.only_fill:
        return
    rounds: dict[int, list[dict[str, list[float]]]] = {size: [] for size in urls}
    for number in range(options.rounds):
        for size, url in urls.items():
            answer = _child(url, size, "benchmarks.catalogue", "--measure", "--repeats", str(options.repeats))
            rounds[size].append(json.loads(answer.splitlines()[-1]))
            print(f"round {number + 1} of {options.rounds}: {size:,} listings", file=sys.stderr)
    _print(rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--url", default="", help="of the databases, with {size} in it; SQLite files when it is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="of each page in each round")
    parser.add_argument("--only-fill", action="store_true")
    parser.add_argument("--as-they-are", action="store_true", help="measure without looking whether the catalogues are complete")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def url_of(template: str, size: int) -> str:
    return template.format(size=size) if template else f"sqlite:///{FOLDER / str(size) / 'store.sqlite3'}"


def _child(url: str, size: int, module: str, *arguments: str) -> str:
    folder = FOLDER / str(size)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DATABASE_URL": url, "VAR_DIR": str(folder), "PLAIN_STATIC": "1", "LOG_LEVEL": "CRITICAL", "DEMO": "0"}
    environment |= {"DJANGO_SETTINGS_MODULE": "store.settings", "VALKEY_PORT": str(7400 + size % 97)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def fill(size: int, url: str) -> None:
    """Makes the catalogue unless it is there in full."""
    if url.startswith("postgres"):
        _make_database(url)
    processes = os.cpu_count() or 1 if url.startswith("postgres") else 1
    print(_child(url, size, "benchmarks.catalogue_filling", str(size), "--processes", str(processes)), file=sys.stderr)


def _make_database(url: str) -> None:
    import psycopg

    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as server:
        if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            server.execute(f'CREATE DATABASE "{name}"')


def _measure(repeats: int) -> dict[str, list[float]]:
    """Seconds of each page's requests, by kind of page; in this process, on the database of the settings."""
    import django

    django.setup()
    from django.conf import settings
    from django.core.cache import cache
    from django.test import Client

    from store.catalog.models import SearchEntry
    from store.supervision.broker import embedded_valkey

    settings.ALLOWED_HOSTS = ["testserver"]
    broker = subprocess.Popen([*embedded_valkey(settings.VAR_DIR / "valkey"), "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        _wait_for(cache)
        best = SearchEntry.objects.filter(is_listed=True).order_by("-rank").values_list("listing__publisher__slug", "listing__slug")
        listings = [f"/en/gpts/{publisher}/{slug}/" for publisher, slug in best[: repeats + 1]]
        client, times = Client(), {}
        for kind, paths in PAGES.items():
            times[kind] = []
            for path in paths:
                for number in range(repeats + 1):
                    cache.clear()
                    asked = path.format(listing=listings[number % len(listings)])
                    begun = time.perf_counter()
                    answer = client.get(asked)
                    took = time.perf_counter() - begun
                    assert answer.status_code == 200, (asked, answer.status_code)
                    if number:  # the first one warms up
                        times[kind].append(took)
        return times
    finally:
        broker.terminate()
        broker.wait(timeout=10)


def _wait_for(cache: Any) -> None:
    from store.errors import AWAY

    deadline = time.monotonic() + 10
    while True:
        try:
            cache.get("any")
            return
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _print(rounds: dict[int, list[dict[str, list[float]]]]) -> None:
    sizes = list(rounds)
    print("| page | " + " | ".join(f"{size:,} listings" for size in sizes) + " | ratio |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for kind in PAGES:
        medians = [statistics.median(t for one in rounds[size] for t in one[kind]) for size in sizes]
        figures = " | ".join(f"{1000 * median:.0f} ms" for median in medians)
        print(f"| {kind} | {figures} | {medians[-1] / medians[0]:.2f} |")


if __name__ == "__main__":
    main()
