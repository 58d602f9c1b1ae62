"""The continuous-batching engine: requests join and leave at every step, and one forward pass serves all of them.

    engine.submit(request)
    while engine.has_work:
        for request_id, event in engine.step():
            …                                     # Started, Delta, …, Finished

An engine is used by one thread. It knows nothing of processes, queues or streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.adapters import AdapterStore, Hold, Source
from inference.answers import Answer, Branch, branches_of, ended
from inference.attended import watched_by
from inference.attention import Piece
from inference.cache import BLOCK_SIZE, BlockPool, Scope, SequenceBlocks
from inference.checkpoint import load_gpt
from inference.engine_options import DTYPES, EngineOptions
from inference.footprint import weights_bytes
from inference.grammar import GrammarRefused, GrammarTooSlow
from inference.grammars import Grammars
from inference.lora_settings import AdapterError
from inference.model import GPT
from inference.native import fastest_runner
from inference.pages import give_back_freed_memory, settle
from inference.prompts import Encoder, Prompt, RequestRefused, sampling_of
from inference.protocol import (
    Attended,
    Delta,
    Embedded,
    FailureCode,
    Finished,
    FinishReason,
    GenerationRequest,
    Priority,
    Started,
)
from inference.readers import prompt_read, reader_of
from inference.reading import Reader, token_logprobs
from inference.runner import Runner, TorchRunner
from inference.sampling import Sampler
from inference.scheduler import Chunk, Scheduler, Sequence
from inference.throughput import Throughput
from inference.tokenizer import Tokenizer

BATCH_BESIDE_ON_CPU = 2
LOOK_FOR_LOADED_EVERY_S = 0.01  # when there is nothing else to do

Event = Started | Delta | Attended | Embedded | Finished


class EngineCore:
    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        options: EngineOptions | None = None,
        *,
        run_with: Callable[[GPT, int], Runner] = TorchRunner,
        encoder: Encoder | None = None,
    ) -> None:
        """`run_with` makes the runner for the model, with room for a number of blocks of BLOCK_SIZE; TorchRunner leaves the model
        as it stands.

        `encoder` makes prompts: the tokenizer, unless a Renderer does it in a process of its own.
        """
        self.options = options or EngineOptions()
        self.config = model.config
        self.tokenizer = tokenizer
        self._encoder = encoder or tokenizer
        self._runner = run_with(model, max(self.options.cache_tokens // BLOCK_SIZE, 1))
        self._runner.bound_stacks(self.options.stack_bytes)
        self._pool = BlockPool(self._runner.blocks, self._runner.block_size)
        self._scheduler = Scheduler(
            self._pool,
            max_batch_tokens=self.options.max_batch_tokens,
            max_running=self.options.max_running,
            beside_interactive=self._batch_beside(),
        )
        self._answers: dict[str, Answer] = {}
        self._events: list[tuple[str, Event]] = []
        self._adapters = AdapterStore(
            model.config, dtype=self._runner.adapter_dtype, device=self._runner.device, budget_bytes=self.options.adapter_bytes
        )
        self._grammars = Grammars(tokenizer, vocab_size=model.config.vocab_size)
        self._loading: dict[Answer, None] = {}  # requests whose adapter or grammar is not here yet, in their order
        self._sampler = Sampler(eos_ids=tokenizer.eos_ids)
        self._arrivals = 0
        self._steps = 0
        self._guessed = self._guessed_right = 0
        self._throughput = Throughput()

    def _batch_beside(self) -> int | None:
        """On a processor each further row of a step takes about as long as the one before it; on a GPU hardly any."""
        chosen = self.options.batch_beside
        return BATCH_BESIDE_ON_CPU if chosen is None and self._runner.device.type == "cpu" else chosen

    @classmethod
    def load(cls, folder: Path, options: EngineOptions | None = None, *, encoder: Encoder | None = None) -> EngineCore:
        """An engine for the model in `folder`. Raises CheckpointError, UnsupportedModel, TokenizerError."""
        options = options or EngineOptions()
        model = load_gpt(folder, dtype=DTYPES[options.dtype], device=options.device)
        engine = cls(model, Tokenizer.from_folder(folder), options, run_with=fastest_runner(model), encoder=encoder)
        settle(weights_bytes=weights_bytes(model.config, options.dtype))
        return engine

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that one request may have."""
        return min(self.config.context_length, self._pool.total * self._pool.block_size)

    @property
    def runner_name(self) -> str:
        """What computes its steps: torch, flash or native."""
        return self._runner.name

    @property
    def has_work(self) -> bool:
        return bool(self._answers or self._events)

    @property
    def has_room(self) -> bool:
        """Whether another request should be given to the engine now. One more is refused only at twice that number."""
        return self._waiting < self.options.max_waiting

    @property
    def _waiting(self) -> int:
        """Requests of which nothing runs; the further choices of one that runs are not among them."""
        waiting, running = ({sequence.id for sequence in them} for them in (self._scheduler.waiting, self._scheduler.running))
        return len(waiting - running) + len(self._loading)

    # ------------------------------------------------------------ requests in and out

    def submit(
        self,
        request: GenerationRequest,
        *,
        prompt: Prompt | None = None,
        adapter_folder: Source | None = None,
        reader: Reader | None = None,
    ) -> Answer:
        """Takes a request; its events come from `step`. Raises RequestRefused, and then nothing has changed.

        `prompt` is what `prepare` has made of it before. A grammar that was not met before is compiled beside the running batch.
        `adapter_folder` is the request's adapter or what fetches it, looked at beside the running batch too, and only when the
        adapter is not here yet; what is wrong with either comes as the request's Finished. `reader` is shown the prompt's hidden states.
        """
        if self._waiting >= 2 * self.options.max_waiting:
            raise RequestRefused(FailureCode.OVERLOADED, "The engine has as many requests as it can hold.")
        if request.id in self._answers:
            raise RequestRefused(FailureCode.INTERNAL, f"The engine already works on {request.id}.")
        params = sampling_of(request, vocab_size=self.config.vocab_size)
        prompt = prompt or self.prepare(request)
        tokens = list(prompt.tokens)
        if reader is None:
            reader = reader_of(request, tokens, params, tokenizer=self.tokenizer, config=self.config, logits=self._runner.logits)
        scope = Scope(request.adapter, request.version, request.tenant, prompt.own, cached=reader is None)
        blocks = SequenceBlocks(self._pool, scope)
        hold = self._hold(request, adapter_folder)
        self._arrivals += 1
        max_tokens = max(1, min(params.max_tokens, self.context_length - len(tokens)))
        cost = len(tokens) + params.n * max_tokens
        first = Sequence(request.id, tokens, blocks, self._arrivals, request.priority, request.tenant, cost)
        answer = Answer(
            request=request,
            params=params,
            branches=branches_of(first, params, self.tokenizer, lookahead=self.options.lookahead),
            max_tokens=max_tokens,
            hold=hold,
            received_at=prompt.received_at,
            reader=reader,
            rule=None if params.grammar is None else self._grammars.compile(params.grammar),
        )
        self._answers[request.id] = answer
        self._events.append((request.id, Started(self.options.name, request.attempt, len(tokens))))
        if answer.rule is None and (hold is None or hold.adapter is not None):
            self._begin(answer)
        else:
            self._loading[answer] = None
        return answer

    def prepare(self, request: GenerationRequest, encoder: Encoder | None = None) -> Prompt:
        """What the model reads. Raises RequestRefused when there are too many tokens, or none, or wrong ones.

        Changes nothing, so that other threads may do it beside the steps, each with an `encoder` of its own.
        """
        sizes = {"vocab_size": self.config.vocab_size, "context_length": self.context_length}
        return prompt_read(request, encoder or self._encoder, **sizes)

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends a request at once and releases what it holds; its Finished comes from the next step. Unknown ids are ignored."""
        if (answer := self._answers.get(request_id)) is not None:
            self._finish(answer, reason)

    def prepare_grammars(self) -> None:
        """Does before the first request what else the first grammar does, and all would wait for. Raises GrammarRefused."""
        self._grammars.prepare()
        give_back_freed_memory()

    def close(self) -> None:
        """Ends what happens beside the steps: adapters that are still loading, grammars that are tried."""
        self._adapters.close()
        self._grammars.close()

    def step(self) -> list[tuple[str, Event]]:
        """Advances every request that has its turn by one forward pass; returns what is new."""
        self._expire()
        self._join_loaded()
        if chunks := self._scheduler.plan():
            draft = self._draft(chunks)
            self._zero_freed()
            if draft:
                self._compute_ahead(chunks[0], draft)
            else:
                self._compute(chunks)
        elif self._loading and not self._events:
            self._wait_for_loading()
        self._zero_freed()
        events, self._events = self._events, []
        return events

    def stats(self) -> dict[str, Any]:
        """What the engine does now; `blocks_used`, `blocks_cached` and `blocks_free` sum to `blocks_total`."""
        return {
            "name": self.options.name,
            "dtype": self.options.dtype,
            "running": len(self._scheduler.running),
            "waiting": len(self._scheduler.waiting),
            "blocks_total": self._pool.total,
            "blocks_used": self._pool.used,
            "blocks_cached": self._pool.idle,
            "blocks_free": self._pool.free,
            "block_tokens": self._pool.block_size,
            "preemptions": self._scheduler.preemptions,
            "loading": len(self._loading),
            **self._adapters.stats(),
            "steps": self._steps,
            "guessed": self._guessed,
            "guessed_right": self._guessed_right,
            "tokens_per_s": round(self._throughput.tokens_per_s, 1),
        }

    # ------------------------------------------------------------ taking a request

    def _hold(self, request: GenerationRequest, source: Source | None) -> Hold | None:
        if request.adapter is None:
            return None
        try:
            return self._adapters.hold(request.adapter, source, base=request.base, urgent=request.priority != Priority.BATCH)
        except AdapterError as error:
            raise RequestRefused(FailureCode.ADAPTER_UNAVAILABLE, f"The adapter cannot be used: {error}.") from error

    def _join_loaded(self) -> None:
        """Lets requests join the others whose adapter and grammar have come, and ends those whose cannot be used."""
        for answer in [answer for answer in self._loading if answer.settled]:
            if answer.hold is not None and answer.hold.adapter is None:
                self._finish(answer, FinishReason.ERROR, failure=FailureCode.ADAPTER_UNAVAILABLE, message=answer.hold.failure)
                continue
            if answer.rule is not None and (error := answer.rule.exception()) is not None:
                self._fail_grammar(answer, error)
                continue
            del self._loading[answer]
            if answer.adapter is not None:
                self._runner.expect(answer.adapter)
            self._begin(answer)

    def _wait_for_loading(self) -> None:
        """Until one of those that are not here yet may have come."""
        rules = [answer.rule for answer in self._loading if answer.rule is not None and not answer.rule.done()]
        if rules:
            futures.wait(rules, timeout=LOOK_FOR_LOADED_EVERY_S, return_when=futures.FIRST_COMPLETED)
        else:
            holds = [answer.hold for answer in self._loading if answer.hold is not None]
            self._adapters.wait(holds, timeout_s=LOOK_FOR_LOADED_EVERY_S)

    def _begin(self, answer: Answer) -> None:
        if answer.rule is not None:
            rule = answer.rule.result()
            for branch in answer.branches:
                branch.choice.constraint = rule.constraint(may_end=not answer.params.ignore_eos)
        answer.first.began = True
        self._scheduler.add(answer.first.sequence)

    # ------------------------------------------------------------ one step

    @torch.inference_mode()
    def _compute(self, chunks: list[Chunk]) -> None:
        tokens = [token for c in chunks for token in c.sequence.tokens[c.start : c.start + c.count]]
        pieces = [Piece(c.start, c.count, c.sequence.blocks.blocks) for c in chunks]
        adapters = [self._answers[c.sequence.id].adapter for c in chunks]
        watched = watched_by(self._answers[c.sequence.id].reader for c in chunks)
        hidden = self._runner.hidden(tokens, pieces, adapters if any(adapters) else None, watched)
        self._scheduler.advance(chunks)
        self._steps += 1
        ends: list[tuple[Answer, Branch, int]] = []
        end = 0
        for chunk in chunks:
            end += chunk.count
            answer = self._answers[chunk.sequence.id]
            branch = answer.branches[chunk.sequence.branch]
            if branch is answer.first and answer.reader is not None and chunk.start < chunk.sequence.prompt_length:
                rows = slice(end - chunk.count, min(end, end - chunk.count + chunk.sequence.prompt_length - chunk.start))
                answer.reader.show(hidden, watched, rows=rows, start=chunk.start)
            if chunk.reaches_end and (answer.reader is None or answer.reader.generates):
                ends += [(answer, one, end - 1) for one in (branch, *self._fork(answer))]
            elif chunk.reaches_end:
                self._end_reading(answer)
        if not ends:
            return
        branches = [branch for _, branch, _ in ends]
        logits = self._runner.logits(hidden[self._tensor([row for _, _, row in ends])])
        chosen = self._sampler.choose(logits, [branch.choice for branch in branches])
        self._note_logprobs(logits, branches, chosen)
        self._throughput.note(len(ends))
        for (answer, branch, _), token in zip(ends, chosen, strict=True):
            if branch.reason is None:  # another branch may have ended all
                self._take(answer, branch, token)

    def _draft(self, chunks: list[Chunk]) -> list[int]:
        """What a stream may say next, with blocks for it. Only for one that runs alone and is waited for: others would wait too."""
        if len(chunks) > 1 or len(self._scheduler.running) > 1 or self._scheduler.waiting:
            return []
        (chunk,) = chunks
        sequence, answer = chunk.sequence, self._answers[chunk.sequence.id]
        if chunk.count > 1 or not chunk.reaches_end or sequence.priority == Priority.BATCH or answer.reader is not None:
            return []
        branch = answer.branches[sequence.branch]
        if branch.choice.constraint is not None:
            return []  # each token's rule depends on the one before
        draft = branch.drafts.propose(sequence.tokens, answer.max_tokens - branch.choice.count - 1)
        return draft[: self._scheduler.stretch(sequence, len(draft))]

    @torch.inference_mode()
    def _compute_ahead(self, chunk: Chunk, draft: list[int]) -> None:
        """Computes a guess behind a stream's last token, and takes of it what is drawn in any case."""
        sequence, answer = chunk.sequence, self._answers[chunk.sequence.id]
        branch = answer.branches[sequence.branch]
        piece = Piece(chunk.start, 1 + len(draft), sequence.blocks.blocks)
        adapters = [answer.adapter] if answer.adapter is not None else None
        logits = self._runner.logits(self._runner.hidden([sequence.tokens[-1], *draft], [piece], adapters))
        self._scheduler.advance([chunk])
        self._steps += 1
        kept = 0
        while True:
            row = logits[kept : kept + 1]
            (token,) = self._sampler.choose(row, [branch.choice])
            self._note_logprobs(row, [branch], [token])
            self._take(answer, branch, token)
            if branch.reason is not None or kept == len(draft) or token != draft[kept]:
                break
            kept += 1
            self._scheduler.keep(sequence)
        self._scheduler.shrink(sequence)
        branch.drafts.judge(len(draft), kept)
        self._guessed += len(draft)
        self._guessed_right += kept
        self._throughput.note(kept + 1)

    def _fork(self, answer: Answer) -> list[Branch]:
        """Lets those branches begin that have not, all at once when the first has computed the prompt."""
        new = [branch for branch in answer.branches if not branch.began]
        if not new:
            return []
        copies = self._scheduler.fork(answer.first.sequence, [branch.sequence for branch in new])
        for branch in new:
            branch.began = True
        self._zero_freed()  # before something is written to what was freed a moment ago
        self._runner.copy(copies)
        return new

    def _end_reading(self, answer: Answer) -> None:
        """Ends a request of which nothing but its prompt is wanted."""
        assert answer.reader is not None
        if not answer.reader.is_finite:
            self._fail_not_finite(answer)
            return
        if (told := answer.reader.told()) is not None:
            self._events.append((answer.request.id, told))
        self._finish(answer, FinishReason.STOP)

    def _note_logprobs(self, logits: Tensor, branches: list[Branch], chosen: list[int | None]) -> None:
        wanted = [
            (row, token, branch.choice.params.logprobs)
            for row, (branch, token) in enumerate(zip(branches, chosen, strict=True))
            if branch.choice.params.logprobs is not None and token is not None
        ]
        if not wanted:
            return
        rows, tokens, tops = zip(*wanted, strict=True)
        for row, found in zip(rows, token_logprobs(logits[self._tensor(list(rows))], tokens, tops), strict=True):
            branches[row].logprobs.append(found)

    def _take(self, answer: Answer, branch: Branch, token: int | None) -> None:
        """Adds a chosen token to an answer and says what became of it."""
        if token is None:
            branch.sequence.blocks.forget()
            self._fail_not_finite(answer)
            return
        answer.first_token_at = answer.first_token_at or time.monotonic()
        branch.sequence.tokens.append(token)
        branch.choice.note(token)
        if token in self.tokenizer.eos_ids and not answer.params.ignore_eos:
            self._end(answer, branch, FinishReason.STOP)
            return
        constraint = branch.choice.constraint
        if constraint is not None:
            try:
                constraint.take(token)
            except GrammarRefused as error:
                self._fail_grammar(answer, error)
                return
        branch.spelled += 1
        if text := branch.text.push(token, may_stop=branch.choice.count >= answer.params.min_tokens):
            self._say(answer, branch, text)
        if branch.text.stopped or (constraint is not None and constraint.complete):
            self._end(answer, branch, FinishReason.STOP)
        elif branch.choice.count >= answer.max_tokens:
            self._end(answer, branch, FinishReason.LENGTH)

    def _say(self, answer: Answer, branch: Branch, text: str = "") -> None:
        logprobs = [self.tokenizer.vocabulary.in_words(found) for found in branch.untold()] or None
        self._events.append((answer.request.id, Delta(text, branch.choice.count, branch.number, branch.reason, logprobs)))

    def _end(self, answer: Answer, branch: Branch, reason: FinishReason) -> None:
        """Ends one branch by itself, and with the last of them the request."""
        self._close(answer, branch, reason)
        if len(answer.branches) > 1:
            self._say(answer, branch)
        if not answer.under_way:
            self._finish(answer, answer.first.reason or reason)

    def _close(self, answer: Answer, branch: Branch, reason: FinishReason) -> None:
        held = branch.text.end()
        if held or branch.logprobs[branch.told : branch.spelled]:
            self._say(answer, branch, held)
        branch.reason = reason
        if branch.began:
            self._scheduler.remove(branch.sequence)

    def _fail_not_finite(self, answer: Answer) -> None:
        message = "The model computed numbers that are not finite."
        self._finish(answer, FinishReason.ERROR, failure=FailureCode.INTERNAL, message=message)

    def _fail_grammar(self, answer: Answer, error: BaseException) -> None:
        """Ends a request whose rule cannot be followed, or not any further."""
        if not isinstance(error, GrammarRefused):
            message = f"The grammar could not be tried: {type(error).__name__}. Try again in a moment."
            self._finish(answer, FinishReason.ERROR, failure=FailureCode.OVERLOADED, message=message)
            return
        assert answer.params.grammar is not None
        if isinstance(error, GrammarTooSlow):
            self._grammars.refuse(answer.params.grammar, str(error))
        message = f"An answer cannot be made to follow the {answer.params.grammar.kind} asked for: {error}."
        detail = {"reason": str(error)}
        self._finish(answer, FinishReason.ERROR, failure=FailureCode.GRAMMAR_UNSUPPORTED, message=message, detail=detail)

    def _finish(
        self,
        answer: Answer,
        reason: FinishReason,
        *,
        failure: FailureCode | None = None,
        message: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        for branch in answer.under_way:
            self._close(answer, branch, reason)
        del self._answers[answer.request.id]
        self._loading.pop(answer, None)
        if answer.hold is not None:
            answer.hold.release()
        self._zero_freed()
        event = ended(answer, reason, failure=failure, message=message, detail=detail)
        self._events.append((answer.request.id, event))

    def _expire(self) -> None:
        now = time.time()
        for answer in [answer for answer in self._answers.values() if answer.request.deadline < now]:
            self._finish(answer, FinishReason.DEADLINE)

    def _zero_freed(self) -> None:
        if self._pool.freed:
            self._runner.zero(self._pool.freed)
            self._pool.freed.clear()

    # ------------------------------------------------------------ small parts

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._runner.device)
