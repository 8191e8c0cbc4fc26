"""The ledger's table refuses to be changed: triggers let lines in, and no line out or over again.

They are in SQLite and PostgreSQL; with another database only the program and the admin leave lines alone. Each
``migrate`` puts them there, and not a migration: SQLite drops them when a later migration remakes the table, and says
nothing.

What they do not see is PostgreSQL's TRUNCATE, which ``flush`` is there, and SQLite's INSERT OR REPLACE, which Django
does not use. On SQLite ``flush`` deletes rows, and is refused. A migration that must rewrite lines, and tests on a
SQLite file, between which Django flushes, call ``drop_triggers()`` first.
"""

from __future__ import annotations

from typing import Any, Final, cast

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .models import CreditEntry

TABLE: Final = CreditEntry._meta.db_table
NAME: Final = f"{TABLE}_append_only"
MESSAGE: Final = (
    f"{TABLE} is append-only: no line of the ledger is changed or deleted. Add a line instead: a grant or a refund."
)

CREATE: Final[dict[str, list[str]]] = {
    "sqlite": [
        f'CREATE TRIGGER IF NOT EXISTS "{NAME}_{event}" BEFORE {event} ON "{TABLE}" '
        f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
        for event in ("update", "delete")
    ],
    "postgresql": [
        # An integrity error, as SQLite's is.
        f'CREATE OR REPLACE FUNCTION "{NAME}"() RETURNS trigger LANGUAGE plpgsql AS $$ '
        f"BEGIN RAISE EXCEPTION USING MESSAGE = '{MESSAGE}', ERRCODE = 'restrict_violation'; END $$",
        f'CREATE OR REPLACE TRIGGER "{NAME}" BEFORE UPDATE OR DELETE ON "{TABLE}" '
        f'FOR EACH ROW EXECUTE FUNCTION "{NAME}"()',
    ],
}
"""By vendor."""

DROP: Final[dict[str, list[str]]] = {
    "sqlite": [f'DROP TRIGGER IF EXISTS "{NAME}_{event}"' for event in ("update", "delete")],
    "postgresql": [f'DROP TRIGGER IF EXISTS "{NAME}" ON "{TABLE}"', f'DROP FUNCTION IF EXISTS "{NAME}"()'],
}


def create_triggers(connection: BaseDatabaseWrapper) -> None:
    """Have the database refuse changes to the ledger, if it does not yet."""
    _execute(connection, CREATE)


def drop_triggers(connection: BaseDatabaseWrapper) -> None:
    """Let the ledger be changed, until the next ``migrate``."""
    _execute(connection, DROP)


def after_migrate(*, using: str, plan: Any = None, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``, which ``flush`` sends as well: without a plan, and it drops no trigger."""
    connection = connections[using]
    if plan is None or _is_in_memory(connection) or not router.allow_migrate_model(using, CreditEntry):
        return
    if TABLE in connection.introspection.table_names():
        create_triggers(connection)
    else:  # migrate went back to where there is none
        drop_triggers(connection)


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    """Whether nothing is kept here anyway. It is where hosts run their tests, and flush between them."""
    return connection.vendor == "sqlite" and bool(cast(Any, connection).is_in_memory_db())


def _execute(connection: BaseDatabaseWrapper, statements: dict[str, list[str]]) -> None:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for statement in statements.get(connection.vendor, []):
            cursor.execute(statement)
