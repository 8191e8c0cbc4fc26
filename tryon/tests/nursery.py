"""Where the tests' server processes are born: ``python -m tryon.tests.nursery``, driven by servers.py.

To start Django and uvicorn takes two seconds, too long for a hundred servers that live for less than one. This
process does it once, and forks a server for each line on stdin, a JSON object with the arguments of ``serve()``; it
answers with a line that has the server's ``pid`` and ``port``. It has no thread, no event loop and no connection that
a server could inherit. When stdin ends it ends, and its servers with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import sys
import threading
from typing import Any, Final

import uvicorn
import uvicorn.protocols.http.auto
from django.test import override_settings

from .services import put_behind_default

PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that the kernel sends to this process when its parent dies."""

BACKLOG: Final = 1000
IS_BUSY: Final = "/tests/is-busy"


def serve(
    application: Any,
    listener: socket.socket,
    *,
    database: dict[str, Any],
    settings: dict[str, Any],
    crash: tuple[str, int, int] | None,
) -> None:
    """Serve until a signal ends this process. ``crash`` is where it sends itself which one (crashes.py)."""
    put_behind_default(database)
    override_settings(**settings).enable()
    if crash:
        from . import crashes

        crashes.crash(*crash)
    config = uvicorn.Config(application, log_config=None, access_log=False, backlog=BACKLOG)
    server = uvicorn.Server(config)
    config.app = _observed(application, server)
    server.run([listener])


def _observed(application: Any, server: uvicorn.Server) -> Any:
    """The application, and a way to ask whether requests, or runs that no request waits for, are under way."""
    from tryon import pipeline

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != IS_BUSY:
            await application(scope, receive, send)
            return
        is_busy = len(server.server_state.tasks) > 1 or pipeline.is_busy()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"busy" if is_busy else b"idle"})

    return observed


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        application = _load()
    assert threading.active_count() == 1, "what a thread holds at a fork is held for ever in the child"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    for line in sys.stdin:
        # Listening by now: a client need not wait for its server to be ready.
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        port = listener.getsockname()[1]
        pid = os.fork()
        if not pid:
            _become_a_server()
            serve(application, listener, **json.loads(line))
            return
        listener.close()
        print(json.dumps({"pid": pid, "port": port}), flush=True)  # noqa: T201 - the protocol


def _load() -> Any:
    """The project's application, with what it would import at its first request."""
    import django.db.backends.postgresql.base  # noqa: F401
    import psycopg_pool  # noqa: F401
    from django.urls import get_resolver

    from providers import http, openai
    from sakura_inference.asgi import application

    openai._import()
    openai._tls()
    http._tls()
    assert get_resolver().url_patterns
    return application


def _become_a_server() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, sys.stdin.fileno())
    os.dup2(nothing, sys.stdout.fileno())
    # By this name PostgreSQL tells which of its connections are ours.
    os.environ["PGAPPNAME"] = application_name(os.getpid())


def application_name(pid: int) -> str:
    return f"tryon-server-{pid}"


if __name__ == "__main__":
    main()
