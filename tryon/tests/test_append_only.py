"""The database itself refuses to change the ledger, and nothing else is in anyone's way."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, connection, connections, router, transaction
from django.db.models.signals import post_migrate
from django.db.utils import ConnectionHandler
from pytest_django import Settings

from tryon.append_only import TABLE, after_migrate, create_triggers, drop_triggers
from tryon.credits import LedgerCredits
from tryon.models import CreditAccount, CreditEntry

from . import services
from .conftest import AFTER_MIGRATE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.fixture
def receiver(database: str) -> Iterator[None]:
    """What ``migrate`` tells, which the other tests do without on SQLite."""
    if database == "sqlite":
        post_migrate.connect(after_migrate, **AFTER_MIGRATE)
    yield
    if database == "sqlite":
        post_migrate.disconnect(**AFTER_MIGRATE)


@pytest.fixture
def triggers(receiver: None, transactional_db: None) -> Iterator[None]:
    """The database as ``migrate`` leaves it. On SQLite only until the flush that ends the test."""
    create_triggers(connection)
    yield
    if connection.vendor == "sqlite":
        drop_triggers(connection)
    else:
        create_triggers(connection)


@pytest.fixture
def ada(triggers: None, django_user_model: type[User]) -> User:
    """A shopper with three lines in the ledger."""
    user = django_user_model.objects.create_user("ada")
    LedgerCredits().grant(user, 5, reason="welcome")
    key = uuid.uuid4()
    user = django_user_model.objects.get(pk=user.pk)
    LedgerCredits().hold(key, user, 2)
    LedgerCredits().capture(key, user, 2)
    return user


def lines() -> list[tuple[Any, ...]]:
    """The whole ledger."""
    return list(CreditEntry.objects.order_by("pk").values_list())


def refuses() -> bool:
    """Whether the database refuses to change a line, by a try that changes nothing if it does not."""
    line = CreditEntry.objects.order_by("pk").first()
    assert line is not None, "there is a line to change"
    try:
        with transaction.atomic():
            CreditEntry.objects.filter(pk=line.pk).update(reason=line.reason)
    except IntegrityError:
        return True
    return False


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def save_first() -> None:
    line = CreditEntry.objects.order_by("pk")[0]
    line.amount = 500
    line.save()


def upsert() -> None:
    line = CreditEntry.objects.order_by("pk")[0]
    line.amount = 500
    CreditEntry.objects.bulk_create([line], update_conflicts=True, unique_fields=["id"], update_fields=["amount"])


CHANGES: list[tuple[str, Callable[[], object]]] = [
    ("QuerySet.update", lambda: CreditEntry.objects.update(amount=500)),
    ("QuerySet.update of one", lambda: CreditEntry.objects.filter(kind="grant").update(reason="none")),
    ("QuerySet.delete", lambda: CreditEntry.objects.all().delete()),
    ("QuerySet.delete of one", lambda: CreditEntry.objects.filter(kind="hold").delete()),
    ("Model.save", save_first),
    ("Model.delete", lambda: CreditEntry.objects.order_by("pk")[0].delete()),
    ("bulk_create with update_conflicts", upsert),
    ("UPDATE", lambda: execute("UPDATE tryon_creditentry SET amount = 500 WHERE kind = 'grant'")),
    ("DELETE", lambda: execute("DELETE FROM tryon_creditentry")),
]


@pytest.mark.parametrize(("what", "change"), CHANGES, ids=[what for what, _ in CHANGES])
def test_the_database_refuses_and_says_what_to_do(ada: User, what: str, change: Callable[[], object]) -> None:
    before = lines()
    assert len(before) == 3
    with pytest.raises(IntegrityError, match=r"tryon_creditentry is append-only: .* Add a line .*refund"):
        change()
    assert lines() == before


def test_what_else_its_transaction_did_is_undone(ada: User) -> None:
    def grant_and_delete() -> None:
        with transaction.atomic():
            LedgerCredits().grant(ada, 7)
            CreditEntry.objects.filter(kind="hold").delete()

    with pytest.raises(IntegrityError):
        grant_and_delete()
    assert LedgerCredits().balance(ada) == 3
    assert len(lines()) == 3


def test_lines_are_added_as_ever(ada: User) -> None:
    before = lines()
    LedgerCredits().grant(ada, 7)
    assert lines()[:-1] == before
    assert len(lines()) == 4
    assert LedgerCredits().balance(ada) == 10


def test_balances_and_other_tables_can_be_changed(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(username="grace")
    assert CreditAccount.objects.filter(user=ada).update(balance=4) == 1


def test_a_user_can_be_deleted_and_the_lines_stay(ada: User) -> None:
    before = lines()
    ada.delete()
    assert CreditAccount.objects.get().user is None
    assert lines() == before


def test_migrate_may_be_run_again_and_again(ada: User) -> None:
    before = lines()
    for _ in range(2):
        call_command("migrate", verbosity=0)
    assert refuses()
    assert lines() == before


def test_migrate_puts_back_what_is_missing(ada: User) -> None:
    drop_triggers(connection)
    assert not refuses()
    call_command("migrate", verbosity=0)
    assert refuses()


@pytest.mark.one_database
def test_migrate_puts_back_what_a_remade_table_has_lost(ada: User) -> None:
    before = lines()
    with connection.schema_editor() as editor:
        editor._remake_table(CreditEntry)  # type: ignore[attr-defined]  # SQLite's, for most of what alters a table
    assert not refuses(), "SQLite has dropped them"
    call_command("migrate", verbosity=0)
    assert refuses()
    assert lines() == before


def test_the_app_can_be_taken_out_and_put_in_again(ada: User) -> None:
    def migrate_to(*target: str) -> None:
        call_command("migrate", *target, verbosity=0, interactive=False)

    try:
        migrate_to("tryon", "zero")
        assert TABLE not in connection.introspection.table_names()
        assert leftovers() == []
    finally:
        migrate_to()
    LedgerCredits().grant(User.objects.get(pk=ada.pk), 5)
    assert refuses()


def leftovers() -> list[str]:
    """What there is of ours that is no table."""
    catalogue = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT proname FROM pg_proc WHERE proname LIKE 'tryon%'",
    }
    with connection.cursor() as cursor:
        cursor.execute(catalogue[connection.vendor])
        return [name for (name,) in cursor.fetchall()]


class Elsewhere:
    """A host's router that keeps the app out of this database."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return app_label != "tryon"


