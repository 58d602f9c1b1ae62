"""The automated checks of a version before a person looks at it. Each says what it found and shows its evidence.

A finding is passed, warned (a person should look) or failed; its code and evidence let the store say it in any language.
What could not be examined at all (no storage, no memory) is no finding: then the job itself fails.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from inference import evaluation, trial
from inference.artifacts import CHUNK_BYTES, ArtifactCorrupt, ArtifactMissing
from inference.checkpoint import CheckpointError, check
from inference.config import GPTConfig, UnsupportedModel
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.job_process import JobError
from inference.lora import Adapter
from inference.lora_settings import AdapterError
from inference.prompts import RequestRefused
from inference.protocol import Delta, Finished, FinishReason, GenerationRequest, JobTask
from inference.renderer import Renderer
from inference.sampling_params import SamplingParams
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError
from inference.workbench import Workbench

PASSED, WARNED, FAILED = "passed", "warned", "failed"
BASE_FILES = ("config.json", "tokenizer.json")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STARTERS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Explain in two sentences why the sky is blue.",
)
ANSWER_TOKENS = 96
ANSWER_WITHIN_S = 600.0
CACHE_TOKENS = 8192
REPEATED_SHARE = 0.5  # of an answer's four-word sequences that occurred in it before
LEAST_WORDS = 16  # an answer shorter than this is not called repetitive
WORSE, MUCH_WORSE = 1.1, 2.0  # perplexity against the base's
POOR_PERPLEXITY = 200.0  # of full weights, on plain English


@dataclass(frozen=True)
class Finding:
    state: str
    code: str
    finding: str  # in English
    evidence: dict[str, Any] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """The finding of the check that `task.params` names. Raises JobError."""
    kinds = {"files": files, "loads": loads, "generates": generates, "perplexity": perplexity}
    check_name = task.params["check"]
    if check_name not in kinds:
        raise JobError("check_unknown", f"This worker knows no check named {check_name!r}; it may be older than the store.")
    return kinds[check_name](task.params, bench).to_json()


# ---------------------------------------------------------------- files


def files(params: Mapping[str, Any], bench: Workbench) -> Finding:
    """Every file of the version's own artifact has the size and the sha256 of its manifest, and what must be there is."""
    digest = params["adapter"] or params["base"]
    try:
        manifest = bench.artifacts.manifest(digest)
        folder = bench.artifacts.materialise(digest, bench.cache, done=lambda share: bench.channel.progress("fetching", done=share))
        for number, file in enumerate(manifest.files, 1):
            found = _sha256(folder / file.path)
            bench.channel.progress("hashing", done=number / len(manifest.files))
            if found != file.sha256:
                raise ArtifactCorrupt(f"{file.path} has the sha256 {found}, its manifest says {file.sha256}")
    except (ArtifactCorrupt, ArtifactMissing) as error:
        return Finding(FAILED, "files_corrupt", f"A file is not what the manifest says: {error}.", {"reason": str(error)})
    paths = {file.path for file in manifest.files}
    evidence = {
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "manifest": digest,
        "listed": [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in manifest.files],
    }
    if missing := sorted(set(ADAPTER_FILES if params["adapter"] else BASE_FILES) - paths):
        evidence["missing"] = ", ".join(missing)
        return Finding(FAILED, "files_missing", f"Missing: {evidence['missing']}.", evidence)
    return Finding(PASSED, "files_whole", f"{len(paths)} files, each with the size and sha256 of the manifest.", evidence)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------- loads


def loads(params: Mapping[str, Any], bench: Workbench) -> Finding:
    """Names and shapes are the architecture's, every number is finite, and an adapter fits its base and changes it."""
    base = bench.folder(params["base"])
    try:
        facts = check(base)
        Tokenizer.from_folder(base)
    except (CheckpointError, UnsupportedModel, TokenizerError) as error:
        return Finding(FAILED, "base_unusable", f"The weights cannot be used: {error}.", {"reason": str(error)})
    try:
        trial.require_bounded(base)
    except TemplateFailed as error:
        return Finding(FAILED, "base_unusable", str(error), {"reason": str(error)})
    if params["adapter"]:
        return _adapter_loads(base, bench.folder(params["adapter"]), facts)
    if name := first_not_finite(base, facts["files"], bench):
        return Finding(FAILED, "not_finite", f"The tensor {name} has numbers that are not finite.", {**facts, "tensor": name})
    return Finding(PASSED, "weights_load", f"{facts['tensors']} tensors, {facts['parameter_count']} parameters, all finite.", facts)


