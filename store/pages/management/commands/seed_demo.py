"""`manage.py seed_demo`: a small real model, GPTs that do something useful with it, and somebody to sign in as."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from store.errors import DomainError
from store.moderation.management.commands.import_model import STAGES
from store.pages.demo import people, shelves


class Command(BaseCommand):
    help = (
        "Imports SmolLM2-135M-Instruct and lists the demo's GPTs on it, under publishers marked as demo. Safe to run again: "
        "it makes what is missing and changes nothing that is there."
    )

    def handle(self, **_: Any) -> None:
        try:
            who = people.seed()
            made = shelves.seed(operator=who["admin"], owner=who["publisher"], progress=self._show)
        except DomainError as error:
            raise CommandError(str(error)) from error
        for name in made:
            self.stdout.write(f"{name} is published")

    _shown: tuple[str, int | None] | None = None

    def _show(self, stage: str, done: float | None) -> None:
        """A line for each stage and each tenth of it."""
        tenth = None if done is None else int(done * 10)
        if (stage, tenth) != self._shown:
            self._shown = (stage, tenth)
            share = "" if done is None else f" {done:.0%}"
            self.stdout.write(f"SmolLM2: {STAGES.get(stage, stage)}{share}")
            self.stdout.flush()
