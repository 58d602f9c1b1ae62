"""The demo's own fine-tune: something alive to watch on a store that has just begun. It is started once and never again."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from django.db import transaction

from store.accounts.models import Publisher, User
from store.billing import ledger
from store.catalog.models import Version
from store.jobs import files, finetunes
from store.jobs.models import Job, UploadedFile
from store.pages.demo.catalogue import BASE

FOLDER = Path(__file__).parent / "glossary"
DATA = FOLDER / "cards.jsonl"
PUBLISHER = "demo-lab"
NAME = "glossary-cards.jsonl"  # of the file, by which the job is known again, also when the data were changed since
CREDIT_CAUSE = "grant:demo-finetune"


@cache
def recipe() -> dict[str, Any]:
    """Its settings: so small that one thread of a slow processor is done in ten minutes."""
    settings: dict[str, Any] = json.loads((FOLDER / "recipe.json").read_text(encoding="utf-8"))
    return settings


def the_job() -> Job | None:
    """The one that was started, whatever became of it."""
    of_demo = Job.objects.filter(kind=Job.Kind.FINETUNE, publisher__slug=PUBLISHER, publisher__is_demo=True, params__name=NAME)
    return of_demo.select_related("publisher").order_by("pk").first()


def to_watch() -> Job | None:
    """The same, while it is worth a look: everybody may see it, and it has not come to nothing."""
    job = the_job()
    worth_it = job is not None and job.state not in (Job.State.FAILED, Job.State.CANCELLED) and holds_our_data(job)
    return job if worth_it else None


def holds_our_data(job: Job) -> bool:
    """Whether a job of the demo was started on the data that lie in the source code and asks nothing else: it shows nobody's own."""
    of_demo = job.kind == Job.Kind.FINETUNE and job.publisher is not None and job.publisher.is_demo
    return of_demo and job.params.get("file") == _digest() and not job.params.get("prompts")


@cache
def _digest() -> str:
    return hashlib.sha256(DATA.read_bytes()).hexdigest()


def seed(*, operator: User, owner: User) -> Job | None:
    """The job, if this call started it. None when there is or was one, and where the demo's base or publisher is not there.

    Raises what the acts of a fine-tune raise, for example when the owner may not act for the publisher any more.
    """
    if the_job() is not None:
        return None
    publisher, base = Publisher.objects.filter(slug=PUBLISHER, is_demo=True).first(), _base(owner)
    if publisher is None or base is None:
        return None
    with DATA.open("rb") as stream:
        file = files.save(owner, publisher, name=NAME, stream=stream, purpose=UploadedFile.Purpose.FINETUNE)
    with transaction.atomic():
        Publisher.objects.select_for_update().get(pk=publisher.pk)  # of two that seed at once, one waits here and then sees the job
        if the_job() is not None:
            return None
        _grant_what_it_can_cost(operator, owner, file)
        return finetunes.start(owner, publisher, base=base, file=file, settings=recipe())


def _base(owner: User) -> Version | None:
    named = {"listing__publisher__slug": BASE.publisher, "listing__slug": BASE.slug, "number": BASE.number}
    return finetunes.trainable_bases(owner).filter(**named).first()


def _grant_what_it_can_cost(operator: User, owner: User, file: UploadedFile) -> None:
    """Where fine-tunes have a price, the demo's is paid with credit that an operator gives, as everybody's would be."""
    steps = finetunes.most_steps(file, finetunes.checked_settings(recipe()))
    if amount_micro := finetunes.price_micro(steps):
        ledger.grant(operator, owner, amount_micro, cause=CREDIT_CAUSE, memo="Credit for the demo's fine-tune")
