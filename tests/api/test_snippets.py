"""The code that a GPT's page shows, copied from it and run against the store as it stands there."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys

import pytest
from django.db import transaction
from django.test import Client

from tests import making
from tests.api.conftest import Caller
from tests.api.engine import ScriptedEngine, says

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model() -> str:
    with transaction.atomic():
        return making.make_prompt(making.make_base(), making.make_listing(slug="poet")).full_name


def shown(model: str, language: str, address: str) -> str:
    """The text of the snippet on the page of the GPT, when the store is at that address."""
    asked = {"host": address.removeprefix("http://")}
    text = Client().get(f"/en/gpts/{model.partition('@')[0]}/", {"code": language}, headers=asked).text
    (code,) = re.findall(r'<pre tabindex="0"><code>(.*?)</code></pre>', text, re.DOTALL)
    return html.unescape(re.sub(r"</?span[^>]*>", "", code))


def run(command: list[str], caller: Caller, **options: str) -> str:
    environment = {**os.environ, "OPENAI_API_KEY": caller.secret, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.parametrize("language", ["python", "huggingface"])
def test_the_python_on_the_page_prints_an_answer_of_that_version(
    language: str, model: str, address: str, caller: Caller, engine: ScriptedEngine
) -> None:
    engine.script = says("A", " rhyme")
    code = shown(model, language, address)

    assert f'model="{model}"' in code
    assert run([sys.executable, "-c", code], caller) == "A rhyme\n"


def test_the_curl_on_the_page_streams_an_answer_of_that_version(model: str, address: str, caller: Caller, engine: ScriptedEngine) -> None:
    code = shown(model, "curl", address)

    answer = run(["bash", "-c", code], caller)

    assert f'"model": "{model}"' in code
    assert '"content":"Hello"' in answer.replace(": ", ":")
    assert answer.rstrip().endswith("data: [DONE]")


def test_the_javascript_on_the_page_names_that_version(model: str, address: str) -> None:
    code = shown(model, "javascript", address)

    assert f'model: "{model}",' in code
    assert f'baseURL: "{address}/v1"' in code
