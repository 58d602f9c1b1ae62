"""The automated checks of a submission, each with evidence a reviewer can judge by. None of them approves anything."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inference import checkpoint, evaluation
from inference.artifacts import ArtifactError, ArtifactMissing, ArtifactUnreachable
from inference.checkpoint import CheckpointError, load_gpt
from inference.config import GPTConfig, UnsupportedModel
from inference.lora import Adapter, AdapterError
from inference.protocol import BLOB_SUFFIXES, GenerationRequest, SamplingParams
from inference.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inference.job_kinds import Inputs

PROMPTS = ("What can you do for me?", "Explain in one sentence why the sky is blue.", "Write a short greeting.")
MAX_PROMPTS = 3
MAX_ANSWER_TOKENS = 96
ANSWER_WITHIN_S = 240.0
WORSE_IS_DOUBTFUL = 1.2  # times the base's perplexity
WORSE_IS_BROKEN = 3.0
REPEATED_SHARE = 0.5  # of all runs of four words
REQUIRED = {"weights": ("config.json", "tokenizer.json"), "adapter": ("adapter_config.json", "adapter_model.safetensors")}


def run(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """{"state", "code", "finding", "evidence", "measurements"} of the check that `params` names."""
    check = {"files": _files, "loads": _loads, "generates": _generates, "perplexity": _perplexity}[params["check"]]
    return check(params, inputs)


def _found(state: str, code: str, finding: str, evidence: dict[str, Any], *, measurements: Any = ()) -> dict[str, Any]:
    return {"state": state, "code": code, "finding": finding, "evidence": evidence, "measurements": list(measurements)}


def _files(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Every file is of a kind that is accepted, and every byte is what the manifest says."""
    kind, digest = ("adapter", params["adapter"]) if params.get("adapter") else ("weights", params["base"])
    evidence: dict[str, Any] = {"manifest": digest}
    try:
        manifest = inputs.store.manifest(digest)
        evidence |= {"count": len(manifest.files), "size_bytes": manifest.size_bytes}
        evidence["files"] = [{file.path: f"{file.size_bytes} bytes, sha256 {file.sha256}"} for file in manifest.files]
        if missing := [name for name in REQUIRED[kind] if name not in {file.path for file in manifest.files}]:
            return _found("failed", "files_missing", f"{missing[0]} is missing.", evidence | {"file": missing[0]})
        if strange := [file.path for file in manifest.files if Path(file.path).suffix not in BLOB_SUFFIXES]:
            return _found("failed", "files_refused", f"{strange[0]} is of a kind that is not accepted.", evidence | {"file": strange[0]})
        inputs.store.materialise(digest, inputs.cache)
    except (ArtifactMissing, ArtifactUnreachable):
        raise
    except ArtifactError as error:
        return _found("failed", "files_corrupt", str(error), evidence | {"error": str(error)})
    return _found("passed", "files_good", f"{len(manifest.files)} files, each with the bytes its sha256 says.", evidence)


def _loads(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """The weights fit their config, are finite, and the adapter fits the base."""
    folder = inputs.artifact(params["base"])
    evidence: dict[str, Any] = {}
    try:
        facts = checkpoint.check(folder)
        evidence |= {name: facts[name] for name in ("architecture", "parameter_count", "context_length", "dtype") if name in facts}
        if params.get("adapter"):
            adapter = Adapter.load(inputs.artifact(params["adapter"]), GPTConfig.from_folder(folder))
            evidence |= {"adapter_rank": adapter.rank, "adapter_bytes": adapter.size_bytes, "adapted_projections": len(adapter.parts)}
        elif broken := _not_finite(load_gpt(folder, dtype=torch.float32)):
            return _found("failed", "weights_not_finite", f"{broken} has numbers that are not finite.", evidence | {"tensor": broken})
    except (CheckpointError, UnsupportedModel, AdapterError) as error:
        return _found("failed", "does_not_load", str(error), evidence | {"error": str(error)})
    return _found("passed", "loads_well", "It loads, and every number is finite.", evidence)


def _not_finite(model: torch.nn.Module) -> str:
    return next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), "")


