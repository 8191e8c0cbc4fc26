"""``manage.py audit_credits`` finds whatever differs, names it, and sees nothing where nothing is wrong."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from tryon import pipeline, runs
from tryon.credits import LedgerCredits
from tryon.dispatch import choose_provider
from tryon.exceptions import InsufficientCredits
from tryon.models import CreditAccount, TryOn

from .shop import Shop, jpeg

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def audit() -> str:
    """What the command prints when all agree."""
    out = StringIO()
    call_command("audit_credits", stdout=out)
    return out.getvalue().strip()


def differences() -> tuple[list[str], str]:
    """What the command prints, and the error it ends with."""
    out = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("audit_credits", stdout=out)
    assert caught.value.returncode == 1
    return out.getvalue().splitlines(), str(caught.value)


@pytest.fixture
def account(django_user_model: type[User]) -> CreditAccount:
    """Ada's, with 20 credits."""
    user = django_user_model.objects.create_user("ada")
    LedgerCredits().grant(user, 20, reason="test")
    return CreditAccount.objects.get(user=user)


def order(user: User | None, **changes: Any) -> runs.Order:
    return runs.Order(**{"user": user, "person": jpeg(), "garment": jpeg(color="navy"), **changes})


def write(account: CreditAccount, key: uuid.UUID, **amounts: int) -> None:
    """Lines about a run, and the balance that goes with them."""
    for kind, amount in amounts.items():
        account.entries.create(kind=kind.rstrip("2"), amount=amount, key=key)
    CreditAccount.objects.filter(pk=account.pk).update(balance=F("balance") + sum(amounts.values()))


def make_run(user: User | None, status: str, price: int = 2) -> TryOn:
    """A run without lines."""
    now = timezone.now()
    return TryOn.objects.create(
        user=user,
        status=status,
        credits=price,
        image="a.png" if status == "succeeded" else "",
        lease_until=now,
        finished_at=None if status in TryOn.UNFINISHED else now,
    )


# What agrees


def test_an_empty_shop_agrees() -> None:
    assert audit() == "0 accounts, 0 ledger lines, 0 runs: all agree."


def test_whatever_the_app_does_agrees(shop: Shop, fake: Callable[..., Any], tryon: Callable[..., None]) -> None:
    assert shop.post().status_code == 200
    assert LedgerCredits().refund(TryOn.objects.get().pk, shop.user, 1, reason="test")
    assert shop.post().status_code == 200
    fake(error="provider_unavailable")
    assert shop.post().status_code == 503
    fake()
    runs.admit(uuid.uuid4(), order(shop.user), choose_provider())
    cancelled = runs.admit(uuid.uuid4(), order(shop.user), choose_provider())
    assert runs.fail(cancelled, TryOn.Status.CANCELLED, "cancelled", "")
    tryon(PRICE=0)
    assert shop.post().status_code == 200
    asyncio.run(pipeline.execute(lambda: order(None), lambda run: run))
    assert audit() == "1 accounts, 13 ledger lines, 7 runs: all agree."


@pytest.mark.parametrize("price", [0, 1])
def test_a_user_who_is_deleted_meanwhile_leaves_books_that_agree(
    shop: Shop, tryon: Callable[..., None], price: int
) -> None:
    tryon(PRICE=price)
    assert shop.post().status_code == 200
    first, _ = [runs.admit(uuid.uuid4(), order(shop.user), choose_provider()) for _ in range(2)]
    get_user_model().objects.get(pk=shop.user.pk).delete()
    unfinished = TryOn.objects.get(pk=first.pk)
    assert unfinished.user is None
    assert runs.fail(unfinished, TryOn.Status.FAILED, "abandoned", "")
    assert audit().endswith("ledger lines, 3 runs: all agree.")


def test_runs_that_a_host_deleted_are_counted_and_no_difference(account: CreditAccount) -> None:
    write(account, uuid.uuid4(), hold=-2, capture=0)
    write(account, uuid.uuid4(), hold=-2, capture=0, refund=2)
    write(account, uuid.uuid4(), hold=-2, release=2)
    assert audit() == "1 accounts, 8 ledger lines, 0 runs and 3 deleted ones: all agree."


# What differs


@pytest.mark.parametrize("difference", [3, -3])
def test_a_balance_that_the_ledger_does_not_explain_is_found(account: CreditAccount, difference: int) -> None:
    other = get_user_model().objects.create_user("grace")
    LedgerCredits().grant(other, 7, reason="test")
    CreditAccount.objects.filter(pk=account.pk).update(balance=20 + difference)
    lines, error = differences()
    assert lines == [f"account {account.pk} (ada): balance {20 + difference}, ledger 20: {difference:+d}"]
    assert error == "1 account(s) and 0 run(s) differ from the ledger."


