"""What the store and the GPU workers say to each other: queues, task names, keys and messages.

With `sampling_params` and `tool_calls` all that the store imports of this package. It needs nothing but the standard library,
so a web process that imports it loads no torch. Every message is a frozen dataclass of JSON values; `to_json` and `from_json`
are the wire form used in Celery task arguments and in Valkey streams.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
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


def batch_queue(base: str) -> str:
    """The Celery queue of the base's shards of batches, read apart from its requests: priorities are separate queues."""
    return f"generation.batch.{base[:32]}"


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


def inflight_key(base: str, tenant: str = "") -> str:
    """Sorted set of admitted requests of a base, or of those of one tenant -> unix time after which they no longer count."""
    return f"bases:{base}:inflight" + (tenant and f":{tenant}")


def progress_key(job: str) -> str:
    """Valkey stream of a job's live progress; may be lost, the segments are the record."""
    return f"jobs:{job}:progress"


# ---------------------------------------------------------------- messages


LEARNED_BYTES = 24  # of a weight that is learned: its float32 copy, gradient, two moments, the best so far and a checkpoint's copy


MAX_ATTENDED_TOKENS = 48  # of a text whose attention is shown


class Message:
    """Base of the frozen dataclasses below: JSON out, JSON in."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises TypeError when a field is missing or unknown."""
        return cls(**value)


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
    attention: dict[str, int] | None = (
        None  # {"layer", "head"}, from 0: no answer, but how the tokens of the last message look at each other
    )
    embedding: dict[str, int | None] | None = None  # {"dimensions"}: no answer, but a vector of the last message's text
    attempt: int = 1
    priority: str = Priority.INTERACTIVE
    leased: bool = True  # False: runs to its end though nobody reads
    trace: str = ""  # the web request's id, for the logs

    def to_json(self) -> dict[str, Any]:
        """Without the fields that came later where they say nothing: a worker from before there were any reads it."""
        later = ("tools", "attention", "embedding")
        return {name: value for name, value in super().to_json().items() if name not in later or value is not None}


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
class Attended(Message):
    """softmax(QKᵀ/√d) of one head, before the Finished of a request for it."""

    tokens: list[str]  # bytes that are no character as U+FFFD
    weights: list[list[float]]  # of each token, to each one up to itself; 4 decimals, so a row sums to 1 nearly
    layer: int  # from 0
    head: int
    layers: int  # that the model has
    heads: int
    type: str = "attended"


@dataclass(frozen=True)
class Embedded(Message):
    """The vector of a text, of length 1, before the Finished of a request for it."""

    vector: str  # float32, little-endian, in base64
    type: str = "embedded"


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


MAX_SAMPLE_PROMPTS = 3  # that a model is asked while it is trained
MAX_HELD_OUT = 100  # examples that a training run measures itself on, whatever share is asked for


class JobKind(StrEnum):
    VALIDATION = "validation"
    IMPORT = "import"  # of files that a publisher brought
    FINETUNE = "finetune"
    PRETRAINING = "pretraining"
    CHECK = "check"
    EVALUATION = "evaluation"
    BATCH = "batch"  # one shard of a batch of requests, on the workers that generate


@dataclass(frozen=True)
class JobTask(Message):
    """What RUN_JOB carries. Inputs are digests of manifests or blobs in the artifact store, never database ids."""

    job: str  # "job_…"
    attempt: int
    kind: str  # JobKind
    params: dict[str, Any]
    checkpoint: str | None = None  # digest of the manifest to resume from; of a shard, sha256 of the newest blob of answers
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


# ---------------------------------------------------------------- batches
# A shard is a blob of JSON lines, each an object with a "number". Those that a worker shall answer hold a "request"
# (GenerationRequest.to_json()); what else stands there is the store's. A segment leaves a blob of answers: a line
# {"before": sha256 of the blob of the segment before, or null}, then an Answered for each request that it answered.


@dataclass(frozen=True)
class Answered(Message):
    """What became of one request of a shard."""

    number: int  # of its line
    choices: list[dict[str, Any]]  # Delta.to_json() of each choice, whole
    finished: dict[str, Any]  # Finished.to_json()


# ---------------------------------------------------------------- artifacts

BLOB_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".txt", ".md", ".jinja"})
LEAST_PART_BYTES = 5 * 1024 * 1024
MOST_PARTS = 10_000


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def manifest_key(digest: str) -> str:
    return f"manifests/{digest}.json"


def condemned_key(key: str) -> str:
    """Where the store keeps an object for a while before it removes it, because nothing refers to it."""
    return f"condemned/{key}"


def places_of(key: str) -> tuple[str, ...]:
    """Where to look for an object, one after the other; so it is found also while it is moved there or back."""
    return key, condemned_key(key), key


def part_bytes(size_bytes: int) -> int:
    """How large the parts are in which an object goes into a bucket, which takes so many and, but for the last, none smaller."""
    return max(LEAST_PART_BYTES, -(-size_bytes // MOST_PARTS))


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
