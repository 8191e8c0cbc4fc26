"""Whatever is done with credits and runs, in whatever order and by however many at once, the books agree."""

from __future__ import annotations

import copy
import threading
import uuid
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import pytest
from django.contrib.auth.models import User
from django.db import connection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers.base import TryOnResult
from tryon import images, pipeline, runs
from tryon.audit import accounts_adrift, deleted_runs_adrift, runs_adrift
from tryon.credits import get_credits
from tryon.dispatch import choose_provider
from tryon.exceptions import InsufficientCredits, KeyInUse, KeyReused
from tryon.models import CreditAccount, CreditEntry, TryOn

from .shop import png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

THREADS: Final = 8
OPERATIONS: Final = 50
"""Of each thread, in each example."""
EXAMPLES: Final = 25

ACCOUNTS: Final = 3
PRICES: Final = {"fake": 1, "dear": 3, "free": 0}
"""By provider."""
PHOTO: Final = b"It is never looked at here."
PICTURE: Final = TryOnResult(data=png(64, 64), content_type="image/png", model="fake", provider_id="")
LOOKED: Final = runs.Looked(images.ImageInfo("image/png", 64, 64), (runs.ResultFile(".png", PICTURE.data),))


@dataclass(frozen=True)
class Outcome:
    """What came of an operation, and what it moved by its own account."""

    what: str
    run: uuid.UUID | None = None
    user: int = 0
    amount: int = 0


