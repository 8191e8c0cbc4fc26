"""Whether balances, ledger and runs agree. Each comparison is one query, and so of one moment beside living servers.

A transaction around all of them would keep those servers waiting on SQLite.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Case, Count, Exists, F, Max, Min, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce

from .models import CreditAccount, CreditEntry, TryOn, database


def accounts_adrift() -> QuerySet[Any]:
    """Accounts whose balance is not the sum of their lines, with that sum as ``total``."""
    accounts = CreditAccount.objects.using(database()).annotate(total=Sum("entries__amount", default=0))
    return accounts.exclude(balance=F("total")).select_related("user").order_by("pk")


def runs_adrift() -> QuerySet[Any]:
    """Runs whose state and lines disagree, with what the lines come to: ``ledger`` and ``held``, see ``_by_run()``."""
    expected = Case(
        When(status=TryOn.Status.SUCCEEDED, then=Value("captured")),
        When(status__in=[TryOn.Status.FAILED, TryOn.Status.CANCELLED], then=Value("released")),
        default=Value("held"),
    )
    lines = _by_run(CreditEntry.objects.filter(key=OuterRef("pk")))
    # The operator's have no lines, and a free one has no end if its user was deleted before.
    of_nobody = Q(user=None, credits=0, held=0, ledger__in=["nothing", "held"])
    return (
        TryOn.objects.using(database())
        .annotate(ledger=Coalesce(Subquery(lines.values("ledger")), Value("nothing")))
        .annotate(held=Coalesce(Subquery(lines.values("held")), 0))
        .exclude(Q(ledger=expected, held=F("credits")) | of_nobody)
        .order_by("created_at")
    )


def deleted_runs_adrift() -> QuerySet[Any, Any]:
    """As ``_by_run()``, the runs that are no longer there and that nobody can settle any more."""
    return _by_run(lines_of_deleted_runs()).exclude(ledger__in=["captured", "released"])


def lines_of_deleted_runs() -> QuerySet[CreditEntry]:
    """Lines of runs that are no longer there. A host may delete old runs; their lines stay."""
    lines = CreditEntry.objects.using(database()).exclude(key=None)
    return lines.exclude(Exists(TryOn.objects.filter(pk=OuterRef("key"))))


def _by_run(lines: QuerySet[CreditEntry]) -> QuerySet[Any, Any]:
    """A dictionary for each run that has ``lines``, with what they come to as ``ledger`` and ``held``.

    ``ledger`` is "held", "captured" or "released"; else it says what is wrong with them.
    """
    kinds = CreditEntry.Kind
    is_given_back = Q(releases__gt=0) | Q(refunds__gt=0)
    ledger = Case(
        When(holds=0, then=Value("no hold")),
        # Unique constraints refuse these, where the database has conditional ones.
        When(holds__gt=1, then=Value("held more than once")),
        When(captures__gt=0, releases__gt=0, then=Value("captured and released")),
        When(captures__gt=1, then=Value("captured more than once")),
        When(releases__gt=1, then=Value("released more than once")),
        When(refunds__gt=1, then=Value("refunded more than once")),
        When(captures=0, refunds=1, then=Value("refunded without a capture")),
        When(~Q(first_account=F("last_account")), then=Value("lines in more than one account")),
        When(is_given_back & ~Q(total=0), then=Value("another amount given back")),
        When(captures=1, then=Value("captured")),
        When(releases=1, then=Value("released")),
        default=Value("held"),
    )
    return (
        lines.exclude(key=None)
        .order_by()
        .values("key")
        .annotate(
            holds=Count("pk", filter=Q(kind=kinds.HOLD)),
            captures=Count("pk", filter=Q(kind=kinds.CAPTURE)),
            releases=Count("pk", filter=Q(kind=kinds.RELEASE)),
            refunds=Count("pk", filter=Q(kind=kinds.REFUND)),
            first_account=Min("account"),
            last_account=Max("account"),
            held=-Sum("amount", filter=Q(kind=kinds.HOLD), default=0),
            total=Sum("amount"),
        )
        .annotate(ledger=ledger)
    )
