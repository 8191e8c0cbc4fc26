"""Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from django.core.management.base import CommandError


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Let Ctrl-C end the command with one line, and with the exit code by which shells know it."""
    try:
        yield
    except KeyboardInterrupt:
        # A thread may have work to end, seconds of it. Whoever presses again need not wait.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise CommandError(message, returncode=130) from None
