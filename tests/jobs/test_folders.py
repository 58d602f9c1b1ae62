"""Weights or an adapter that a publisher brings: what is refused as it arrives, who may, and the version in the end."""

from __future__ import annotations

import io
import json
import struct
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.conf import LazySettings
from django.urls import reverse
from django.utils import timezone

from store.errors import Conflict, NotFound
from store.jobs import claims, files, folders, tensors
from store.jobs.errors import BaseNotTrainable, FileRejected, FolderIncomplete, FolderUnderCheck, NothingToPublish
from store.jobs.models import Job, ModelFolder, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.test_views import signed_in
from tests.jobs.uploading import Tus, metadata_of
from tests.jobs.working import claim_of, fresh, outcome_of
from tests.making import join, make_artifact, make_base, make_listing, make_user

pytestmark = pytest.mark.django_db(transaction=True)
FACTS = {"architecture": "LlamaForCausalLM", "parameter_count": 4, "context_length": 64, "dtype": "float32"}


def safetensors(header: dict[str, Any] | bytes | None = None, data: bytes = b"\0" * 16) -> bytes:
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}} if header is None else header
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def folder(scene: Scene) -> ModelFolder:
    return folders.begin(scene.owner, make_listing(scene.publisher), kind="weights", base=None)


def add(scene: Scene, folder: ModelFolder, name: str, content: bytes = b"{}") -> UploadedFile:
    file = files.save(scene.owner, scene.publisher, name=name, stream=io.BytesIO(content), purpose="model")
    folder.files.add(file)
    return file


def filled(scene: Scene, folder: ModelFolder) -> ModelFolder:
    for name in ("config.json", "tokenizer.json"):
        add(scene, folder, name, name.encode())
    add(scene, folder, "model.safetensors", safetensors())
    return folder


def checked(scene: Scene, folder: ModelFolder, **result: Any) -> Job:
    job = folders.check(scene.owner, filled(scene, folder))
    claims.claim(claim_of(job))
    claims.finished(outcome_of(job, result={"manifest": make_artifact().digest, "facts": FACTS, **result}))
    folder.refresh_from_db()
    return fresh(job)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04 a zip that torch.save wrote, long enough to be read", "not a safetensors file"),
        (safetensors(b"{not json"), "can't be read"),
        (safetensors({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}, b"\0" * 12), "not as long as its shape"),
        (safetensors(data=b"\0" * 15), "does not fit its length"),
        (safetensors({"w": {"dtype": "I8", "shape": [16], "data_offsets": [0, 16]}}), "not quantised"),
        (safetensors({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}), "has no shape"),
        (safetensors({}), "no tensors"),
    ],
)
def test_what_is_no_weights_is_refused_with_its_first_piece(scene: Scene, content: bytes, why: str) -> None:
    tus = Tus(scene.owner)
    url = tus.create(len(content), **metadata_of(scene, "model.safetensors", "model"))["Location"]

    answer = tus.patch(url, 0, content)

    assert (answer.status_code, tus.offset(url)) == (400, 0)
    assert why in json.loads(answer.content)["error"]["message"]


def test_a_header_in_two_pieces_is_looked_at_when_it_is_whole(scene: Scene) -> None:
    tus, good = Tus(scene.owner), safetensors()
    bad = good.replace(b"[0, 16]", b"[0, 17]")
    for content, status in ((good, 204), (bad, 400)):
        url = tus.create(len(content), **metadata_of(scene, "model.safetensors", "model"))["Location"]
        assert tus.patch(url, 0, content[:20]).status_code == 204

        assert tus.patch(url, 20, content[20:]).status_code == status


def test_tables_of_old_checkpoints_are_no_reason_to_refuse() -> None:
    header = {"h.0.attn.bias": {"dtype": "BOOL", "shape": [1, 4], "data_offsets": [0, 4]}}

    assert tensors.held_by(json.dumps(header).encode(), 4).numbers == 4


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.PT", "weights.pkl", "run.py", "模型.safetensors", "model", ".hidden.json"])
def test_what_may_carry_code_or_has_no_good_name_is_not_taken(scene: Scene, name: str) -> None:
    with pytest.raises(FileRejected):
        files.checked_name(name, "model")


