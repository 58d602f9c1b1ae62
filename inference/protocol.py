"""What the store and the GPU workers say to each other: queues, task names, keys and messages.

With `tool_calls` all that the store imports of this package. It needs nothing but the standard library, so a web process
that imports it loads no torch. Every message is a frozen dataclass of JSON values; `to_json` and `from_json` are the
wire form used in Celery task arguments and in Valkey streams.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

# ---------------------------------------------------------------- queues and tasks

LOAD_QUEUE = "generation.load"  # placement: requests for a base that no live worker holds
TRAINING_QUEUE = "jobs.training"
CHECKS_QUEUE = "jobs.checks"
EVENTS_QUEUE = "store.events"  # the only queue a worker may publish to

GENERATE = "inference.generate"
RUN_JOB = "inference.run_job"

GENERATION_FINISHED = "store.generation.finished"
JOB_CLAIM = "store.jobs.claim"
JOB_HEARTBEAT = "store.jobs.heartbeat"
JOB_SEGMENT = "store.jobs.segment"
JOB_FINISHED = "store.jobs.finished"
JOB_FAILED = "store.jobs.failed"
WORKER_TASKS = frozenset({GENERATION_FINISHED, JOB_CLAIM, JOB_HEARTBEAT, JOB_SEGMENT, JOB_FINISHED, JOB_FAILED})


def base_queue(base: str) -> str:
    """The Celery queue that gathers all requests for one base; `base` is its manifest digest."""
    return f"generation.base.{base[:32]}"


# ---------------------------------------------------------------- Valkey keys

GENERATION_WORKERS = "workers:generation"  # sorted set: worker name -> unix time of its last heartbeat
JOB_WORKERS = "workers:jobs"
HEARTBEAT_EVERY_S = 1.0
ALIVE_WITHIN_S = 8.0  # a worker or engine whose last heartbeat is older than this is taken for dead
LEASE_S = 15  # a stream nobody reads for this long is cancelled
STREAM_TTL_S = 900  # how long a finished stream can still be read
PRECISION_TTL_S = 30 * 86_400  # how long it is known in what a base was served last
CANCELLED = "cancel"  # value of a lease that asks for cancellation; any other value keeps the request alive


def holders_key(base: str) -> str:
    """Sorted set: name of each worker that holds the base -> unix time of its engine's last heartbeat."""
    return f"bases:{base}:holders"


def precision_key(base: str) -> str:
    """Sorted set, kept for PRECISION_TTL_S: each dtype the base is served in -> unix time of such an engine's last heartbeat."""
    return f"bases:{base}:precision"


def engine_key(engine: str) -> str:
    """String, expiring after ALIVE_WITHIN_S: the engine's `stats()` as JSON, its heartbeat."""
    return f"engines:{engine}"


def stream_key(request: str) -> str:
    """Valkey stream of a request's events; each entry has one field `event` holding JSON with a `type`."""
    return f"requests:{request}:events"


def lease_key(request: str) -> str:
    """String with LEASE_S to live, renewed by whoever reads the stream; CANCELLED asks the engine to stop."""
    return f"requests:{request}:lease"


def claim_key(request: str, attempt: int) -> str:
    """String set once (NX) by the worker that takes an attempt at a request, or by the store that ends it: whoever is first has it."""
    return f"requests:{request}:claim:{attempt}"


def inflight_key(base: str) -> str:
    """Sorted set of admitted requests of a base -> unix time after which they no longer count."""
    return f"bases:{base}:inflight"


def progress_key(job: str) -> str:
    """Valkey stream of a job's live progress; may be lost, the segments are the record."""
    return f"jobs:{job}:progress"


# ---------------------------------------------------------------- messages


class Message:
    """Base of the frozen dataclasses below: JSON out, JSON in."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises TypeError when a field is missing or unknown."""
        return cls(**value)


