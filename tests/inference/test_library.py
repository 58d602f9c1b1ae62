"""The engine as a library: what benchmarks and other people's programs call."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from inference import Engine, Form, Grammar, SamplingParams
from inference.prompts import RequestRefused
from inference.protocol import FailureCode, FinishReason
from inference.sampling_params import InvalidSampling
from tests.inference.tiny import tiny_adapter, tiny_base

PROMPTS = ("Hello!", "What is the capital of France?", "你好", "Tell me " * 40, "rate it")
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine.load(folder, dtype="float32", cache_tokens=4096) as engine:
        yield engine


def tokens_of(engine: Engine, text: str) -> list[int]:
    return engine._core.tokenizer.encode(text)


def test_raw_prompts_are_answered_as_transformers_would(engine: Engine, theirs: transformers.PreTrainedModel) -> None:
    outputs = engine.generate(PROMPTS, GREEDY)

    for prompt, output in zip(PROMPTS, outputs, strict=True):
        tokens = tokens_of(engine, prompt)
        expected = theirs.generate(torch.tensor([tokens]), max_new_tokens=12, do_sample=False)[0, len(tokens) :].tolist()
        assert output.prompt_token_ids == tokens
        assert output.token_ids == expected
        assert output.text == engine._core.tokenizer.decode(expected)
        assert output.finish_reason == FinishReason.LENGTH
        assert (output.usage.prompt_tokens, output.usage.completion_tokens) == (len(tokens), 12)


def test_an_answer_may_have_to_follow_a_rule(engine: Engine) -> None:
    either, none = (Grammar(Form.CHOICE, ["yes", "no"]), Grammar(Form.REGEX, "(?=a)"))

    found, free, refused = engine.generate(["Is it?"] * 3, [replace(GREEDY, grammar=rule) for rule in (either, None, none)])

    assert found.text in ("yes", "no")
    assert free.text == engine.generate(["Is it?"], GREEDY)[0].text
    assert (refused.text, refused.finish_reason) == ("", FinishReason.ERROR)
    assert "look-around" in refused.error


def test_a_text_and_its_tokens_are_the_same_prompt(engine: Engine) -> None:
    tokens = tokens_of(engine, "Hello!")

    outputs = engine.generate(["Hello!", tokens, torch.tensor(tokens), numpy.array(tokens, dtype=numpy.int32)], GREEDY)

    assert [output.token_ids for output in outputs] == [outputs[0].token_ids] * 4
    assert outputs[2].prompt_token_ids == tokens


def test_each_prompt_may_have_parameters_and_an_adapter_of_its_own(engine: Engine, folder: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", folder)
    (alone,) = engine.generate(["Hello!"], GREEDY, [adapter])
    params = [GREEDY, SamplingParams(max_tokens=3, temperature=0.0), GREEDY]

    base, short, adapted = engine.generate(["Hello!"] * 3, params, adapters=[None, None, str(adapter)])

    assert short.token_ids == base.token_ids[:3]
    assert adapted.token_ids == alone.token_ids != base.token_ids


def test_an_adapter_written_anew_is_used_as_it_is_now(engine: Engine, folder: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", folder, seed=1)
    (before,) = engine.generate(["Hello!"], GREEDY, [adapter])

    tiny_adapter(adapter, folder, seed=2)

    (expected,) = engine.generate(["Hello!"], GREEDY, [tiny_adapter(tmp_path / "other", folder, seed=2)])
    (after,) = engine.generate(["Hello!"], GREEDY, [adapter])
    assert after.token_ids == expected.token_ids != before.token_ids


def test_more_prompts_than_the_engine_holds_are_all_answered(folder: Path) -> None:
    with Engine.load(folder, dtype="float32", max_running=2, max_waiting=2, cache_tokens=1024) as engine:
        outputs = engine.generate([f"{number} dogs" for number in range(20)], GREEDY)

        assert [len(output.token_ids) for output in outputs] == [12] * 20
        assert engine.stats()["blocks_used"] == 0


def test_end_of_text_is_passed_over_when_asked(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "model")
    with Engine.load(folder, dtype="float32") as engine:
        (whole,) = engine.generate(["Hello!"], GREEDY)
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {whole.token_ids[5]}}}')

    with Engine.load(folder, dtype="float32") as engine:
        (ended,) = engine.generate(["Hello!"], GREEDY)
        (ignoring,) = engine.generate(["Hello!"], SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True))

    assert ended.finish_reason == FinishReason.STOP
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(whole.token_ids[5]) + 1]
    assert ignoring.token_ids == whole.token_ids


def test_a_stream_yields_what_generate_returns(engine: Engine) -> None:
    (expected,) = engine.generate([PROMPTS[1]], GREEDY)

    pieces = list(engine.stream(PROMPTS[1], GREEDY))

    assert "".join(piece.text for piece in pieces) == expected.text
    assert [token for piece in pieces for token in piece.token_ids] == expected.token_ids
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [FinishReason.LENGTH]
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == 12


def test_leaving_a_stream_cancels_its_request(engine: Engine) -> None:
    stream = engine.stream("Hello!", SamplingParams(max_tokens=1000))
    next(stream)

    stream.close()

    assert engine.stats()["running"] == 0
    assert engine.stats()["blocks_used"] == 0
    engine.generate(["Hello!"], GREEDY)


def test_streams_and_threads_share_batches_and_change_nothing(engine: Engine) -> None:
    expected = [output.text for output in engine.generate(PROMPTS, GREEDY)]
    steps = engine.stats()["steps"]
    found: dict[str, str] = {}

    def ask(prompt: str) -> None:
        found[prompt] = "".join(piece.text for piece in engine.stream(prompt, GREEDY))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [found[prompt] for prompt in PROMPTS] == expected
    assert engine.stats()["steps"] - steps <= 12 * len(PROMPTS)


def test_n_answers_are_drawn_one_by_one_from_the_seed(engine: Engine) -> None:
    params = {"max_tokens": 8, "temperature": 1.5}

    (three,) = engine.generate(["Hello!"], SamplingParams(n=3, seed=7, **params))
    (one,) = engine.generate(["Hello!"], SamplingParams(seed=7, **params))
    (next_seed,) = engine.generate(["Hello!"], SamplingParams(seed=8, **params))

    assert len({choice.text for choice in three.choices}) == 3
    assert three.token_ids == one.token_ids
    assert next_seed.token_ids not in [choice.token_ids for choice in three.choices]
    assert three.usage.completion_tokens == 24


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ([], FailureCode.INVALID_PARAMETER),
        ([1, 448], FailureCode.INVALID_PARAMETER),
        ([1.5], FailureCode.INVALID_PARAMETER),
        ([1] * 3000, "context"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_before_any_is_answered(engine: Engine, prompt: list[int], code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        engine.generate(["Hello!", prompt], GREEDY)

    assert caught.value.code.startswith(code)
    assert engine.stats()["steps"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 1.1},
        {"top_k": -1},
        {"top_k": 1.5},
        {"min_p": True},
        {"presence_penalty": 2.5},
        {"frequency_penalty": "1"},
        {"seed": 2**63},
        {"n": 129},
        {"stop": ["x"] * 65},
        {"stop": "x" * 16_385},
        {"stop": [1]},
        {"ignore_eos": 1},
        {"min_tokens": -1},
        {"min_tokens": 257},
    ],
)
def test_a_wrong_parameter_is_refused_by_name(wrong: dict[str, object]) -> None:
    ((name, _value),) = wrong.items()

    with pytest.raises(InvalidSampling, match=f"^{name} is .*; it must be ") as caught:
        SamplingParams(**wrong)  # type: ignore[arg-type]

    assert caught.value.name == name


def test_what_is_not_one_for_each_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="there are 0 params for 1 prompts"):
        engine.generate(["Hello!"], [])
    with pytest.raises(TypeError, match="adapters must be a list with a folder or None for each prompt, not one folder"):
        engine.generate(["Hello!"], GREEDY, "adapter")  # type: ignore[arg-type]


def test_a_dtype_that_is_none_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype is 'float16'; it must be one of bfloat16, float32, int8"):
        Engine.load(folder, dtype="float16")


def test_a_closed_engine_says_so(folder: Path) -> None:
    engine = Engine.load(folder, dtype="float32")
    engine.close()

    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.generate(["Hello!"], GREEDY)


def test_the_names_of_the_package_load_what_they_need_and_no_more() -> None:
    code = "import sys; from inference import SamplingParams; assert 'torch' not in sys.modules; from inference import Engine"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def log_softmax_of(theirs: transformers.PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return theirs(torch.tensor([tokens])).logits[0].float().log_softmax(-1)  # type: ignore[no-any-return]


def test_log_probabilities_are_those_transformers_gives(engine: Engine, theirs: transformers.PreTrainedModel) -> None:
    outputs = engine.generate(PROMPTS, SamplingParams(max_tokens=5, temperature=0.7, seed=3, top_k=5, logprobs=4, presence_penalty=1))

    for output in outputs:
        assert output.logprobs is not None
        expected = log_softmax_of(theirs, output.prompt_token_ids + output.token_ids)[len(output.prompt_token_ids) - 1 : -1]
        assert [found.token for found in output.logprobs] == output.token_ids
        for found, row in zip(output.logprobs, expected, strict=True):
            assert found.logprob == pytest.approx(float(row[found.token]), abs=1e-4)
            assert [share for _, share in found.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
            assert [token for token, _ in found.top] == row.topk(4).indices.tolist()


def test_log_probabilities_of_the_prompt_are_whole_whatever_was_cached_or_cut(folder: Path, theirs: transformers.PreTrainedModel) -> None:
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=2)
    with Engine.load(folder, dtype="float32", cache_tokens=4096, max_batch_tokens=23) as engine:
        engine.generate(PROMPTS, GREEDY)
        outputs = engine.generate(PROMPTS, params)
        plain = engine.generate(PROMPTS, GREEDY)

    for output in outputs:
        tokens = output.prompt_token_ids
        expected = log_softmax_of(theirs, tokens)
        assert output.prompt_logprobs is not None
        assert [found.token for found in output.prompt_logprobs] == tokens[1:]
        found = [found.logprob for found in output.prompt_logprobs]
        assert found == pytest.approx([float(expected[at, token]) for at, token in enumerate(tokens[1:])], abs=1e-4)
        assert all(len(found.top) == 2 for found in output.prompt_logprobs)
    assert all(output.prompt_logprobs is None and output.logprobs is None for output in plain)


def test_of_a_prompt_no_more_than_64_rows_of_logits_are_there_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.load(folder, dtype="float32", cache_tokens=1024, max_batch_tokens=256) as engine:
        runner, rows = engine._core._runner, []
        whole = runner.logits
        monkeypatch.setattr(runner, "logits", lambda hidden: rows.append(len(hidden)) or whole(hidden))

        (output,) = engine.generate([[7] * 200], SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=3))

    assert len(output.prompt_logprobs or []) == 199
    assert rows == [64, 64, 64, 7, 1]  # the last is the answer's


def test_a_continuation_is_scored_by_the_sum_of_its_tokens(engine: Engine, theirs: transformers.PreTrainedModel) -> None:
    scores = engine.score("The capital of France is", [" Paris", " a city", "."])

    head = tokens_of(engine, "The capital of France is")
    for text, score in zip((" Paris", " a city", "."), scores, strict=True):
        tail = tokens_of(engine, text)
        rows = log_softmax_of(theirs, head + tail)[len(head) - 1 : -1]
        assert score == pytest.approx(sum(float(row[token]) for row, token in zip(rows, tail, strict=True)), abs=1e-3)


def test_a_text_is_embedded_as_the_mean_of_its_hidden_states(folder: Path, theirs: transformers.PreTrainedModel) -> None:
    with Engine.load(folder, dtype="float32", cache_tokens=4096, max_batch_tokens=16) as engine:
        vectors = engine.embed(PROMPTS)
        short = engine.embed(PROMPTS[:1], dimensions=8)
        tokens = [tokens_of(engine, prompt) for prompt in PROMPTS]
        with pytest.raises(ValueError, match="1 to 64"):
            engine.embed(PROMPTS, dimensions=65)
        assert engine.stats()["running"] == engine.stats()["blocks_used"] == 0

    with torch.inference_mode():
        states = [theirs.base_model(torch.tensor([its])).last_hidden_state[0].mean(dim=0) for its in tokens]
    for vector, state in zip(vectors, states, strict=True):
        assert vector == pytest.approx((state / state.norm()).tolist(), abs=1e-5)
    assert short[0] == pytest.approx((states[0][:8] / states[0][:8].norm()).tolist(), abs=1e-5)


@pytest.mark.parametrize("read", [lambda engine: engine.embed(["Hello!"]), lambda engine: engine.score("Hello!", [" Paris"])])
def test_what_is_not_finite_is_an_error_and_no_vector_or_score(tmp_path: Path, read: Callable[[Engine], object]) -> None:
    folder = tiny_base(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with Engine.load(folder, dtype="float32", cache_tokens=512) as engine, pytest.raises(RequestRefused, match="not finite"):
        read(engine)


def test_a_bias_decides_what_is_said(engine: Engine) -> None:
    token = tokens_of(engine, "a")[0]

    (always,) = engine.generate(["Hello!"], SamplingParams(max_tokens=4, temperature=0, logit_bias={token: 100}))
    (free,) = engine.generate(["Hello!"], GREEDY)
    (never,) = engine.generate(["Hello!"], SamplingParams(max_tokens=4, temperature=0, logit_bias={free.token_ids[0]: -100}))

    assert always.token_ids == [token] * 4
    assert never.token_ids[0] != free.token_ids[0]
    with pytest.raises(RequestRefused, match="tokens from 0 to 447"):
        engine.generate(["Hello!"], SamplingParams(logit_bias={10**6: 1}))


@pytest.mark.parametrize(
    "wrong", [{"logit_bias": {"x": 1}}, {"logit_bias": {1: 101}}, {"logit_bias": [1]}, {"logprobs": 21}, {"prompt_logprobs": -1}]
)
def test_parameters_out_of_bounds_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSampling, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]
