from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...audit import accounts_adrift, deleted_runs_adrift, lines_of_deleted_runs, runs_adrift
from ...conf import conf
from ...credits import LedgerCredits, get_credits
from ...models import CreditAccount, CreditEntry, TryOn, database
from .._failures import database_needed


class Command(BaseCommand):
    help = (
        "Compare every balance with the sum of its ledger, and every run with what the ledger says of it. Print what "
        "differs, and end with an error if anything does. Changes nothing; safe to run at any time."
    )
    requires_system_checks = []  # books are read whatever is wrong with the provider

    def handle(self, **options: Any) -> str:
        if not isinstance(get_credits(), LedgerCredits):
            return f"{conf.CREDITS_BACKEND} keeps the balances, and no ledger here: there is nothing to compare."
        with database_needed():
            accounts, runs = list(differing_accounts()), list(differing_runs())
            for line in (*accounts, *runs):
                self.stdout.write(line)
            if accounts or runs:
                raise CommandError(f"{len(accounts)} account(s) and {len(runs)} run(s) differ from the ledger.")
            return extent()


def differing_accounts() -> Iterator[str]:
    for account in accounts_adrift():
        difference = account.balance - account.total
        user = account.user or "deleted user"
        yield f"account {account.pk} ({user}): balance {account.balance}, ledger {account.total}: {difference:+d}"


def differing_runs() -> Iterator[str]:
    for run in runs_adrift():
        state = f"{run.status}, {run.credits} credit(s)"
        yield f"run {run.pk} ({state}): the ledger says {run.ledger}, {run.held} credit(s)"
    for lines in deleted_runs_adrift():
        yield f"run {lines['key']} (deleted): the ledger says {lines['ledger']}, {lines['held']} credit(s)"


def extent() -> str:
    """How much agrees."""
    accounts, entries, runs = (
        model.objects.using(database()).count() for model in (CreditAccount, CreditEntry, TryOn)
    )
    deleted = lines_of_deleted_runs().values("key").distinct().count()
    also = f" and {deleted} deleted ones" if deleted else ""
    return f"{accounts} accounts, {entries} ledger lines, {runs} runs{also}: all agree."