def test_a_database_that_is_not_the_apps_is_left_alone(ada: User, settings: Settings) -> None:
    drop_triggers(connection)
    settings.DATABASE_ROUTERS = [f"{__name__}.Elsewhere"]
    assert not router.allow_migrate_model("default", CreditEntry)
    call_command("migrate", verbosity=0)
    assert not refuses()


@pytest.mark.one_database
def test_flush_of_a_sqlite_file_is_refused_and_changes_nothing(ada: User) -> None:
    before = lines()
    with pytest.raises(CommandError, match="couldn't be flushed") as caught:
        call_command("flush", interactive=False, verbosity=0)
    assert "append-only" in str(caught.value.__cause__)
    assert lines() == before
    assert User.objects.get() == ada


def test_flush_brings_no_trigger_back(ada: User) -> None:
    drop_triggers(connection)
    call_command("flush", interactive=False, verbosity=0)
    LedgerCredits().grant(User.objects.create_user("grace"), 5)
    assert not refuses()


@pytest.fixture
def in_memory(receiver: None, transactional_db: None) -> Iterator[None]:
    """Another, empty database behind "default", as hosts have it in their tests."""
    on_disk = connections["default"]
    handler = ConnectionHandler({"default": services.database_settings("sqlite:///:memory:")})
    connections["default"] = handler["default"]
    yield
    connections["default"].close()
    connections["default"] = on_disk


@pytest.mark.one_database
def test_a_database_in_memory_can_be_flushed(in_memory: None) -> None:
    call_command("migrate", verbosity=0)
    LedgerCredits().grant(User.objects.create_user("ada"), 5)
    call_command("flush", interactive=False, verbosity=0)
    assert lines() == []
