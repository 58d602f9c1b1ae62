"""`manage.py seed_demo`: a small real model, GPTs that do something useful with it, a fine-tune to watch, and somebody to sign in as."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from store.accounts.models import User
from store.errors import DomainError
from store.moderation.management.commands.import_model import STAGES
from store.pages.demo import finetune, people, shelves


class Command(BaseCommand):
    help = (
        "Imports SmolLM2-135M-Instruct, lists the demo's GPTs on it, under publishers marked as demo, and starts a small fine-tune. "
        "Safe to run again: it makes what is missing and changes nothing that is there."
    )

    def handle(self, **_: Any) -> None:
        try:
            who = people.seed()
            self._say_published(shelves.seed_base(operator=who["admin"], owner=who["publisher"], progress=self._show))
            if settings.DEMO_FINETUNE:  # before the GPTs, behind whose checks it would wait
                self._start_finetune(who)
            self._say_published(shelves.seed_gpts(operator=who["admin"], owner=who["publisher"]))
        except DomainError as error:
            raise CommandError(str(error)) from error

    def _say_published(self, names: list[str]) -> None:
        for name in names:
            self.stdout.write(f"{name} is published")

    def _start_finetune(self, who: dict[str, User]) -> None:
        """What is in its way is no reason for the store not to open."""
        try:
            job = finetune.seed(operator=who["admin"], owner=who["publisher"])
        except DomainError as error:
            self.stderr.write(f"The demo's fine-tune was not started: {error}")
            return
        if job is not None:
            self.stdout.write(f"a fine-tune on {finetune.NAME} is started")

    _shown: tuple[str, int | None] | None = None

    def _show(self, stage: str, done: float | None) -> None:
        """A line for each stage and each tenth of it."""
        tenth = None if done is None else int(done * 10)
        if (stage, tenth) != self._shown:
            self._shown = (stage, tenth)
            share = "" if done is None else f" {done:.0%}"
            self.stdout.write(f"SmolLM2: {STAGES.get(stage, stage)}{share}")
            self.stdout.flush()