def test_files_of_models_have_limits_of_their_own(scene: Scene, settings: LazySettings) -> None:
    settings.MAX_UPLOAD_BYTES, settings.MODEL_FILE_BYTES, settings.MODEL_BYTES_PER_PUBLISHER = 10, 1000, 1500
    weights = {"purpose": "model", "name": "model.safetensors"}

    files.save(scene.owner, scene.publisher, stream=io.BytesIO(b"a" * 900), **weights)

    with pytest.raises(FileRejected, match="larger"):
        files.save(scene.owner, scene.publisher, stream=io.BytesIO(b"a" * 11), purpose="model", name="config.json")
    with pytest.raises(FileRejected, match="no version yet"):
        files.save(scene.owner, scene.publisher, stream=io.BytesIO(b"b" * 900), **weights)


def test_a_file_takes_the_place_of_one_of_its_name(scene: Scene, folder: ModelFolder) -> None:
    first = add(scene, folder, "config.json", b"1")
    url = Tus(scene.owner).create(1, b"2", content_type="application/offset+octet-stream", **metadata_of(scene, "config.json", "model"))

    folders.add(scene.owner, folder, {"file": None, "upload": url["Location"].split("/")[-2]})

    assert [file.sha256 for file in folder.files.all()] != [first.sha256]
    assert not UploadedFile.objects.filter(pk=first.pk).exists()


def test_a_check_needs_all_files_and_lets_none_be_changed(scene: Scene, folder: ModelFolder) -> None:
    with pytest.raises(FolderIncomplete, match=r"config.json, tokenizer.json, model.safetensors"):
        folders.check(scene.owner, folder)

    job = folders.check(scene.owner, filled(scene, folder))

    assert [file["path"] for file in job.params["files"]] == ["config.json", "model.safetensors", "tokenizer.json"]
    stale = ModelFolder.objects.get(pk=folder.pk)
    for act in (folders.check, folders.discard):
        with pytest.raises(FolderUnderCheck):
            act(scene.owner, stale)


def test_a_draft_is_made_of_what_was_found_good_and_the_files_are_forgotten(scene: Scene, folder: ModelFolder) -> None:
    with pytest.raises(NothingToPublish):
        folders.make_version(scene.owner, folder, number="1.0.0")
    job = checked(scene, folder)

    version = folders.make_version(scene.owner, folder, number="1.0.0", change_log="The first.")

    assert (version.kind, version.state, version.made_by, version.base) == ("weights", "draft", job.public_id, None)
    assert version.facts["parameters"] == 4
    assert not ModelFolder.objects.exists()
    assert not UploadedFile.objects.filter(purpose="model").exists()


def test_an_adapter_belongs_to_a_base_that_may_be_trained(scene: Scene) -> None:
    listing = make_listing(scene.publisher)
    for base in (None, make_base(allow_finetune=False)):
        with pytest.raises(BaseNotTrainable):
            folders.begin(scene.owner, listing, kind="adapter", base=base)
    folder = folders.begin(scene.owner, listing, kind="adapter", base=scene.base)
    add(scene, folder, "adapter_config.json")
    add(scene, folder, "adapter_model.safetensors", safetensors())
    job = folders.check(scene.owner, folder)
    claims.claim(claim_of(job))
    claims.finished(outcome_of(job, result={"manifest": make_artifact().digest, "facts": {"rank": 8}}))
    folder.refresh_from_db()

    version = folders.make_version(scene.owner, folder, number="1.0.0")

    assert (version.kind, version.base, job.params["base"]) == ("adapter", scene.base, scene.base.artifact.digest)


