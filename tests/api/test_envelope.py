"""Whatever is wrong with a request comes back in the error envelope, and nothing is written."""

import json
from typing import Any

import pytest
from django.test import Client

from store.accounts import keys
from store.catalog.models import Version
from store.generation.models import Request
from tests import making
from tests.api.conftest import Caller

pytestmark = pytest.mark.django_db
ADDRESS = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": "acme/poet", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture(autouse=True)
def poet() -> Version:
    publisher = making.make_publisher(slug="acme")
    return making.make_prompt(making.make_base(slug="base"), making.make_listing(publisher, slug="poet"))


def posted(caller: Caller, body: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client().post(ADDRESS, raw, content_type="application/json", headers=caller.headers)


def assert_refused(answer: Any, status: int, code: str, param: str | None, kind: str = "invalid_request_error") -> None:
    assert answer.status_code == status, answer.content
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    assert error["message"]
    assert answer["x-request-id"]
    assert answer["x-should-retry"] == "false"
    assert not Request.objects.exists()


def schema_asked(**changes: Any) -> dict[str, Any]:
    """A `response_format`; changes are of its `json_schema`."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": {"type": "object"}} | changes}}


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


A_CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
RETURNED = {"role": "tool", "tool_call_id": "call_1", "content": "12:00"}
NOW, THEN = ({"type": "function", "function": {"name": name}} for name in ("now", "then"))


def called(name: str, arguments: Any = "{}") -> dict[str, Any]:
    return {**A_CALL, "function": {"name": name, "arguments": arguments}}


def calling(calls: Any, *after: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Late?"}, {"role": "assistant", "tool_calls": calls}, *after]}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": function}]}


def nested(levels: int) -> dict[str, Any]:
    return {"properties": nested(levels - 1)} if levels else {}


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"model": 7}, "invalid_type", "model"),
        ({"model": ""}, "invalid_value", "model"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": "Hello"}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 201}, "invalid_value", "messages"),
        ({"messages": ["Hello"]}, "invalid_type", "messages[0]"),
        ({"messages": [{"role": "function", "content": "a"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "call_1"}]}, "invalid_messages", "messages[0].tool_call_id"),
        ({"messages": [{"content": "a"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "invalid_messages", "messages[0].role"),
        (said(7), "invalid_type", "messages[0].content"),
        (said(None), "invalid_type", "messages[0].content"),
        (said("  "), "invalid_messages", "messages[0].content"),
        (said("a\x00b"), "invalid_messages", "messages[0].content"),
        (said("half \ud83d"), "invalid_value", "messages[0].content"),
        (said("x" * 32_001), "invalid_value", "messages[0].content"),
        (said([]), "invalid_value", "messages[0].content"),
        (said([{"type": "image_url", "image_url": {"url": "a"}}]), "unsupported_parameter", "messages[0].content[0].type"),
        (said("a", tool_calls=[{"id": "1"}]), "unsupported_parameter", "messages[0].tool_calls"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"top_p": -0.1}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"max_completion_tokens": "10"}, "invalid_type", "max_completion_tokens"),
        ({"presence_penalty": 3}, "invalid_value", "presence_penalty"),
        ({"frequency_penalty": []}, "invalid_type", "frequency_penalty"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"stop": [""]}, "invalid_value", "stop[0]"),
        ({"stop": 7}, "invalid_type", "stop"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
        ({"user": 7}, "invalid_type", "user"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"store": "no"}, "invalid_type", "store"),
        ({"n": 5}, "invalid_value", "n"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": "2"}, "invalid_type", "n"),
        (calling(7), "invalid_type", "messages[1].tool_calls"),
        (calling([7]), "invalid_type", "messages[1].tool_calls[0]"),
        (calling([A_CALL] * 129), "invalid_value", "messages[1].tool_calls"),
        (calling([{**A_CALL, "type": "custom"}]), "unsupported_parameter", "messages[1].tool_calls[0].type"),
        (calling([{**A_CALL, "id": None}]), "invalid_type", "messages[1].tool_calls[0].id"),
        (calling([{**A_CALL, "function": "now"}]), "invalid_type", "messages[1].tool_calls[0].function"),
        (calling([called("right now")]), "invalid_value", "messages[1].tool_calls[0].function.name"),
        (calling([called("now", 7)]), "invalid_type", "messages[1].tool_calls[0].function.arguments"),
        (calling([called("now", "{")]), "invalid_messages", "messages[1].tool_calls[0].function.arguments"),
        (calling([called("now", "[]")]), "invalid_messages", "messages[1].tool_calls[0].function.arguments"),
        (calling([called("now", '{"a": "\x7f"}')]), "invalid_messages", "messages[1].tool_calls[0].function.arguments"),
        (calling([called("now", '{"a":' * 65 + "1" + "}" * 65)]), "invalid_messages", "messages[1].tool_calls[0].function.arguments"),
        (calling([called("now", '{"a":' * 5000 + "1" + "}" * 5000)]), "invalid_messages", "messages[1].tool_calls[0].function.arguments"),
        (calling([A_CALL]), "invalid_messages", "messages[1].role"),
        (calling([A_CALL], {"role": "user", "content": "And?"}), "invalid_messages", "messages[1]"),
        (calling([A_CALL, {**A_CALL, "id": "call_2"}], RETURNED), "invalid_messages", "messages[2]"),
        (calling([A_CALL], RETURNED, RETURNED), "invalid_messages", "messages[3].tool_call_id"),
        (calling([A_CALL], {**RETURNED, "tool_call_id": "call_2"}), "invalid_messages", "messages[2].tool_call_id"),
        (calling([A_CALL], {**RETURNED, "tool_call_id": None}), "invalid_type", "messages[2].tool_call_id"),
        (calling([A_CALL], {**RETURNED, "content": None}), "invalid_type", "messages[2].content"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": ["now"]}, "invalid_type", "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "invalid_type", "tools[0].function"),
        (tool(), "missing_required_parameter", "tools[0].function.name"),
        (tool(name="right now"), "invalid_value", "tools[0].function.name"),
        (tool(name="n" * 65), "invalid_value", "tools[0].function.name"),
        (tool(name="now", description=7), "invalid_type", "tools[0].function.description"),
        (tool(name="now", strict="yes"), "invalid_type", "tools[0].function.strict"),
        (tool(name="now", arguments={}), "unknown_parameter", "tools[0].function.arguments"),
        (tool(name="now", parameters=[]), "invalid_type", "tools[0].function.parameters"),
        (tool(name="now", parameters={"type": "string"}), "invalid_value", "tools[0].function.parameters.type"),
        (tool(name="now", parameters=nested(65)), "invalid_value", "tools[0].function.parameters"),
        (tool(name="now", parameters={"properties": {"a": {"enum": ["x" * 32_768]}}}), "invalid_value", "tools"),
        ({"tools": [NOW, NOW]}, "invalid_value", "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]}, "invalid_value", "tools"),
        ({"tools": [NOW], "tool_choice": "never"}, "invalid_value", "tool_choice"),
        ({"tools": [NOW], "tool_choice": 1}, "invalid_type", "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "function"}}, "invalid_type", "tool_choice.function"),
        ({"tools": [NOW], "tool_choice": THEN}, "invalid_value", "tool_choice.function.name"),
        ({"tools": [NOW], "tool_choice": allowed("none", NOW)}, "invalid_value", "tool_choice.allowed_tools.mode"),
        ({"tools": [NOW], "tool_choice": allowed("auto")}, "invalid_value", "tool_choice.allowed_tools.tools"),
        ({"tools": [NOW], "tool_choice": allowed("auto", THEN)}, "invalid_value", "tool_choice.allowed_tools.tools[0].function.name"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tool_choice": THEN}, "invalid_value", "tool_choice"),
        ({"tools": [NOW], "parallel_tool_calls": "yes"}, "invalid_type", "parallel_tool_calls"),
        ({"tools": [NOW], "response_format": {"type": "json_object"}}, "invalid_value", "response_format"),
        ({**tool(name="now", description="x" * 4_000), **said("y" * 31_000)}, "invalid_messages", "messages"),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": "json_object", "json_schema": {}}}, "unknown_parameter", "response_format.json_schema"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
        (schema_asked(name=None), "missing_required_parameter", "response_format.json_schema.name"),
        (schema_asked(name="a person"), "invalid_value", "response_format.json_schema.name"),
        (schema_asked(strict="yes"), "invalid_type", "response_format.json_schema.strict"),
        (schema_asked(schema=[]), "invalid_type", "response_format.json_schema.schema"),
        (schema_asked(schema={"enum": ["x" * 32_768]}), "invalid_value", "response_format.json_schema.schema"),
        (schema_asked(scheme={}), "unknown_parameter", "response_format.json_schema.scheme"),
        ({"structured_outputs": []}, "invalid_type", "structured_outputs"),
        ({"structured_outputs": {}}, "invalid_value", "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "invalid_value", "structured_outputs"),
        ({"structured_outputs": {"regex": "a" * 4_097}}, "invalid_value", "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "invalid_value", "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", 7]}}, "invalid_type", "structured_outputs.choice[1]"),
        ({"structured_outputs": {"json": "{"}}, "invalid_value", "structured_outputs.json"),
        ({"structured_outputs": {"grammar": "root ::= a"}}, "unsupported_parameter", "structured_outputs.grammar"),
        ({"structured_outputs": {"xml": "a"}}, "unknown_parameter", "structured_outputs.xml"),
        ({**schema_asked(), "structured_outputs": {"regex": "a"}}, "invalid_value", "structured_outputs"),
        ({"logprobs": 1}, "invalid_type", "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"audio": {"voice": "alloy"}}, "unsupported_parameter", "audio"),
        ({"logit_bias": {"50256": -101}}, "invalid_value", "logit_bias.50256"),
        ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "invalid_value", "logit_bias"),
        ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
        ({"temprature": 1}, "unknown_parameter", "temprature"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_bad_parameter_is_refused_by_name(caller: Caller, change: dict[str, Any], code: str, param: str) -> None:
    assert_refused(posted(caller, {**GOOD, **change}), 400, code, param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": "\xff"}', b'{"temperature": NaN}', b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"],
    ids=["nothing", "cut off", "a list", "not UTF-8", "not a number", "nested too deeply", "a huge number"],
)
def test_a_body_that_is_no_json_object_is_refused(caller: Caller, body: bytes) -> None:
    assert_refused(posted(caller, body), 400, "invalid_json", None)


def test_parameters_that_ask_for_what_happens_anyway_are_accepted(caller: Caller) -> None:
    neutral = {"n": 1, "logprobs": False, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "modalities": ["text"]}

    answer = posted(caller, {**GOOD, **neutral, "metadata": {"a": "b"}, "store": True, "user": "u", "temperature": None})

    assert answer.json()["error"]["code"] == "no_worker"  # all was read and found good


def test_an_unknown_model_is_not_found(caller: Caller) -> None:
    assert_refused(posted(caller, {**GOOD, "model": "acme/novelist"}), 404, "model_not_found", "model")


def test_a_strangers_draft_does_not_exist_for_others(caller: Caller) -> None:
    draft = making.draft_prompt(making.make_base())

    for name in (draft.full_name, draft.listing.full_name, draft.public_id):
        assert_refused(posted(caller, {**GOOD, "model": name}), 404, "model_not_found", "model")
        assert Client().get(f"/v1/models/{name}", headers=caller.headers).status_code == 404


def test_an_unlisted_gpt_is_used_by_name_but_not_listed(caller: Caller) -> None:
    hidden = making.release(making.draft_prompt(making.make_base()), visibility="unlisted")
    name = hidden.listing.full_name

    listed = Client().get("/v1/models", headers=caller.headers).json()["data"]

    assert name not in [entry["id"] for entry in listed]
    assert Client().get(f"/v1/models/{name.replace('/', '%2F')}", headers=caller.headers).json()["id"] == name


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic abc", "Bearer gs_unknown", "Bearer sk-abc"])
@pytest.mark.parametrize("address", [ADDRESS, "/v1/models", "/v1/models/acme/poet"])
def test_who_has_no_good_key_is_refused(address: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    call = Client().post if address == ADDRESS else Client().get

    answer = call(address, headers=headers)

    assert_refused(answer, 401, "invalid_api_key", None, "authentication_error")
    assert answer["www-authenticate"] == "Bearer"


def test_a_revoked_key_is_refused(caller: Caller) -> None:
    keys.revoke_key(caller.user, caller.user.api_keys.get())

    assert_refused(posted(caller, GOOD), 401, "invalid_api_key", None, "authentication_error")


def test_being_signed_in_on_the_site_opens_no_api_address(caller: Caller) -> None:
    browser = Client()
    browser.force_login(caller.user)

    assert browser.post(ADDRESS, GOOD, content_type="application/json").status_code == 401


@pytest.mark.parametrize(
    ("method", "address", "allowed"), [("get", ADDRESS, "POST"), ("put", ADDRESS, "POST"), ("post", "/v1/models", None)]
)
def test_a_wrong_method_is_refused_in_the_envelope(caller: Caller, method: str, address: str, allowed: str | None) -> None:
    answer = getattr(Client(), method)(address, headers=caller.headers)

    assert_refused(answer, 405, "method_not_allowed", None)
    assert allowed is None or answer["allow"] == allowed


@pytest.mark.parametrize("address", ["/v1/", "/v1/engines", "/v1/chat/completions/x", "/api/", "/api/nothing"])
def test_an_address_that_is_no_endpoint_is_not_found_in_the_envelope(address: str) -> None:
    assert_refused(Client().get(address), 404, "unknown_url", None)


def test_errors_are_in_the_callers_language(caller: Caller) -> None:
    answer = Client().post(ADDRESS, b"{", content_type="application/json", headers={**caller.headers, "Accept-Language": "zh-CN"})

    assert answer.headers["content-language"] == "zh-hans"


def test_what_nobody_expected_is_a_500_that_says_nothing_about_itself(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **keywords: object) -> None:
        raise RuntimeError("postgres://user:secret@host")

    monkeypatch.setattr("store.catalog.naming.resolve", broken)

    assert_refused(posted(caller, GOOD), 500, "internal_error", None, "server_error")
    answer = Client().get("/v1/models/acme/poet", headers=caller.headers)
    assert_refused(answer, 500, "internal_error", None, "server_error")
    assert b"secret" not in answer.content
