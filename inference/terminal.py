"""What `python -m inference` does: answers, a fine-tune or an evaluation, from files to the terminal."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from inference import packaged, terminal_suites, terminal_training
from inference.checkpoint import CheckpointError, described
from inference.config import GPTConfig, UnsupportedModel
from inference.datasets import UnusableDataset
from inference.engine import RequestRefused
from inference.given import WrongInput, device_of, folder_of
from inference.job_process import JobError
from inference.library import Engine, Output
from inference.lora_settings import AdapterError
from inference.measuring import Unmeasurable
from inference.protocol import FinishReason
from inference.reading import TokenLogprob
from inference.sampling_params import InvalidSampling, SamplingParams
from inference.suites import SuiteRefused
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

UNUSABLE = (
    *(WrongInput, InvalidSampling, RequestRefused, TemplateFailed, TokenizerError, CheckpointError, UnsupportedModel),
    *(AdapterError, UnusableDataset, SuiteRefused, Unmeasurable, JobError, packaged.PackagedModelUnavailable, OSError),
)


def run(options: argparse.Namespace) -> None:
    """Raises one of UNUSABLE."""
    if "device" in options:
        options.device = device_of(options.device)
    acts = {"describe": describe, "generate": generate, "evaluate": evaluate, "attention": attention}
    acts |= {"train": terminal_training.train, "pretrain": terminal_training.pretrain}
    acts[options.act](options)


def _adapter(options: argparse.Namespace) -> Path | None:
    if options.adapter is not None and not Path(options.adapter).is_dir():
        raise WrongInput(f"there is no adapter folder {options.adapter!r}")
    return None if options.adapter is None else Path(options.adapter)


# ---------------------------------------------------------------- describe


def describe(options: argparse.Namespace) -> None:
    found = described(folder_of(options.model))
    if options.json:
        print(json.dumps(found))
        return
    memory = ", ".join(f"{size_bytes / 2**20:,.0f} MB in {dtype}" for dtype, size_bytes in found["memory_bytes"].items())
    print(f"{found['architecture']}: {found['parameter_count']:,} parameters, kept in {found['dtype']}")
    print(f"context: {found['context_length']:,} tokens")
    print(f"memory of an engine: {memory}")


# ---------------------------------------------------------------- generate


def generate(options: argparse.Namespace) -> None:
    chosen = {field.name for field in fields(SamplingParams)}
    params = SamplingParams(**{name: value for name, value in vars(options).items() if name in chosen})
    adapter, folder = _adapter(options), folder_of(options.model)
    prompts = list(_prompts(options, Tokenizer.from_folder(folder)))
    if not prompts:
        raise WrongInput("there is no prompt: give one as an argument, by --file or on the standard input")
    with Engine.load(folder, dtype=options.dtype, device=options.device) as engine:
        if len(prompts) == params.n == 1 and not options.json:
            _stream(engine, prompts[0], params, adapter)
            return
        outputs = engine.generate(prompts, params, [adapter] * len(prompts))
    failed = ""
    for number, output in enumerate(outputs):
        for choice in output.choices:
            failed = failed or choice.error
        if options.json:
            print(json.dumps(_output_json(number, output), ensure_ascii=False))
        else:
            print(*(choice.text for choice in output.choices), sep="\n")
    if failed:
        raise WrongInput(failed)


def _stream(engine: Engine, prompt: str | list[int], params: SamplingParams, adapter: Path | None) -> None:
    for piece in engine.stream(prompt, params, adapter):
        print(piece.text, end="", flush=True)
        if piece.finish_reason == FinishReason.ERROR:
            raise WrongInput(piece.error)
    print()


def _prompts(options: argparse.Namespace, tokenizer: Tokenizer) -> Iterator[str | list[int]]:
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    given: list[Any] = list(options.prompts)
    if options.file is not None:
        given += [value for _, value in _lines(Path(options.file))]
    elif not given and (text := sys.stdin.read()).strip():
        given.append(text.removesuffix("\n"))
    for value in given:
        text = value.get("prompt") if isinstance(value, dict) else value
        if isinstance(value, dict) and "messages" in value:
            yield tokenizer.render(_messages(value))
        elif not isinstance(text, str):
            raise WrongInput(f"{json.dumps(value)[:80]} is no prompt: it must be a text or have 'prompt' or 'messages'")
        elif options.chat or system:
            yield tokenizer.render([*system, {"role": "user", "content": text}])
        else:
            yield text


def _output_json(number: int, output: Output) -> dict[str, Any]:
    choices = [
        {
            "text": choice.text,
            "token_ids": choice.token_ids,
            "finish_reason": str(choice.finish_reason),
            **({"error": choice.error} if choice.error else {}),
            **({"logprobs": [token.logprob for token in choice.logprobs]} if choice.logprobs is not None else {}),
        }
        for choice in output.choices
    ]
    return {"index": number, "choices": choices, "usage": output.usage.to_json()}


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of every line that is not empty."""
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, json.loads(line)
    except (UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise WrongInput(f"{path}, line {number}: it is not JSON: {error}") from error


def _messages(value: dict[str, Any]) -> list[dict[str, str]]:
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise WrongInput("'messages' must be a list of one or more messages")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise WrongInput(f"{json.dumps(message)[:80]} is no message: it must have a 'role' and a 'content', both texts")
    return messages


# ---------------------------------------------------------------- attention


def attention(options: argparse.Namespace) -> None:
    with Engine.load(folder_of(options.model), dtype=options.dtype, device=options.device) as engine:
        print(json.dumps(engine.attention(options.text, layer=options.layer, head=options.head).to_json(), ensure_ascii=False))


# ---------------------------------------------------------------- evaluate


def evaluate(options: argparse.Namespace) -> None:
    adapter, folder = _adapter(options), folder_of(options.model)
    if bool(options.suite) == (options.file is not None):
        raise WrongInput("give either a file to take the perplexity of, or suites by --suite")
    if options.suite:
        return terminal_suites.evaluate(options, folder, adapter)
    tokenizer = Tokenizer.from_folder(folder)
    window = min(options.window, GPTConfig.from_folder(folder).context_length - 1)
    if window < 2:
        raise WrongInput("--window must be at least 2: a token is predicted from those before it")
    texts = _windows(Path(options.file), tokenizer, window)
    if not texts:
        raise WrongInput(f"{options.file} has no token to predict")
    dtypes = dict.fromkeys([options.dtype, options.against or options.dtype])
    found = [_scored(folder, dtype, options.device, texts, adapter) for dtype in dtypes]
    for dtype, scores in zip(dtypes, found, strict=True):
        total, count = math.fsum(score.logprob for score in scores), len(scores)
        if options.json:
            tokens = {"token_logprobs": [[score.token, score.logprob] for score in scores]} if options.tokens else {}
            facts = {"dtype": dtype, "tokens": count, "log_likelihood": total, "perplexity": math.exp(-total / count)}
            print(json.dumps({**facts, **tokens}))
            continue
        if options.tokens:
            for score in scores:
                print(score.token, json.dumps(tokenizer.decode([score.token]), ensure_ascii=False), f"{score.logprob:.6f}", sep="\t")
        print(f"{dtype}: {count} tokens, log-likelihood {total:.4f}, perplexity {math.exp(-total / count):.4f}")
    if len(found) == 2 and not options.json:
        differences = [abs(a.logprob - b.logprob) for a, b in zip(*found, strict=True)]
        print(f"difference of a token: mean {math.fsum(differences) / len(differences):.6f}, largest {max(differences):.6f}")


def _scored(folder: Path, dtype: str, device: str, texts: list[list[int]], adapter: Path | None) -> list[TokenLogprob]:
    """Every token but the first of each text."""
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    with Engine.load(folder, dtype=dtype, device=device) as engine:
        outputs = engine.generate(texts, params, [adapter] * len(texts))
    for output in outputs:
        if output.finish_reason == FinishReason.ERROR:
            raise WrongInput(output.error)
    return [score for output in outputs for score in output.prompt_logprobs or []]


def _windows(path: Path, tokenizer: Tokenizer, window: int) -> list[list[int]]:
    """The file's texts as tokens, each begun with the end-of-text token so that its first word is predicted too."""
    start = [min(tokenizer.eos_ids)] if tokenizer.eos_ids else []
    room = window - len(start)
    pieces = [tokens[at : at + room] for tokens in _texts(path, tokenizer) for at in range(0, len(tokens), room)]
    return [start + piece for piece in pieces if len(start) + len(piece) > 1]


def _texts(path: Path, tokenizer: Tokenizer) -> Iterator[list[int]]:
    if path.suffix != ".jsonl":
        try:
            yield tokenizer.encode(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise WrongInput(f"{path} is not UTF-8 text: {error}") from error
        return
    for number, value in _lines(path):
        text = value.get("text") if isinstance(value, dict) else value
        if isinstance(value, dict) and "messages" in value:
            yield tokenizer.render(_messages(value), add_generation_prompt=False)
        elif isinstance(text, str):
            yield tokenizer.encode(text)
        else:
            raise WrongInput(f"{path}, line {number}: it must be a text or have 'text' or 'messages'")
