"""`manage.py demo_logins`: by whom the demo can be signed in to."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from store.pages.demo import people


class Command(BaseCommand):
    help = "Prints the demo's logins, one for each role: those whose password nobody has changed."

    def handle(self, **_: Any) -> None:
        logins = people.valid_logins()
        if not logins:
            raise CommandError("The demo has no logins: it was not seeded (DEMO=1 make run), or their passwords were changed.")
        for login in logins:
            self.stdout.write(f"{login.role:<10} {login.username:<10} {login.password}")
