"""The processes of a benchmark: how to start them, ask them for pictures, measure them and end them. Linux only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from .load import repeat

ROOT: Final = Path(__file__).resolve().parents[2]
"""The project, where manage.py is."""

USER: Final = "benchmark"
LIMIT: Final = 16 * 1024 * 1024
"""Bytes of the longest line a process may answer."""
START: Final = 30
"""Seconds a process may take to start."""
END: Final = 10
"""Seconds a process may take to end before it is killed."""


class Maker(Protocol):
    """A process that makes pictures: the server, or the floor."""

    @property
    def pid(self) -> int: ...

    async def make(self, images: int, *, concurrency: int) -> list[float]:
        """Make pictures; the seconds each took."""
        ...


def cpu_seconds(pid: int) -> float:
    """The CPU time, user's and system's, that a process and its threads, the ended ones too, have used so far."""
    # clock_getcpuclockid(3), which Python does not have for other processes.
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int, field: str = "VmHWM") -> int:
    """Resident bytes of a process: at most so far (``VmHWM``), or now (``VmRSS``)."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    if match is None:
        raise LookupError(f"The kernel does not tell {field} of process {pid}.")
    return int(match[1]) * 1024


@dataclass
class Vendor:
    """The fake vendor's process."""

    address: str
    """``host:port``"""

    async def behave(self, *, delay: float, gather: int) -> None:
        """Hold answers until ``gather`` requests wait, then for ``delay`` seconds."""
        async with aiohttp.ClientSession() as session:
            body = {"delay": delay, "gather": gather}
            (await session.post(f"http://{self.address}/behaviour", json=body)).raise_for_status()


@dataclass
class Floor:
    """The bare client's process, asked through a pipe."""

    process: Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def make(self, images: int, *, concurrency: int) -> list[float]:
        assert self.process.stdin and self.process.stdout  # noqa: S101, PT018 - they are pipes
        self.process.stdin.write(json.dumps({"images": images, "concurrency": concurrency}).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("The bare client ended.")
        seconds: list[float] = json.loads(line)
        return seconds


@dataclass
class Server:
    """The measured server's process, asked through HTTP."""

    process: Process
    session: aiohttp.ClientSession
    url: str
    body: dict[str, str]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def make(self, images: int, *, concurrency: int) -> list[float]:
        return await repeat(self.create, images, concurrency=concurrency)

    async def create(self, key: str = "") -> None:
        """Ask for one new picture, under an Idempotency-Key if one is given."""
        headers = {"Idempotency-Key": key} if key else {}
        async with self.session.post(f"{self.url}/api/v1/create-image", json=self.body, headers=headers) as response:
            text = await response.text()
            if response.status != 200:
                raise RuntimeError(f"The server answered {response.status}: {text}")
            if "Idempotent-Replayed" in response.headers:
                raise RuntimeError("The server answered with an old picture.")

    async def wait_until_ready(self) -> None:
        async with asyncio.timeout(START):
            while True:
                if self.process.returncode is not None:
                    raise RuntimeError("The server did not start.")
                try:
                    async with self.session.get(f"{self.url}/health/ready") as response:
                        response.raise_for_status()
                        return
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.1)


