"""An operator's word on which bases a vLLM server answers."""

from __future__ import annotations

import pytest

from inference.vllm_choice import VllmChoice
from inference.worker import WorkerSettings

BASE, OTHER = "3fa9c1d2" + "0" * 56, "77bd0e11" + "0" * 56


def test_a_base_named_by_the_beginning_of_its_digest_has_its_server_and_others_have_none() -> None:
    choice = VllmChoice.read("3fa9c1d2=http://127.0.0.1:8100/, 77bd0e=https://gpu.example/vllm", key="secret")

    assert choice.of(BASE) == {"url": "http://127.0.0.1:8100", "key": "secret"}
    assert choice.of(OTHER) == {"url": "https://gpu.example/vllm", "key": "secret"}
    assert choice.of("f" * 64) is None
    assert VllmChoice.read("").of(BASE) is None


@pytest.mark.parametrize(
    "said",
    [
        "http://127.0.0.1:8100",
        "3fa9=http://127.0.0.1:8100",
        "3fa9c1d2=",
        "3fa9c1d2=127.0.0.1:8100",
        "3fa9c1d2=file:///etc/passwd",
        "3fa9c1d2=http://127.0.0.1:port",
        "3fa9c1d2=http://user:password@gpu.example",
        "3fa9c1d2=http://gpu.example?model=a",
    ],
)
def test_what_names_no_base_or_no_server_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"named by the beginning|no address of a server"):
        VllmChoice.read(said)


def test_a_worker_takes_it_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_VLLM", "3fa9c1d2=http://127.0.0.1:8100")
    monkeypatch.setenv("WORKER_VLLM_KEY", "secret")

    settings = WorkerSettings.from_environment()

    assert settings.vllm.of(BASE) == {"url": "http://127.0.0.1:8100", "key": "secret"}
    assert "secret" not in repr(settings)


def test_a_worker_that_is_told_something_else_says_which_variable_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_VLLM", "everything=here")

    with pytest.raises(ValueError, match=r"^WORKER_VLLM: 'everything=here'"):
        WorkerSettings.from_environment()
