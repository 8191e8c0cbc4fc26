"""One run of the pipeline, from the command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TextIO

from tqdm import tqdm

from .. import pipeline
from ..dispatch import close_providers
from ..models import TryOn


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL rather than a path."""
    return text.lower().startswith(("http://", "https://"))


async def make_tryon(order: pipeline.Order, *, progress: TextIO | None) -> TryOn:
    """Run ``order``; while it runs, show on ``progress`` how long it has been."""
    async with _clock(progress):
        try:
            return await pipeline.execute(lambda: order, lambda tryon: tryon)
        finally:
            await close_providers()


@contextlib.asynccontextmanager
async def _clock(file: TextIO | None) -> AsyncIterator[None]:
    layout = "{desc} {elapsed}"
    with tqdm(
        desc="Making the picture", bar_format=layout, leave=False, file=file, disable=file is None or None
    ) as bar:

        async def tick() -> None:
            while True:
                bar.refresh()
                await asyncio.sleep(0.5)

        ticker = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticker.cancel()
