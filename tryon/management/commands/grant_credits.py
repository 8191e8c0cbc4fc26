from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf import MAX_AMOUNT
from ...credits import get_credits
from ...exceptions import InsufficientCredits
from ...models import CreditEntry
from .._arguments import text_for, whole_number
from .._users import find_user


class Command(BaseCommand):
    help = "Give a user credits, or take them away with a negative number."
    requires_system_checks = []  # as for create_api_key

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="The user's name, as sent in user_id.")
        parser.add_argument("credits", type=whole_number(-MAX_AMOUNT, MAX_AMOUNT), help="How many.")
        parser.add_argument(
            "--reason",
            required=True,
            type=text_for(CreditEntry, "reason", required=True),
            help="Why; it stands in the ledger.",
        )

    def handle(self, *, user: str, credits: int, reason: str, **options: Any) -> str:  # noqa: A002
        try:
            balance = get_credits().grant(find_user(user), credits, reason=reason)
        except (InsufficientCredits, ValueError) as error:
            raise CommandError(str(error)) from error
        return f"{user} has {balance} credits."
