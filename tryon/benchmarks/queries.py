"""How many queries one run takes, by how it ends: counted in a process of its own, in the app as it is measured.

``python -m tryon.benchmarks.queries host:port``, the vendor's. The database has tables. The one line on stdout is
``{case: [queries, transaction commands]}``. The provider is the fake one: who makes the picture costs no query.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import AsyncClient, override_settings

Count: TypeAlias = tuple[int, int]
"""Queries, and the commands that begin and end their transactions."""

TRANSACTION: Final = re.compile(r"BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE SAVEPOINT")
HOST: Final = "testserver"
"""What Django's test client calls every server."""
URL: Final = "/api/v1/create-image"
USER: Final = "benchmark-queries"
KEY: Final = "7c9e6679"


@dataclass(frozen=True)
class Case:
    """One request, and what it must be answered."""

    name: str
    status: int
    key: str = ""
    """Its Idempotency-Key."""
    provider: str = "fake"
    is_replayed: bool = False


WARM_UP: Final = Case("warm-up", 200)
"""Not counted: at most once a minute a request also notes the use of its API key."""
CASES: Final = (
    Case("provider failure", 503, provider="broken"),
    Case("success", 200),
    Case("success with a key", 200, key=KEY),
    Case("replay", 200, key=KEY, is_replayed=True),
    Case("no credits", 403),
)
"""In turn, with credits for the warm-up and two pictures."""
CREDITS: Final = 3

APP: Final = {
    "PROVIDERS": {
        "fake": {"BACKEND": "providers.fake.FakeProvider"},
        "broken": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"error": "provider_unavailable"}},
    },
    # What a process does now and then, for all its runs at a time, is not part of one run.
    "LEASE": 3600,
    "RECOVER_EVERY": 0,
}


class Statements(logging.Handler):
    """What Django's log says was sent to the database, by all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(str(record.__dict__["sql"]))

    def count(self) -> Count:
        commands = sum(bool(TRANSACTION.match(statement)) for statement in self.seen)
        return len(self.seen) - commands, commands


@contextlib.contextmanager
def statements() -> Iterator[Statements]:
    """Those of every connection that is made meanwhile. One that is open already may be another thread's."""
    logger = logging.getLogger("django.db.backends")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = Statements()
    logger.addHandler(handler)
    connection_created.connect(_log_statements)
    try:
        yield handler
    finally:
        connection_created.disconnect(_log_statements)
        logger.removeHandler(handler)


def _log_statements(connection: Any, **kwargs: Any) -> None:
    connection.force_debug_cursor = True


def prepare(vendor: str) -> dict[str, str]:
    """The body of the requests of a new user, with a key and credits."""
    from tryon.credits import get_credits
    from tryon.models import ApiKey

    user = get_user_model().objects.create_user(USER)
    get_credits().grant(user, CREDITS, reason="benchmark")
    _, key = ApiKey.create_key(user)
    return {
        "user_id": USER,
        "api_key": key,
        "catalog_id": "dress-7",
        "user_image_url": f"http://{vendor}/person.jpg",
        "catalog_image_url": f"http://{vendor}/garment.jpg",
    }


async def count(body: dict[str, str]) -> dict[str, Count]:
    """The queries of one run of each kind."""
    counts = {}
    for case in (WARM_UP, *CASES):
        with statements() as seen:
            await send(case, body)
        counts[case.name] = seen.count()
    return counts


async def send(case: Case, body: dict[str, str]) -> None:
    headers = {"idempotency-key": case.key} if case.key else {}
    changed = settings.TRYON | APP | {"PROVIDER": case.provider}
    with override_settings(ALLOWED_HOSTS=[HOST], TRYON=changed):
        response = await AsyncClient().post(URL, body, content_type="application/json", headers=headers)
    is_replayed = response.headers.get("Idempotent-Replayed") == "true"
    if (response.status_code, is_replayed) != (case.status, case.is_replayed):
        raise RuntimeError(f"{case.name}: the app answered {response.status_code}: {response.content.decode()}")


def main(vendor: str) -> None:
    django.setup()
    body = prepare(vendor)
    # Or its threads would go on with the connection that was open before anybody listened.
    connections.close_all()
    print(json.dumps(asyncio.run(count(body))), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main(sys.argv[1])
