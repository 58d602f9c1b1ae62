"""`/v1/files` and `/v1/batches` with the official client, unmodified."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import openai
import pytest

from store.batches import preparing, results
from store.batches.models import Batch
from store.catalog.models import Version
from tests import making
from tests.api.conftest import Caller, address, caller  # noqa: F401 fixtures
from tests.batches.answering import answer, answer_all, file_of, fresh, jobs_of, line_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client(address: str, caller: Caller) -> openai.OpenAI:  # noqa: F811
    return openai.OpenAI(base_url=f"{address}/v1", api_key=caller.secret, max_retries=0)


@pytest.fixture
def version() -> Version:
    return making.make_prompt()


def uploaded(client: openai.OpenAI, lines: list[Any], name: str = "requests.jsonl") -> str:
    return client.files.create(file=(name, file_of(lines)), purpose="batch").id


def started(client: openai.OpenAI, version: Version, count: int = 3, **options: Any) -> Any:
    lines = [line_of(f"id-{n}", version.listing.full_name, f"Question {n}") for n in range(1, count + 1)]
    return client.batches.create(input_file_id=uploaded(client, lines), endpoint="/v1/chat/completions", completion_window="24h", **options)


def row(batch: Any) -> Batch:
    return Batch.objects.get(public_id=batch.id)


def test_a_batch_from_its_file_to_its_results(client: openai.OpenAI, version: Version) -> None:
    made = started(client, version, metadata={"for": "a test"})
    assert (made.object, made.status, made.metadata) == ("batch", "validating", {"for": "a test"})
    assert made.expires_at - made.created_at == 24 * 3600

    preparing.prepare(made.id)
    under_way = client.batches.retrieve(made.id)
    assert (under_way.status, under_way.model) == ("in_progress", version.listing.full_name)
    assert under_way.request_counts.to_dict() == {"total": 3, "completed": 0, "failed": 0}
    answer_all(row(made))

    ended = client.batches.retrieve(made.id)
    assert (ended.status, ended.error_file_id, ended.errors) == ("completed", None, None)
    assert ended.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    assert (ended.usage.input_tokens, ended.usage.output_tokens, ended.usage.input_tokens_details.cached_tokens) == (15, 6, 3)
    assert ended.completed_at >= ended.finalizing_at >= ended.in_progress_at >= ended.created_at
    content = client.files.content(ended.output_file_id)
    lines = [json.loads(line) for line in content.text.splitlines()]
    assert [line["custom_id"] for line in lines] == ["id-1", "id-2", "id-3"]
    completion = openai.types.chat.ChatCompletion.model_validate(lines[0]["response"]["body"])
    assert completion.choices[0].message.content == "Answer 1"
    file = client.files.retrieve(ended.output_file_id)
    assert (file.purpose, file.bytes, file.filename) == ("batch_output", len(content.read()), f"{made.id}_output.jsonl")


def test_a_batch_is_cancelled_and_what_was_answered_stays(client: openai.OpenAI, version: Version) -> None:
    made = started(client, version)
    preparing.prepare(made.id)

    assert client.batches.cancel(made.id).status == "cancelling"
    assert client.batches.cancel(started(client, version, 1).id).status == "cancelled"
    with pytest.raises(openai.ConflictError, match="ending already"):
        client.batches.cancel(made.id)
    assert [job.state for job in jobs_of(row(made))] == ["cancelled"]  # nobody had taken it
    results.write_results(made.id)

    ended = client.batches.retrieve(made.id)
    assert (ended.status, ended.output_file_id) == ("cancelled", None)
    assert '"batch_cancelled"' in client.files.content(ended.error_file_id).text


def test_a_file_that_can_be_no_batch_is_told_of(client: openai.OpenAI) -> None:
    made = client.batches.create(input_file_id=uploaded(client, [b" "]), endpoint="/v1/chat/completions", completion_window="24h")

    preparing.prepare(made.id)

    failed = client.batches.retrieve(made.id)
    assert (failed.status, failed.errors.data[0].code) == ("failed", "invalid_batch")
    assert failed.failed_at is not None


def test_files_are_listed_page_by_page_and_deleted(client: openai.OpenAI) -> None:
    ids = [uploaded(client, [{"n": n}], name=f"{n}.jsonl") for n in range(3)]
    assert uploaded(client, [{"n": 0}], name="0.jsonl") == ids[0]  # equal ones are one

    first = client.files.list(limit=2)
    assert ([file.id for file in first.data], first.has_more) == ([ids[2], ids[1]], True)
    assert [file.id for file in client.files.list(limit=2)] == [ids[2], ids[1], ids[0]]  # the client turns the pages
    assert [file.id for file in client.files.list(purpose="batch_output")] == []
    assert client.files.delete(ids[1]).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(ids[1])
    assert client.files.content(ids[0]).json() == {"n": 0}


def test_batches_are_listed_newest_first(client: openai.OpenAI, version: Version) -> None:
    made = [started(client, version, n).id for n in (1, 2, 3)]

    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]


def test_somebody_elses_files_and_batches_do_not_exist(client: openai.OpenAI, address: str, version: Version) -> None:  # noqa: F811
    from store.accounts import keys

    made = started(client, version)
    preparing.prepare(made.id)
    answer_all(row(made))
    output = client.batches.retrieve(made.id).output_file_id
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key=keys.create_key(making.make_user(), name="x")[1], max_retries=0)

    for ask in (
        lambda: stranger.files.retrieve(output),
        lambda: stranger.files.content(output),
        lambda: stranger.files.delete(made.input_file_id),
        lambda: stranger.batches.retrieve(made.id),
        lambda: stranger.batches.cancel(made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    with pytest.raises(openai.BadRequestError, match="no file"):
        stranger.batches.create(input_file_id=made.input_file_id, endpoint="/v1/chat/completions", completion_window="24h")
    assert (list(stranger.files.list()), list(stranger.batches.list())) == ([], [])
    assert client.files.retrieve(output).id == output


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file_x"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"colour": "red"}, "colour"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_what_is_wrong_about_a_new_batch_is_named(client: openai.OpenAI, version: Version, changed: dict[str, Any], param: str) -> None:
    file = uploaded(client, [line_of("a", version.listing.full_name)])
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"} | changed

    with pytest.raises(openai.BadRequestError) as wrong:
        client.post("/batches", body=body, cast_to=object)

    assert wrong.value.param == param
    assert not Batch.objects.exists()


def test_what_is_wrong_about_a_new_file_is_named(client: openai.OpenAI, address: str, caller: Caller) -> None:  # noqa: F811
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="jsonl"):
        client.files.create(file=("a.csv", b"{}"), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("a.jsonl", b""), purpose="batch")
    missing = httpx.post(f"{address}/v1/files", headers=caller.headers, data={"purpose": "batch"}, files={"other": b"x"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "file")
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.files.list(limit=0)
    with pytest.raises(openai.BadRequestError, match="after"):
        client.files.list(after="file_x")


def test_a_file_is_as_large_as_an_upload_may_be_though_other_bodies_are_small(client: openai.OpenAI, settings: Any) -> None:
    settings.MAX_BODY_BYTES, settings.MAX_UPLOAD_BYTES = 1_000, 4_000

    assert client.files.create(file=("a.jsonl", b"x" * 3_000), purpose="batch").bytes == 3_000
    with pytest.raises(openai.APIStatusError) as too_large:
        client.files.create(file=("b.jsonl", b"x" * 4_500), purpose="batch")

    assert too_large.value.status_code == 413


def test_a_batch_goes_on_though_its_file_was_deleted(client: openai.OpenAI, version: Version) -> None:
    made = started(client, version, 1)
    client.files.delete(made.input_file_id)

    preparing.prepare(made.id)
    answer(jobs_of(row(made))[0])
    results.write_results(made.id)

    assert fresh(row(made)).state == "completed"
    assert client.batches.retrieve(made.id).input_file_id == made.input_file_id
