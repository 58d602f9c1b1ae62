"""The answers of /v1 as JSON Schema, for the reference."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from store.api.openai.fields import Schema


def _object(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "integer", "description": _("Unix time")}

ERROR = _object(
    {
        "error": _object(
            {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": "string", "nullable": True},
                "code": {"type": "string", "nullable": True},
            }
        )
    }
)
MODEL = _object({"id": _TEXT, "object": {"enum": ["model"]}, "created": _TIME, "owned_by": _TEXT})
MODEL_LIST = _object({"object": {"enum": ["list"]}, "data": {"type": "array", "items": MODEL}})
USAGE = _object(
    {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
        "prompt_tokens_details": _object({"cached_tokens": _COUNT}),
        "completion_tokens_details": _object({"reasoning_tokens": _COUNT}),
    }
)
_FINISH: Schema = {"type": "string", "enum": ["stop", "length", "tool_calls"]}
_FUNCTION: Schema = {
    "name": _TEXT,
    "arguments": _TEXT | {"description": _("JSON, whole once the answer has ended with the reason tool_calls")},
}
_CALL: Schema = {"id": _TEXT, "type": {"enum": ["function"]}}
_SHARE: Schema = {"token": _TEXT, "logprob": {"type": "number"}, "bytes": {"type": "array", "items": _COUNT}}
LOGPROBS = _object(
    {
        "content": {"type": "array", "items": _object(_SHARE | {"top_logprobs": {"type": "array", "items": _object(_SHARE)}})},
        "refusal": {"type": "array", "items": {}, "nullable": True},
    }
) | {
    "nullable": True,
    "description": _(
        "Of the model's own distribution: before logit_bias, penalties, temperature and what top_k, top_p and min_p leave out."
    ),
}
COMPLETION = _object(
    {
        "id": _TEXT,
        "object": {"enum": ["chat.completion"]},
        "created": _TIME,
        "model": _TEXT,
        "system_fingerprint": _TEXT,
        "choices": {
            "type": "array",
            "items": _object(
                {
                    "index": _COUNT,
                    "message": _object(
                        {
                            "role": {"enum": ["assistant"]},
                            "content": _TEXT | {"nullable": True},
                            "refusal": {"type": "string", "nullable": True},
                            "tool_calls": {"type": "array", "items": _object(_CALL | {"function": _object(_FUNCTION)})},
                        },
                        "tool_calls",
                    ),
                    "logprobs": LOGPROBS,
                    "finish_reason": _FINISH,
                }
            ),
        },
        "usage": USAGE,
    }
)
_PIECE_OF_CALL = _object({"index": _COUNT} | _CALL | {"function": _object(_FUNCTION, "name")}, "id", "type")
CHUNK = _object(
    {
        "id": _TEXT,
        "object": {"enum": ["chat.completion.chunk"]},
        "created": _TIME,
        "model": _TEXT,
        "system_fingerprint": _TEXT,
        "choices": {
            "type": "array",
            "items": _object(
                {
                    "index": _COUNT,
                    "delta": _object(
                        {"role": {"enum": ["assistant"]}, "content": _TEXT, "tool_calls": {"type": "array", "items": _PIECE_OF_CALL}},
                        *("role", "content", "tool_calls"),
                    ),
                    "logprobs": LOGPROBS,
                    "finish_reason": _FINISH | {"nullable": True},
                }
            ),
        },
        "usage": USAGE | {"nullable": True},
    },
    "usage",
)


def errors(*statuses: int) -> dict[int, Any]:
    """The envelope as the answer for each of these statuses."""
    return dict.fromkeys(statuses, ERROR)
