"""The command: ``python -m tryon.benchmarks``."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from .databases import temporary
from .processes import Floor, Maker, Server, Stage, cpu_seconds, memory, stage

WARM_UP: Final = 10
"""Pictures a new process makes before it is measured."""
DELAY: Final = 2.0
"""Seconds the provider makes the waiting requests wait, from when the last of them has arrived."""
SETTLE: Final = 0.1
"""Seconds a process gets to finish what it does after its last answer."""
PHASE: Final = 300
"""Seconds one phase may take."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    server: float
    floor: float
    compared: str
    """The server beside the floor."""


def main() -> None:
    options = parse()
    if sys.platform != "linux":
        sys.exit("The benchmark reads /proc and needs Linux.")
    raise_open_files(8 * options.waiting + 1000)
    with tempfile.TemporaryDirectory(prefix="tryon-benchmark-") as folder, temporary(options.database) as database:
        rows = asyncio.run(run(options, Path(folder), database))
    say(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tryon.benchmarks",
        description="Measure the running server beside a bare asyncio client that does the same I/O.",
    )
    parser.add_argument("--images", type=int, default=100, help="pictures of one round (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=8, help="pictures at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, interleaved (%(default)s)")
    parser.add_argument("--waiting", type=int, default=500, help="requests that wait together, 0: none (%(default)s)")
    parser.add_argument(
        "--database", default="", metavar="URL", help="a PostgreSQL server, postgres://…, on which a database is made"
    )
    return parser.parse_args()


def raise_open_files(wanted: int) -> None:
    """Allow this process and its children so many open files, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


async def run(options: argparse.Namespace, folder: Path, database: str) -> list[Row]:
    async with stage(folder, database) as where:
        await where.prepare(credits=2 * options.images * (options.rounds + 1) + 2 * options.waiting + 10 * WARM_UP)
        say(f"{surroundings()}, {'PostgreSQL' if database else 'SQLite'}")
        rows: list[Row] = []
        async with both(where) as (server, floor):
            say(f"CPU: {options.rounds} rounds of {options.images} pictures, {options.concurrency} at a time …")
            rows += await cpu(server, floor, options)
            say(f"Latency: {options.images} pictures, one at a time, in turn …")
            rows += await latency(server, floor, options.images)
        if options.waiting:
            say(f"Memory: {options.waiting} requests that wait {DELAY:g} s for the provider …")
            rows += await waiting(where, options.waiting)
    return rows


@asynccontextmanager
async def both(where: Stage) -> AsyncIterator[tuple[Server, Floor]]:
    """A new server and a new bare client, warm."""
    async with where.server() as server, where.floor() as floor:
        async with asyncio.timeout(PHASE):
            for maker in (server, floor):
                await maker.make(WARM_UP, concurrency=2)
        yield server, floor


async def cpu(server: Server, floor: Floor, options: argparse.Namespace) -> list[Row]:
    """CPU per picture: the median of the rounds, and the median of each round's ratio."""
    pairs = []
    async with asyncio.timeout(PHASE):
        for turn in range(options.rounds):
            cost = {}
            makers: list[Maker] = [server, floor]
            for maker in makers if turn % 2 else reversed(makers):
                cost[maker.pid] = await cpu_per_image(maker, options.images, options.concurrency)
            pairs.append((cost[server.pid], cost[floor.pid]))
    ratios = sorted(ours / bare for ours, bare in pairs)
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    compared = f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return [Row("CPU per image, ms", ours * 1000, bare * 1000, compared)]


async def cpu_per_image(maker: Maker, images: int, concurrency: int) -> float:
    """Seconds."""
    before = cpu_seconds(maker.pid)
    await maker.make(images, concurrency=concurrency)
    await asyncio.sleep(SETTLE)
    return (cpu_seconds(maker.pid) - before) / images


async def latency(server: Server, floor: Floor, images: int) -> list[Row]:
    """The time of one picture when nothing else goes on, and what the server adds to it."""
    ours, bare = [], []
    async with asyncio.timeout(PHASE):
        for _ in range(images):
            ours += await server.make(1, concurrency=1)
            bare += await floor.make(1, concurrency=1)
    added = [mine - its for mine, its in zip(ours, bare, strict=True)]
    return [
        Row(f"latency alone, {name}, ms", 1000 * pick(ours), 1000 * pick(bare), f"{1000 * pick(added):+.1f} ms")
        for name, pick in (("p50", statistics.median), ("p99", p99))
    ]


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


async def waiting(where: Stage, requests: int) -> list[Row]:
    """The most memory a new process takes with so many requests inside, and what one of them costs."""
    peaks, costs = [], []
    for start in (where.server, where.floor):
        async with start() as maker, asyncio.timeout(PHASE):
            await maker.make(WARM_UP, concurrency=2)
            await where.vendor.behave(delay=DELAY, gather=requests)
            costs.append(await cpu_per_image(maker, requests, requests))
            await where.vendor.behave(delay=0, gather=1)
            peaks.append(memory(maker.pid))
    return [
        compare(f"peak memory, {requests} waiting, MB", peaks, lambda peak: peak / 1e6),
        compare(f"CPU per image, {requests} waiting, ms", costs, lambda seconds: seconds * 1000),
    ]


def compare(what: str, values: list[float] | list[int], unit: Callable[[float], float]) -> Row:
    ours, bare = values
    return Row(what, unit(ours), unit(bare), f"{ours / bare:.2f} times")


def surroundings() -> str:
    parser = "httptools" if find_spec("httptools") else "h11"
    loop = "uvloop" if find_spec("uvloop") else "asyncio"
    load = os.getloadavg()[0]
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} cores (load {load:.1f}), uvicorn on {loop} and {parser}"
    )


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | server | bare client | server beside it |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {row.what} | {row.server:.1f} | {row.floor:.1f} | {row.compared} |" for row in rows]
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
