from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from store.accounts.models import Publisher
from store.catalog.models import Artifact, Listing, Version
from store.moderation.models import Decision
from tests import making
from tests.inference.tiny import tiny_base

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_store(settings: LazySettings, tmp_path: Path) -> None:
    settings.ARTIFACT_URL = (tmp_path / "artifacts").as_uri()


def run(source: Path, *options: str) -> str:
    said = io.StringIO()
    call_command("import_model", str(source), "--publisher", "tiny", "--slug", "random-llama", *options, stdout=said)
    return said.getvalue()


def test_a_folder_becomes_a_published_base_once(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "model")
    operator = making.make_user(is_superuser=True, is_staff=True)

    said = run(folder, "--licence", "MIT", "--publish")
    assert "checking the files" in said
    assert "tiny/random-llama@1.0.0 is released" in said
    assert re.search(r"\d{3},\d{3} parameters, a context of 2,048 tokens", said)
    assert re.search(r"an engine takes \d{3} MB in bfloat16, \d{3} MB in float32, \d{3} MB in int8;", said)

    version = Version.objects.available().get()
    assert f"for this base alone as {version.artifact.digest[:12]}=" in said
    assert version in Version.objects.usable_by(None)
    assert (version.kind, version.facts["architecture"], version.listing.licence) == ("weights", "LlamaForCausalLM", "MIT")
    assert str(tmp_path) not in str(version.facts)
    assert {file["path"] for file in version.artifact.manifest["files"]} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert Decision.objects.get().decided_by == operator

    run(folder, "--publish")
    assert (Artifact.objects.count(), Listing.objects.count(), Version.objects.count(), Decision.objects.count()) == (1, 1, 1, 1)


def test_a_pickle_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    making.make_user(is_superuser=True, is_staff=True)

    with pytest.raises(CommandError, match=r"pytorch_model\.bin"):
        run(folder, "--licence", "MIT", "--publish")

    assert not Publisher.objects.exists()
    assert not Artifact.objects.exists()
    assert not Listing.objects.exists()


def test_nobody_imports_without_a_superuser(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="createsuperuser"):
        run(tmp_path)
