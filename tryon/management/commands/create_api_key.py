from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from ...models import ApiKey, database
from .._arguments import text_for, whole_number
from .._failures import words
from .._users import find_user

MAX_DAYS: Final = 36_500
"""A century, and far from where dates end."""


class Command(BaseCommand):
    help = "Make an API key for a user and print it. It is shown once and cannot be read again."
    requires_system_checks = []  # a provider without its key is no reason to wait

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="The user's name, as sent in user_id.")
        parser.add_argument("--name", default="", type=text_for(ApiKey, "name"), help="What the key is for.")
        parser.add_argument(
            "--days", type=whole_number(1, MAX_DAYS), help="Days until the key expires; by default it never does."
        )

    def handle(self, *, user: str, name: str, days: int | None, **options: Any) -> None:
        expires_at = timezone.now() + timedelta(days=days) if days is not None else None
        try:
            with transaction.atomic(using=database()):  # a key that nobody saw must not count
                _, text = ApiKey.create_key(find_user(user, active=True), name=name, expires_at=expires_at)
                self.stdout.write(text)
                self.stdout.flush()
        except OSError as error:
            raise CommandError(f"The key could not be printed: {words(error)}. There is none.") from error
