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
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.serving import served_catalogue

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
    with nullcontext((options.url.rstrip("/"), "")) if options.url else served_catalogue(LISTINGS) as (site, listing):
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