def test_a_line_that_changed_no_balance_is_found(account: CreditAccount) -> None:
    account.entries.create(kind="grant", amount=5)
    assert differences()[0] == [f"account {account.pk} (ada): balance 20, ledger 25: -5"]


def test_a_balance_without_any_line_is_found(django_user_model: type[User]) -> None:
    ada = django_user_model.objects.create_user("ada")
    account = CreditAccount.objects.create(user=ada, balance=9)
    ada.delete()
    assert differences()[0] == [f"account {account.pk} (deleted user): balance 9, ledger 0: +9"]


RUNS: list[tuple[str, dict[str, int], str]] = [
    ("succeeded", {}, "nothing, 0"),
    ("succeeded", {"hold": -2}, "held, 2"),
    ("succeeded", {"hold": -2, "release": 2}, "released, 2"),
    ("succeeded", {"hold": -3, "capture": 0}, "captured, 3"),
    ("succeeded", {"hold": 0, "capture": 0}, "captured, 0"),
    ("succeeded", {"capture": 0}, "no hold, 0"),
    ("succeeded", {"hold": -2, "refund": 2}, "refunded without a capture, 2"),
    ("succeeded", {"hold": -2, "capture": 0, "refund": 3}, "another amount given back, 2"),
    ("failed", {}, "nothing, 0"),
    ("failed", {"hold": -2}, "held, 2"),
    ("failed", {"hold": -2, "capture": 0}, "captured, 2"),
    ("failed", {"hold": -2, "release": 1}, "another amount given back, 2"),
    ("failed", {"hold": -1, "release": 1}, "released, 1"),
    ("failed", {"hold": -2, "release": 2, "refund": 2}, "refunded without a capture, 2"),
    ("cancelled", {"hold": -2}, "held, 2"),
    ("cancelled", {"hold": -2, "capture": 0}, "captured, 2"),
    ("cancelled", {"release": 2}, "no hold, 0"),
    ("running", {}, "nothing, 0"),
    ("running", {"hold": -1}, "held, 1"),
    ("running", {"hold": -2, "capture": 0}, "captured, 2"),
    ("running", {"hold": -2, "release": 2}, "released, 2"),
    ("queued", {"hold": -2, "capture": 0}, "captured, 2"),
    ("queued", {"hold": -2, "release": 2}, "released, 2"),
]
"""A run's state, its lines, and what the command says of them."""


@pytest.mark.parametrize(
    ("status", "amounts", "ledger"),
    RUNS,
    ids=[f"{status}: {' '.join(amounts)}: {say}" for status, amounts, say in RUNS],
)
def test_a_run_that_its_lines_contradict_is_found(
    account: CreditAccount, status: str, amounts: dict[str, int], ledger: str
) -> None:
    good = make_run(account.user, "succeeded")
    write(account, good.pk, hold=-2, capture=0)
    bad = make_run(account.user, status)
    write(account, bad.pk, **amounts)
    lines, error = differences()
    assert lines == [f"run {bad.pk} ({status}, 2 credit(s)): the ledger says {ledger} credit(s)"]
    assert error == "0 account(s) and 1 run(s) differ from the ledger."


@pytest.mark.parametrize("user", ["nobody", "ada"])
@pytest.mark.parametrize(
    ("status", "amounts", "ledger"),
    [("succeeded", {"hold": -2, "capture": 0}, "captured"), ("running", {"hold": -2}, "held")],
)
def test_a_free_run_that_took_credits_is_found(
    account: CreditAccount, user: str, status: str, amounts: dict[str, int], ledger: str
) -> None:
    run = make_run(account.user if user == "ada" else None, status, price=0)
    write(account, run.pk, **amounts)
    assert differences()[0] == [f"run {run.pk} ({status}, 0 credit(s)): the ledger says {ledger}, 2 credit(s)"]


def test_credits_that_went_back_to_somebody_else_are_found(account: CreditAccount) -> None:
    other = CreditAccount.objects.create(user=get_user_model().objects.create_user("grace"))
    run = make_run(account.user, "failed")
    write(account, run.pk, hold=-2)
    write(other, run.pk, release=2)
    [line] = differences()[0]
    assert line.startswith(f"run {run.pk} (failed, 2 credit(s)): the ledger says lines in more than one account")