class InvalidSampling(ValueError):
    """A sampling parameter that cannot be used."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} is {str(value)[:80]!r}; it must be {allowed}.")
        self.name = name


MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_BIASED_TOKENS = 1024
MAX_STOPS = 64
MAX_STOP_CHARS = 16_384  # of all stop strings together
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 2**31),
    "min_tokens": (int, 0, 2**31),
    "temperature": (float, 0, 100),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, 2**31),
    "min_p": (float, 0, 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "seed": (int, -(2**63), 2**63 - 1),
    "n": (int, 1, MAX_CHOICES),
    "logprobs": (int, 0, MAX_TOP_LOGPROBS),
    "prompt_logprobs": (int, 0, MAX_TOP_LOGPROBS),
}
_OPTIONAL = ("seed", "logprobs", "prompt_logprobs")


class Form(StrEnum):
    """What kind of rule an answer follows."""

    JSON = "json"  # any JSON object
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    TOOLS = "tools"  # calls of functions, as inference.tool_calls has them


MAX_SCHEMA_CHARS = 32_768
MAX_REGEX_CHARS = 4_096
MAX_CHOSEN_FROM = 1_000
MAX_CHOSEN_FROM_CHARS = 32_768  # of all texts together


@dataclass(frozen=True)
class Grammar(Message):
    """The rule that a whole answer follows; each of its tokens is chosen among those that keep it possible.

    `value` is a JSON schema, an object or the text of one; a regular expression; the texts to choose from; tool_calls.Wanted
    as an object; nothing for Form.JSON. Raises InvalidSampling. Whether a rule is supported is found out by who compiles it.
    """

    kind: str  # Form
    value: Any = ""  # read: str or tuple[str, ...], a schema as canonical JSON, so that equal ones are compiled once

    def __post_init__(self) -> None:
        if self.kind not in list(Form):
            raise InvalidSampling("grammar.kind", self.kind, f"one of {', '.join(Form)}")
        object.__setattr__(self, "value", _READERS[self.kind](self.value))


def _json_object(name: str, value: Any) -> str:
    try:
        found = json.loads(value) if isinstance(value, str) and len(value) <= MAX_SCHEMA_CHARS else value
        text = json.dumps({**found}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)  # of what is no object: a TypeError
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidSampling(name, value, "a JSON object") from error
    return _rule(name, text, MAX_SCHEMA_CHARS)


def _chosen_from(value: Any) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list | tuple) else ()
    if not 1 <= len(texts) <= MAX_CHOSEN_FROM or sum(len(str(text)) for text in texts) > MAX_CHOSEN_FROM_CHARS:
        raise InvalidSampling("grammar.choice", value, f"1 to {MAX_CHOSEN_FROM} texts of {MAX_CHOSEN_FROM_CHARS} characters together")
    return tuple(_rule("grammar.choice", text, MAX_CHOSEN_FROM_CHARS) for text in texts)


def _rule(name: str, value: Any, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidSampling(name, value, f"a text of 1 to {most} characters")
    return value


_READERS: dict[str, Callable[[Any], str | tuple[str, ...]]] = {
    Form.JSON: lambda _value: "",
    Form.JSON_SCHEMA: lambda value: _json_object("grammar.json_schema", value),
    Form.REGEX: lambda value: _rule("grammar.regex", value, MAX_REGEX_CHARS),
    Form.CHOICE: _chosen_from,
    Form.TOOLS: lambda value: _json_object("grammar.tools", value),
}


@dataclass(frozen=True)
class SamplingParams(Message):
    """How the next token is chosen. Names and meanings are OpenAI's; `top_k`, `min_p`, `min_tokens`, `ignore_eos`,
    `logprobs` and `prompt_logprobs` are vLLM's. Raises InvalidSampling for a value that cannot be used."""

    max_tokens: int = 256
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1  # answers to the same prompt
    min_tokens: int = 0  # before these neither an end-of-text token nor a stop string ends the answer
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token -> what is added to its logit, -100 to 100
    logprobs: int | None = None  # tell each token's log-probability, and those of so many of the most probable ones
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt
    grammar: Grammar | None = None  # the rule that each answer follows

    def __post_init__(self) -> None:
        for name, bounds in _BOUNDS.items():
            _check_number(name, getattr(self, name), *bounds)
        if self.min_tokens > self.max_tokens:
            raise InvalidSampling("min_tokens", self.min_tokens, f"at most max_tokens, {self.max_tokens}")
        if not isinstance(self.ignore_eos, bool):
            raise InvalidSampling("ignore_eos", self.ignore_eos, "true or false")
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "grammar", _grammar(self.grammar))


