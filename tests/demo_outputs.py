"""Answers of the demo's GPTs as the core gives them: `python -m tests.demo_outputs MODEL_FOLDER [SLUG …]` writes them anew.

A new answer loses its verdict, which a person has to write again by the rubric of docs/demo.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.protocol import Delta, GenerationRequest
from inference.sampling_params import SamplingParams

OUTPUTS = Path(__file__).parent.parent / "store" / "pages" / "demo" / "outputs"


def load(folder: Path) -> EngineCore:
    return EngineCore.load(folder, EngineOptions(dtype="float32", cache_tokens=8192))


def answers(engine: EngineCore, *, instructions: str, parameters: Mapping[str, Any], prompts: Sequence[str]) -> list[str]:
    """What the model behind `engine` says to each prompt, all of them computed together."""
    said = [""] * len(prompts)
    for number, prompt in enumerate(prompts):
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}]
        engine.submit(
            GenerationRequest(
                id=str(number),
                base="",
                version="",
                tenant="",
                messages=messages,
                sampling=SamplingParams(**parameters).to_json(),
                deadline=time.time() + 600,
                own_messages=1,
            )
        )
    while engine.has_work:
        for number, event in engine.step():
            if isinstance(event, Delta):
                said[int(number)] += event.text
    return said


def write_anew(engine: EngineCore, file: Path) -> int:
    """How many answers of the file are different now."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    prompts = [answer["prompt"] for answer in kept["answers"]]
    changed = 0
    said = answers(engine, instructions=kept["instructions"], parameters=kept["parameters"], prompts=prompts)
    for answer, output in zip(kept["answers"], said, strict=True):
        if answer.get("output") != output:
            answer |= {"output": output, "acceptable": False, "reason": "Not judged yet."}
            changed += 1
    file.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return changed


if __name__ == "__main__":
    the_engine = load(Path(sys.argv[1]))
    for path in sorted(OUTPUTS.glob("*.json")):
        if not sys.argv[2:] or path.stem in sys.argv[2:]:
            sys.stdout.write(f"{path.stem}: {write_anew(the_engine, path)} answers changed\n")
            sys.stdout.flush()
