"""The optimiser: torch's own numbers, bit for bit, and no compiler loaded for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from inference.optimiser import AdamW
from tests.inference.job_bench import chat_file
from tests.inference.tiny import tiny_base

TRAINS = "import sys; from inference.__main__ import main; status = main(sys.argv[1:]); sys.exit(status or 'torch._dynamo' in sys.modules)"


def test_it_moves_parameters_to_the_bits_that_torch_moves_them_to() -> None:
    random = torch.Generator().manual_seed(1)
    ours = [torch.randn(size, generator=random, requires_grad=True) for size in ((7, 5), (3,))]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    optimiser, expected = AdamW(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.0)

    for step in range(5):
        optimiser.lr = expected.param_groups[0]["lr"] = 0.1 / (step + 1)
        for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            our.grad = torch.randn(our.shape, generator=random) if step >= number * 2 else None  # the second begins later
            their.grad = None if our.grad is None else our.grad.clone()
        optimiser.step()
        expected.step()
        optimiser.forget_gradients()

    assert all(map(torch.equal, ours, theirs))
    assert [parameter.grad for parameter in ours] == [None, None]
    for our, their in zip(ours, theirs, strict=True):
        assert optimiser.state[our].keys() == expected.state[their].keys()
        assert all(torch.equal(value, expected.state[their][name]) for name, value in optimiser.state[our].items())


def test_a_process_that_trains_does_not_load_the_compiler_of_torch(tmp_path: Path) -> None:
    base, data = tiny_base(tmp_path / "base"), chat_file(tmp_path / "chats.jsonl")

    done = subprocess.run([sys.executable, "-c", TRAINS, "train", base, data, tmp_path / "adapter", "--epochs", "1"], capture_output=True)

    assert done.returncode == 0, done.stderr.decode()[-2000:]