def _adapter_loads(base: Path, folder: Path, facts: Mapping[str, Any]) -> Finding:
    try:
        adapter = Adapter.load(folder, GPTConfig.from_folder(base))
    except AdapterError as error:
        return Finding(FAILED, "adapter_unusable", f"The adapter cannot be used: {error}.", {"reason": str(error)})
    evidence = {
        "rank": adapter.rank,
        "projections": len(adapter.parts),
        "parameters": adapter.parameter_count,
        "architecture": facts["architecture"],
        "base_parameters": facts["parameter_count"],
    }
    if not any(bool(up.any()) for _, up in adapter.parts.values()):
        return Finding(WARNED, "adapter_changes_nothing", "The adapter is zero: it changes nothing of its base.", evidence)
    return Finding(PASSED, "adapter_loads", f"Rank {adapter.rank} on {len(adapter.parts)} projections, all numbers finite.", evidence)


def first_not_finite(folder: Path, names: list[str], bench: Workbench) -> str:
    """The name of a tensor in these files that has such numbers; empty when there is none."""
    for number, name in enumerate(names, 1):
        with safe_open(folder / name, framework="pt") as opened:
            for tensor in opened.keys():  # noqa: SIM118 - not a mapping
                bench.channel.progress("reading", done=(number - 1) / len(names))
                if not torch.isfinite(opened.get_tensor(tensor)).all():
                    return str(tensor)
    return ""


# ---------------------------------------------------------------- generates


def generates(params: Mapping[str, Any], bench: Workbench) -> Finding:
    """Answers the version's own conversation starters, as a user would get them."""
    base = bench.folder(params["base"])
    adapter = bench.folder(params["adapter"]) if params["adapter"] else None
    model = bench.model(base)
    prompts = [str(text) for text in params["starters"]] or list(STARTERS)
    options = EngineOptions(cache_tokens=CACHE_TOKENS, name="check")
    answers = []
    with Renderer(base) as renderer:
        engine = EngineCore(model, bench.tokenizer(base), options, encoder=renderer)
        for number, prompt in enumerate(prompts, 1):
            try:
                answers.append(_answer(engine, _request(params, prompt), adapter, bench))
            except RequestRefused as error:
                evidence = {"prompt": prompt, "reason": error.message}
                return Finding(FAILED, "refused", f"The engine refused a conversation starter: {error.message}", evidence)
            bench.channel.progress("answering", done=number / len(prompts))
    return _judge(answers)


def _request(params: Mapping[str, Any], prompt: str) -> GenerationRequest:
    known = {f.name for f in fields(SamplingParams)}
    chosen = {name: value for name, value in params["parameters"].items() if name in known}
    chosen |= {"max_tokens": min(int(chosen.get("max_tokens", ANSWER_TOKENS)), ANSWER_TOKENS), "seed": 1}
    own = [{"role": "system", "content": params["instructions"]}] if params["instructions"] else []
    return GenerationRequest(
        id="check",
        base=params["base"],
        version="",
        tenant="",
        messages=[*own, {"role": "user", "content": prompt}],
        sampling=SamplingParams(**chosen).to_json(),
        deadline=time.time() + ANSWER_WITHIN_S,
        adapter=params["adapter"],
        own_messages=len(own),
        leased=False,
    )


def _answer(engine: EngineCore, request: GenerationRequest, adapter: Path | None, bench: Workbench) -> dict[str, Any]:
    began = time.monotonic()
    engine.submit(request, adapter_folder=adapter)
    text, finished = "", None
    while finished is None:
        bench.channel.raise_if_cancelled()
        for _, event in engine.step():
            if isinstance(event, Delta):
                text += event.text
            elif isinstance(event, Finished):
                finished = event
    return {
        "prompt": request.messages[-1]["content"],
        "answer": text,
        "ended": finished.reason,
        "tokens": finished.usage["completion_tokens"],
        "seconds": time.monotonic() - began,
        "message": finished.message,
    }


def _judge(answers: list[dict[str, Any]]) -> Finding:
    seconds = sum(answer["seconds"] for answer in answers)
    evidence = {
        "answers": [{"prompt": a["prompt"], "answer": a["answer"], "ended": str(a["ended"])} for a in answers],
        "tokens_per_s": round(sum(answer["tokens"] for answer in answers) / max(seconds, 1e-9), 1),
        "asked": len(answers),
        "empty": sum(not answer["answer"].strip() for answer in answers),
        "repetitive": sum(is_repetitive(answer["answer"]) for answer in answers),
    }
    if broken := [answer for answer in answers if answer["ended"] == FinishReason.ERROR]:
        evidence["reason"] = broken[0]["message"]
        return Finding(FAILED, "generation_failed", f"An answer failed: {broken[0]['message']}", evidence)
    if evidence["empty"]:
        return Finding(FAILED, "answers_empty", f"{evidence['empty']} of {len(answers)} answers are empty.", evidence)
    if evidence["repetitive"]:
        finding = f"{evidence['repetitive']} of {len(answers)} answers repeat themselves."
        return Finding(WARNED, "answers_repetitive", finding, evidence)
    return Finding(PASSED, "answers_given", f"Answered {len(answers)} of {len(answers)} conversation starters.", evidence)


