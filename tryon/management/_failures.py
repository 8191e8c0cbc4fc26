"""How a command ends when it cannot go on: in one line."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from django.core.management.base import CommandError
from django.db import DatabaseError


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Let Ctrl-C end the command with one line, and with the exit code by which shells know it."""
    try:
        yield
    except KeyboardInterrupt:
        # A thread may have work to end, seconds of it. Whoever presses again need not wait.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise CommandError(message, returncode=130) from None


@contextlib.contextmanager
def database_needed() -> Iterator[None]:
    """Let a database that is away, or without our tables, end the command with one line."""
    try:
        yield
    except DatabaseError as error:
        raise CommandError(
            f"The database cannot be used: {words(error)}. Check DATABASES, and run manage.py migrate."
        ) from error


def words(error: BaseException) -> str:
    """What an error says, in one line without a full stop; its class if it says nothing."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__
