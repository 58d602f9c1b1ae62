"""Pre-training: a small GPT from nothing, with a tokenizer of its own, on plain text. Who may, what it costs, the check of the file
that goes before it and what becomes of it are as with a fine-tune (`store.jobs.finetunes`); there is no base, so the check makes
the tokenizer too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.jobs import dispatch, finetunes
from store.jobs.errors import InvalidSetting
from store.jobs.models import Job, UploadedFile

CONTEXT = 512  # tokens it can read at once
WIDENED = 64  # the width inside a layer is a multiple of this, as `inference.pretraining` makes it


@dataclass(frozen=True)
class Size:
    layers: int
    hidden: int
    heads: int

    def parameters(self, vocabulary: int) -> int:
        """As many as a Llama of this size has whose output is tied to its embedding."""
        inner = math.ceil(self.hidden * 8 / 3 / WIDENED) * WIDENED
        layer = 4 * self.hidden**2 + 3 * self.hidden * inner + 2 * self.hidden
        return vocabulary * self.hidden + self.layers * layer + self.hidden


SIZES = {"small": Size(5, 256, 4), "medium": Size(8, 384, 6), "large": Size(9, 512, 8)}
# The bounds of numbers are a fine-tune's; these are the defaults.
SUITED: dict[str, Any] = {
    "size": "small",
    "vocabulary": 4096,
    "epochs": 3,
    "learning_rate": 1e-3,
    "batch_size": 16,
    "validation_share": 0.05,
    "patience": 0,
    "seed": 1,
}
CHOICES: dict[str, tuple[Any, ...]] = {"size": tuple(SIZES), "vocabulary": (2048, 4096, 8192)}


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, with defaults for what is not given. Raises InvalidSetting that names the first wrong one."""
    return finetunes.checked(given, suited=SUITED, choices=CHOICES)


def shape_of(size: str, vocabulary: int) -> dict[str, int]:
    """As a worker takes it."""
    return asdict(SIZES[size]) | {"vocabulary": vocabulary, "context": CONTEXT}


@transaction.atomic
def start(user: User, publisher: Publisher, *, file: UploadedFile, settings: Mapping[str, Any], prompts: Sequence[str] = ()) -> Job:
    """The pre-training job, waiting for the check of its file. Nothing is written when it raises.

    Raises NotFound and NotAllowed for who may not, InvalidSetting, TooManyFinetunes and InsufficientCredit.
    """
    require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    chosen, asked = checked_settings(settings), finetunes.checked_prompts(prompts)
    if file.publisher_id != publisher.pk:
        raise InvalidSetting(_("This file belongs to another publisher."), param="file")
    finetunes.require_place(user)
    size, vocabulary = chosen.pop("size"), chosen.pop("vocabulary")
    learned = chosen | {"method": "text", "scope": "weights", "max_length": CONTEXT}
    shape = shape_of(size, vocabulary)
    data = {"file": file.sha256, "name": file.name, "shape": shape}
    of: dict[str, Any] = {"publisher": publisher, "user": user}
    looked_at = {"use": "text"} | {name: learned[name] for name in ("max_length", "validation_share", "seed")}
    validation = dispatch.create(Job.Kind.VALIDATION, params=data | looked_at, **of)
    params = data | {"size": size, "settings": learned, "prompts": asked}
    job = dispatch.create(Job.Kind.PRETRAINING, params=params, after=validation, **of)
    finetunes.reserve(user, cause=job.cause, steps=finetunes.most_steps(file, learned))
    audit.record(user, "pretraining.start", job.public_id, file=file.public_id)
    return job