def is_repetitive(text: str) -> bool:
    """Whether half of the answer's four-word sequences (characters, where words are not separated) stood in it before."""
    words = re.findall(r"[぀-ヿ㐀-鿿]|[^\W_]+", text)
    if len(words) < LEAST_WORDS:
        return False
    sequences = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    return 1 - len(set(sequences)) / len(sequences) >= REPEATED_SHARE


# ---------------------------------------------------------------- perplexity


def perplexity(params: Mapping[str, Any], bench: Workbench) -> Finding:
    """How well the version predicts plain English, beside its base: an adapter should not have broken what the base could."""
    if params["instructions"] and not params["adapter"]:
        finding = "Instructions leave the weights as they are: the perplexity is the base's."
        return Finding(PASSED, "weights_unchanged", finding, {"base": params["base"]})
    base = bench.folder(params["base"])
    tokenizer, model = bench.tokenizer(base), bench.model(base)
    method = {
        "text": evaluation.TEXT.name,
        "text_sha256": evaluation.text_sha256(),
        "paragraphs": len(evaluation.paragraphs()),
        "interval": "95% percentile bootstrap over paragraphs",
        "draws": evaluation.DRAWS,
        "seed": evaluation.SEED,
        "precision": str(model.embedding.weight.dtype).removeprefix("torch."),
        "base": params["base"],
        "adapter": params["adapter"],
    }
    share = 0.5 if params["adapter"] else 1.0
    scores = evaluation.score(model, tokenizer, after_each=lambda done: bench.channel.progress("scoring", done=done * share))
    method["tokens"] = int(scores.tokens.sum())
    of_base = scores.perplexity()
    if not params["adapter"]:
        return _judge_weights(of_base, model.config.vocab_size, method)
    try:
        adapter = Adapter.load(bench.folder(params["adapter"]), model.config, dtype=model.embedding.weight.dtype, device=bench.device)
    except AdapterError as error:
        return Finding(FAILED, "adapter_unusable", f"The adapter cannot be used: {error}.", {"reason": str(error)})
    own = evaluation.score(
        model, tokenizer, adapter=adapter, after_each=lambda done: bench.channel.progress("scoring", done=0.5 + done / 2)
    ).perplexity()
    return _judge_adapter(own, of_base, method)


def _measurement(found: evaluation.Perplexity, base: evaluation.Perplexity | None, method: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "perplexity",
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "base_value": base.value if base else None,
        "unit": "",
        "lower_is_better": True,
        "method": method,
    }


def _rounded(found: evaluation.Perplexity) -> dict[str, float]:
    return {"perplexity": round(found.value, 2), "low": round(found.low, 2), "high": round(found.high, 2)}


def _judge_weights(found: evaluation.Perplexity, vocabulary: int, method: dict[str, Any]) -> Finding:
    evidence = {**_rounded(found), "vocabulary": vocabulary, "method": method}
    if not found.value < vocabulary:
        finding = f"Perplexity {found.value:.4g}: no better than guessing among its {vocabulary} tokens."
        return Finding(FAILED, "no_better_than_guessing", finding, evidence)
    measured = [_measurement(found, None, method)]
    if found.value > POOR_PERPLEXITY:
        return Finding(WARNED, "perplexity_poor", f"Perplexity {found.value:.4g} on plain English is poor.", evidence, measured)
    return Finding(PASSED, "perplexity_measured", f"Perplexity {found.value:.4g} on plain English.", evidence, measured)


def _judge_adapter(own: evaluation.Perplexity, base: evaluation.Perplexity, method: dict[str, Any]) -> Finding:
    times = own.value / base.value
    evidence = {**_rounded(own), "base_perplexity": round(base.value, 2), "times": round(times, 3), "method": method}
    said = f"Perplexity {own.value:.4g}, its base has {base.value:.4g}"
    if not times <= MUCH_WORSE:
        measured = [_measurement(own, base, method)] if own.value < float("inf") else []
        return Finding(FAILED, "perplexity_much_worse", f"{said}: the adapter has broken what the base could.", evidence, measured)
    measured = [_measurement(own, base, method)]
    if times > WORSE:
        return Finding(WARNED, "perplexity_worse", f"{said}: the adapter costs it some of what the base could.", evidence, measured)
    return Finding(PASSED, "perplexity_kept", f"{said}.", evidence, measured)
