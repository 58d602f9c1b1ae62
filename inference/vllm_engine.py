"""An engine whose tokens come from a vLLM server: `EngineCore` for whoever holds it, one streamed HTTP request for each request.

The prompt is rendered here and the answer is read as tokens, so templates, limits, stop strings, what is streamed and what is
counted are the core's. Each request has a thread that does nothing but wait for its adapter and for the server, and hand on what
comes; everything that changes happens in `step`. The server is the operator's: it is neither started nor ended here, and while it
is away the engine has no room.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from inference.answers import ended
from inference.config import GPTConfig
from inference.detokenizer import Detokenizer
from inference.lora_settings import AdapterError
from inference.prompts import Encoder, Prompt, RequestRefused, prompt_of, sampling_of
from inference.protocol import Delta, FailureCode, Finished, FinishReason, GenerationRequest, Started, Usage
from inference.reading import TokenLogprob
from inference.sampling_params import SamplingParams
from inference.tokenizer import Tokenizer
from inference.vllm_adapters import Unwanted, VllmAdapters, source_of
from inference.vllm_request import check_known, completion_body, is_greedy
from inference.vllm_server import Chunk, Completion, Piece, VllmFailed, VllmServer

log = structlog.get_logger(__name__)

NEWS_WITHIN_S = 0.05  # how long a step waits for the server, and so a cancellation for a step
NEWS_AT_MOST = 1024  # not yet taken by a step; then the server waits
HEALTH_EVERY_S = 1.0  # asked while the server is away
DTYPE = "vllm"  # in place of a number format: the protocol does not tell it

Event = Started | Delta | Finished


@dataclass(frozen=True)
class VllmOptions:
    """Where the server is and how much it is given."""

    url: str
    key: str = field(default="", repr=False)
    max_running: int = 64  # requests; from here on the engine says that it has no room
    max_adapters: int = 32  # on the server at once
    name: str = "engine"


@dataclass(eq=False)
class Branch:
    """One of the choices."""

    number: int
    text: Detokenizer
    count: int = 0  # tokens
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of tokens that became text and were not told yet
    reason: FinishReason | None = None


@dataclass(eq=False)
class Answer:
    """A request under way."""

    request: GenerationRequest
    params: SamplingParams
    prompt: list[int]
    max_tokens: int  # of each branch
    branches: list[Branch]
    completion: Completion
    received_at: float  # time.monotonic()
    first_token_at: float | None = None
    cached_tokens: int = 0

    @property
    def under_way(self) -> list[Branch]:
        return [branch for branch in self.branches if branch.reason is None]

    @property
    def wanted(self) -> bool:
        return not self.completion.closed

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt), sum(branch.count for branch in self.branches), min(self.cached_tokens, len(self.prompt)))


END = None  # news: the stream came to its end
News = Chunk | VllmFailed | None


class VllmEngine:
    def __init__(self, config: GPTConfig, tokenizer: Tokenizer, options: VllmOptions, *, encoder: Encoder | None = None) -> None:
        """`encoder` is as EngineCore's. Raises VllmFailed when the server does not answer."""
        self.options = options
        self.config = config
        self.tokenizer = tokenizer
        self._encoder = encoder or tokenizer
        self._server = VllmServer(options.url, key=options.key)
        served = self._server.served()
        log.info("vLLM server found", engine=options.name, url=options.url, model=served.model, context_length=served.context_length)
        self._model = served.model
        self.context_length = min(config.context_length, served.context_length)
        self._adapters = VllmAdapters(self._server, at_most=options.max_adapters, present=served.adapters)
        self._answers: dict[str, Answer] = {}
        self._events: list[tuple[str, Event]] = []
        self._news: queue.Queue[tuple[Answer, News]] = queue.Queue(NEWS_AT_MOST)
        self._away = threading.Event()  # the server, as far as is known
        self._looking = threading.Lock()
        self._closed = threading.Event()

    @classmethod
    def load(cls, folder: Path, options: VllmOptions, *, encoder: Encoder | None = None) -> VllmEngine:
        """An engine for the model in `folder`, of which tokenizer and config are read here. Raises UnsupportedModel, TokenizerError too."""
        return cls(GPTConfig.from_folder(folder), Tokenizer.from_folder(folder), options, encoder=encoder)

    @property
    def has_work(self) -> bool:
        return bool(self._answers or self._events)

    @property
    def has_room(self) -> bool:
        return len(self._answers) < self.options.max_running and not self._away.is_set()

    # ------------------------------------------------------------ requests in and out

    def submit(
        self, request: GenerationRequest, *, prompt: Prompt | None = None, adapter_folder: Path | Callable[[], Path] | None = None
    ) -> None:
        """Takes a request; its events come from `step`. Raises RequestRefused, and then nothing has changed."""
        if len(self._answers) >= 2 * self.options.max_running:
            raise RequestRefused(FailureCode.OVERLOADED, "The engine has as many requests as it can hold.")
        if request.id in self._answers:
            raise RequestRefused(FailureCode.INTERNAL, f"The engine already works on {request.id}.")
        params = sampling_of(request, vocab_size=self.config.vocab_size)
        check_known(params)
        prompt = prompt or self.prepare(request)
        answer = Answer(
            request=request,
            params=params,
            prompt=prompt.tokens,
            max_tokens=max(1, min(params.max_tokens, self.context_length - len(prompt.tokens))),
            branches=[Branch(number, Detokenizer(self.tokenizer, params.stop)) for number in range(params.n)],
            completion=Completion(self._server),
            received_at=prompt.received_at,
        )
        self._answers[request.id] = answer
        self._events.append((request.id, Started(self.options.name, request.attempt, len(prompt.tokens))))
        source = source_of(adapter_folder)
        threading.Thread(target=self._converse, args=(answer, source), name=f"vllm-{request.id}", daemon=True).start()

    def prepare(self, request: GenerationRequest, encoder: Encoder | None = None) -> Prompt:
        """As EngineCore's."""
        for name in ("attention", "embedding"):
            if getattr(request, name) is not None:
                raise RequestRefused(FailureCode.INVALID_PARAMETER, f"A vLLM server is not asked for {name}.", {"param": name})
        render, sizes = (encoder or self._encoder).render, {"vocab_size": self.config.vocab_size, "context_length": self.context_length}
        return Prompt(prompt_of(request, render, **sizes))

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends a request at once, here and on the server; its Finished comes from the next step. Unknown ids are ignored."""
        if (answer := self._answers.get(request_id)) is not None:
            self._finish(answer, reason)

    def close(self) -> None:
        """Gives up what is under way."""
        self._closed.set()
        for answer in self._answers.values():
            answer.completion.close()
        self._adapters.look_again()

    def step(self) -> list[tuple[str, Event]]:
        """What is new, after waiting a moment for it."""
        self._expire()
        try:
            self._hear(*self._news.get(timeout=0 if self._events else NEWS_WITHIN_S))
            for _ in range(NEWS_AT_MOST):
                self._hear(*self._news.get_nowait())
        except queue.Empty:
            pass
        events, self._events = self._events, []
        return events

    def stats(self) -> dict[str, Any]:
        return {
            "name": self.options.name,
            "dtype": DTYPE,
            "running": len(self._answers),
            "waiting": 0,
            "server": "away" if self._away.is_set() else "here",
            **self._adapters.stats(),
        }

    # ------------------------------------------------------------ in the threads that wait for the server

    def _converse(self, answer: Answer, source: Callable[[], str]) -> None:
        """Hands on what the server says of one request, and last how that ended."""
        try:
            if answer.request.adapter is None:
                self._pass_on(answer, self._model)
            else:
                self._converse_adapted(answer, answer.request.adapter, source)
            last: News = END
        except Unwanted:
            return
        except VllmFailed as error:
            last = error
            if error.code == FailureCode.ENGINE_DIED:
                self._look_after_server()
        except AdapterError as error:
            last = VllmFailed(FailureCode.ADAPTER_UNAVAILABLE, f"The adapter cannot be used: {error}.")
        except Exception as error:  # the edge of the thread: whoever waits for this answer must hear of it
            log.exception("request not answered", generation=answer.request.id, request_id=answer.request.trace)
            last = VllmFailed(FailureCode.INTERNAL, f"{type(error).__name__}: {error}")
        self._news.put((answer, last))

    def _converse_adapted(self, answer: Answer, adapter: str, source: Callable[[], str]) -> None:
        try:
            self._use_adapter(answer, adapter, source)
        except VllmFailed as error:
            if error.status != 404:
                raise
            self._adapters.lost(adapter)  # the server was started anew, or another engine unloaded it
            self._use_adapter(answer, adapter, source)

    def _use_adapter(self, answer: Answer, adapter: str, source: Callable[[], str]) -> None:
        with self._adapters.using(adapter, source, wanted=lambda: answer.wanted):
            self._pass_on(answer, adapter)

    def _pass_on(self, answer: Answer, model: str) -> None:
        eos_ids = self.tokenizer.eos_ids
        body = completion_body(answer.request, answer.params, prompt=answer.prompt, max_tokens=answer.max_tokens, eos_ids=eos_ids)
        for chunk in answer.completion.chunks(body | {"model": model}):
            self._news.put((answer, chunk))

    def _look_after_server(self) -> None:
        """Until the server says that it is well the engine has no room: what waits can go to another worker."""
        with self._looking:
            if self._away.is_set():
                return
            self._away.set()
        threading.Thread(target=self._await_server, name="vllm-health", daemon=True).start()

    def _await_server(self) -> None:
        while not self._server.healthy():
            if self._closed.wait(HEALTH_EVERY_S):
                return
        log.info("vLLM server is here", engine=self.options.name, url=self.options.url)
        self._away.clear()

    # ------------------------------------------------------------ what they brought

    def _hear(self, answer: Answer, news: News) -> None:
        if self._answers.get(answer.request.id) is not answer:
            return  # it ended here before
        if isinstance(news, VllmFailed):
            self._fail(answer, news)
        elif news is END:
            self._conclude(answer)
        else:
            answer.cached_tokens = news.cached_tokens or answer.cached_tokens
            for piece in news.pieces:
                if self._answers.get(answer.request.id) is answer:
                    self._take(answer, piece)

    def _take(self, answer: Answer, piece: Piece) -> None:
        if not 0 <= piece.choice < len(answer.branches):
            self._fail(answer, VllmFailed(FailureCode.INTERNAL, f"The vLLM server answered with a choice {piece.choice} nobody asked for."))
            return
        if not answer.under_way and piece.tokens:
            self._conclude(answer)  # the server has not seen the end that we saw
            return
        if is_greedy(answer.params):  # the server was asked once for all of them
            branches = answer.branches
        else:
            branches = [answer.branches[piece.choice]]
        for branch in branches:
            if branch.reason is None:
                self._go_on(answer, branch, piece)

    def _go_on(self, answer: Answer, branch: Branch, piece: Piece) -> None:
        text, reason = "", None
        for at, token in enumerate(piece.tokens):
            answer.first_token_at = answer.first_token_at or time.monotonic()
            branch.count += 1
            if token in self.tokenizer.eos_ids and not answer.params.ignore_eos:
                reason = FinishReason.STOP
                break
            if answer.params.logprobs is not None and at < len(piece.logprobs):
                branch.logprobs.append(_ranked(piece.logprobs[at], answer.params.logprobs))
            text += branch.text.push(token, may_stop=branch.count >= answer.params.min_tokens)
            if branch.text.stopped:
                reason = FinishReason.STOP
                break
            if branch.count >= answer.max_tokens:
                reason = FinishReason.LENGTH
                break
        if reason is None and piece.reason in (FinishReason.STOP, FinishReason.LENGTH):
            reason = FinishReason(piece.reason)
        if reason is None and piece.reason is not None:
            self._fail(answer, VllmFailed(FailureCode.ENGINE_DIED, f"The vLLM server ended the answer: {piece.reason[:50]}."))
            return
        if text:
            self._say(answer, branch, text)
        if reason is not None:
            self._end(answer, branch, reason)

    def _say(self, answer: Answer, branch: Branch, text: str = "") -> None:
        logprobs = [self.tokenizer.vocabulary.in_words(found) for found in branch.logprobs] or None
        branch.logprobs.clear()
        self._events.append((answer.request.id, Delta(text, branch.count, branch.number, branch.reason, logprobs)))

    def _end(self, answer: Answer, branch: Branch, reason: FinishReason) -> None:
        """Ends one branch by itself. The request goes on to the end of the stream, where the server tells of its cache."""
        self._close(answer, branch, reason)
        if len(answer.branches) > 1:
            self._say(answer, branch)

    def _close(self, answer: Answer, branch: Branch, reason: FinishReason) -> None:
        held = branch.text.end()
        if held or branch.logprobs:
            self._say(answer, branch, held)
        branch.reason = reason

    def _conclude(self, answer: Answer) -> None:
        if answer.under_way:
            self._fail(answer, VllmFailed(FailureCode.INTERNAL, "The vLLM server ended its stream before the answer had ended."))
        else:
            self._finish(answer, FinishReason.STOP)

    def _fail(self, answer: Answer, error: VllmFailed) -> None:
        self._finish(answer, FinishReason.ERROR, failure=error.code, message=str(error), detail=error.detail)

    def _finish(
        self,
        answer: Answer,
        reason: FinishReason,
        *,
        failure: FailureCode | None = None,
        message: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """An answer that has ended by itself ended so, whatever became of the rest of its stream."""
        answer.completion.close()
        self._adapters.look_again()
        if not answer.under_way:
            reason, failure, message, detail = answer.branches[0].reason or reason, None, "", None
        for branch in answer.under_way:
            self._close(answer, branch, reason)
        del self._answers[answer.request.id]
        event = ended(answer, reason, failure=failure, message=message, detail=detail)
        self._events.append((answer.request.id, event))

    def _expire(self) -> None:
        now = time.time()
        for answer in [answer for answer in self._answers.values() if answer.request.deadline < now]:
            self._finish(answer, FinishReason.DEADLINE)


def _ranked(found: TokenLogprob, top: int) -> TokenLogprob:
    """With as many of the most probable as asked for, best first: vLLM tells the answer's own token among them, wherever it stands."""
    best = sorted(found.top, key=lambda share: -share[1])[:top]
    return TokenLogprob(found.token, found.logprob, tuple(best))
