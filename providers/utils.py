"""What adapters share. Nothing here imports a vendor's SDK or an HTTP library."""

from __future__ import annotations

import asyncio
import contextlib
import math
import operator
import re
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One client per event loop: an async client used from a second loop fails with "Event loop is closed".

    Under ASGI there is one loop and so one client, shared by all requests; under WSGI, in commands and in
    tests loops come and go. ``create`` is called in the loop; ``close`` defaults to the value's ``aclose()``.
    """

    def __init__(
        self,
        create: Callable[[], T],
        close: Callable[[T], Awaitable[object]] = operator.methodcaller("aclose"),
    ) -> None:
        self._create = create
        self._close = close
        self._lock = threading.Lock()
        # Not a WeakKeyDictionary: the client's open connections hold the loop, so no key would ever die.
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    async def get(self) -> T:
        """The running loop's client, made at the first call. Clients of loops that have ended are closed."""
        loop = asyncio.get_running_loop()
        await self._close_orphans()
        with self._lock:
            if loop not in self._values:
                self._values[loop] = self._create()
            return self._values[loop]

    async def aclose(self) -> None:
        """Close the clients of the running loop and of those that have ended. The next ``get()`` makes a new one."""
        loop = asyncio.get_running_loop()
        await self._close_orphans()
        with self._lock:
            value = self._values.pop(loop, None)
        if value is not None:
            await self._close(value)

    async def _close_orphans(self) -> None:
        with self._lock:
            orphans = [self._values.pop(other) for other in list(self._values) if other.is_closed()]
        for orphan in orphans:
            # "Event loop is closed": then its sockets ended with it, and there is nothing left to close.
            with contextlib.suppress(RuntimeError):
                await self._close(orphan)


def check_choice(alias: str, option: str, value: object, allowed: Collection[str]) -> None:
    """Refuse an option whose value is not one of ``allowed``."""
    if value not in allowed:
        raise bad_option(alias, option, value, f"Use one of: {', '.join(allowed)}.")


def bad_option(alias: str, option: str, value: object, advice: str) -> ImproperlyConfigured:
    """The error for an option of this provider: where it stands, what it is, what to write instead."""
    return ImproperlyConfigured(f'TRYON["PROVIDERS"]["{alias}"]["OPTIONS"]["{option}"] is {value!r}. {advice}')


def one_line(value: object, limit: int = 100) -> str:
    """A vendor's short text, such as an error code, made safe for a log line; empty if it is not a text."""
    if not isinstance(value, str):
        return ""
    return re.sub(r"[^\x21-\x7e]+", " ", value).strip()[:limit]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds a vendor asks us to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    ``headers`` must ignore case, as those of every HTTP library do. None if absent, past or not readable.
    """
    with contextlib.suppress(ValueError):
        return _positive(float(headers.get("retry-after-ms", "")) / 1000)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return _positive(float(value))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date without a zone is in UTC: HTTP knows no other.
    return _positive((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _positive(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
