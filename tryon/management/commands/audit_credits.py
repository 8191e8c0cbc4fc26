from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

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


# What is compared is compared in one query, so that it is of one moment though servers work meanwhile. A transaction
# around all of them would keep those waiting on SQLite.


def differing_accounts() -> Iterator[str]:
    account: Any
    for account in CreditAccount.objects.using(database()).unbalanced().select_related("user").order_by("pk"):
        difference = account.balance - account.total
        user = account.user or "deleted user"
        yield f"account {account.pk} ({user}): balance {account.balance}, ledger {account.total}: {difference:+d}"


def differing_runs() -> Iterator[str]:
    run: Any
    for run in TryOn.objects.using(database()).unsettled().order_by("created_at"):
        state = f"{run.status}, {run.credits} credit(s)"
        yield f"run {run.pk} ({state}): the ledger says {run.ledger}, {run.held} credit(s)"
    for lines in CreditEntry.objects.using(database()).unsettled():
        yield f"run {lines['key']} (deleted): the ledger says {lines['ledger']}, {lines['held']} credit(s)"


def extent() -> str:
    """How much agrees."""
    entries = CreditEntry.objects.using(database())
    accounts, runs = CreditAccount.objects.using(database()).count(), TryOn.objects.using(database()).count()
    deleted = entries.without_run().values("key").distinct().count()
    also = f" and {deleted} deleted ones" if deleted else ""
    return f"{accounts} accounts, {entries.count()} ledger lines, {runs} runs{also}: all agree."
