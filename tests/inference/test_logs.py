"""What the workers write to their logs."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

FAILING = """
    import logging
    from inference import logs

    def answer(prompt):
        raise ValueError("no room")

    logs.configure()
    try:
        answer("private " + "words")  # the line itself is quoted
    except ValueError:
        logging.getLogger("inference.tasks").exception("generation failed")
"""


@pytest.mark.parametrize("as_json", ["", "1"])
def test_a_traceback_in_a_log_holds_no_local_values(as_json: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FAILING)]

    said = subprocess.run(command, env={"LOG_JSON": as_json}, capture_output=True, text=True, check=True).stderr

    assert "ValueError: no room" in said
    assert "private words" not in said