def _generates(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Answers to its own starters, as people would get them."""
    from inference.engine import Engine, EngineOptions

    engine = Engine.load(inputs.artifact(params["base"]), EngineOptions(dtype="float32"))
    adapter = inputs.artifact(params["adapter"]) if params.get("adapter") else None
    prompts = (list(params.get("starters") or []) or list(PROMPTS))[:MAX_PROMPTS]
    rows, tokens, began = [], 0, time.monotonic()
    for number, prompt in enumerate(prompts):
        inputs.channel.progress("generate", done=number / len(prompts))
        answer, count = _answer(engine, _request(params, prompt, number), adapter, inputs)
        rows.append({"prompt": prompt, "answer": answer})
        tokens += count
    speed = round(tokens / max(time.monotonic() - began, 1e-6), 1)
    evidence = {"prompts": len(rows), "tokens": tokens, "tokens_per_s": speed, "answers": rows}
    if any(not row["answer"].strip() for row in rows):
        return _found("failed", "answer_empty", "One of its answers is empty.", evidence)
    if any(repeated_share(row["answer"]) > REPEATED_SHARE for row in rows):
        return _found("warned", "answer_repeats", "One of its answers says the same words again and again.", evidence)
    return _found("passed", "answers", f"It answered {len(rows)} prompts. Read whether the answers are good.", evidence)


def _request(params: dict[str, Any], prompt: str, number: int) -> GenerationRequest:
    instructions = params.get("instructions", "")
    messages = ([{"role": "system", "content": instructions}] if instructions else []) + [{"role": "user", "content": prompt}]
    wanted = {name: value for name, value in (params.get("parameters") or {}).items() if name in SamplingParams().to_json()}
    sampling = SamplingParams(**{"seed": 1, **wanted, "max_tokens": MAX_ANSWER_TOKENS})
    return GenerationRequest(
        id=f"check-{number}",
        base=params["base"],
        version="",
        tenant="",
        messages=messages,
        sampling=sampling.to_json(),
        deadline=time.time() + ANSWER_WITHIN_S,
        adapter=params.get("adapter"),
        leased=False,
    )


def _answer(engine: Any, request: GenerationRequest, adapter: Path | None, inputs: Inputs) -> tuple[str, int]:
    from inference.engine import RequestRefused
    from inference.job_process import JobError

    try:
        engine.submit(request, adapter_folder=adapter)
    except RequestRefused as error:
        raise JobError(str(error.code), f"The engine refused the prompt: {error}") from error
    text, tokens = "", 0
    while engine.has_work:
        inputs.channel.raise_if_cancelled()
        for _, event in engine.step():
            if event.type == "delta":
                text, tokens = text + event.text, event.tokens
    return text, tokens


def repeated_share(text: str) -> float:
    """Share of the runs of four words that occurred before in the text; 0 for a short one."""
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[place : place + 4]) for place in range(len(words) - 3)]
    if len(runs) < 12:
        return 0.0
    return sum(count - 1 for count in Counter(runs).values()) / len(runs)


def _perplexity(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    folder = inputs.artifact(params["base"])
    tokenizer, model = Tokenizer.from_folder(folder), load_gpt(folder, dtype=torch.float32)
    documents = evaluation.texts()
    inputs.channel.progress("score", what="base")
    base = evaluation.perplexity(model, tokenizer, documents)
    evidence: dict[str, Any] = {"texts": len(documents), "tokens": base.tokens, "base_perplexity": round(base.value, 3)}
    own = base
    if params.get("adapter"):
        inputs.channel.progress("score", what="adapter")
        adapter = Adapter.load(inputs.artifact(params["adapter"]), model.config)
        own = evaluation.perplexity(model, tokenizer, documents, adapter=adapter)
    evidence |= {"perplexity": round(own.value, 3), "low": round(own.low, 3), "high": round(own.high, 3)}
    measurement = {
        "name": "perplexity",
        "value": own.value,
        "low": own.low,
        "high": own.high,
        "base_value": base.value if params.get("adapter") else None,
        "unit": "",
        "lower_is_better": True,
        "method": {
            "data": "prose.txt",
            "data_sha256": evaluation.digest(),
            "interval": f"95 %, bootstrap over texts, {evaluation.RESAMPLES} resamples, seed {evaluation.SEED}",
            "dtype": "float32",
            "base": params["base"],
            "adapter": params.get("adapter"),
        },
    }
    return _judged(own.value, base.value, evidence, measurement, adapted=bool(params.get("adapter")))


def _judged(own: float, base: float, evidence: dict[str, Any], measurement: dict[str, Any], *, adapted: bool) -> dict[str, Any]:
    if not adapted:
        return _found("passed", "perplexity_measured", f"Perplexity {own:.2f} on plain prose.", evidence, measurements=[measurement])
    ratio = own / base
    evidence = evidence | {"ratio": round(ratio, 3)}
    finding = f"Perplexity {own:.2f} on plain prose, {ratio:.2f} times its base's."
    state, code = "passed", "perplexity_near_base"
    if ratio > WORSE_IS_BROKEN:
        state, code = "failed", "perplexity_broken"
    elif ratio > WORSE_IS_DOUBTFUL:
        state, code = "warned", "perplexity_worse"
    return _found(state, code, finding, evidence, measurements=[measurement])
