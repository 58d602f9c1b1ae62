"""The automated checks: what passes, what a person should look at, what fails, and the evidence each shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference import checks, evaluation
from inference.protocol import JobTask
from tests.inference.job_bench import Place, Told
from tests.inference.tiny import tiny_adapter, tiny_base


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


def found(place: Place, check: str, **params: Any) -> dict[str, Any]:
    params = {"check": check, "base": place.base, "adapter": None, "instructions": "", "starters": [], "parameters": {}} | params
    return checks.run(JobTask(job="job_a", attempt=1, kind="check", params=params), place.bench(Told()))


def put_adapter(place: Place, **changes: Any) -> str:
    return place.artifacts.put_folder(tiny_adapter(place.folder / "adapter", place.folder / "base", **changes)).digest


def test_whole_files_pass_with_their_digests_as_evidence(place: Place) -> None:
    finding = found(place, "files")

    assert (finding["state"], finding["code"]) == ("passed", "files_whole")
    assert finding["evidence"]["files"] == 5
    assert {row["path"] for row in finding["evidence"]["listed"]} >= {"config.json", "model.safetensors"}


def test_a_file_changed_after_it_was_stored_fails_by_name(place: Place) -> None:
    folder = place.artifacts.materialise(place.base, place.cache)
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text("{}")

    finding = found(place, "files")

    assert (finding["state"], finding["code"]) == ("failed", "files_corrupt")
    assert "config.json" in finding["finding"]


def test_an_adapter_without_its_config_fails(place: Place) -> None:
    folder = tiny_adapter(place.folder / "adapter", place.folder / "base")
    (folder / "adapter_config.json").unlink()

    finding = found(place, "files", adapter=place.artifacts.put_folder(folder).digest)

    assert (finding["state"], finding["code"]) == ("failed", "files_missing")
    assert finding["evidence"]["missing"] == "adapter_config.json"


def test_weights_of_the_right_shapes_load(place: Place) -> None:
    finding = found(place, "loads")

    assert (finding["state"], finding["code"]) == ("passed", "weights_load")
    assert finding["evidence"]["context_length"] == 2048


def test_weights_that_are_not_finite_fail_by_name(place: Place) -> None:
    folder = tiny_base(place.folder / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors")

    finding = found(place, "loads", base=place.artifacts.put_folder(folder).digest)

    assert (finding["state"], finding["code"]) == ("failed", "not_finite")
    assert finding["evidence"]["tensor"] == "model.norm.weight"


def test_a_config_that_asks_for_other_shapes_fails(place: Place) -> None:
    folder = tiny_base(place.folder / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))

    finding = found(place, "loads", base=place.artifacts.put_folder(folder).digest)

    assert (finding["state"], finding["code"]) == ("failed", "base_unusable")
    assert "shape" in finding["finding"]


def test_an_adapter_of_zeros_is_worth_a_look(place: Place) -> None:
    folder = tiny_adapter(place.folder / "adapter", place.folder / "base")
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({n: w * 0 if "lora_B" in n else w for n, w in weights.items()}, folder / "adapter_model.safetensors")

    zero = found(place, "loads", adapter=place.artifacts.put_folder(folder).digest)
    real = found(place, "loads", adapter=put_adapter(place))

    assert (zero["state"], zero["code"]) == ("warned", "adapter_changes_nothing")
    assert (real["state"], real["code"], real["evidence"]["rank"]) == ("passed", "adapter_loads", 4)


def test_an_unsupported_adapter_fails_with_its_reason(place: Place) -> None:
    finding = found(place, "loads", adapter=put_adapter(place, use_dora=True))

    assert (finding["state"], finding["code"]) == ("failed", "adapter_unusable")
    assert "DoRA" in finding["finding"]


def test_the_answers_to_the_starters_are_the_evidence(place: Place) -> None:
    params = {"instructions": "Be brief.", "starters": ["Hello!", "Who are you?"], "parameters": {"temperature": 0.0, "max_tokens": 12}}

    finding = found(place, "generates", **params)

    answers = finding["evidence"]["answers"]
    assert finding["state"] in {"passed", "warned"}
    assert [answer["prompt"] for answer in answers] == ["Hello!", "Who are you?"]
    assert all(answer["answer"] and answer["ended"] == "length" for answer in answers)
    assert finding["evidence"]["tokens_per_s"] > 0
    assert found(place, "generates", **params)["evidence"]["answers"] == answers


def test_empty_and_repeated_answers_are_told_apart() -> None:
    def judged(*texts: str) -> tuple[str, str]:
        finding = checks._judge(
            [{"prompt": "Hi", "answer": text, "ended": "stop", "tokens": 9, "seconds": 1.0, "message": ""} for text in texts]
        )
        return finding.state, finding.code

    loop = "The answer is that the answer is that " * 6
    assert judged("Good.", " ") == ("failed", "answers_empty")
    assert judged("Good.", loop) == ("warned", "answers_repetitive")
    assert judged("Good.", "你好你好" * 12) == ("warned", "answers_repetitive")
    assert judged("Good.", evaluation.paragraphs()[0]) == ("passed", "answers_given")


def test_perplexity_is_measured_beside_the_base_with_an_interval(place: Place) -> None:
    finding = found(place, "perplexity", adapter=put_adapter(place))

    (measured,) = finding["measurements"]
    assert measured["name"] == "perplexity"
    assert measured["low"] < measured["value"] < measured["high"]
    assert measured["base_value"] != measured["value"]
    assert measured["method"]["text_sha256"] == evaluation.text_sha256()
    assert finding["state"] == ("failed" if measured["value"] > 2 * measured["base_value"] else finding["state"])


def test_random_weights_are_no_better_than_guessing(place: Place) -> None:
    finding = found(place, "perplexity")

    assert (finding["state"], finding["code"], finding["measurements"]) == ("failed", "no_better_than_guessing", [])


def test_instructions_alone_leave_the_perplexity_as_it_is(place: Place) -> None:
    finding = found(place, "perplexity", instructions="Be brief.")

    assert (finding["state"], finding["code"]) == ("passed", "weights_unchanged")


def test_perplexity_is_the_exponential_of_the_mean_loss_and_its_interval_holds_it() -> None:
    scores = evaluation.Scores(torch.full((16,), 20.0, dtype=torch.float64), torch.full((16,), 10))

    perplexity = scores.perplexity()

    assert perplexity.value == pytest.approx(7.389056, rel=1e-6)
    assert perplexity.low == pytest.approx(perplexity.high)
