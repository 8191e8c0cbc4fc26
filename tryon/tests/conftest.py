"""Every test that touches the database runs twice: on SQLite and on a real PostgreSQL.

Such a test is marked ``django_db`` and uses the fixture ``database``, over which it is parametrised (unless it is
marked ``one_database``). The parameter has the scope of the session, so pytest runs all SQLite tests first, then all
PostgreSQL ones; between the two the fixture puts the other database behind Django's alias "default". PostgreSQL and
Redis come from their wheels and are started when the first test needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connections
from django.db.models.signals import post_migrate
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker, Settings

from tryon.append_only import after_migrate
from tryon.heartbeat import heartbeat

from . import services
from .shop import fake, log, media, operator, photos, shop, staff, stopped_clock, tryon
from .vendors_in_use import alerts, backed_up, gate, pauses, vendor

__all__ = [
    "alerts",
    "backed_up",
    "fake",
    "gate",
    "log",
    "media",
    "operator",
    "pauses",
    "photos",
    "shop",
    "staff",
    "stopped_clock",
    "tryon",
    "vendor",
]

ENGINES = ("sqlite", "postgresql")
AFTER_MIGRATE: dict[str, Any] = {
    "sender": apps.get_app_config("tryon"),
    "dispatch_uid": "tryon.append_only.after_migrate",
}
"""How the receiver is connected that makes the ledger append-only."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    test = metafunc.definition
    if "database" in metafunc.fixturenames:
        marker = test.get_closest_marker("one_database")
        engines = (marker.args or ENGINES[:1]) if marker else ENGINES
        metafunc.parametrize("database", engines, indirect=True, scope="session")
    elif test.get_closest_marker("django_db"):
        raise pytest.UsageError(f"{test.nodeid} has no database. Add pytest.mark.usefixtures('database').")


@pytest.fixture(autouse=True)
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heart beats when a test says so, and not in a thread that another test would meet."""
    monkeypatch.setattr(heartbeat, "_start", lambda: None)
    monkeypatch.setattr(heartbeat, "_alive", {})
    monkeypatch.setattr(heartbeat, "_told", set())


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """The databases are made by the fixture ``database``."""


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server of its own."""
    with services.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server of its own."""
    with services.redis() as url:
        yield url


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Put SQLite or PostgreSQL behind "default", migrated; its name."""
    engine: str = request.param
    before = connections.settings["default"]
    if engine == "postgresql":
        url = request.getfixturevalue("postgresql_url")
        services.put_behind_default(services.database_settings(url))
    with django_db_blocker.unblock():
        if engine == "sqlite":
            # The flush between two tests deletes rows there. Only the tests of the triggers have them.
            assert post_migrate.disconnect(**AFTER_MIGRATE)
        config = setup_databases(verbosity=0, interactive=False)
    yield engine
    with django_db_blocker.unblock():
        connections.close_all()
        services.close_pool(connections["default"])
        teardown_databases(config, verbosity=0)
        services.close_pool(connections["default"])
    services.put_behind_default(before)
    if engine == "sqlite":
        post_migrate.connect(after_migrate, **AFTER_MIGRATE)


@pytest.fixture
def redis_cache(redis_url: str, settings: Settings) -> Callable[[], None]:
    """Redis as the cache, empty."""
    from django.core.cache import cache

    from settings.base import cache as cache_settings

    settings.CACHES = {"default": cache_settings(redis_url)}
    cache.clear()
    return cache.clear