class Books:
    """Some accounts, and the runs that were admitted so far, for all threads to work on."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex
        self.users = [User.objects.create_user(f"{name}-{number}") for number in range(ACCOUNTS)]
        self.runs: list[TryOn] = []

    def user(self, number: int) -> User:
        """As each request loads it."""
        return User.objects.select_related("credit_account").get(pk=self.users[number].pk)

    def balances(self) -> list[int]:
        balances = dict(CreditAccount.objects.filter(user__in=self.users).values_list("user", "balance"))
        return [balances.get(user.pk, 0) for user in self.users]

    def run(self, back: int) -> TryOn:
        """The latest run, or one that was admitted so many before it, as a process knows it that knows no better."""
        runs = self.runs.copy()
        return copy.copy(runs[-1 - back % len(runs)])


class Operation(Protocol):
    """Something that a request, the admin or recovery does."""

    def __call__(self, books: Books) -> Outcome: ...


@dataclass(frozen=True)
class Grant:
    user: int
    amount: int

    def __call__(self, books: Books) -> Outcome:
        user = books.user(self.user)
        try:
            get_credits().grant(user, self.amount, reason="test")
        except InsufficientCredits:
            return Outcome("not granted")
        return Outcome("granted", user=user.pk, amount=self.amount)


@dataclass(frozen=True)
class Ask:
    """Ask for a picture, under a key or none."""

    user: int
    key: str
    catalog_id: str
    provider: str

    def __call__(self, books: Books) -> Outcome:
        return ask(books, books.user(self.user), self.key, self.catalog_id, self.provider)


@dataclass(frozen=True)
class AskAgain:
    """Ask for what somebody has asked for before."""

    run: int

    def __call__(self, books: Books) -> Outcome:
        tryon = books.run(self.run)
        assert tryon.user is not None
        return ask(books, tryon.user, tryon.idempotency_key, tryon.catalog_id, tryon.provider)


def ask(books: Books, user: User, key: str, catalog_id: str, provider: str) -> Outcome:
    order = runs.Order(
        user=user,
        person=PHOTO,
        garment=PHOTO,
        catalog_id=catalog_id,
        provider=provider,
        idempotency_key=key,
    )
    run: pipeline._Run[TryOn] = pipeline._Run(lambda: order, lambda tryon: tryon, lambda tryon: tryon)
    try:
        run.enter()
    except InsufficientCredits:
        return Outcome("too poor")
    except KeyInUse:
        return Outcome("in use")
    except KeyReused:
        return Outcome("reused")
    if not run.is_admitted:
        return Outcome("replayed", run.answer.pk)
    assert run._tryon is not None
    books.runs.append(run._tryon)
    return Outcome("admitted", run.id, user.pk, -PRICES[provider])


@dataclass(frozen=True)
class Succeed:
    run: int

    def __call__(self, books: Books) -> Outcome:
        tryon = books.run(self.run)
        names = runs.store(tryon, LOOKED)
        if runs.succeed(tryon, **runs.describe(PICTURE, LOOKED, names, choose_provider(tryon.provider), latency_ms=1)):
            return Outcome("succeeded", tryon.pk)
        assert runs.delete(*names)
        return Outcome("ended before")


@dataclass(frozen=True)
class Fail:
    run: int
    status: TryOn.Status

    def __call__(self, books: Books) -> Outcome:
        tryon = books.run(self.run)
        if runs.fail(tryon, self.status, "error", "for a test"):
            return Outcome(str(self.status), tryon.pk, tryon.user_id or 0, tryon.credits)
        return Outcome("ended before")


@dataclass(frozen=True)
class Refund:
    run: int

    def __call__(self, books: Books) -> Outcome:
        tryon = books.run(self.run)
        if get_credits().refund(tryon.pk, tryon.user, tryon.credits, reason="test"):
            return Outcome("refunded", tryon.pk, tryon.user_id or 0, tryon.credits)
        return Outcome("not refunded")


OUTCOMES: Final = {
    *("granted", "not granted", "admitted", "too poor", "in use", "reused", "replayed", "succeeded"),
    *("failed", "cancelled", "ended before", "refunded", "not refunded"),
}

some_user = st.integers(0, ACCOUNTS - 1)
some_run = st.integers(0, 9)
grants = st.builds(Grant, some_user, st.integers(-8, 8).filter(bool))
asks = st.builds(
    Ask, some_user, st.sampled_from(["", "", "", "a", "b", "c"]), st.sampled_from("xy"), st.sampled_from([*PRICES])
)
ends = st.builds(Succeed, some_run) | st.builds(
    Fail, some_run, st.sampled_from([TryOn.Status.FAILED, TryOn.Status.CANCELLED])
)
operations: st.SearchStrategy[Operation] = st.one_of(
    grants, asks, asks, st.builds(AskAgain, some_run), ends, ends, st.builds(Refund, some_run)
)
plans = st.lists(st.lists(operations, min_size=OPERATIONS, max_size=OPERATIONS), min_size=THREADS, max_size=THREADS)


BEGINNING: Final[list[Operation]] = [
    operation for user in range(ACCOUNTS) for operation in (Grant(user, 8), Ask(user, "", "x", "dear"))
]
"""So that each operation of a plan finds something to do."""


EVERY_TIME_THE_SAME: Final = settings(
    derandomize=True,
    database=None,
    deadline=None,
    # Nothing smaller is looked for when one fails: it takes minutes, and a race that was lost need not be lost again.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture
def prices(tryon: Callable[..., None]) -> None:
    """Three providers, of three prices."""
    fake = {"BACKEND": "providers.fake.FakeProvider"}
    tryon(PROVIDER="fake", PROVIDERS=dict.fromkeys(PRICES, fake), PRICES=PRICES)


def at_once(books: Books, plan: list[list[Operation]]) -> list[Outcome]:
    """Do each list of operations in a thread of its own, all from the same moment; what came of each."""
    connection.close()  # the pool has one for each of the threads
    start = threading.Barrier(len(plan))

    def work(operations: list[Operation]) -> list[Outcome]:
        try:
            start.wait(30)
            return [operation(books) for operation in operations]
        finally:
            connection.close()

    with ThreadPoolExecutor(len(plan)) as pool:
        return [outcome for outcomes in pool.map(work, plan) for outcome in outcomes]


def assert_books_agree(books: Books, outcomes: list[Outcome]) -> None:
    balances = books.balances()
    for number, user in enumerate(books.users):
        moved = sum(outcome.amount for outcome in outcomes if outcome.user == user.pk)
        lines = CreditEntry.objects.filter(account__user=user).values_list("amount", flat=True)
        assert balances[number] == sum(lines) == moved >= 0
    about_runs = CreditEntry.objects.filter(account__user__in=books.users).exclude(key=None)
    assert_each_once(about_runs.values_list("key", "kind"))
    assert_each_once(about_runs.filter(kind__in=["capture", "release"]).values_list("key"))
    assert not accounts_adrift()
    assert not runs_adrift()
    assert not deleted_runs_adrift()


def assert_runs_are_what_was_said(books: Books, outcomes: list[Outcome]) -> None:
    """Each move was told to the one who made it, and to nobody else; and no key has two pictures."""
    told: dict[str, list[uuid.UUID]] = {what: [] for what in OUTCOMES}
    for outcome in outcomes:
        if outcome.run:
            insort(told[outcome.what], outcome.run)
    runs = TryOn.objects.filter(user__in=books.users)
    assert told["admitted"] == sorted(runs.values_list("pk", flat=True))
    for status in ("succeeded", "failed", "cancelled"):
        assert told[status] == sorted(runs.filter(status=status).values_list("pk", flat=True))
    refunds = CreditEntry.objects.filter(account__user__in=books.users, kind="refund")
    assert told["refunded"] == sorted(key for key in refunds.values_list("key", flat=True) if key)
    assert set(told["replayed"]) <= set(told["succeeded"])
    with_key = runs.exclude(idempotency_key="").exclude(status__in=["failed", "cancelled"])
    assert_each_once(with_key.values_list("user", "idempotency_key"))


def assert_each_once(rows: Iterable[object]) -> None:
    assert [row for row, times in Counter(rows).items() if times > 1] == []


@pytest.mark.stress
def test_eight_at_once_leave_books_that_agree(prices: None, media: Path) -> None:
    done: Counter[str] = Counter()

    @settings(EVERY_TIME_THE_SAME, max_examples=EXAMPLES)
    @given(plans)
    def work(plan: list[list[Operation]]) -> None:
        books = Books()
        outcomes = [operation(books) for operation in BEGINNING] + at_once(books, plan)
        assert_books_agree(books, outcomes)
        assert_runs_are_what_was_said(books, outcomes)
        pictures = TryOn.objects.exclude(image="").values_list("image", flat=True)
        assert sorted(pictures) == sorted(path.name for path in media.iterdir())
        done.update(outcome.what for outcome in outcomes)

    work()
    assert {what for what in OUTCOMES if done[what]} == OUTCOMES
    assert done.total() >= 10_000


@dataclass
class Asked:
    """A run, as plain Python knows it."""

    order: Ask
    state: str = "running"

    @property
    def price(self) -> int:
        return PRICES[self.order.provider]


class Model:
    """What ought to come of operations that are done one after another."""

    def __init__(self) -> None:
        self.balances = [0] * ACCOUNTS
        self.runs: list[Asked] = []

    def expect(self, operation: Operation) -> str:
        match operation:
            case Grant(user, amount):
                return self.grant(user, amount)
            case Ask():
                return self.ask(operation)
            case AskAgain(back):
                return self.ask(self.run(back).order)
            case Succeed(back):
                return self.end(self.run(back), "succeeded")
            case Fail(back, status):
                return self.end(self.run(back), str(status))
            case Refund(back):
                return self.refund(self.run(back))
            case _:
                raise TypeError(operation)

    def run(self, back: int) -> Asked:
        return self.runs[-1 - back % len(self.runs)]

    def grant(self, user: int, amount: int) -> str:
        if self.balances[user] + amount < 0:
            return "not granted"
        self.balances[user] += amount
        return "granted"

    def ask(self, order: Ask) -> str:
        earlier = [
            run for run in self.runs if order.key and (run.order.user, run.order.key) == (order.user, order.key)
        ]
        if any(run.order != order for run in earlier):
            return "reused"
        states = {run.state for run in earlier}
        if "running" in states:
            return "in use"
        if states & {"succeeded", "refunded"}:
            return "replayed"
        run = Asked(order)
        if self.balances[order.user] < run.price:
            return "too poor"
        self.balances[order.user] -= run.price
        self.runs.append(run)
        return "admitted"

    def end(self, run: Asked, state: str) -> str:
        if run.state != "running":
            return "ended before"
        run.state = state
        if state != "succeeded":
            self.balances[run.order.user] += run.price
        return state

    def refund(self, run: Asked) -> str:
        if run.state != "succeeded" or not run.price:
            return "not refunded"
        run.state = "refunded"
        self.balances[run.order.user] += run.price
        return "refunded"


def test_one_after_another_comes_to_what_plain_python_says(prices: None, media: Path) -> None:
    @settings(EVERY_TIME_THE_SAME, max_examples=30)
    @given(st.lists(operations, min_size=20, max_size=40))
    def work(plan: list[Operation]) -> None:
        books, model = Books(), Model()
        outcomes = []
        for operation in BEGINNING + plan:
            expected = model.expect(operation)
            outcomes.append(operation(books))
            assert outcomes[-1].what == expected, operation
            assert books.balances() == model.balances
        assert_books_agree(books, outcomes)
        assert_runs_are_what_was_said(books, outcomes)

    work()
