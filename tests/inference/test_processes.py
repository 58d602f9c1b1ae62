"""One run in several processes: the losses of one process, and bit-exact resume after one of them was killed.

torchrun starts the processes of which one is killed, and those that go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from inference.__main__ import main
from inference.batching import passes
from inference.examples import Example
from inference.processes import Processes
from tests.inference.job_bench import CITIES, chat_file, chat_line
from tests.inference.ranks import WITHIN_S, together
from tests.inference.tiny import tiny_base

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "inference", "train"]
COURSE = ["--batch-size", "8", "--epochs", "3", "--validation-share", "0.2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("processes") / "base")


@pytest.fixture(scope="module")
def chats(base: Path) -> Path:
    """Of unequal lengths, so that the two never have the same number of tokens to train."""
    lines = [chat_line(f"Where is {c}?" * (1 + at % 4), f"{c} is in {c}land. " * (1 + at % 3)) for at, c in enumerate(CITIES)]
    return chat_file(base.parent / "chats.jsonl", lines)


def launched(*arguments: Any) -> dict[str, Any]:
    """The result of a run in two processes that torchrun starts."""
    done = subprocess.run([*LAUNCH, *map(str, arguments)], capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def learned(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("groups", [1, 2, 4, 7])
def test_every_group_counts_once_and_all_processes_have_as_many(count: int, groups: int) -> None:
    shares = [list(Processes(rank, count).share(range(groups))) for rank in range(count)]

    counted = [group for share in shares for group, times in share if times]
    assert sorted(counted) == list(range(groups))
    assert len({len(share) for share in shares}) == 1
    assert {times for share in shares for _, times in share} <= {0.0, float(count)}


def test_a_small_step_has_a_pass_for_each_process() -> None:
    examples = [Example((1,) * 50, (True,) * 50)] * 4

    assert [len(list(passes(examples, Processes(0, count)))) for count in (1, 2, 4)] == [1, 2, 4]


@pytest.mark.parametrize(
    "settings",
    [
        ["--scope", "weights", "--learning-rate", "0.002", "--recompute"],
        ["--rank", "4", "--learning-rate", "0.005"],
    ],
    ids=["weights", "adapter"],
)
def test_two_processes_have_the_losses_of_one_and_end_with_its_weights(
    base: Path, chats: Path, tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [base, chats]

    two = together(tmp_path / "said", *arguments, tmp_path / "two", *COURSE, *settings)
    assert main(["train", *map(str, arguments), str(tmp_path / "one"), *COURSE, *settings]) == 0
    one = json.loads(capsys.readouterr().out)

    for name in ("train_loss", "validation_loss", "base_validation_loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name
    for name in ("steps", "tokens", "trained_tokens", "best_step", "trained_parameters", "validation_accuracy"):
        assert two[name] == one[name], name
    ours, theirs = learned(tmp_path / "one"), learned(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)


def test_a_run_one_of_whose_processes_was_killed_goes_on_with_the_same_bits(base: Path, chats: Path, tmp_path: Path) -> None:
    settings = [*COURSE, "--epochs", "16", "--dropout", "0.1", "--learning-rate", "0.005"]
    whole = together(tmp_path / "said", base, chats, tmp_path / "whole" / "adapter", *settings)
    kept, out = tmp_path / "checkpoints", tmp_path / "adapter"
    arguments = [str(part) for part in (base, chats, out, *settings, "--checkpoints", kept, "--checkpoint-every", "0")]

    with subprocess.Popen([*LAUNCH, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + WITHIN_S
        while not (kept / "3").exists() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        psutil.Process(run.pid).children()[-1].kill()
        assert run.wait(WITHIN_S) != 0
    assert not out.exists()
    found = sorted(folder.name for folder in kept.iterdir() if folder.name.isdigit())
    alone = main(["train", *arguments])
    again = launched(*arguments)

    assert found
    assert alone == 2  # what two processes wrote is not taken up by one
    assert (tmp_path / "whole" / "adapter" / "adapter_model.safetensors").read_bytes() == (out / "adapter_model.safetensors").read_bytes()
    assert again["train_loss"] == whole["train_loss"]
    assert not list(kept.iterdir())


def test_one_process_keeps_and_takes_up_a_checkpoint_too(
    base: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", str(base), str(chats), str(tmp_path / "adapter"), *COURSE, "--dropout", "0.1"]
    kept = ["--checkpoints", str(tmp_path / "checkpoints"), "--checkpoint-every", "0"]
    assert main(["train", str(base), str(chats), str(tmp_path / "whole" / "adapter"), *COURSE, "--dropout", "0.1"]) == 0
    steps: list[int] = []

    def interrupt(self: Any, numbers: list[int]) -> Any:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(self, numbers)

    from inference.training import Training

    original = Training._descend
    monkeypatch.setattr(Training, "_descend", interrupt)
    assert main([*arguments, *kept]) == 130
    capsys.readouterr()
    assert main([*arguments, *kept]) == 0

    assert len(steps) == 3 + json.loads(capsys.readouterr().out)["steps"] - 2
    (whole, again) = (folder / "adapter" / "adapter_model.safetensors" for folder in (tmp_path / "whole", tmp_path))
    assert whole.read_bytes() == again.read_bytes()
