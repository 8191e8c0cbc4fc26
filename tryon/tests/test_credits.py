"""Money: the ledger's rules hold, in the program and in the database."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from tryon import runs
from tryon.credits import CreditsBackend, LedgerCredits, get_credits
from tryon.dispatch import choose_provider
from tryon.exceptions import InsufficientCredits
from tryon.models import CreditAccount, CreditEntry, TryOn
from tryon.recovery import recover

from .shop import Shop, jpeg

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.fixture
def ada(django_user_model: type[User]) -> User:
    user = django_user_model.objects.create_user("ada")
    LedgerCredits().grant(user, 20, reason="test")
    return User.objects.get(pk=user.pk)


def parallel(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call ``function`` in ``count`` threads at the same moment, each with a connection of its own."""
    start = threading.Barrier(count)

    def work(number: int) -> Any:
        start.wait(30)
        try:
            return function(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def assert_consistent() -> None:
    for account in CreditAccount.objects.all():
        assert account.balance == account.entries.aggregate(total=Sum("amount"))["total"] >= 0


def test_a_hold_is_captured_or_released_and_the_ledger_explains_it(ada: User) -> None:
    credits_backend = LedgerCredits()
    kept, given_back = uuid.uuid4(), uuid.uuid4()
    for key in (kept, given_back):
        credits_backend.hold(key, ada, 5)
    assert credits_backend.balance(ada) == 10
    credits_backend.capture(kept, ada, 5)
    assert credits_backend.release(given_back, ada, 5)
    assert not credits_backend.release(given_back, ada, 5), "a second release gives nothing"
    assert not credits_backend.release(kept, ada, 5), "what is captured stays captured"
    assert not credits_backend.release(uuid.uuid4(), ada, 5), "what was never held cannot be released"
    assert credits_backend.balance(ada) == 15
    assert_consistent()


def test_a_hold_needs_an_account_and_a_balance(ada: User, django_user_model: type[User]) -> None:
    stranger = django_user_model.objects.create_user("eve")
    for user, amount in ((stranger, 1), (ada, 21)):
        with pytest.raises(InsufficientCredits):
            LedgerCredits().hold(uuid.uuid4(), user, amount)
    assert LedgerCredits().balance(stranger) == 0
    assert_consistent()


def test_fifty_at_once_cannot_spend_more_than_there_is(ada: User) -> None:
    def hold(number: int) -> bool:
        try:
            with transaction.atomic():
                LedgerCredits().hold(uuid.uuid4(), User.objects.get(pk=ada.pk), 1)
        except InsufficientCredits:
            return False
        return True

    assert sum(parallel(50, hold)) == 20
    assert LedgerCredits().balance(ada) == 0
    assert_consistent()


def test_of_many_who_end_a_run_one_does(shop: Shop) -> None:
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg())
    tryon = runs.admit(uuid.uuid4(), order, choose_provider())

    def end(number: int) -> bool:
        return runs.fail(TryOn.objects.get(pk=tryon.pk), TryOn.Status.FAILED, "error", "")

    assert sum(parallel(8, end)) == 1
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]


def test_of_many_who_recover_one_gives_the_credit_back(shop: Shop) -> None:
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg())
    tryon = runs.admit(uuid.uuid4(), order, choose_provider())
    late = tryon.lease_until + timedelta(seconds=1)
    recovered = parallel(4, lambda number: [run.pk for run in recover(late).released])
    assert sorted(recovered) == [[], [], [], [tryon.pk]]
    assert shop.balance() == 3
    assert_consistent()


ACCOUNT_RULES: list[tuple[str, Callable[[CreditAccount, uuid.UUID], object]]] = [
    ("a negative balance", lambda a, k: CreditAccount.objects.filter(pk=a.pk).update(balance=-1)),
    ("a second hold", lambda a, k: a.entries.create(kind="hold", amount=-1, key=k)),
    ("a second end", lambda a, k: a.entries.create(kind="release", amount=1, key=k)),
    ("a hold that adds", lambda a, k: a.entries.create(kind="hold", amount=1, key=uuid.uuid4())),
    ("a release that takes", lambda a, k: a.entries.create(kind="release", amount=-1, key=uuid.uuid4())),
    ("a capture that moves money", lambda a, k: a.entries.create(kind="capture", amount=-1, key=uuid.uuid4())),
    ("a hold of no run", lambda a, k: a.entries.create(kind="hold", amount=-1)),
]


@pytest.mark.parametrize(("what", "do"), ACCOUNT_RULES, ids=[what for what, _ in ACCOUNT_RULES])
def test_the_database_itself_refuses(ada: User, what: str, do: Callable[[CreditAccount, uuid.UUID], object]) -> None:
    key = uuid.uuid4()
    LedgerCredits().hold(key, ada, 1)
    LedgerCredits().capture(key, ada, 1)
    with pytest.raises(IntegrityError), transaction.atomic():
        do(ada.credit_account, key)
    assert_consistent()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "succeeded", "finished_at": timezone.now()},
        {"status": "failed", "finished_at": timezone.now(), "image": "a.png"},
        {"status": "failed"},
        {"status": "running", "finished_at": timezone.now()},
    ],
    ids=["success without image", "image without success", "an end without its time", "a time without an end"],
)
def test_the_database_refuses_a_run_in_two_minds(ada: User, fields: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        TryOn.objects.create(user=ada, credits=1, lease_until=timezone.now(), **fields)


def test_a_user_can_be_deleted_and_the_ledger_stays(ada: User) -> None:
    ada.delete()
    account = CreditAccount.objects.get()
    assert (account.user, account.balance) == (None, 20)
    assert CreditEntry.objects.count() == 1


class Purse(CreditsBackend):
    """A host's own balances, in memory."""

    coins = 1
    calls: list[str] = []

    def hold(self, key: uuid.UUID, user: User, amount: int) -> None:
        if Purse.coins < amount:
            raise InsufficientCredits
        Purse.coins -= amount
        Purse.calls.append("hold")

    def capture(self, key: uuid.UUID, user: User | None, amount: int) -> None:
        assert connection.in_atomic_block
        Purse.calls.append("capture")

    def release(self, key: uuid.UUID, user: User | None, amount: int) -> bool:
        assert connection.in_atomic_block
        Purse.coins += amount
        Purse.calls.append("release")
        return True


def test_a_hosts_own_backend_pays_instead(shop: Shop, tryon: Callable[..., None], fake: Callable[..., Any]) -> None:
    tryon(CREDITS_BACKEND="tryon.tests.test_credits.Purse")
    Purse.coins, Purse.calls = 1, []
    fake(error="provider_unavailable")
    assert shop.post().status_code == 503
    fake()
    assert shop.post().status_code == 200
    assert shop.post().status_code == 403
    assert Purse.calls == ["hold", "release", "hold", "capture"]
    assert shop.ledger() == [("grant", 3)], "our ledger is not touched"


def test_a_backend_that_cannot_be_imported_is_named(tryon: Callable[..., None]) -> None:
    tryon(CREDITS_BACKEND="no.such.Class")
    with pytest.raises(ImproperlyConfigured, match=r"no\.such\.Class"):
        get_credits()
