"""Fine-tunes: a file is validated, an adapter or all weights are trained on it, and a maintainer makes a version of the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inference.protocol import MAX_SAMPLE_PROMPTS
from store.accounts import audit
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.billing import ledger
from store.billing.errors import InsufficientCredit
from store.billing.models import Reservation
from store.catalog import artifacts, importing, publishing
from store.catalog.models import Listing, Version
from store.errors import NotFound
from store.jobs import checkpoints, dispatch, findings
from store.jobs.errors import BaseNotTrainable, InvalidSetting, NothingToPublish, TooLargeToTrain, TooManyFinetunes
from store.jobs.models import Job, UploadedFile
from store.jobs.outcomes import end
from store.notifications.messages import notify
from store.notifications.models import Notification

MAX_STEPS = 20_000
MAX_PROMPT_CHARS = 300
KINDS = frozenset({Job.Kind.FINETUNE, Job.Kind.PRETRAINING})  # what is told here of a fine-tune, but how it starts, holds for both
UNDER_WAY = frozenset({Job.State.WAITING, Job.State.QUEUED, Job.State.RUNNING})
# The shortest examples: with a letter wherever there must be something.
LEAST_EXAMPLE = {".csv": "a,b\n"}
LEAST_TEXT = {".csv": "a\n", ".txt": "a\n\n"}
RESERVED_FOR = timedelta(days=30)  # from someone who paused it; what is under way keeps it

# name: (kind, lowest, highest, default)
SETTINGS: dict[str, tuple[type, float, float, float]] = {
    "rank": (int, 1, 64, 8),
    "alpha": (float, 1, 256, 16),
    "epochs": (int, 1, 50, 3),
    "learning_rate": (float, 1e-6, 1e-2, 2e-4),
    "batch_size": (int, 1, 64, 8),
    "max_length": (int, 32, 4096, 512),
    "validation_share": (float, 0.0, 0.5, 0.1),
    "dropout": (float, 0.0, 0.5, 0.0),
    "beta": (float, 0.01, 1.0, 0.1),
    "patience": (int, 0, 20, 0),
    "seed": (int, 0, 2**31 - 1, 1),
}
# name: the values it can have, the default first
CHOICES: dict[str, tuple[Any, ...]] = {
    "scope": ("adapter", "weights"),
    "method": ("supervised", "preference", "text"),
    "targets": ("all", "attention"),
    "rank_stabilised": (False, True),
    "recompute": (False, True),
}
OF_ADAPTERS = frozenset({"rank", "alpha", "rank_stabilised", "targets", "dropout"})
WEIGHTS_LEARNING_RATE = 1e-4  # where all weights are trained, each of them moves


def defaults(scope: str = "adapter") -> dict[str, Any]:
    """A good first try for what is trained: an adapter or all weights."""
    found = {name: values[0] for name, values in CHOICES.items()} | {name: default for name, (*_bounds, default) in SETTINGS.items()}
    if scope != "weights":
        return found
    own = {"scope": scope, "learning_rate": WEIGHTS_LEARNING_RATE}
    return {name: own.get(name, default) for name, default in found.items() if name not in OF_ADAPTERS}


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, with defaults for what is not given. Raises InvalidSetting that names the first wrong one."""
    suited = defaults(given.get("scope", ""))
    if misplaced := sorted(name for name in OF_ADAPTERS - suited.keys() if _is_given(given.get(name))):
        message = _("%(name)s is a setting of adapters. All weights are trained without it.") % {"name": misplaced[0]}
        raise InvalidSetting(message, param=misplaced[0])
    chosen = checked(given, suited=suited, choices=CHOICES)
    if chosen["method"] == "preference" and chosen.get("dropout"):
        message = _("Preferences are learned without dropout: the model is compared with itself as it began. Set it to 0.")
        raise InvalidSetting(message, param="dropout")
    return chosen


