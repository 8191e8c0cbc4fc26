"""Do something many times, and see how long each time took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def repeat(work: Callable[[], Awaitable[None]], times: int, *, concurrency: int) -> list[float]:
    """Do ``work`` so many times, ``concurrency`` at once; the seconds each took. The first error ends it all."""
    seconds: list[float] = []

    async def worker() -> None:
        nonlocal times
        while times > 0:
            times -= 1
            started = time.perf_counter()
            await work()
            seconds.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, times)):
            group.create_task(worker())
    return seconds