def _check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    if value is None and name in _OPTIONAL:
        return
    fits = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not fits or not low <= value <= high:  # NaN is not within any bounds
        raise InvalidSampling(name, value, f"a {'whole ' if kind is int else ''}number from {low} to {high}")


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(stop, str) for stop in stops):
        raise InvalidSampling("stop", value, "a text or a list of texts")
    if len(stops) > MAX_STOPS or sum(map(len, stops)) > MAX_STOP_CHARS:
        size = f"{len(stops)} texts of {sum(map(len, stops))} characters"
        raise InvalidSampling("stop", size, f"at most {MAX_STOPS} texts of {MAX_STOP_CHARS} characters together")
    return stops


def _biases(value: Any) -> dict[int, float]:
    """JSON has the tokens as texts."""
    allowed = f"an object of at most {MAX_BIASED_TOKENS} numbers of tokens, each with a number from -100 to 100"
    if not isinstance(value, Mapping) or len(value) > MAX_BIASED_TOKENS:
        raise InvalidSampling("logit_bias", value, allowed)
    found = {}
    for token, bias in value.items():
        number = int(token) if str(token).isascii() and str(token).isdigit() and len(str(token)) < 10 else -1
        if number < 0 or isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise InvalidSampling("logit_bias", {token: bias}, allowed)
        found[number] = float(bias)
    return found


def _grammar(value: Any) -> Grammar | None:
    """JSON has a grammar as an object."""
    if value is None or isinstance(value, Grammar):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"kind", "value"} or "kind" not in value:
        raise InvalidSampling("grammar", value, "an object with kind and value")
    return Grammar(**value)


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True)
class GenerationRequest(Message):
    """Completions of one prompt for an engine, `n` of its sampling.

    `messages` are complete: a prompt GPT's instructions stand first, and `own_messages` says how many of them belong
    to the version itself (0 or 1), which is what the prefix cache may share between tenants. `prompt_tokens`, where given,
    is the prompt as it is, and the messages are not looked at.
    """

    id: str  # "req_…"
    base: str  # sha256 of the base version's manifest
    version: str  # public id of the version asked for
    tenant: str
    messages: list[dict[str, Any]]  # {"role": system | user | assistant | tool, "content": text, "tool_calls"?, "tool_call_id"?}
    sampling: dict[str, Any]  # SamplingParams.to_json()
    deadline: float  # unix time after which nobody waits for the answer
    adapter: str | None = None  # sha256 of the adapter's manifest
    own_messages: int = 0
    prompt_tokens: list[int] | None = None
    tools: list[dict[str, Any]] | None = None  # functions that the model is told of, as OpenAI describes them
    attempt: int = 1
    priority: str = Priority.INTERACTIVE
    leased: bool = True  # False: runs to its end though nobody reads
    trace: str = ""  # the web request's id, for the logs

    def to_json(self) -> dict[str, Any]:
        """Without `tools` where there are none: a worker from before there were any reads it."""
        return {name: value for name, value in super().to_json().items() if name != "tools" or value is not None}


@dataclass(frozen=True)
class Usage(Message):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of prompt_tokens, those whose keys and values were reused


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"  # asked to, or nobody read the stream
    DEADLINE = "deadline"
    ERROR = "error"


class FailureCode(StrEnum):
    """Why a request failed, for the store to say in the user's language."""

    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"  # detail: {"prompt_tokens", "context_length"}
    TEMPLATE_FAILED = "template_failed"
    INVALID_PARAMETER = "invalid_parameter"  # detail: {"param"}
    GRAMMAR_UNSUPPORTED = "grammar_unsupported"  # the rule that the answer was to follow; detail: {"reason"}
    BASE_UNAVAILABLE = "base_unavailable"  # could not be read, verified or fitted into memory
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    ENGINE_DIED = "engine_died"
    NO_WORKER = "no_worker"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Started(Message):
    engine: str
    attempt: int
    prompt_tokens: int
    type: str = "started"