@dataclass
class Stage:
    """Where it all happens: a temporary folder, the environment of the processes, the server's user and key."""

    folder: Path
    vendor: Vendor
    environment: dict[str, str]
    key: str = ""

    async def prepare(self, credits: int) -> None:  # noqa: A002
        """Make the tables, a user, a key and the credits for so many pictures, with the project's own commands."""
        await self._manage("migrate", "--verbosity", "0")
        await self._manage("createsuperuser", "--noinput", "--username", USER, "--email", "benchmark@localhost")
        await self._manage("grant_credits", USER, str(credits), "--reason", "benchmark")
        self.key = await self._manage("create_api_key", USER)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        """A new server, as the README starts it, in one process."""
        port = _free_port()
        command = ["-m", "uvicorn", "sakura_inference.asgi:application", "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            _process(*command, environment=self.environment, log=self.folder / "server.log", output=None) as process,
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
        ):
            server = Server(process, session, url, self._body())
            await server.wait_until_ready()
            yield server

    @asynccontextmanager
    async def floor(self) -> AsyncIterator[Floor]:
        """A new bare client."""
        pictures = self.folder / "floor"
        pictures.mkdir(exist_ok=True)
        command = ["-m", "tryon.benchmarks.floor", f"http://{self.vendor.address}", str(pictures)]
        async with _process(*command, environment=self.environment, log=self.folder / "floor.log") as process:
            yield Floor(process)

    async def count_queries(self) -> dict[str, tuple[int, int]]:
        """For each way a run may go: its queries, and the commands that begin and end their transactions."""
        counts: dict[str, tuple[int, int]] = json.loads(
            await self._output("-m", "tryon.benchmarks.queries", self.vendor.address)
        )
        return counts

    def _body(self) -> dict[str, str]:
        return {
            "user_id": USER,
            "api_key": self.key,
            "catalog_id": "dress-7",
            "user_image_url": f"http://{self.vendor.address}/person.jpg",
            "catalog_image_url": f"http://{self.vendor.address}/garment.jpg",
        }

    async def _manage(self, *arguments: str) -> str:
        """What a management command prints."""
        return await self._output("manage.py", *arguments)

    async def _output(self, *arguments: str) -> str:
        """What a process prints that ends by itself."""
        log = self.folder / "manage.log"
        async with (
            asyncio.timeout(2 * START),
            _process(*arguments, environment=self.environment, log=log) as child,
        ):
            output, _ = await child.communicate()
            if child.returncode:
                raise RuntimeError(f"{' '.join(arguments[:2])} failed.")
        return output.decode().strip()


@asynccontextmanager
async def stage(folder: Path, database: str) -> AsyncIterator[Stage]:
    """Start the vendor, and choose the environment of everything else."""
    command = ["-m", "tryon.benchmarks.vendor"]
    async with _process(*command, environment=_inherited(), log=folder / "vendor.log") as process:
        assert process.stdout  # noqa: S101 - it is a pipe
        async with asyncio.timeout(START):
            port = (await process.stdout.readline()).decode().strip()
        vendor = Vendor(f"127.0.0.1:{port}")
        yield Stage(folder, vendor, _inherited() | _production(folder, vendor, database))


def _inherited() -> dict[str, str]:
    """What the processes get of our environment: nothing that could change what the server does."""
    return {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or name.startswith("MALLOC_")
    }


def _production(folder: Path, vendor: Vendor, database: str) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tryon.benchmarks.settings",
        "READ_DOT_ENV": "0",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "ALLOWED_HOSTS": "127.0.0.1",
        "SECURE_SSL_REDIRECT": "0",
        "DATABASE_URL": database or f"sqlite:///{folder / 'db.sqlite3'}",
        "THROTTLE_RPM": "1000000",
        "AI_PROVIDER": "openai",
        "OPENAI_API_KEY": "sk-benchmark",
        "OPENAI_BASE_URL": f"http://{vendor.address}/v1",
        "DJANGO_SUPERUSER_PASSWORD": secrets.token_urlsafe(9),
        "TRYON_BENCHMARK_FOLDER": str(folder),
        "TRYON_BENCHMARK_VENDOR": vendor.address,
    }


@asynccontextmanager
async def _process(
    *arguments: str, environment: dict[str, str], log: Path, output: int | None = PIPE
) -> AsyncIterator[Process]:
    """Python with these arguments, in the project's folder; ended in the end. What it says on stderr goes to ``log``.

    An ``output`` of None sends what it says on stdout there too.
    """
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env=environment,
            stdin=PIPE,
            stdout=file if output is None else output,
            stderr=file,
            limit=LIMIT,
        )
        try:
            yield process
        except Exception as error:
            error.add_note(f"The end of the log of {' '.join(arguments[:2])}:\n{log.read_text()[-4000:]}")
            raise
        finally:
            await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(END):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
