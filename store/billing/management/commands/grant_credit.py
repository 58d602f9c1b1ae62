"""`manage.py grant_credit USERNAME AMOUNT`: credit from whoever runs this installation."""

from __future__ import annotations

import uuid
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from store.accounts.models import User
from store.billing import ledger, prices
from store.errors import DomainError


class Command(BaseCommand):
    help = "Give a person credit."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("amount", help="in units of the store's currency, for example 5 or 0.50")
        parser.add_argument("--memo", default="", help="what the person's wallet page says about it")
        parser.add_argument("--cause", default="", help="a name of your own: the same one again gives nothing more")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}.")
        try:
            amount_micro = prices.micro(Decimal(options["amount"]))
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise CommandError(f"{options['amount']} is not an amount. Write it like 5 or 0.50.") from error
        try:
            granted = ledger.grant(None, user, amount_micro, cause=f"grant:{options['cause'] or uuid.uuid4()}", memo=options["memo"])
        except DomainError as error:
            raise CommandError(str(error)) from error
        available = Decimal(ledger.wallet_of(user).available_micro) / prices.MICRO
        self.stdout.write(f"{granted.public_id}: {user.username} can spend {available:f}")
