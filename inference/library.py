"""The engine for use inside one's own process, without queues, workers or a store.

    engine = Engine.load(folder, dtype="bfloat16")
    outputs = engine.generate(["Once upon a time"], SamplingParams(max_tokens=32, temperature=0))
    outputs[0].text

Prompts are texts or lists of tokens and are read as they are: no chat template is applied. A text is encoded with what the
model's tokenizer puts around a text, such as a token that begins it. Any number of threads may use one engine: each call
advances all requests under way, so that calls at the same time share their batches.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inference.answers import Answer, Branch
from inference.engine import EngineCore, Event
from inference.engine_options import EngineOptions
from inference.prompts import RequestRefused
from inference.protocol import Attended, Delta, FailureCode, Finished, FinishReason, GenerationRequest, Usage
from inference.reading import MeanPool, PromptLogprobs, Reader, TokenLogprob
from inference.sampling_params import SamplingParams
from inference.tokenizer import Tokenizer

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt."""

    token_ids: list[int]  # with the token that ended it, if one did
    text: str
    finish_reason: str  # FinishReason; "error": `error` says what went wrong
    error: str = ""
    logprobs: list[TokenLogprob] | None = None  # of token_ids, where params.logprobs asks for them


@dataclass(frozen=True)
class Output:
    """All that was made of one prompt. What stands directly on it is the first choice's; with n > 1 there are more in `choices`."""

    prompt_token_ids: list[int]
    choices: tuple[Completion, ...]
    usage: Usage
    prompt_logprobs: list[TokenLogprob] | None = None  # of all tokens of the prompt but the first

    @property
    def token_ids(self) -> list[int]:
        return self.choices[0].token_ids

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason

    @property
    def error(self) -> str:
        return self.choices[0].error

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        return self.choices[0].logprobs


@dataclass(frozen=True)
class Piece:
    """What a stream yields: text as it becomes certain; the last piece says why there is no more."""

    text: str
    token_ids: list[int]  # since the piece before
    finish_reason: str | None = None
    error: str = ""
    usage: Usage | None = None  # of the last piece


