"""Prints a new API key for scripts and operators."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from store.accounts.keys import create_key
from store.accounts.models import User
from store.errors import DomainError


class Command(BaseCommand):
    help = "Creates an API key for a user and prints its secret, which can't be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="command line", help="how its owner will recognise the key")

    def handle(self, *args: Any, username: str, name: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user '{username}'.")
        try:
            _key, secret = create_key(user, name=name)
        except DomainError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(secret)
