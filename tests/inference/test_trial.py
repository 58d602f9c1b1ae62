"""A stranger's chat template is tried with little time and memory before an engine renders with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference import checks, trial
from inference.importing import ImportRefused, check_folder
from inference.protocol import JobTask
from inference.tokenizer import TemplateFailed
from tests.inference.job_bench import Place, Told
from tests.inference.templates import HUGE, NESTED, RECURSIVE, with_template
from tests.inference.tiny import tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "model")


def test_a_plain_template_passes(folder: Path) -> None:
    trial.require_bounded(folder)


@pytest.mark.parametrize(("template", "said"), [(NESTED, "too much time"), (HUGE, "too much time or memory"), (RECURSIVE, "recursion")])
def test_a_template_that_needs_too_much_is_refused(folder: Path, template: str, said: str) -> None:
    with pytest.raises(TemplateFailed, match=said):
        trial.require_bounded(with_template(folder, template))


def test_an_import_refuses_a_base_whose_template_needs_too_much(folder: Path) -> None:
    with pytest.raises(ImportRefused, match="too much time or memory") as refused:
        check_folder(with_template(folder, NESTED))

    assert refused.value.code == "template"


def test_the_checks_of_a_submission_say_why(tmp_path: Path) -> None:
    place = Place(tmp_path)
    base = place.artifacts.put_folder(with_template(tiny_base(tmp_path / "hostile"), HUGE)).digest
    params: dict[str, Any] = {"check": "loads", "base": base, "adapter": None, "instructions": "", "starters": [], "parameters": {}}

    finding = checks.run(JobTask(job="job_a", attempt=1, kind="check", params=params), place.bench(Told()))

    assert (finding["state"], finding["code"]) == ("failed", "base_unusable")
    assert "needs too much time or memory" in finding["finding"]