@dataclass(eq=False)
class _Run:
    """A request of this process, waiting or under way."""

    request: GenerationRequest
    adapter: Path | None
    reader: Reader | None = None
    answer: Answer | None = None  # once it was given to the engine
    deltas: list[Delta] = field(default_factory=list)
    attended: Attended | None = None
    finished: Finished | None = None

    def note(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.deltas.append(event)
        elif isinstance(event, Attended):
            self.attended = event
        elif isinstance(event, Finished):
            self.finished = event


class Engine:
    def __init__(self, core: EngineCore, *, after_step: Callable[[], object] | None = None) -> None:
        """`after_step` is called after each step of whatever is under way; what it raises ends that."""
        self._loaded: EngineCore | None = core
        self._after_step = after_step
        self._runs: dict[str, _Run] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "bfloat16", device: str = "cpu", **options: Any) -> Engine:
        """An engine for the model in `folder`. `options` are EngineOptions'.

        Raises ValueError for a dtype that is not one of the three, CheckpointError, UnsupportedModel, TokenizerError.
        """
        return cls(EngineCore.load(Path(folder), EngineOptions(dtype=dtype, device=device, **options)))

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapters: Sequence[str | Path | None] | None = None,
    ) -> list[Output]:
        """Answers to all prompts, in their order. `params`: for all, or for each; `adapters`: for each a PEFT folder or None.

        Raises RequestRefused for a prompt that cannot be used, and then answers none. A request that fails later, also one
        whose adapter cannot be used, has the finish_reason "error" and harms no other.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of prompts, not one text")
        if isinstance(adapters, str | Path):
            raise TypeError("adapters must be a list with a folder or None for each prompt, not one folder")
        each = _one_for_each(SamplingParams() if params is None else params, len(prompts), "params")
        folders = [None] * len(prompts) if adapters is None else _one_for_each(list(adapters), len(prompts), "adapters")
        runs = [
            self._run(self._tokens_of(prompt), p, None if folder is None else Path(folder))
            for prompt, p, folder in zip(prompts, each, folders, strict=True)
        ]
        self._answer(runs)
        return [_output(run) for run in runs]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, adapter: str | Path | None = None) -> Iterator[Piece]:
        """Yields the answer to one prompt as it is made. Leaving the loop cancels it. `params.n` must be 1."""
        params = params or SamplingParams()
        if params.n != 1:
            raise ValueError("a stream is of one answer: params.n must be 1")
        run = self._run(self._tokens_of(prompt), params, None if adapter is None else Path(adapter))
        self._core.prepare(run.request)
        return self._stream(run)

    def embed(self, texts: Sequence[Prompt], *, dimensions: int | None = None) -> list[list[float]]:
        """A vector of length 1 for each text: the mean of its hidden states, or that of their first `dimensions`.

        Raises RequestRefused for a text that cannot be used or whose states are not finite, ValueError for dimensions that the model
        does not have.
        """
        size = self._core.config.hidden_size
        if dimensions is not None and not 1 <= dimensions <= size:
            raise ValueError(f"dimensions is {dimensions}; this model's vectors have 1 to {size}")
        pools = [MeanPool() for _ in texts]
        runs = [
            self._run(self._tokens_of(text), SamplingParams(max_tokens=1), None, reader=pool)
            for text, pool in zip(texts, pools, strict=True)
        ]
        self._answer(runs)
        for run in runs:
            _raise_failure(run)
        return [pool.vector(dimensions) for pool in pools]

    def attention(self, text: str, *, layer: int, head: int) -> Attended:
        """How the tokens of a short text look at each other in one head of one layer, both counted from 0. Raises RequestRefused."""
        run = self._run([], SamplingParams(max_tokens=1), None)
        run.request = replace(
            run.request, prompt_tokens=None, messages=[{"role": "user", "content": text}], attention={"layer": layer, "head": head}
        )
        self._answer([run])
        assert run.attended is not None
        return run.attended

    def score(self, prefix: Prompt, continuations: Sequence[Prompt]) -> list[float]:
        """The log-likelihood of each continuation behind the prefix: the sum over its tokens, in nats.

        A text is cut into tokens on its own, so a continuation that belongs to a word of the prefix begins a new token. Raises
        RequestRefused where what the model computes is not finite.
        """
        head = self._tokens_of(prefix)
        tails = [self._core.tokenizer.encode(text) if isinstance(text, str) else _numbers(text) for text in continuations]
        if not head:
            raise ValueError("the prefix has no token")
        params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        runs = [self._run(head + tail, params, None) for tail in tails]
        self._answer(runs)
        for run in runs:
            _raise_failure(run)
        return [sum(token.logprob for token in (_output(run).prompt_logprobs or [])[len(head) - 1 :]) for run in runs]

    @property
    def tokenizer(self) -> Tokenizer:
        return self._core.tokenizer

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that one request may have."""
        return self._core.context_length

    @property
    def runner_name(self) -> str:
        """What computes its steps: torch, flash or native."""
        return self._core.runner_name

    def stats(self) -> dict[str, Any]:
        return self._core.stats()

    def close(self) -> None:
        """Gives the model's memory back. Calls under way fail."""
        with self._lock:
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = None
            self._runs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ requests

    @property
    def _core(self) -> EngineCore:
        if self._loaded is None:
            raise RuntimeError("the engine is closed")
        return self._loaded

    def _run(self, tokens: list[int], params: SamplingParams, folder: Path | None, *, reader: Reader | None = None) -> _Run:
        request = GenerationRequest(
            id=f"req_{next(self._numbers)}",
            base="",
            version="",
            tenant="",
            messages=[],
            prompt_tokens=tokens,
            sampling=params.to_json(),
            deadline=float("inf"),
            adapter=None if folder is None else _name_of(folder),
        )
        return _Run(request, folder, reader)

    def _answer(self, runs: list[_Run]) -> None:
        for run in runs:
            self._core.prepare(run.request)  # refused before any other has begun
        try:
            self._finish_all(runs)
        finally:
            self._drop(runs)

    def _tokens_of(self, prompt: Prompt) -> list[int]:
        return self._core.tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else _numbers(prompt)

    def _finish_all(self, runs: Sequence[_Run]) -> None:
        to_submit, unfinished = deque(runs), deque(runs)
        while True:
            with self._lock:
                while unfinished and unfinished[0].finished is not None:
                    unfinished.popleft()
                if not unfinished:
                    return
                while to_submit and self._core.has_room:
                    self._submit(to_submit.popleft())
                self._advance()

    def _stream(self, run: _Run) -> Iterator[Piece]:
        given = 0
        try:
            with self._lock:
                self._submit(run)
            while True:
                with self._lock:
                    if not run.deltas and run.finished is None:
                        self._advance()
                    deltas, run.deltas = run.deltas, []
                    assert run.answer is not None
                    tokens, finished = run.answer.first.tokens[given:], run.finished
                if finished is not None:
                    text = "".join(delta.text for delta in deltas)
                    yield Piece(text, tokens, finished.reason, finished.message, Usage.from_json(finished.usage))
                    return
                if deltas:
                    given += len(tokens)
                    yield Piece("".join(delta.text for delta in deltas), tokens)
        finally:
            self._drop([run])

    def _submit(self, run: _Run) -> None:
        run.answer = self._core.submit(run.request, adapter_folder=run.adapter, reader=run.reader)
        self._runs[run.request.id] = run

    def _advance(self) -> None:
        for request_id, event in self._core.step():
            if (run := self._runs.get(request_id)) is not None:
                run.note(event)
        if self._after_step is not None:
            self._after_step()

    def _drop(self, runs: Sequence[_Run]) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            for run in runs:
                if self._runs.pop(run.request.id, None) is not None and run.finished is None and self._loaded is not None:
                    self._loaded.cancel(run.request.id, FinishReason.CANCELLED)


def _numbers(tokens: Sequence[int]) -> list[int]:
    """As Python's integers, also those of numpy or torch. What are none are left as they are, and refused by name."""
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        return list(tokens)


def _raise_failure(run: _Run) -> None:
    finished = run.finished
    if finished is not None and finished.reason == FinishReason.ERROR:
        raise RequestRefused(FailureCode(finished.failure or FailureCode.INTERNAL), finished.message)


def _one_for_each(value: Any, count: int, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"there are {len(value)} {name} for {count} prompts")
    return list(value)


def _name_of(folder: Path) -> str:
    """Names the adapter's files as they are now: written anew, they are another adapter."""
    folder = folder.resolve()
    files = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*")) if path.is_file()]
    return hashlib.sha256(repr((str(folder), files)).encode()).hexdigest()


def _output(run: _Run) -> Output:
    answer, finished = run.answer, run.finished
    assert answer is not None
    assert finished is not None
    prompt_logprobs = answer.reader.values if isinstance(answer.reader, PromptLogprobs) else None
    choices = tuple(_completion(run, branch, finished) for branch in answer.branches)
    return Output(run.request.prompt_tokens or [], choices, Usage.from_json(finished.usage), prompt_logprobs)


def _completion(run: _Run, branch: Branch, finished: Finished) -> Completion:
    text = "".join(delta.text for delta in run.deltas if delta.choice == branch.number)
    logprobs = None if branch.choice.params.logprobs is None else branch.logprobs
    return Completion(branch.tokens, text, branch.reason or finished.reason, finished.message, logprobs)
