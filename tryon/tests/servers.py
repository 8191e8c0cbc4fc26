"""Real server processes for the tests, the vendor they all ask, and the clients that ask them.

The processes are forked off one that has everything imported (nursery.py). Linux only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import aiohttp
import pytest
from aiohttp import web
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone
from PIL import Image

from tryon.credits import get_credits
from tryon.heartbeat import heartbeat
from tryon.models import ApiKey
from tryon.recovery import Recovered, recover

from .books import assert_books_balance
from .nursery import IS_BUSY, application_name
from .shop import URL, jpeg

ROOT: Final = Path(__file__).resolve().parents[2]
"""The project, where manage.py is."""

HOST: Final = "testserver"
"""The name that all servers have for their clients, as behind a balancer."""

DEADLINE: Final = 60.0
"""Seconds after which something that should happen is taken not to happen. Nothing waits for it that does."""


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Ask again and again until ``condition`` is met; ``what`` it is, for whom it is not."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {DEADLINE:.0f} seconds"
        time.sleep(0.01)


def dice(seed: int) -> random.Random:
    """Chance that is the same each time."""
    return random.Random(seed)  # noqa: S311 - no secret


# Servers


@dataclass(frozen=True)
class Server:
    """A uvicorn process that serves the project."""

    pid: int
    port: int
    handle: int = field(repr=False)
    """A pidfd: it stays this process, even if the kernel gives its number to another."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def is_dead(self) -> bool:
        return bool(select.select([self.handle], [], [], 0)[0])

    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def get(self, path: str) -> bytes:
        """The body that it answers. Raise ``OSError`` if it dies over it."""
        with urllib.request.urlopen(self.url + path, timeout=DEADLINE) as response:
            body: bytes = response.read()
        return body

    def is_idle(self) -> bool:
        """Whether it is done with all that it was sent, also by clients that are gone."""
        return self.get(IS_BUSY) == b"idle"

    def wait(self) -> None:
        """Return when the process has ended, and when its database has noticed."""
        wait_until(self.is_dead, f"the end of {self}")
        if connection.vendor == "postgresql":
            wait_until(lambda: not self._is_connected(), f"the end of the connections of {self}")

    def _is_connected(self) -> bool:
        """Whether PostgreSQL still works on what the process sent it, maybe a commit."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application_name(self.pid)]
            )
            return bool(cursor.fetchone()[0])


Crash: TypeAlias = tuple[str, int, signal.Signals]
"""The point of crashes.py at which a server sends itself a signal, at the how manieth time, and which one."""


class Nursery:
    """The process that servers are forked off."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tryon.tests.nursery"],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.log.parent),
                    "DJANGO_SETTINGS_MODULE": "tryon.tests.server_settings",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # a Ctrl-C is for the tests; they end the servers
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def serve(self, crash: Crash | None, changes: Mapping[str, Any], database: Mapping[str, Any]) -> Server:
        """A new server with these ``changes`` of the settings."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"crash": crash, "settings": changes, "database": database}
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the nursery ended:\n{self.log.read_text()[-4000:]}"
        born = json.loads(answer)
        return Server(**born, handle=os.pidfd_open(born["pid"]))


class Street:
    """The servers of one test, on the tests' own database, with a vendor and a folder for pictures."""

    def __init__(self, nursery: Nursery, vendor: Vendor, media: Path) -> None:
        self.nursery, self.vendor, self.media = nursery, vendor, media
        self._servers: list[Server] = []

    def __enter__(self) -> Self:
        self.media.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.kill()
        for server in self._servers:
            server.wait()
            os.close(server.handle)

    def serve(
        self, *, crash: Crash | None = None, caches: Any = None, options: Mapping[str, Any] | None = None, **tryon: Any
    ) -> Server:
        """Start one more server, with these keys of TRYON, and these OPTIONS of its database."""
        account = {"api_key": "sk-tests", "base_url": f"{self.vendor.url}/v1"}
        ours = {
            "PROVIDER": "openai",
            "PROVIDERS": {"openai": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": account}},
            "FETCH_ALLOWED_HOSTS": [self.vendor.address],
        }
        changes = {"MEDIA_ROOT": str(self.media), "TRYON": settings.TRYON | ours | tryon}
        if caches:
            changes["CACHES"] = caches
        database = connection.settings_dict
        database = database | {"OPTIONS": database["OPTIONS"] | (options or {})}
        self._servers.append(self.nursery.serve(crash, changes, database))
        return self._servers[-1]

    def settle(self, about: str = "") -> Recovered:
        """Recover as if every lease had run out, see that once was enough, and that the books balance.

        Two look at the same time, as processes do that start together.
        """
        later = timezone.now() + timedelta(hours=1)
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(look, [later] * 2)
        heartbeat.beat()
        assert recover(later) == Recovered(), about
        assert_books_balance(self.media, picture(), about)
        ended = [*one.captured, *other.captured, *one.released, *other.released]
        assert len(set(ended)) == len(ended), about
        return Recovered(one.captured + other.captured, one.released + other.released, one.announced + other.announced)


def look(now: datetime | None = None) -> Recovered:
    """Recover in a thread of one's own."""
    try:
        return recover(now)
    finally:
        connections.close_all()


# The vendor


@functools.cache
def picture() -> bytes:
    """The vendor's picture: a PNG that cannot be compressed, so that half of it is a good part of it."""
    out = io.BytesIO()
    Image.effect_noise((128, 160), 100).save(out, "PNG")
    return out.getvalue()


END_USER: Final = re.compile(rb'name="safety_identifier"\r\n\r\n(\w+)\r\n')


class Vendor:
    """Two photos to download, and OpenAI's image API; on the loopback interface, in a thread of its own.

    Answers take ``delay()`` seconds; none is given between ``hold()`` and ``let_go()``.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        """For each picture that was asked for, the user, as the vendor may know them."""
        self.delay: Callable[[], float] = lambda: 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go()
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(DEADLINE)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end, self._open = asyncio.Event(), asyncio.Event()
        self._open.set()
        app = web.Application()
        app.add_routes(
            [
                web.get("/person.jpg", functools.partial(self._photo, jpeg(color="peru"))),
                web.get("/garment.jpg", functools.partial(self._photo, jpeg(color="navy"))),
                web.post("/v1/images/edits", self._edit),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1000)
        await site.start()
        self.address = "{}:{}".format(*runner.addresses[0])
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _photo(self, data: bytes, request: web.Request) -> web.Response:
        return web.Response(body=data, content_type="image/jpeg")

    async def _edit(self, request: web.Request) -> web.Response:
        found = END_USER.search(await request.read())
        self.calls.append(found[1].decode() if found else "")
        await asyncio.sleep(self.delay())
        await self._open.wait()
        return web.json_response(
            {"created": 1795000000, "data": [{"b64_json": _encoded_picture()}], "output_format": "png"}
        )


@functools.cache
def _encoded_picture() -> str:
    return base64.b64encode(picture()).decode()


# Clients


@dataclass(frozen=True)
class Shopper:
    """A user with credits and a key."""

    user: User
    body: Mapping[str, str]

    @classmethod
    def create(cls, name: str, credits: int, vendor: Vendor) -> Self:  # noqa: A002
        user = get_user_model().objects.create_user(name)
        get_credits().grant(user, credits, reason="test")
        _, key = ApiKey.create_key(user)
        body = {
            "user_id": name,
            "api_key": key,
            "catalog_id": "dress-7",
            "user_image_url": f"{vendor.url}/person.jpg",
            "catalog_image_url": f"{vendor.url}/garment.jpg",
        }
        return cls(user, body)


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def code(self) -> str:
        """The stable code of an error; ``""`` for a picture."""
        code: str = self.body.get("code", "")
        return code

    @property
    def is_replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"


@dataclass(frozen=True)
class Request:
    """One POST to create-image."""

    shopper: Shopper
    key: str = ""
    """Its Idempotency-Key."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """Of the shopper's body."""

    async def send(self, session: aiohttp.ClientSession, server: Server) -> Answer:
        headers = {"Host": HOST} | ({"Idempotency-Key": self.key} if self.key else {})
        body = {**self.shopper.body, **self.changes}
        async with session.post(server.url + URL, json=body, headers=headers) as response:
            return Answer(response.status, response.headers.copy(), await response.json())

    async def send_to_mortal(self, session: aiohttp.ClientSession, server: Server) -> Answer | None:
        """The server's answer; None if it died."""
        try:
            return await self.send(session, server)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            return None


def clients() -> aiohttp.ClientSession:
    """A session for any number of clients at once."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=2 * DEADLINE)
    )


def send(*requests: tuple[Request, Server]) -> list[Answer]:
    """Send all at once; the answers in the order of the requests."""

    async def main() -> list[Answer]:
        async with clients() as session:
            return await asyncio.gather(*(request.send(session, server) for request, server in requests))

    return asyncio.run(main())


# Fixtures


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


@pytest.fixture(scope="session")
def openai() -> Iterator[Vendor]:
    with Vendor() as vendor:
        yield vendor


@pytest.fixture
def vendor(openai: Vendor) -> Iterator[Vendor]:
    """Nobody has called it yet, and it answers at once."""
    openai.calls.clear()
    openai.delay = lambda: 0.0
    yield openai
    openai.let_go()


@pytest.fixture
def street(transactional_db: None, nursery: Nursery, vendor: Vendor, media: Path) -> Iterator[Street]:
    """On the tests' database."""
    with Street(nursery, vendor, media) as street:
        yield street
