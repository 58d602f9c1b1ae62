"""The engine on a tiny model: what a request gets does not depend on who else is there, and nothing is left behind."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference.engine import EngineCore
from inference.library import Engine
from inference.prompts import RequestRefused
from inference.protocol import FailureCode, Finished, FinishReason, GenerationRequest, Priority, Started
from tests.inference.asking import PROMPTS, Outcome, a_request, an_engine, finish, outcomes, run, texts
from tests.inference.tiny import tiny_adapter, tiny_base, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(folder: Path) -> EngineCore:
    return an_engine(folder)


def test_an_answer_begins_grows_and_ends(engine: EngineCore) -> None:
    (outcome,) = run(engine, a_request(max_tokens=10))

    prompt_tokens = len(engine.tokenizer.render([{"role": "user", "content": "Hello!"}]))
    assert outcome.started == Started("engine", 1, prompt_tokens)
    assert all(delta.text for delta in outcome.deltas)
    assert outcome.finished.reason == FinishReason.LENGTH
    assert outcome.finished.usage == {"prompt_tokens": prompt_tokens, "completion_tokens": 10, "cached_tokens": 0}
    assert 0 < outcome.finished.first_token_ms <= outcome.finished.duration_ms


def test_greedy_text_is_that_of_transformers(folder: Path, engine: EngineCore) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = engine.tokenizer.render([{"role": "user", "content": PROMPTS[1]}])

    answer = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()

    assert texts(run(engine, a_request(PROMPTS[1]))) == [engine.tokenizer.decode(answer)]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}, {"temperature": 0.7, "top_p": 0.9, "seed": 6}])
def test_a_request_gets_the_same_text_alone_and_in_a_busy_batch(folder: Path, sampling: dict[str, Any]) -> None:
    alone = [texts(run(an_engine(folder), a_request(prompt, **sampling)))[0] for prompt in PROMPTS]
    busy = an_engine(folder, max_batch_tokens=48)
    requests = [a_request(prompt, **sampling) for prompt in PROMPTS]
    others = [a_request(f"{n} dogs", temperature=1.0, max_tokens=30) for n in range(8)]
    events: list[tuple[str, Any]] = []

    for request, other in zip(requests, others, strict=True):  # they come one after the other
        busy.submit(other)
        busy.submit(request)
        events += busy.step()
    events += finish(busy)

    assert texts(outcomes(events, requests)) == alone
    assert len(set(alone)) > 5


def test_too_few_blocks_delay_answers_and_change_none(folder: Path) -> None:
    expected = [texts(run(an_engine(folder), a_request(prompt, max_tokens=60)))[0] for prompt in PROMPTS]
    cramped = an_engine(folder, cache_tokens=320, max_batch_tokens=40)

    found = run(cramped, *(a_request(prompt, max_tokens=60) for prompt in PROMPTS))

    assert texts(found) == expected
    stats = cramped.stats()
    assert stats["preemptions"] > 0
    assert stats["blocks_used"] == 0
    assert stats["blocks_cached"] + stats["blocks_free"] == stats["blocks_total"] == 20


def test_what_was_cached_is_counted_and_changes_nothing(engine: EngineCore) -> None:
    long = "Tell me " * 40

    first, again, other_tenant, other_version = (
        run(engine, a_request(long, **fields))[0] for fields in ({}, {}, {"tenant": "another"}, {"version": "another"})
    )

    prompt_tokens = first.started.prompt_tokens
    assert again.finished.usage["cached_tokens"] == (prompt_tokens - 1) // 16 * 16 > 0
    assert [outcome.finished.usage["cached_tokens"] for outcome in (first, other_tenant, other_version)] == [0, 0, 0]
    assert first.text == again.text == other_tenant.text == other_version.text


def test_a_versions_instructions_are_computed_once_for_all_tenants(engine: EngineCore) -> None:
    instructions = {"role": "system", "content": "Answer as well as you can, and be brief. " * 4}

    def ask(tenant: str, text: str) -> Outcome:
        messages = [instructions, {"role": "user", "content": text}]
        return run(engine, a_request(tenant=tenant, messages=messages, own_messages=1))[0]

    ask("alice", "Hello! Tell me what you want to know")
    found = ask("bob", "Hello! Tell me what you want to know")

    own = len(engine.tokenizer.render([instructions], add_generation_prompt=False))
    assert found.finished.usage["cached_tokens"] in range(own - 16, own + 16)
    assert ask("bob", "Hello! Tell me what you want to know").finished.usage["cached_tokens"] > found.finished.usage["cached_tokens"]


def test_a_cancelled_request_is_gone_at_once(engine: EngineCore) -> None:
    request, other = a_request("Tell me " * 40, max_tokens=500), a_request(max_tokens=30)
    engine.submit(request)
    engine.submit(other)
    for _ in range(5):
        engine.step()
    assert engine.stats()["running"] == 2

    engine.cancel(request.id)
    engine.cancel("req_unknown")

    stats = engine.stats()
    assert (stats["running"], stats["waiting"]) == (1, 0)
    assert stats["blocks_used"] == 1 + (len(engine._answers[other.id].first.sequence.tokens) - 1) // 16
    (cancelled,) = (event for id_, event in engine.step() if id_ == request.id)
    assert cancelled.reason == FinishReason.CANCELLED
    assert 0 < cancelled.usage["completion_tokens"] < 500
    finish(engine)
    assert engine.stats()["blocks_used"] == 0


def test_a_request_cancelled_while_it_waits_leaves_nothing(folder: Path) -> None:
    engine = an_engine(folder, max_running=1)
    first, second = a_request(), a_request()
    engine.submit(first)
    engine.submit(second)
    engine.step()

    engine.cancel(second.id)

    assert engine.stats()["waiting"] == 0
    (outcome,) = outcomes([(second.id, None), *((i, e) for i, e in finish(engine) if i == second.id)], [second])
    assert outcome.finished.usage["completion_tokens"] == 0


def test_a_request_past_its_deadline_is_ended(engine: EngineCore) -> None:
    late = a_request(deadline=time.time() - 1)

    (outcome,) = run(engine, late)

    assert outcome.finished.reason == FinishReason.DEADLINE
    assert engine.stats()["blocks_used"] == 0


def test_stop_strings_end_an_answer_before_them(engine: EngineCore) -> None:
    (whole,) = run(engine, a_request())
    stop = whole.text[8:11]

    (outcome,) = run(engine, a_request(stop=(stop,)))

    assert outcome.text == whole.text[: whole.text.index(stop)]
    assert outcome.finished.reason == FinishReason.STOP
    assert outcome.finished.usage["completion_tokens"] < 24


def test_a_token_that_ends_answers_ends_this_one(folder: Path, tmp_path: Path) -> None:
    engine = an_engine(folder)
    (whole,) = run(engine, a_request())
    sixth = engine.tokenizer.encode(whole.text)[5]
    ending = tiny_base(tmp_path / "ending")
    write_json(ending / "generation_config.json", {"eos_token_id": sixth})

    (outcome,) = run(an_engine(ending), a_request())

    assert outcome.finished.reason == FinishReason.STOP
    assert outcome.text == engine.tokenizer.decode(engine.tokenizer.encode(whole.text)[:5])


def test_no_answer_ends_before_its_fewest_tokens(folder: Path, tmp_path: Path) -> None:
    engine = an_engine(folder)
    (whole,) = run(engine, a_request())
    tokens = engine.tokenizer.encode(whole.text)
    ending = tiny_base(tmp_path / "ending")
    write_json(ending / "generation_config.json", {"eos_token_id": tokens[5]})
    stop = whole.text[2:4]
    assert whole.text.count(stop) == 1

    early, late, stopped, unstopped = (
        run(an_engine(base), a_request(**fields))[0]
        for base, fields in (
            (ending, {}),
            (ending, {"min_tokens": 10}),
            (folder, {"stop": (stop,)}),
            (folder, {"stop": (stop,), "min_tokens": 20}),
        )
    )

    assert early.finished.usage["completion_tokens"] == 6
    assert late.finished.usage["completion_tokens"] > 10
    assert stopped.finished.usage["completion_tokens"] < 10
    assert unstopped.text == whole.text


@pytest.mark.parametrize("stop", [(), ("e",), ("zzz",)])
def test_the_log_probabilities_told_are_those_of_the_text(engine: EngineCore, stop: tuple[str, ...]) -> None:
    request = a_request(logprobs=2, stop=stop)

    answer = engine.submit(request)
    (outcome,) = outcomes(finish(engine), [request])

    told = [entry for delta in outcome.deltas for entry in delta.logprobs or []]
    assert told == [engine.tokenizer.vocabulary.in_words(found) for found in answer.first.logprobs]
    assert b"".join(bytes(entry["bytes"]) for entry in told).decode().startswith(outcome.text)
    assert all(len(entry["top_logprobs"]) == 2 for entry in told)
    assert len(told) == outcome.finished.usage["completion_tokens"]
    assert all(delta.logprobs is None for delta in run(engine, a_request())[0].deltas)


def test_no_log_probability_is_told_of_the_token_that_ends(folder: Path, tmp_path: Path) -> None:
    (whole,) = run(engine := an_engine(folder), a_request())
    ending = tiny_base(tmp_path / "ending")
    write_json(ending / "generation_config.json", {"eos_token_id": engine.tokenizer.encode(whole.text)[5]})

    (outcome,) = run(an_engine(ending), a_request(logprobs=0))

    assert outcome.finished.usage["completion_tokens"] == 6
    told = [entry["token"] for delta in outcome.deltas for entry in delta.logprobs or []]
    assert "".join(told) == outcome.text
    assert len(told) == 5


def test_a_stop_string_of_10_kb_harms_nobody(engine: EngineCore) -> None:
    expected = texts(run(engine, a_request("rate it")))
    (whole,) = run(engine, a_request())
    said = whole.text[:12]

    long, other = run(engine, a_request(stop=(said + "a" * 10_000, *(f"{n} {said}" for n in range(60)))), a_request("rate it"))

    assert long.text == whole.text
    assert texts([other]) == expected


def test_an_answer_ends_where_the_context_does(folder: Path, tmp_path: Path) -> None:
    engine = an_engine(tiny_base(tmp_path / "short", max_position_embeddings=64))

    (outcome,) = run(engine, a_request(max_tokens=1000))

    assert outcome.finished.reason == FinishReason.LENGTH
    assert outcome.started.prompt_tokens + outcome.finished.usage["completion_tokens"] == 64


def refusal(engine: EngineCore, request: GenerationRequest, **submit: Any) -> RequestRefused:
    before = engine.stats()
    with pytest.raises(RequestRefused) as caught:
        engine.submit(request, **submit)
    assert engine.stats() == before
    assert not engine.has_work
    return caught.value


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine: EngineCore) -> None:
    error = refusal(engine, a_request("word " * 3000))

    assert error.code == FailureCode.CONTEXT_LENGTH_EXCEEDED
    assert error.detail["context_length"] == 2048
    assert error.detail["prompt_tokens"] > 6000


def test_a_conversation_the_template_refuses_is_refused(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('Only one message') }}")

    assert refusal(an_engine(folder), a_request()).code == FailureCode.TEMPLATE_FAILED


def test_an_adapter_without_files_is_refused(engine: EngineCore) -> None:
    assert refusal(engine, a_request(adapter="1" * 64)).code == FailureCode.ADAPTER_UNAVAILABLE


def test_room_is_bounded(folder: Path) -> None:
    engine = an_engine(folder, max_running=1, max_waiting=2)
    engine.submit(a_request())
    engine.step()
    engine.submit(a_request())
    assert engine.has_room
    engine.submit(a_request())
    assert not engine.has_room
    engine.submit(a_request())
    engine.submit(a_request())

    with pytest.raises(RequestRefused) as caught:
        engine.submit(a_request())

    assert caught.value.code == FailureCode.OVERLOADED
    assert sum(isinstance(event, Finished) for _, event in finish(engine)) == 5
    assert engine.has_room


def test_interactive_requests_are_answered_before_batch_ones(folder: Path) -> None:
    engine = an_engine(folder, max_running=2)
    batch = [a_request(priority=Priority.BATCH, max_tokens=12) for _ in range(3)]
    for request in batch:
        engine.submit(request)
    engine.step()
    urgent = a_request(max_tokens=12)
    engine.submit(urgent)

    ended = [id_ for id_, event in finish(engine) if isinstance(event, Finished)]

    assert ended.index(urgent.id) < ended.index(batch[1].id)
    assert set(ended) == {urgent.id, *(request.id for request in batch)}


def test_each_request_of_a_batch_has_its_own_adapter(folder: Path, tmp_path: Path) -> None:
    adapters = {str(n) * 64: tiny_adapter(tmp_path / str(n), folder, seed=n) for n in (1, 2)}
    alone = [
        texts(run(an_engine(folder), a_request(adapter=digest), adapter_folder=adapters.get(digest)))[0] for digest in (None, *adapters)
    ]
    engine = an_engine(folder)
    requests = [a_request(adapter=digest) for digest in (None, *adapters)]
    for request in requests:
        engine.submit(request, adapter_folder=adapters.get(request.adapter))

    together = texts(outcomes(finish(engine), requests))

    assert together == alone
    assert len(set(alone)) == 3
    assert engine.stats()["adapters"] == 2
    assert texts(run(engine, a_request(adapter="1" * 64))) == [alone[1]]  # now it is kept


def test_numbers_that_are_not_finite_end_one_request_and_reach_no_other(engine: EngineCore) -> None:
    expected = texts(run(engine, a_request("rate it", max_tokens=40)))
    poisoned, other = a_request("Tell me " * 30, max_tokens=100), a_request("rate it", max_tokens=40)
    engine.submit(poisoned)
    engine.submit(other)
    events = engine.step()
    blocks = list(engine._answers[poisoned.id].first.sequence.blocks.blocks)
    engine._runner.values[:, blocks] = float("nan")
    engine._runner.keys[:, blocks] = float("nan")

    bad, good = outcomes(events + finish(engine), [poisoned, other])

    assert (bad.finished.reason, bad.finished.failure) == (FinishReason.ERROR, FailureCode.INTERNAL)
    assert [good.text] == expected
    assert not engine._runner.keys.isnan().any()
    assert not engine._runner.values.isnan().any()
    assert run(engine, a_request("Tell me " * 30))[0].finished.usage["cached_tokens"] == 0


def test_freed_blocks_are_zero_and_kept_ones_are_not(engine: EngineCore) -> None:
    run(engine, a_request("Tell me " * 20))

    stats = engine.stats()
    filled = (engine._runner.keys != 0).flatten(2).any(-1)[0]
    assert int(filled.sum()) == stats["blocks_cached"] > 0


def test_bfloat16_runs_too(folder: Path) -> None:
    outcomes_ = run(an_engine(folder, dtype="bfloat16"), *(a_request(prompt) for prompt in PROMPTS))

    assert all(outcome.finished.reason == FinishReason.LENGTH and outcome.text for outcome in outcomes_)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_gives_the_same_greedy_text(folder: Path, engine: EngineCore) -> None:
    expected = texts(run(engine, *(a_request(prompt) for prompt in PROMPTS)))

    assert texts(run(an_engine(folder, device="cuda"), *(a_request(prompt) for prompt in PROMPTS))) == expected


def test_a_request_without_functions_is_what_a_worker_from_before_there_were_any_reads() -> None:
    request, tools = a_request("Hello!"), [{"type": "function", "function": {"name": "weather"}}]

    assert "tools" not in request.to_json()
    assert replace(request, tools=tools).to_json()["tools"] == tools
    assert all(GenerationRequest.from_json(each.to_json()) == each for each in (request, replace(request, tools=tools)))


def test_the_protocol_comes_without_torch() -> None:
    code = "import sys, inference.protocol; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_request_for_a_vector_gets_what_the_library_computes(folder: Path) -> None:
    engine = an_engine(folder)
    with Engine(an_engine(folder)) as library:
        expected = library.embed(["Tell me " * 20], dimensions=8)[0]

    engine.submit(a_request("Tell me " * 20, embedding={"dimensions": 8}))
    started, told, finished = (event for _, event in finish(engine))

    assert struct.unpack("<8f", base64.b64decode(told.vector)) == pytest.approx(expected, abs=1e-6)
    assert finished.usage == {"prompt_tokens": started.prompt_tokens, "completion_tokens": 0, "cached_tokens": 0}
    with pytest.raises(RequestRefused, match="dimensions must be a whole number from 1 to 64"):
        engine.submit(a_request("Hello!", embedding={"dimensions": 65}))