def checked(given: Mapping[str, Any], *, suited: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """`suited` with what is given instead, as one of `choices` or a number within SETTINGS. Raises InvalidSetting."""
    given = {name: value for name, value in given.items() if _is_given(value)}
    if unknown := sorted(given.keys() - suited.keys()):
        raise InvalidSetting(_("There is no setting “%(name)s”.") % {"name": unknown[0]}, param=unknown[0])
    chosen = {**suited, **given}
    for name in sorted(chosen, key=lambda name: name not in choices):
        chosen[name] = _one_of(name, chosen[name], choices[name]) if name in choices else _number(name, chosen[name])
    return chosen


def _is_given(value: Any) -> bool:
    return value is not None and value != ""


def _one_of(name: str, value: Any, values: Sequence[Any]) -> Any:
    if value not in values:
        offered = ", ".join(map(str, values))
        raise InvalidSetting(_("%(name)s must be one of: %(values)s.") % {"name": name, "values": offered}, param=name)
    return values[values.index(value)]


def _number(name: str, value: Any) -> float:
    kind, low, high, _default = SETTINGS[name]
    try:
        number: float = kind(value)
    except (TypeError, ValueError) as error:
        raise InvalidSetting(_("%(name)s must be a number.") % {"name": name}, param=name) from error
    if not low <= number <= high:
        message = _("%(name)s must lie between %(low)s and %(high)s.") % {"name": name, "low": low, "high": high}
        raise InvalidSetting(message, param=name)
    return number


def checked_prompts(given: Sequence[str]) -> list[str]:
    """What the model is asked on the way, without what is empty. Raises InvalidSetting."""
    prompts = [text for line in given if (text := line.strip())]
    if len(prompts) > MAX_SAMPLE_PROMPTS:
        message = ngettext("At most %(limit)s prompt, please.", "At most %(limit)s prompts, please, one in each line.", MAX_SAMPLE_PROMPTS)
        raise InvalidSetting(message % {"limit": MAX_SAMPLE_PROMPTS}, param="prompts")
    if any(len(text) > MAX_PROMPT_CHARS for text in prompts):
        raise InvalidSetting(_("A prompt has at most %(limit)s characters.") % {"limit": MAX_PROMPT_CHARS}, param="prompts")
    return prompts


def trainable_bases(user: User) -> QuerySet[Version]:
    """Released full weights whose publisher allows it."""
    trainable = Version.objects.usable_by(user).trainable().select_related("listing__publisher", "artifact")
    return trainable.order_by("listing__publisher__slug", "listing__slug", "-id")


@transaction.atomic
def start(
    user: User, publisher: Publisher, *, base: Version, file: UploadedFile, settings: Mapping[str, Any], prompts: Sequence[str] = ()
) -> Job:
    """The fine-tune job, waiting for its validation. Nothing is written when it raises.

    `prompts`: what the model is asked at each checkpoint; without any, some of the data's own.

    Raises NotFound and NotAllowed for who may not, BaseNotTrainable, TooLargeToTrain, InvalidSetting, TooManyFinetunes and
    InsufficientCredit.
    """
    require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    chosen, asked = checked_settings(settings), checked_prompts(prompts)
    if not trainable_bases(user).filter(pk=base.pk).exists() or base.artifact is None:
        raise BaseNotTrainable(param="base")
    if chosen["scope"] == "weights":
        require_trainable_in_full(base)
    if file.publisher_id != publisher.pk:
        raise InvalidSetting(_("This file belongs to another publisher."), param="file")
    _require_suited(file, chosen)
    require_place(user)
    data = {"file": file.sha256, "base": base.artifact.digest, "adapter": None}
    of: dict[str, Any] = {"publisher": publisher, "user": user, "subject": base.public_id}
    looked_at = {name: chosen[name] for name in ("max_length", "validation_share", "seed")}
    validation = dispatch.create(Job.Kind.VALIDATION, params={**data, **looked_at, "use": chosen["method"], "name": file.name}, **of)
    job = dispatch.create(
        Job.Kind.FINETUNE, params={**data, "settings": chosen, "prompts": asked, "name": file.name}, after=validation, **of
    )
    reserve(user, cause=job.cause, steps=most_steps(file, chosen))
    audit.record(user, "finetune.start", job.public_id, base=base.public_id, file=file.public_id)
    return job


def require_trainable_in_full(base: Version) -> None:
    """Raises TooLargeToTrain for a base of more weights than the store's workers are meant to train, and for one of unknown size."""
    parameters, limit = base.facts.get("parameters"), settings.MAX_PARAMETERS_TRAINED_IN_FULL
    if parameters is not None and parameters <= limit:
        return
    said = _("unknown") if parameters is None else _millions(parameters)
    message = _(
        "All weights are trained here only of bases of at most %(limit)s parameters; those of %(name)s: %(count)s. "
        "Train an adapter, or choose a smaller base."
    )
    raise TooLargeToTrain(message % {"limit": _millions(limit), "name": base.full_name, "count": said}, param="scope")


def _millions(parameters: int) -> str:
    """134515008 → 135M"""
    return f"{number_format(round(parameters / 10**6), 0, force_grouping=True)}M"


def suited_method(file: UploadedFile) -> str:
    """What a file can be learned for as far as its name tells; what is in it is for its check to say."""
    return "text" if _suffix(file) == ".txt" else "supervised"


def _require_suited(file: UploadedFile, chosen: Mapping[str, Any]) -> None:
    if _suffix(file) == ".txt" and chosen["method"] != "text":
        raise InvalidSetting(_("A text file has no answers to learn. Choose how a text goes on, or bring conversations."), param="method")


def _suffix(file: UploadedFile) -> str:
    return PurePath(file.name).suffix.lower()


def require_place(person: User, *, besides: Job | None = None) -> None:
    """Within the transaction that begins a fine-tune or has one go on, which makes those of one person wait for each other."""
    User.objects.select_for_update(no_key=True).get(pk=person.pk)
    begun = Job.objects.filter(kind__in=KINDS, created_by=person, state__in=UNDER_WAY).values_list("pk", flat=True)
    limit = settings.FINETUNES_PER_PERSON
    if len({*begun} - {besides.pk if besides else None}) >= limit:
        message = ngettext(
            "At most %(limit)s fine-tune of one person may wait or run at a time. Wait for its end, or pause or cancel it.",
            "At most %(limit)s fine-tunes of one person may wait or run at a time. Wait until one has ended, or pause or cancel one.",
            limit,
        )
        raise TooManyFinetunes(message % {"limit": limit})


def most_steps(file: UploadedFile, chosen: Mapping[str, Any]) -> int:
    """The most steps the file can make."""
    if chosen.get("method") == "text":
        least = LEAST_TEXT.get(_suffix(file), '{"text":"a"}\n')
    else:
        least = LEAST_EXAMPLE.get(_suffix(file), '{"prompt":"a","completion":"b"}\n')
    examples = max((file.size_bytes + least.count("\n")) // len(least), 1)  # a file need not end with a line's end
    return min(math.ceil(examples / chosen["batch_size"]) * chosen["epochs"], MAX_STEPS)


def price_micro(steps: int) -> int:
    return settings.FINETUNE_PRICE_MICRO_PER_STEP * steps


def reserve(user: User, *, cause: str, steps: int) -> None:
    """Holds the most it can cost; what is not used goes back when the job ends."""
    if amount_micro := price_micro(steps):
        try:
            ledger.reserve(user, cause=cause, amount_micro=amount_micro, expires_at=timezone.now() + RESERVED_FOR)
        except InsufficientCredit as error:
            message = _("Your credit does not cover the most this fine-tune can cost. Ask the store's operator for credit, then try again.")
            raise InsufficientCredit(message, **error.detail) from error


def goes_on(user: User, job: Job) -> None:
    """Before a job is resumed or tried again. What is held still is held for longer; what went back meanwhile, because the
    job ended or was laid aside for too long, is held anew from whoever has it go on. A cause is reserved once, so it gets a new one.

    Raises BaseNotTrainable when its base was taken down or the leave to train on it taken back, TooManyFinetunes and InsufficientCredit.
    """
    if job.kind not in KINDS:
        return
    if job.subject and not trainable_bases(user).filter(public_id=job.subject).exists():
        raise BaseNotTrainable
    require_place(job.created_by or user, besides=job)
    held = _held(job)
    if held is not None and ledger.renew(held.cause, expires_at=timezone.now() + RESERVED_FOR):
        return
    file = UploadedFile.objects.filter(publisher=job.publisher, sha256=job.params["file"]).first()
    steps = most_steps(file, job.params["settings"]) if file else MAX_STEPS
    reserve(user, cause=f"{job.cause}:{job.attempt + 1}", steps=steps)


def under_way(cause: str) -> bool:
    """Whether the job of that cause waits or trains: then it keeps what is held for it, however long it takes."""
    public_id = cause.split(":")[1]
    return Job.objects.filter(public_id=public_id, state__in=UNDER_WAY).exists()


def _held(job: Job) -> Reservation | None:
    of_job = Q(cause=job.cause) | Q(cause__startswith=f"{job.cause}:")
    return Reservation.objects.filter(of_job, state=Reservation.State.HELD).first()


def validated(job: Job) -> None:
    """A file with an error is not trained on: its fine-tune ends with the report, before it was ever queued."""
    if job.state != Job.State.SUCCEEDED or job.result.get("valid"):
        return
    problems = job.result.get("problems") or [{}]
    detail = {"job": job.public_id, "error_count": job.result.get("error_count", 0), "line": problems[0].get("line", 0)}
    waiting = Job.objects.filter(after=job, state=Job.State.WAITING)
    error = f"The file has {detail['error_count']} lines that can't be trained on."
    end(waiting, Job.State.FAILED, error=error, error_code="data_invalid", error_detail=detail)


def ended(job: Job) -> None:
    """Settles or voids the reservation and tells who started it; called in the transaction that ends the job."""
    held = _held(job)
    if held is not None and job.state == Job.State.SUCCEEDED:
        cost_micro = price_micro(int(job.result.get("steps", 0)))
        ledger.settle(held.cause, amount_micro=cost_micro, version=None, memo=job.params.get("name", ""), detail={"job": job.public_id})
    elif held is not None:
        ledger.void(held.cause)
    if job.created_by is None or job.state == Job.State.CANCELLED:
        return
    kind = Notification.Kind.JOB_SUCCEEDED if job.state == Job.State.SUCCEEDED else Notification.Kind.JOB_FAILED
    notify(
        [job.created_by],
        kind,
        key=f"{job.cause}:{job.attempt}:{job.state}",
        params={"subject": job.params.get("name") or job.public_id},
        url=f"/studio/jobs/{job.public_id}/",
    )


def make_version(user: User, job: Job, *, listing: Listing, number: str, change_log: str = "", step: int | None = None) -> Version:
    """A draft of an adapter or of weights with its lineage: the base it was trained on, if any, and the job that made it.

    `step`: of the checkpoint it is made of; None, the one that did best. Raises NothingToPublish when there is no such.
    """
    if job.publisher is None:
        raise NotFound
    require_role(user, job.publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    if job.kind not in KINDS or job.state != Job.State.SUCCEEDED or listing.publisher_id != job.publisher_id:
        raise NothingToPublish
    manifest, measured = _at(job, step)
    base = Version.objects.get(public_id=job.subject) if job.subject else None
    artifact = artifacts.record(manifest)
    report = findings.counts(job.after.result) if job.after else {}
    facts = {"file": job.params["file"], "settings": job.params["settings"], "data_report": report, **measured}
    made: dict[str, Any] = {"number": number, "base": base, "artifact": artifact, "made_by": job.public_id, "change_log": change_log}
    if job.params["settings"].get("scope") != "weights":
        return publishing.create_adapter_version(user, listing, facts=facts, **made)
    return publishing.create_weights_version(user, listing, facts=importing.facts_of(job.result["facts"]) | facts, **made)


def _at(job: Job, step: int | None) -> tuple[str, dict[str, Any]]:
    """(digest of the result's manifest, what was measured) at a checkpoint of a run that succeeded."""
    kept = ("steps", "examples", "train_loss", "validation_loss", "base_validation_loss", "tokens")
    measured = {name: job.result[name] for name in kept if job.result.get(name) is not None}
    best = job.result.get("best_step")
    if step is None or step == best:
        return job.result["manifest"], measured | ({} if best is None else {"steps": best})
    point = next((point for point in checkpoints.recorded(job) if point.step == step), None)
    if point is None:
        raise NothingToPublish(param="step")
    own = {"steps": point.step, "validation_loss": point.held_out_loss}
    of_whole = {name: value for name, value in measured.items() if name in ("examples", "base_validation_loss")}
    return point.snapshot, of_whole | {name: value for name, value in own.items() if value is not None}
