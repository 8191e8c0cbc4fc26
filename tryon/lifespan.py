"""The life of a server process under ASGI: what it does before its first request, and once it was told to end.

A host puts it right around Django's application, which knows nothing of ASGI's ``lifespan``::

    application = Lifespan(get_asgi_application())

The first SIGTERM makes the process *drain*. Try-ons under way go on; new ones get a 503 at once, and
``/health/ready`` says that the process is not ready, while ``/health`` and all other pages answer as ever. When the
last try-on is done, or ``DRAIN`` seconds have passed, the server's own handler gets the signal and does what it
always does: it lets the other requests end, and the process. A run that is not done by then has failed; its client
is told so in JSON, and its credits are back.

A second SIGTERM, some seconds later, goes straight to the server, which then decides how long its requests may take;
so does any SIGINT.

How far this goes is the server's choice:

* uvicorn, alone, with ``--workers`` or as a worker of gunicorn, has a handler that can be held back: all of the above.
  gunicorn kills a worker ``graceful_timeout`` seconds (30 by default) after it told it to end.
* A server that has the event loop handle its signals, as hypercorn and granian do, cannot be held back. It takes no
  more connections and gives its requests the time it likes; new ones on connections that are open get the 503.
* Where no SIGTERM can be heard (outside the main thread, on Windows, under a server that leaves the signal to the
  system) the process does not drain. What the server gives up when it ends costs nothing all the same.
* Without ``lifespan``, for which there are servers and options, and under WSGI, all is as without this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any, Final, TypeAlias

from django.db import connections

from .conf import conf
from .dispatch import close_providers

# asgi.py imports this module before Django is set up. What has to do with models is imported when the process lives.

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

GRACE: Final = 10.0
"""Seconds for what takes moments: giving credits back, sending answers."""
LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether all is done, as in uvicorn itself."""
TOLD_TWICE: Final = 2.0
"""Seconds within which a second SIGTERM is the first one again: systemd tells every process of a service, and the
parent of a server's workers then tells them once more."""

logger = logging.getLogger("tryon.lifespan")

_draining: set[_Process] = set()


def is_draining() -> bool:
    """Whether this process was told to end and takes no new try-ons."""
    return bool(_draining)


class Lifespan:
    """ASGI application that answers the scope ``lifespan`` and passes all else on to ``application``."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if _draining and scope["type"] == "http" and scope["http_version"] < "2":
            send = _closing(send)
        await self.application(scope, receive, send)


def _closing(send: Send) -> Send:
    """Have the client open a new connection next time, which another process may take."""

    async def send_and_close(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        await send(message)

    return send_and_close


async def _live(receive: Receive, send: Send) -> None:
    """Speak the ``lifespan`` protocol with the server, to its end."""
    process = _Process()
    try:
        for phase, step in (("startup", process.begin), ("shutdown", process.end)):
            await receive()
            try:
                await step()
            except Exception as error:
                logger.exception("The %s of this process failed.", phase)
                await send({"type": f"lifespan.{phase}.failed", "message": f"{type(error).__name__}: {error}"})
                return
            await send({"type": f"lifespan.{phase}.complete"})
    finally:
        process.let_go()


class _Process:
    """This process, from the server's start to its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server_handler: Callable[[int, FrameType | None], Any] | None = None
        self._server_knows = False
        """Whether the server has begun to end."""
        self._patience = 0.0
        self._told_at: float | None = None
        self._deadline = 0.0
        """Until when what is under way may go on."""

    async def begin(self) -> None:
        from . import recovery

        self._patience = float(conf.DRAIN)
        recovery.now_and_then()
        self._start(self._look_now_and_then())
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._server_handler = handler
            signal.signal(signal.SIGTERM, self._on_sigterm)

    async def end(self) -> None:
        """Settle what is left, when the server's requests are over or given up."""
        from . import pipeline

        self._server_knows = True
        self._stop_tasks()
        if self._told_at is None:
            self._deadline = time.monotonic() + GRACE
        # Django goes on with a request that the server cancelled: its picture would be charged, and nobody's.
        await _quiet(self._deadline, meanwhile=partial(pipeline.stop, outliving=False))
        await _quiet(time.monotonic() + GRACE, meanwhile=pipeline.stop)
        with contextlib.suppress(TimeoutError):  # a database that does not answer does not keep the process
            await asyncio.wait_for(asyncio.to_thread(_beat), GRACE)
        await close_providers()

    def let_go(self) -> None:
        """Leave the process as it was found."""
        self._stop_tasks()
        _draining.discard(self)
        if self._server_handler and signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, self._server_handler)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._server_knows or (self._told_at and now > self._told_at + TOLD_TWICE):
            self._deadline = now
            self._tell_server(number, frame)
        elif self._told_at is None:
            self._told_at, self._deadline = now, now + self._patience
            _draining.add(self)
            self._loop.call_soon_threadsafe(self._start_draining)

    def _tell_server(self, number: int, frame: FrameType | None) -> None:
        assert self._server_handler  # noqa: S101 - we listen in front of it
        self._server_knows = True
        self._server_handler(number, frame)

    def _start_draining(self) -> None:
        self._start(self._drain())

    async def _drain(self) -> None:
        """Hold the signal back while runs are under way; those that take too long end here."""
        from . import pipeline

        logger.info("Told to end. Runs under way get %g seconds, new ones are refused.", self._patience)
        try:
            await _quiet(self._deadline)
            if pipeline.is_busy() and not self._server_knows:
                logger.warning("Runs were under way for more than %g seconds; they end now.", self._patience)
                await _quiet(time.monotonic() + GRACE, meanwhile=pipeline.stop)
        finally:
            if not self._server_knows:
                self._tell_server(signal.SIGTERM, None)

    async def _look_now_and_then(self) -> None:
        """A server that nobody asks for anything looks for what dead processes left, too."""
        from . import recovery

        while conf.RECOVER_EVERY:
            await asyncio.sleep(max(1, conf.RECOVER_EVERY))
            recovery.now_and_then()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _quiet(until: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until nothing is under way any more, at most until this moment, and do something again and again."""
    from . import pipeline

    while pipeline.is_busy() and time.monotonic() < until:
        meanwhile()
        await asyncio.sleep(LOOK_EVERY)


def _beat() -> None:
    """Write down who was told of the ends of the last moments: the signal may end the process before atexit."""
    from .heartbeat import heartbeat

    try:
        heartbeat.stop()
    finally:
        connections.close_all()
