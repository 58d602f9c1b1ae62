"""Drafting versions of the three kinds. A draft is seen by its publisher's members and by nobody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.models import User
from store.accounts.publishers import require_role
from store.catalog import editing
from store.catalog.errors import AlreadyUsed, BaseUnavailable, FinetuneNotAllowed, InvalidVersion, NumberTaken, Sealed
from store.catalog.models import Ancestry, Artifact, Listing, Version, version_validator
from store.catalog.revisions import EDITORS, clean_text

MAX_STARTERS = 6
STARTER_CHARS = 200
PARAMETER_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1000),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "max_tokens": (1, 2048),
}
WHOLE_NUMBERS = frozenset({"top_k", "max_tokens"})


def create_prompt_version(
    user: User,
    listing: Listing,
    *,
    number: str,
    base: Version,
    instructions: str,
    starters: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    change_log: str = "",
) -> Version:
    """Instructions, conversation starters and default parameters on a base or an adapter that this user can use."""
    _check_base(user, base, Version.Kind.WEIGHTS, Version.Kind.ADAPTER)
    fields: dict[str, Any] = {"instructions": clean_instructions(instructions)}
    fields |= {"starters": clean_starters(starters), "parameters": clean_parameters(parameters or {})}
    return _create(user, listing, Version.Kind.PROMPT, number=number, base=base, change_log=change_log, **fields)


def create_adapter_version(
    user: User,
    listing: Listing,
    *,
    number: str,
    base: Version,
    artifact: Artifact,
    made_by: str = "",
    facts: Mapping[str, Any] | None = None,
    change_log: str = "",
) -> Version:
    """A LoRA adapter on full weights whose publisher allows fine-tuning. `made_by` is the public id of the job that trained it."""
    _check_base(user, base, Version.Kind.WEIGHTS)
    _check_trainable(base)
    fields = {"artifact": artifact, "made_by": made_by, "facts": dict(facts or {})}
    return _create(user, listing, Version.Kind.ADAPTER, number=number, base=base, change_log=change_log, **fields)


def create_weights_version(
    user: User,
    listing: Listing,
    *,
    number: str,
    artifact: Artifact,
    facts: Mapping[str, Any],
    base: Version | None = None,
    made_by: str = "",
    starters: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    change_log: str = "",
) -> Version:
    """Full weights, as they were imported or as the job `made_by` trained them; `facts` is what was read in them.

    `base`: the weights they were trained from, whose publisher allows fine-tuning. None: they are nobody else's.
    """
    if base is not None:
        _check_base(user, base, Version.Kind.WEIGHTS)
        _check_trainable(base)
    fields: dict[str, Any] = {"artifact": artifact, "made_by": made_by, "facts": dict(facts)}
    fields |= {"starters": clean_starters(starters), "parameters": clean_parameters(parameters or {})}
    return _create(user, listing, Version.Kind.WEIGHTS, number=number, base=base, change_log=change_log, **fields)


_EDITABLE = {
    "change_log": lambda text: clean_text(text, param="change_log", limit=4000),
    "instructions": lambda text: clean_instructions(text),
    "starters": lambda texts: clean_starters(texts),
    "parameters": lambda values: clean_parameters(values),
}


def editable(version: Version) -> dict[str, Any]:
    """What of it can be edited while it is a draft."""
    return {name: getattr(version, name) for name in _EDITABLE}


def edit_version(user: User, version: Version, *, seen: str | None = None, **fields: Any) -> None:
    """Changes a draft's instructions, starters, parameters or change_log.

    `seen`: the fingerprints of what these were written from. Raises Sealed for anything but a draft, and EditedMeanwhile.
    """
    require_role(user, version.listing.publisher, *EDITORS)
    if unknown := set(fields) - set(_EDITABLE):
        raise InvalidVersion(_("This can't be changed. Make a new version."), param=min(unknown))
    if "instructions" in fields and version.kind != Version.Kind.PROMPT:
        raise InvalidVersion(_("Only a prompt GPT has instructions."), param="instructions")
    cleaned = {name: _EDITABLE[name](value) for name, value in fields.items()}
    with transaction.atomic():
        draft = Version.objects.select_for_update().filter(pk=version.pk, state=Version.State.DRAFT).first()
        if draft is None:
            raise Sealed
        editing.require_unchanged(seen, theirs=editable(draft), mine=cleaned)
        Version.objects.filter(pk=version.pk).update(**cleaned)
        if "instructions" in cleaned:  # the numbers are of what it was told before
            version.measurements.all().delete()
        audit.record(user, "version.edit", version.public_id, fields=sorted(cleaned))
    version.refresh_from_db(fields=list(cleaned))


def delete_draft(user: User, version: Version) -> None:
    """Removes a version that was never submitted and that nobody has used."""
    require_role(user, version.listing.publisher, *EDITORS)
    with transaction.atomic():
        draft = Version.objects.filter(pk=version.pk, state=Version.State.DRAFT)
        if not draft.exists():
            raise Sealed
        audit.record(user, "version.delete", version.public_id, name=version.full_name)
        try:
            draft.delete()
        except ProtectedError as error:  # requests and conversations name it
            raise AlreadyUsed from error


def _create(
    user: User, listing: Listing, kind: Version.Kind, *, number: str, base: Version | None, change_log: str, **fields: Any
) -> Version:
    require_role(user, listing.publisher, *EDITORS)
    number = str(number).strip()
    try:
        version_validator(number)
    except ValidationError as error:
        raise InvalidVersion(error.message, param="number") from error
    change_log = clean_text(change_log, param="change_log", limit=4000)
    with transaction.atomic():
        try:
            with transaction.atomic():
                version = Version.objects.create(
                    listing=listing, number=number, kind=kind, base=base, change_log=change_log, created_by=user, **fields
                )
        except IntegrityError as error:
            raise NumberTaken(param="number") from error
        if base is not None:
            above = [(base.pk, 1), *((row.ancestor_id, row.depth + 1) for row in base.ancestry.all())]
            Ancestry.objects.bulk_create(Ancestry(version=version, ancestor_id=pk, depth=depth) for pk, depth in above)
        audit.record(user, "version.create", version.public_id, name=version.full_name, kind=str(kind))
    return version


def _check_base(user: User, base: Version, *kinds: str) -> None:
    if base.kind not in kinds:
        raise InvalidVersion(_("It can't build on a GPT of this kind."), param="base")
    reachable = Listing.objects.reachable_by(user).filter(pk=base.listing_id)
    if not reachable.exists() or not Version.objects.available().filter(pk=base.pk).exists():
        raise BaseUnavailable(param="base")


def _check_trainable(base: Version) -> None:
    if not Version.objects.trainable().filter(pk=base.pk).exists():
        raise FinetuneNotAllowed(param="base")


def clean_instructions(text: Any) -> str:
    cleaned = clean_text(text, param="instructions", limit=8000)
    if not cleaned:
        raise InvalidVersion(_("Write the instructions that make this GPT what it is."), param="instructions")
    return cleaned


def clean_starters(texts: Any) -> list[str]:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InvalidVersion(_("Conversation starters are a list of texts."), param="starters")
    cleaned = [clean_text(text, param="starters", limit=STARTER_CHARS) for text in texts]
    cleaned = list(dict.fromkeys(text for text in cleaned if text))
    if len(cleaned) > MAX_STARTERS:
        raise InvalidVersion(_("Give at most six conversation starters."), param="starters")
    return cleaned


def clean_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Default sampling parameters within OpenAI's bounds, and `stop`, at most four texts."""
    cleaned: dict[str, Any] = {}
    for name, value in values.items():
        if name == "stop":
            cleaned[name] = _clean_stop(value)
            continue
        bounds = PARAMETER_BOUNDS.get(name)
        if bounds is None:
            raise InvalidVersion(_("There is no parameter %(name)s.") % {"name": str(name)[:40]}, param=name)
        right_type = isinstance(value, int if name in WHOLE_NUMBERS else int | float) and not isinstance(value, bool)
        if not right_type or not bounds[0] <= value <= bounds[1]:
            message = _("%(name)s is a number from %(low)s to %(high)s.") % {"name": name, "low": bounds[0], "high": bounds[1]}
            raise InvalidVersion(message, param=name)
        cleaned[name] = value
    return cleaned


def _clean_stop(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or len(stops) > 4 or not all(isinstance(s, str) and 1 <= len(s) <= 100 for s in stops):
        raise InvalidVersion(_("stop is one to four texts of at most 100 characters."), param="stop")
    return list(stops)