def test_nobody_lists_as_their_own_what_another_has_released(scene: Scene, folder: ModelFolder) -> None:
    checked(scene, folder, manifest=scene.base.artifact.digest)

    with pytest.raises(Conflict, match=scene.base.full_name):
        folders.make_version(scene.owner, folder, number="1.0.0")

    assert not folder.listing.versions.exists()


def test_what_nobody_goes_on_with_is_forgotten_after_a_week(scene: Scene, folder: ModelFolder) -> None:
    add(scene, folder, "config.json")

    assert folders.sweep() == 0
    with time_machine.travel(timezone.now() + timedelta(days=8)):
        assert folders.sweep() == 1

    assert not UploadedFile.objects.filter(purpose="model").exists()


def test_strangers_and_plain_members_find_no_folder_and_change_nothing(scene: Scene, folder: ModelFolder) -> None:
    filled(scene, folder)
    at = [folder.listing.publisher.slug, folder.listing.slug, folder.public_id]
    acts = ["studio_folder_add", "studio_folder_check", "studio_folder_discard"]
    for user, status in ((make_user(), 404), (join(scene.publisher, "member"), 403)):
        client = signed_in(user)
        assert client.get(reverse("pages:studio_folder", args=at)).status_code == status
        assert [client.post(reverse(f"pages:{act}", args=at)).status_code for act in acts] == [status] * 3
    with pytest.raises(NotFound):
        folders.find(scene.owner, make_listing(scene.publisher), folder.public_id)

    assert folder.files.count() == 3
    assert not Job.objects.filter(kind="import").exists()


def test_the_page_leads_from_files_to_the_draft(scene: Scene, folder: ModelFolder) -> None:
    client = signed_in(scene.owner)
    at = [folder.listing.publisher.slug, folder.listing.slug, folder.public_id]
    page = reverse("pages:studio_folder", args=at)
    sent = {"file": [io.BytesIO(b"{}"), io.BytesIO(b"x")]}
    sent["file"][0].name, sent["file"][1].name = "config.json", "weights.bin"

    told = client.post(reverse("pages:studio_folder_add", args=at), sent, headers={"X-Requested-With": "fetch"})
    assert told.status_code == 422
    assert "weights.bin may carry code" in told.content.decode()
    assert "Still missing: tokenizer.json, model.safetensors" in client.get(page).content.decode()

    job = folders.check(scene.owner, filled(scene, ModelFolder.objects.get(pk=folder.pk)))
    assert "data-events" in client.get(page).content.decode()
    claims.claim(claim_of(job))
    problem = {"file": "tokenizer.json", "code": "tokenizer", "message": "The tokenizer has 3 tokens <script>"}
    claims.failed(outcome_of(job, error="…", code="folder_unusable", detail={"problems": [problem]}))
    shown = client.get(page).content.decode()
    assert "3 tokens &lt;script&gt;" in shown
    assert client.get(reverse("jobs:job", args=[job.public_id])).url == page

    checked(scene, ModelFolder.objects.get(pk=folder.pk))
    assert client.post(page, {"number": "one"}).status_code == 422
    assert client.post(page, {"number": "1.0.0"}).status_code == 302
    assert folder.listing.versions.get().number == "1.0.0"


def test_a_gpt_is_made_from_files_or_not_at_all(scene: Scene) -> None:
    client = signed_in(scene.owner)
    url = reverse("pages:studio_new_from_files", args=[scene.publisher.slug])
    fields = {"slug": "mine", "kind": "adapter", "name_en": "Mine", "summary_en": "It is mine.", "use_cases": ["chat"], "languages": ["en"]}
    fields |= {"licence": "MIT", "input_price": "0", "output_price": "0"}

    assert client.get(url).status_code == 200
    assert client.post(url, fields).status_code == 422  # an adapter of what?
    assert not scene.publisher.listings.exists()
    made = client.post(url, fields | {"base": scene.base.public_id})

    folder = ModelFolder.objects.get()
    assert made.url == reverse("pages:studio_folder", args=[scene.publisher.slug, "mine", folder.public_id])
