"""`python -m inference evaluate --suite …`: suites put to a model, and to its base beside it, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from inference import suites
from inference.artifacts import manifest_of
from inference.evaluating import conditions, names_of, results_of
from inference.library import Engine
from inference.measuring import Measuring, Scores, Subject
from inference.suites import Suite


def evaluate(options: argparse.Namespace, folder: Path, adapter: Path | None) -> None:
    """Raises SuiteRefused, Unmeasurable and what loading may raise."""
    instructions = options.system or ""
    chosen = [suite.first(options.limit) for suite in _chosen(options.suite) if suite.asks or not instructions]
    own, base = Subject(adapter, instructions), Subject()
    found: dict[str, Scores] = {}
    beside: dict[str, Scores] = {}
    with Engine.load(folder, dtype=options.dtype, device=options.device) as engine:
        measuring = Measuring(engine, engine.tokenizer.render)
        under = conditions(options.dtype, options.device, engine.runner_name)
        for suite in chosen:
            print(suite.name, file=sys.stderr, flush=True)
            if own != base:
                beside[suite.name] = measuring.run(suite, base)
            found[suite.name] = measuring.run(suite, own)
    results = results_of(chosen, found, beside)
    if options.json:
        names = names_of(manifest_of(folder).digest, None if adapter is None else manifest_of(adapter).digest, instructions)
        print(json.dumps({"results": results, "method": {**under, **names, "limit": options.limit}}, ensure_ascii=False))
        return
    for result in results:
        for metric in result["metrics"]:
            print(_line(result, metric))


def _chosen(named: list[str]) -> list[Suite]:
    names = [name for given in named for name in (suites.BUILT_IN if given == "all" else [given])]
    return [suites.built_in(name) if name in suites.BUILT_IN else suites.read(Path(name)) for name in dict.fromkeys(names)]


def _line(result: dict[str, Any], metric: dict[str, Any]) -> str:
    unit = metric["unit"] and f" {metric['unit']}"
    said = f"{result['suite']:<11}{metric['name']:<18}{metric['value']:>10.2f}{unit}  [{metric['low']:.2f}, {metric['high']:.2f}]"
    if metric["difference"] is not None:
        apart = f"{metric['difference']:+.2f} [{metric['difference_low']:+.2f}, {metric['difference_high']:+.2f}]"
        said += f"  base {metric['base_value']:.2f}, difference {apart}"
    return f"{said}  {metric['items']} items"
