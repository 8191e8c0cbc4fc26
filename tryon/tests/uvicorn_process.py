"""A real server process: uvicorn on loopback, with the settings and the database of the test that starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import Settings

from .shop import URL, Shop

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
"""What a test waits for comes long before this, or never."""

SETTINGS = """
from settings.test import *

DATABASES = {databases!r}
MEDIA_ROOT = {media!r}
TRYON = {tryon!r}
"""

APPLICATION = """
import os

from sakura_inference.asgi import application as project


async def application(scope, receive, send):
    async def send_with_pid(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-pid", str(os.getpid()).encode())]
        await send(message)

    await project(scope, receive, send_with_pid)
"""
"""The project's own, each of whose answers tells the process that gave it."""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "It did not come to pass."
        time.sleep(0.02)


class Answer:
    """A response that was read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.pid = int(response.headers.get("X-Pid", 0))
        body = response.read()
        self.json: Any = json.loads(body) if response.headers["Content-Type"] == "application/json" else None


class Client:
    """One connection, kept alive unless the server closes it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._connection.connect()

    def order(self, shop: Shop, **headers: str) -> None:
        """Send a request for a picture, and do not wait for it."""
        headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): headers[name] for name in headers}
        self._connection.request("POST", URL, json.dumps(shop.body), headers)

    def get(self, path: str) -> Answer:
        self._connection.request("GET", path)
        return self.answer()

    def answer(self) -> Answer:
        return Answer(self._connection.getresponse())

    def hang_up(self) -> None:
        self._connection.close()


class Server:
    """A uvicorn process and what it wrote to its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self._clients: list[Client] = []
        self.port = 0

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_listening(self) -> None:
        def said_where() -> bool:
            assert self.process.poll() is None, self.output
            match = re.search(r"running on http://127\.0\.0\.1:(\d+)", self.output)
            self.port = int(match[1]) if match else 0
            return bool(match)

        wait_until(said_where)
        wait_until(self.is_listening)  # with workers, the parent speaks before they listen

    def is_listening(self) -> bool:
        try:
            self.connect().hang_up()
        except ConnectionError:
            return False
        return True

    def connect(self) -> Client:
        client = Client(self.port)
        self._clients.append(client)
        return client

    def get(self, path: str) -> Answer:
        """Ask on a connection of its own."""
        return self.connect().get(path)

    def order(self, shop: Shop, **headers: str) -> Client:
        client = self.connect()
        client.order(shop, **headers)
        return client

    def terminate(self) -> None:
        """Send SIGTERM, and wait until the server says that it has it."""
        self.process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.get("/health/ready").status == 503)

    def wait(self) -> int:
        """Wait for the process to end; its exit code."""
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        for client in self._clients:
            client.hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers, too
        self.process.wait(SECONDS)


@pytest.fixture
def serve(shop: Shop, settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with these options of uvicorn and with the settings of this moment."""
    servers: list[Server] = []

    def start(*options: str, application: str = "sakura_inference.asgi:application") -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        databases = {"default": connection.settings_dict}
        text = SETTINGS.format(databases=databases, media=str(settings.MEDIA_ROOT), tryon=django_settings.TRYON)
        (folder / "settings_of_this_test.py").write_text(text)
        (folder / "application_with_pid.py").write_text(APPLICATION)
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        log = folder / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", application, "--port", "0", "--timeout-keep-alive", "600", *options],
                cwd=ROOT,
                env=keep
                | {
                    "DJANGO_SETTINGS_MODULE": "settings_of_this_test",
                    "PYTHONPATH": str(folder),
                    "TMPDIR": str(folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Whoever starts the tests in the background has them, and what they start, ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        servers.append(Server(process, log))
        servers[-1].wait_until_listening()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