@pytest.mark.parametrize(
    ("amounts", "ledger"),
    [
        ({"hold": -2}, "held, 2"),
        ({"hold": 0}, "held, 0"),
        ({"capture": 0}, "no hold, 0"),
        ({"release": 2}, "no hold, 0"),
        ({"refund": 2}, "no hold, 0"),
        ({"hold": -2, "refund": 2}, "refunded without a capture, 2"),
        ({"hold": -2, "release": 1}, "another amount given back, 2"),
    ],
    ids=str,
)
def test_lines_without_a_run_that_nobody_will_settle_are_found(
    account: CreditAccount, amounts: dict[str, int], ledger: str
) -> None:
    key = uuid.uuid4()
    write(account, key, **amounts)
    lines, error = differences()
    assert lines == [f"run {key} (deleted): the ledger says {ledger} credit(s)"]
    assert error == "0 account(s) and 1 run(s) differ from the ledger."


@contextmanager
def without_constraints() -> Iterator[None]:
    """The ledger as in a database that has no conditional unique constraints, for the time of a transaction."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            for name in ("tryon_one_hold_per_run", "tryon_one_end_per_run", "tryon_one_refund_per_run"):
                cursor.execute(f"DROP INDEX {name}")
        yield
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    ("amounts", "ledger"),
    [
        ({"hold": -2, "hold2": -2, "capture": 0}, "held more than once, 4"),
        ({"hold": -2, "capture": 0, "release": 2}, "captured and released, 2"),
        ({"hold": -2, "capture": 0, "capture2": 0}, "captured more than once, 2"),
        ({"hold": -2, "release": 2, "release2": 2}, "released more than once, 2"),
        ({"hold": -2, "capture": 0, "refund": 2, "refund2": 2}, "refunded more than once, 2"),
    ],
    ids=str,
)
def test_what_unique_constraints_refuse_would_be_found(
    account: CreditAccount, amounts: dict[str, int], ledger: str
) -> None:
    with without_constraints():
        run = make_run(account.user, "succeeded")
        write(account, run.pk, **amounts)
        assert differences()[0] == [f"run {run.pk} (succeeded, 2 credit(s)): the ledger says {ledger} credit(s)"]


def test_all_differences_are_told_at_once(account: CreditAccount) -> None:
    for _ in range(2):
        make_run(account.user, "succeeded")
    write(account, uuid.uuid4(), hold=-1)
    CreditAccount.objects.update(balance=0)
    lines, error = differences()
    assert len(lines) == 4
    assert error == "1 account(s) and 3 run(s) differ from the ledger."


# Beside the rest


def test_with_another_backend_there_is_nothing_to_compare(account: CreditAccount, tryon: Callable[..., None]) -> None:
    CreditAccount.objects.update(balance=0)
    tryon(CREDITS_BACKEND="tryon.tests.test_credits.Purse")
    assert audit().startswith("tryon.tests.test_credits.Purse keeps the balances")


class OwnLedger(LedgerCredits):
    """A host's variation of ours."""


def test_a_backend_derived_from_ours_is_audited(account: CreditAccount, tryon: Callable[..., None]) -> None:
    tryon(CREDITS_BACKEND="tryon.tests.test_audit.OwnLedger")
    assert audit() == "1 accounts, 1 ledger lines, 0 runs: all agree."
    CreditAccount.objects.update(balance=0)
    assert len(differences()[0]) == 1


def test_it_asks_seven_times_however_much_there_is(
    account: CreditAccount, django_assert_num_queries: Callable[[int], Any]
) -> None:
    for _ in range(20):
        write(account, make_run(account.user, "failed").pk, hold=-2, release=2)
    with django_assert_num_queries(7):
        audit()


def test_beside_traffic_it_reports_nothing(account: CreditAccount) -> None:
    """What changes together is seen together, whichever moment the command is run at."""
    enough, started = threading.Event(), threading.Barrier(5)

    def trade(number: int) -> int:
        try:
            user = User.objects.get(username="ada")
            started.wait(30)
            runs = 0
            while not enough.is_set():
                runs += trade_once(user, ends_well=bool(runs % 2))
            return runs
        finally:
            connection.close()

    def trade_once(user: User, *, ends_well: bool) -> int:
        try:
            run = runs.admit(uuid.uuid4(), order(user), choose_provider())
        except InsufficientCredits:
            LedgerCredits().grant(user, 3, reason="more")
            return 0
        if not ends_well:
            return runs.fail(run, TryOn.Status.FAILED, "error", "")
        return runs.succeed(run, image="a.png") and LedgerCredits().refund(run.pk, user, 1, reason="test")

    with ThreadPoolExecutor(4) as pool:
        traders = [pool.submit(trade, number) for number in range(4)]
        started.wait(30)
        try:
            for _ in range(20):
                assert audit().endswith(": all agree.")
        finally:
            enough.set()
        assert sum(trader.result() for trader in traders) > 0
    assert audit().endswith(": all agree.")
