"""What import-linter is told must name every module there is."""

from __future__ import annotations

import tomllib
from pathlib import Path

from django.conf import settings


def test_the_store_may_import_no_module_of_inference_but_the_protocol_and_the_form_of_calls() -> None:
    contracts = tomllib.loads((Path(settings.BASE_DIR) / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["name"] == "the store knows of inference only the protocol and the form of calls"]
    modules = {f"inference.{path.stem}" for path in (Path(settings.BASE_DIR) / "inference").glob("*.py")}

    assert modules - {"inference.__init__", "inference.protocol", "inference.sampling_params", "inference.tool_calls"} <= set(
        contract["forbidden_modules"]
    )
