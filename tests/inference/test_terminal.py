"""`python -m inference`: a model folder used once from a terminal."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from inference import Engine, SamplingParams, outlook
from inference.__main__ import main
from tests.inference.tiny import tiny_adapter, tiny_base

GREEDY = ("--temperature", "0", "--max-tokens", "8", "--dtype", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


def answer(folder: Path, prompt: str | list[int], adapter: Path | None = None) -> str:
    with Engine.load(folder, dtype="float32") as engine:
        return engine.generate([prompt], SamplingParams(max_tokens=8, temperature=0), [adapter])[0].text


def lines(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def test_help_and_refused_options_come_without_torch() -> None:
    code = """
import sys
from inference.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    print(left.code, "torch" in sys.modules)
"""
    for arguments, expected in ((["--help"], "0 False"), (["train", "--help"], "0 False"), (["generate"], "2 False")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)

        assert done.stdout.splitlines()[-1] == expected
        assert "usage: python -m inference" in done.stdout + done.stderr


def test_a_model_is_described_before_it_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(folder)]) == 0
    said = capsys.readouterr().out
    assert main(["describe", str(folder), "--json"]) == 0

    known = json.loads(capsys.readouterr().out)
    assert {name: known[name] for name in outlook(folder)} == outlook(folder)
    assert f"LlamaForCausalLM: {known['parameter_count']:,} parameters, kept in float32\ncontext: 2,048 tokens\n" in said
    assert f"{known['memory_bytes']['int8'] / 2**20:,.0f} MB in int8" in said


def test_one_prompt_is_answered_on_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "Hello!", *GREEDY]) == 0

    assert capsys.readouterr().out == answer(folder, "Hello!") + "\n"


def test_a_prompt_may_come_by_the_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello!\n"))

    assert main(["generate", str(folder), *GREEDY]) == 0

    assert capsys.readouterr().out == answer(folder, "Hello!") + "\n"


def test_a_file_of_prompts_and_conversations_gives_an_object_for_each(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", folder)
    message = {"role": "user", "content": "Hello!"}
    file = lines(tmp_path / "prompts.jsonl", "Hello!", {"prompt": "Hello!"}, {"messages": [message]})

    assert main(["generate", str(folder), "--file", str(file), "--adapter", str(adapter), "--json", *GREEDY]) == 0
    first, second, chat = map(json.loads, capsys.readouterr().out.splitlines())
    assert main(["generate", str(folder), "Hello!", "--chat", "--adapter", str(adapter), *GREEDY]) == 0

    assert first["choices"][0]["text"] == second["choices"][0]["text"] == answer(folder, "Hello!", adapter)
    assert chat["choices"][0]["text"] == capsys.readouterr().out.removesuffix("\n")
    assert (first["index"], chat["index"]) == (0, 2)
    assert first["usage"]["completion_tokens"] == len(first["choices"][0]["token_ids"]) == 8
    assert chat["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "nowhere", "Hello!"], "there is no folder 'nowhere'"),
        (["generate", "MODEL", "Hello!", "--temperature", "-1"], "temperature is '-1.0'"),
        (["generate", "MODEL", "Hello!", "--adapter", "nowhere"], "there is no adapter folder 'nowhere'"),
        (["generate", "MODEL", "--file", "nowhere"], "No such file"),
        (["generate", "MODEL", "Hello!", "--device", "cuda:99"], "the device 'cuda:99' cannot be used"),
        (["train", "MODEL", "nowhere", "out", "--device", "meta"], "it must be cpu, cuda or cuda:NUMBER"),
        (["train", "MODEL", "nowhere", "out"], "there is no file 'nowhere'"),
        (["pretrain", "nowhere", "out"], "there is no file 'nowhere'"),
        (["pretrain", "nowhere", "out", "--hidden", "100", "--heads", "3"], "100 is not 3 heads"),
        (["train", "MODEL", "nowhere", "out", "--method", "preference", "--dropout", "0.1"], "without dropout"),
        (["train", "MODEL", "chats.jsonl", "MODEL"], "exists already"),
        (["evaluate", "MODEL", "nowhere"], "No such file"),
        (["evaluate", "MODEL"], "either a file"),
        (["evaluate", "MODEL", "a.txt", "--suite", "answer"], "either a file"),
        (["evaluate", "MODEL", "--suite", "nowhere.jsonl"], "No such file"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main([str(folder) if word == "MODEL" else word for word in arguments]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m inference {arguments[0]}: error: ")
    assert said in line
    assert not list(tmp_path.iterdir())


def test_a_line_that_is_not_json_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('"Hello!"\n{oops\n')

    assert main(["generate", str(folder), "--file", str(file)]) == 2

    assert "prompts.jsonl, line 2: it is not JSON" in capsys.readouterr().err


def test_a_trained_adapter_says_what_it_was_taught(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = {"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "rate it"}]}
    data, out = lines(tmp_path / "chats.jsonl", *[chat] * 10), tmp_path / "adapter"
    settings = ["--epochs", "12", "--batch-size", "4", "--learning-rate", "0.02", "--seed", "3"]

    assert main(["train", str(folder), str(data), str(out), *settings]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert main(["generate", str(folder), "Hello!", "--chat", "--adapter", str(out), *GREEDY]) == 0

    assert result["validation_loss"] < result["base_validation_loss"] / 2
    assert "training" in said.err
    assert {path.name for path in out.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert capsys.readouterr().out.startswith("rate it")
    assert {path.name for path in tmp_path.iterdir()} == {"chats.jsonl", "adapter"}


def test_all_weights_learn_a_text_and_the_result_is_a_model_like_any_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "tale.txt", tmp_path / "model"
    data.write_text("\n\n".join(["Once upon a time."] * 20))
    settings = ["--method", "text", "--scope", "weights", "--epochs", "6", "--learning-rate", "0.01"]

    assert main(["train", str(folder), str(data), str(out), *settings]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main(["generate", str(out), "Once upon", *GREEDY]) == 0

    assert (result["weights"], result["scope"]) == (str(out), "weights")
    assert result["validation_loss"] < result["base_validation_loss"] / 2
    assert capsys.readouterr().out.startswith(" a time.")


def test_a_text_is_scored_as_the_library_scores_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, file = "The capital of France is Paris.", tmp_path / "text.txt"
    file.write_text(text)
    with Engine.load(folder, dtype="float32") as engine:
        (expected,) = engine.score([min(engine._core.tokenizer.eos_ids)], [text])

    assert main(["evaluate", str(folder), str(file), "--dtype", "float32", "--tokens", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["log_likelihood"] == pytest.approx(expected, abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(-expected / found["tokens"]), rel=1e-5)
    assert math.fsum(logprob for _, logprob in found["token_logprobs"]) == pytest.approx(expected, abs=1e-4)
    assert len(found["token_logprobs"]) == found["tokens"]


def test_two_dtypes_are_compared_token_by_token(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "texts.jsonl", "Hello!", {"text": "Tell me " * 60})

    assert main(["evaluate", str(folder), str(file), "--dtype", "float32", "--against", "bfloat16", "--window", "50"]) == 0

    first, second, difference = capsys.readouterr().out.splitlines()
    assert first.startswith("float32: ")
    assert second.startswith("bfloat16: ")
    assert first.split(",")[0].split()[1:] == second.split(",")[0].split()[1:]
    assert 0 < float(difference.rsplit(" ", 1)[1]) < 1


def test_suites_are_put_to_an_adapter_and_its_base(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", folder)
    own = lines(tmp_path / "own.jsonl", {"context": "Ice is", "choices": ["cold", "hot"], "answer": 0})
    command = ["evaluate", str(folder), "--suite", "answer", "--suite", str(own), "--limit", "3", "--adapter", str(adapter)]

    assert main([*command, "--dtype", "float32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main([*command, "--dtype", "float32"]) == 0
    table = capsys.readouterr().out.splitlines()

    assert [(row["suite"], row["items"]) for row in found["results"]] == [("answer", 3), ("own", 1)]
    assert found["results"][0]["metrics"][0]["difference"] is not None
    assert (len(found["method"]["base"]), len(found["method"]["adapter"]), found["method"]["limit"]) == (64, 64, 3)
    assert [line.split()[:2] for line in table] == [["answer", "f1"], ["answer", "exact_match"], ["own", "acc_norm"], ["own", "acc"]]
    assert "difference" in table[0]


def test_a_wrong_suite_is_named_by_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = lines(tmp_path / "own.jsonl", {"text": "The sea."}, {"prompt": "Why?"})

    assert main(["evaluate", str(folder), "--suite", str(own)]) == 2

    assert 'line 2, column 1: There is no "expected"' in capsys.readouterr().err
