"""One line of a file of requests, read as the API reads a request: either what an engine is asked, or why nothing is.

A line becomes a record of its shard: {"number", "custom_id", "id"} and either {"model", "rule", "one_function", "request"} or
{"refused": {"code", "message", "param", "status"}}, whose status is 0 where no request was found.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from inference.protocol import GenerationRequest
from store.accounts.models import User
from store.accounts.public_ids import new_public_id
from store.api.errors import InvalidValue
from store.api.openai.parameters import ChatParameters, InvalidJson, read_body, read_parameters
from store.catalog import naming
from store.catalog.models import Version
from store.errors import DomainError
from store.generation import admission

ENDPOINTS = ("/v1/chat/completions",)
MAX_CUSTOM_ID_CHARS = 512
BYTES_OF_A_TOKEN = 12  # of an answer as it is kept, and as much again for what is told of each token
BYTES_OF_A_LOGPROB = 90
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")


class BadLine(DomainError):
    """There is no request on the line."""

    code = "invalid_line"


class DuplicateId(BadLine):
    code = "duplicate_custom_id"


class OtherModel(InvalidValue):
    code = "mismatched_model"
    message = _("A batch asks one GPT. Put what another shall answer into a batch of its own.")


@dataclass
class LineReader:
    """Reads the lines of one file, one after the other: it knows the ids it met, and which GPT the batch asks."""

    user: User
    endpoint: str
    deadline: float  # unix time
    version: Version | None = None  # of the first request that names one this person may use
    model: str = ""
    _seen: dict[str, int] = field(default_factory=dict)

    def read(self, raw: bytes, number: int) -> dict[str, Any]:
        """The record of the line."""
        request = new_public_id("req")
        record: dict[str, Any] = {"number": number, "custom_id": None, "id": request}
        try:
            found = self._object(raw)
            record["custom_id"] = custom_id = self._custom_id(found)
            self._refuse_duplicate(custom_id, number)
            body = self._body(found)
        except DomainError as error:
            return record | {"refused": _refusal(error, status=0)}
        try:
            return record | self._asked(request, body)
        except DomainError as error:
            return record | {"refused": _refusal(error, status=error.status)}

    def _object(self, raw: bytes) -> dict[str, Any]:
        limit = settings.MAX_BODY_BYTES
        if len(raw) > limit:
            raise BadLine(_("The line has %(size)s bytes; at most %(limit)s are read.") % {"size": len(raw), "limit": limit})
        try:
            return read_body(raw)
        except InvalidJson as error:
            message = _('Each line must be a JSON object with "custom_id", "method", "url" and "body". %(why)s')
            raise BadLine(message % {"why": str(error)}) from error

    def _custom_id(self, found: dict[str, Any]) -> str:
        custom_id = found.get("custom_id")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID_CHARS or _HALF_CHARACTERS.search(custom_id):
            message = _("'custom_id' must be a text of 1 to %(most)s characters, by which you will know the answer.")
            raise BadLine(message % {"most": MAX_CUSTOM_ID_CHARS}, param="custom_id")
        return custom_id

    def _refuse_duplicate(self, custom_id: str, number: int) -> None:
        if (first := self._seen.setdefault(custom_id, number)) != number:
            message = _("This custom_id stands on line %(line)s already. Give each line one of its own.")
            raise DuplicateId(message % {"line": first}, param="custom_id")

    def _body(self, found: dict[str, Any]) -> dict[str, Any]:
        if found.get("method") != "POST":
            raise BadLine(_("'method' must be \"POST\"."), param="method")
        if found.get("url") != self.endpoint:
            raise BadLine(_("'url' must be \"%(url)s\", the endpoint of this batch.") % {"url": self.endpoint}, param="url")
        body = found.get("body")
        if not isinstance(body, dict):
            raise BadLine(_("'body' must be the request, a JSON object."), param="body")
        return body

    def _asked(self, request: str, body: dict[str, Any]) -> dict[str, Any]:
        parameters = read_parameters(body)
        if parameters.stream:
            raise InvalidValue(_("'stream' is not for batches: answers come in a file."), param="stream")
        order = admission.ordered(
            self._version(parameters),
            request=request,
            messages=parameters.messages,
            sampling=parameters.sampling,
            tools=parameters.tools.told if parameters.tools else None,
            tenant=self.user.public_id,
            deadline=self.deadline,
        )
        one_function = parameters.tools is not None and parameters.tools.is_one
        return {"model": parameters.model, "rule": parameters.rule, "one_function": one_function, "request": order.to_json()}

    def _version(self, parameters: ChatParameters) -> Version:
        if self.version is None:
            self.version, self.model = naming.resolve(parameters.model, self.user), parameters.model
        if parameters.model != self.model:
            raise OtherModel(param="model")
        return self.version


def most_bytes(order: GenerationRequest) -> int:
    """About how much room the answers can take."""
    logprobs = order.sampling.get("logprobs")
    of_token = BYTES_OF_A_TOKEN + (0 if logprobs is None else BYTES_OF_A_LOGPROB * (logprobs + 1))
    return int(order.sampling["n"] * order.sampling["max_tokens"] * of_token)


def encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _refusal(error: DomainError, *, status: int) -> dict[str, Any]:
    return {"code": error.code, "message": str(error), "param": error.param, "status": status}
