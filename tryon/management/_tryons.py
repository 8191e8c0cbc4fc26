"""One run of the pipeline, from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO, TypeVar
from uuid import uuid4

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from tqdm import tqdm

from .. import pipeline, runs
from ..dispatch import close_providers
from ..exceptions import GenerationFailed, ImageUnreachable, StorageUnavailable, TryOnError
from ..models import TryOn
from ..samples import sample
from ..threads import in_thread
from ._failures import database_needed, words

T = TypeVar("T")

OPTIONS: Final = {
    **dict.fromkeys(("user_image", "user_image_url"), "--user-image"),
    **dict.fromkeys(("catalog_image", "catalog_image_url"), "--catalog-image"),
}
"""What the API's fields are called here."""

NOT_FOR_CLIENTS: Final = (GenerationFailed, ImageUnreachable, StorageUnavailable)
"""Errors that keep their reason from a client. The operator may know it."""


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def demo_photo(name: str) -> Path:
    """Path of a demo photo. Raise ``CommandError``."""
    try:
        return sample(name)
    except TryOnError as error:
        raise CommandError(str(error)) from error


def locations(tryon: TryOn) -> list[str]:
    """Paths of the run's files, the picture first, or their URLs in a storage without paths."""
    names = [tryon.image.name, *tryon.more_images, *filter(None, [tryon.video.name])]
    storage = tryon.image.storage
    try:
        return [str(storage.path(name)) for name in names]
    except NotImplementedError:
        return [str(storage.url(name)) for name in names]


def make_tryon(order: runs.Order, present: Callable[[TryOn], T], *, progress: TextIO | None) -> T:
    """Run ``order`` and return what ``present`` makes of the stored picture, before it is paid for.

    While it runs, show on ``progress`` how long it has been. Raise ``CommandError``, and charge nothing.
    """
    try:
        with _console_without_logs(), database_needed():
            return asyncio.run(_execute(order, present, progress))
    except CommandError:
        raise
    except (TryOnError, ImproperlyConfigured) as error:
        raise CommandError(_explain(error)) from error
    except Exception as error:  # of any storage's or library's own class; --traceback shows where
        raise CommandError(
            f"The try-on failed: {type(error).__name__}: {words(error)}. Nothing was charged."
        ) from error


async def _execute(order: runs.Order, present: Callable[[TryOn], T], progress: TextIO | None) -> T:
    made: list[TryOn] = []

    def answer(tryon: TryOn) -> T:
        made.append(tryon)
        try:
            return present(tryon)
        except CommandError:
            raise
        except Exception as error:  # a storage has errors of its own
            raise CommandError(
                f"The picture was made but could not be handed over: {words(error)}. Nothing was charged."
            ) from error

    async with _clock(progress):
        try:
            order = replace(order, request_id=order.request_id or uuid4().hex)
            told = await pipeline.execute(lambda: order, answer)
            await in_thread(runs.note_delivery, made[-1])
            return told
        finally:
            await close_providers()


def _explain(error: Exception) -> str:
    """The error in one line for the operator: with our options' names, and with what a client is not told."""
    text = f"{words(error)}."
    if isinstance(error, TryOnError) and error.field in OPTIONS:
        text = f"{OPTIONS[error.field]}: {text.removeprefix(f'{error.field}: ')}"
    reason = error.__cause__ or error.__context__
    if isinstance(error, NOT_FOR_CLIENTS) and reason and words(reason) not in text:
        text = f"{text} The reason: {words(reason)}."
    return text


@contextlib.contextmanager
def _console_without_logs() -> Iterator[None]:
    """Keep our own log records off the terminal, and only off it.

    They would be glued to the line that shows the progress, and drown the one that says how it ended.
    """
    handlers = list(_console_handlers())
    for handler in handlers:
        handler.addFilter(_is_not_ours)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in ("tryon", "providers")


def _console_handlers() -> Iterator[logging.Handler]:
    """Every handler that writes to the terminal, whichever logger it hangs on."""
    console = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    for handler in (*handlers, logging.lastResort):
        if isinstance(handler, logging.StreamHandler) and handler.stream in console:
            yield handler


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