@dataclass(frozen=True)
class Delta(Message):
    text: str  # never ends inside a character or inside what may become a stop string
    tokens: int  # completion tokens so far, of this choice
    choice: int = 0
    reason: str | None = None  # FinishReason: this choice ends here, though others of its request may go on
    logprobs: list[dict[str, Any]] | None = None  # of the tokens since those told before, in OpenAI's shape
    type: str = "delta"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_json().items() if value is not None}


@dataclass(frozen=True)
class Finished(Message):
    """The last event of a request, also sent to the store as GENERATION_FINISHED."""

    request: str
    reason: str  # FinishReason; of several choices that ended by themselves, the first one's
    usage: dict[str, int]  # Usage.to_json(): the prompt once, the tokens of all choices
    attempt: int = 1
    failure: str | None = None  # FailureCode, when reason is "error"
    message: str = ""  # in English, for logs and for API clients
    detail: dict[str, Any] = field(default_factory=dict)
    first_token_ms: float | None = None  # from the engine's receipt to its first token
    duration_ms: float = 0.0
    type: str = "finished"


# ---------------------------------------------------------------- jobs


class JobKind(StrEnum):
    VALIDATION = "validation"
    FINETUNE = "finetune"
    CHECK = "check"


@dataclass(frozen=True)
class JobTask(Message):
    """What RUN_JOB carries. Inputs are digests of manifests or blobs in the artifact store, never database ids."""

    job: str  # "job_…"
    attempt: int
    kind: str  # JobKind
    params: dict[str, Any]
    checkpoint: str | None = None  # digest of the manifest to resume from
    segment: int = 0  # number of the next segment
    trace: str = ""


@dataclass(frozen=True)
class Claim(Message):
    job: str
    attempt: int
    claim: str  # random; whatever carries another claim is refused
    worker: str


class Verdict(StrEnum):
    """The store's answer to JOB_CLAIM, JOB_HEARTBEAT and JOB_SEGMENT."""

    GO_ON = "go_on"
    PAUSE = "pause"  # stop after the segment under way
    CANCEL = "cancel"
    LOST = "lost"  # somebody else holds this job: stop at once and write nothing


@dataclass(frozen=True)
class Segment(Message):
    """A finished segment: its checkpoint and its complete events. Becomes current only by the store's pointer update."""

    job: str
    attempt: int
    claim: str
    number: int
    checkpoint: str  # digest of the checkpoint's manifest
    events: list[dict[str, Any]]  # {"step", "loss", "learning_rate", "grad_norm", "tokens_per_s", …}
    done: float  # share of the whole job, 0 to 1


@dataclass(frozen=True)
class Outcome(Message):
    """JOB_FINISHED (error is empty) or JOB_FAILED."""

    job: str
    attempt: int
    claim: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""  # what went wrong and how to mend it, in English
    code: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    retriable: bool = False


# ---------------------------------------------------------------- artifacts

BLOB_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".txt", ".md", ".jinja"})


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def manifest_key(digest: str) -> str:
    return f"manifests/{digest}.json"


@dataclass(frozen=True)
class ManifestFile(Message):
    path: str  # relative, forward slashes, no ".."
    size_bytes: int
    sha256: str
    git_oid: str  # sha1 of "blob <size>\0" + content: what git and the Hub protocol call its id


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact. Its digest names the artifact; two folders with equal files are one artifact."""

    files: tuple[ManifestFile, ...]

    def encode(self) -> bytes:
        """Canonical JSON: sorted by path, no spaces."""
        files = [f.to_json() for f in sorted(self.files, key=lambda f: f.path)]
        return json.dumps({"files": files, "format": 1}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Manifest:
        """Raises ValueError when `raw` is not a manifest."""
        try:
            value = json.loads(raw)
            if value["format"] != 1:
                raise ValueError(f"manifest format {value['format']} is not known")
            return cls(tuple(ManifestFile.from_json(f) for f in value["files"]))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a manifest: {error}") from error

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()

    @property
    def revision(self) -> str:
        """40 hex digits, the form the Hub protocol wants for a commit."""
        return self.digest[:40]

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)
