"""`manage.py worker_acl`: the rights of a worker, for a Valkey of the operator's own."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from store.supervision.broker import worker_rules


class Command(BaseCommand):
    help = "Prints a line for the ACL file of a Valkey or Redis (7 or later): the user `worker` with what workers need, and no more."
    requires_system_checks: list[str] = []

    def handle(self, **_: Any) -> None:
        self.stdout.write(f"user worker on >PASSWORD {worker_rules()}")
