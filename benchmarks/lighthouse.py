"""What Lighthouse says of the store's pages in a real Chromium: performance, accessibility, best practices and SEO, out of 100.

    python -m benchmarks.lighthouse                                     # on a catalogue of 1,000 listings under var/benchmarks
    python -m benchmarks.lighthouse --url https://gpt.example --listing lab/plain-words

Without --url it makes that catalogue once (as `benchmarks.catalogue`), collects the static files and serves them with the store's own
server. Lighthouse is installed with npm under var/lighthouse the first time. Prints a table, and below it what cost points.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import catalogue

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "var" / "lighthouse"
LISTINGS = 1000
VERSION = "lighthouse@12"  # the last that runs on Node 20
CATEGORIES = {"performance": "performance", "accessibility": "accessibility", "best-practices": "best practices", "seo": "SEO"}
FORMS: dict[str, list[str]] = {"mobile": [], "desktop": ["--preset=desktop"]}
PAGES = {"home": "/en/", "explore": "/en/explore/", "listing": "/en/gpts/{listing}/", "listing, Chinese": "/zh-hans/gpts/{listing}/"}


def main() -> None:
    options = _options()
    _install()
    with _store(options.url) as (site, listing):
        results = {
            (name, form): _ask(site + path.format(listing=options.listing or listing), flags, runs=options.runs)
            for name, path in PAGES.items()
            for form, flags in FORMS.items()
        }
    _print(results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="of a store that runs; without it one is started")
    parser.add_argument("--listing", default="", help="publisher/name of a listing there")
    parser.add_argument("--runs", type=int, default=3, help="of each page, of which the median counts")
    return parser.parse_args()


def _install() -> None:
    if (TOOLS / "node_modules" / ".bin" / "lighthouse").exists():
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    (TOOLS / "package.json").write_text('{"private": true}\n')
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", VERSION], cwd=TOOLS, check=True, stdout=sys.stderr)


@contextmanager
def _store(url: str) -> Iterator[tuple[str, str]]:
    """The address of a store, and a listing in it."""
    if url:
        yield url.rstrip("/"), ""
        return
    database = catalogue._url("", LISTINGS)
    catalogue._fill(LISTINGS, database)
    folder, ports = catalogue.FOLDER / str(LISTINGS), [_free_port(), _free_port()]
    site = f"http://127.0.0.1:{ports[0]}"
    environment = {**os.environ, "DATABASE_URL": database, "VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "store.settings", "DEMO": "0"}
    environment |= {
        "VALKEY_PORT": str(ports[1]),
        "SITE_URL": site,
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }

    def run(*command: str) -> list[str]:
        return [sys.executable, *command]

    subprocess.run(run("manage.py", "migrate", "-v0"), cwd=ROOT, env=environment, check=True)
    subprocess.run(run("manage.py", "collectstatic", "--noinput", "-v0"), cwd=ROOT, env=environment, check=True)
    found = subprocess.run(run("-c", _BEST), cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    broker = subprocess.Popen(run("-c", _BROKER), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    server = ("-m", "uvicorn", "store.asgi:application", "--port", str(ports[0]), "--log-level", "warning")
    web = subprocess.Popen(run(*server), cwd=ROOT, env=environment)
    try:
        _wait_for(f"{site}/healthz")
        yield site, found.stdout.strip()
    finally:
        for process in (web, broker):
            process.terminate()
            process.wait(timeout=20)


_BEST = """
import django; django.setup()
from store.catalog.models import SearchEntry
best = SearchEntry.objects.filter(is_listed=True).order_by("-rank").values_list("listing__publisher__slug", "listing__slug").first()
print("/".join(best))
"""
_BROKER = """
import os, django; django.setup()
from django.conf import settings
from store.supervision.broker import embedded_valkey
command = [*embedded_valkey(settings.VAR_DIR / "valkey"), "--appendonly", "no"]
os.execv(command[0], command)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _ask(url: str, flags: list[str], *, runs: int) -> dict[str, Any]:
    """The report whose performance is the median of so many; everything else of it is the same each time."""
    reports = sorted((_report(url, flags) for _ in range(runs)), key=lambda report: report["categories"]["performance"]["score"] or 0)
    return reports[len(reports) // 2]


def _report(url: str, flags: list[str]) -> dict[str, Any]:
    chrome = shutil.which("chromium") or shutil.which("google-chrome") or ""
    command = [str(TOOLS / "node_modules" / ".bin" / "lighthouse"), url, "--output=json", "--quiet", *flags]
    command += [f"--only-categories={','.join(CATEGORIES)}", "--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
    done = subprocess.run(command, env={**os.environ, "CHROME_PATH": chrome}, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _print(results: dict[tuple[str, str], dict[str, Any]]) -> None:
    print("| page | on a | " + " | ".join(CATEGORIES.values()) + " | first paint | largest paint | shift | weight |")
    print("|---|" + "---|" * (len(CATEGORIES) + 5))
    for (name, form), report in results.items():
        scores = " | ".join(f"{100 * (report['categories'][category]['score'] or 0):.0f}" for category in CATEGORIES)
        audits = report["audits"]
        paints = " | ".join(f"{audits[key]['numericValue'] / 1000:.1f} s" for key in ("first-contentful-paint", "largest-contentful-paint"))
        weight = f"{audits['total-byte-weight']['numericValue'] / 1000:.0f} KB"
        print(f"| {name} | {form} | {scores} | {paints} | {audits['cumulative-layout-shift']['numericValue']:.2f} | {weight} |")
    for (name, form), report in results.items():
        for line in _lost(report):
            print(f"{name}, {form}: {line}")


def _lost(report: dict[str, Any]) -> Iterator[str]:
    for category in CATEGORIES:
        for reference in report["categories"][category]["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 0.9:
                yield f"{category}: {audit['title']} ({audit.get('displayValue', '') or audit['score']})"


if __name__ == "__main__":
    main()
