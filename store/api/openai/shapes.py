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
MODEL = _object(
    {
        "id": _TEXT,
        "object": {"enum": ["model"]},
        "created": _TIME,
        "owned_by": _TEXT,
        "precisions": {
            "type": "array",
            "items": {"enum": ["float32", "bfloat16", "int8", "vllm"]},
            "description": _("In which its weights are served; empty while no worker has loaded them yet"),
        },
    }
)
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
EMBEDDINGS = _object(
    {
        "object": {"enum": ["list"]},
        "data": {
            "type": "array",
            "items": _object(
                {
                    "object": {"enum": ["embedding"]},
                    "index": _COUNT,
                    "embedding": {
                        "type": "array",
                        "items": {"type": "number"},
                        "description": _("With encoding_format base64: a text that holds little-endian float32"),
                    },
                }
            ),
        },
        "model": _TEXT,
        "usage": _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
    }
)
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


FILE = _object(
    {
        "id": _TEXT,
        "object": {"enum": ["file"]},
        "bytes": _COUNT,
        "created_at": _TIME,
        "filename": _TEXT,
        "purpose": {"enum": ["batch", "batch_output"]},
        "status": {"enum": ["processed"]},
    }
)
DELETED_FILE = _object({"id": _TEXT, "object": {"enum": ["file"]}, "deleted": {"type": "boolean"}})
_WHEN: Schema = _TIME | {"nullable": True}
_MAYBE: Schema = _TEXT | {"nullable": True}
_WRONG = _object({"code": _TEXT, "message": _TEXT, "param": _MAYBE, "line": _COUNT | {"nullable": True}})
BATCH = _object(
    {
        "id": _TEXT,
        "object": {"enum": ["batch"]},
        "endpoint": _TEXT,
        "model": _MAYBE,
        "errors": _object({"object": {"enum": ["list"]}, "data": {"type": "array", "items": _WRONG}}) | {"nullable": True},
        "input_file_id": _TEXT,
        "completion_window": _TEXT,
        "status": {"enum": ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]},
        "output_file_id": _MAYBE | {"description": _("The answers, in the order of the requests")},
        "error_file_id": _MAYBE | {"description": _("The requests that were not answered, each with the reason")},
        "created_at": _TIME,
        **dict.fromkeys(
            ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"), _WHEN
        ),
        "expires_at": _TIME,
        "request_counts": _object({"total": _COUNT, "completed": _COUNT, "failed": _COUNT}),
        "usage": _object(
            {
                "input_tokens": _COUNT,
                "input_tokens_details": _object({"cached_tokens": _COUNT}),
                "output_tokens": _COUNT,
                "output_tokens_details": _object({"reasoning_tokens": _COUNT}),
                "total_tokens": _COUNT,
            }
        ),
        "metadata": {"type": "object", "additionalProperties": _TEXT, "nullable": True},
    }
)


def listed(shape: Schema) -> Schema:
    """A page of a list."""
    entries = {"object": {"enum": ["list"]}, "data": {"type": "array", "items": shape}}
    return _object(entries | {"first_id": _MAYBE, "last_id": _MAYBE, "has_more": {"type": "boolean"}})


def errors(*statuses: int) -> dict[int, Any]:
    """The envelope as the answer for each of these statuses."""
    return dict.fromkeys(statuses, ERROR)
