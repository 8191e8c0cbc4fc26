"""Bodies that are too large are refused before Django writes them to the disk, all of them, whoever sends them.

So is what Django answers in no JSON, as it makes no request of it, and a WebSocket, of which Django knows nothing: its
answer would be a 500. One that reaches another application than Django's is passed on.

A host puts it around Django's application::

    application = Lifespan(BodyLimit(get_asgi_application()))

It holds for every address that the application serves: where others of a host's take larger bodies, leave it out and
have the proxy limit those of ``/api/v1/create-image``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from django.core.handlers.asgi import ASGIHandler
from django.utils.http import parse_header_parameters

from . import request_id
from .conf import conf
from .headers import COMMON, DATA, POLICY

# asgi.py imports this module before Django is set up.

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]

logger = logging.getLogger("tryon.body_limit")

LINGER: Final = 2
"""Times the limit that are read and thrown away before the refusal is sent: a client that is cut off as it sends does
not read why. Whoever announces more than that hears it at once."""


class BodyLimit:
    """ASGI application that passes requests with at most ``MAX_BODY_BYTES`` of body on to ``application``."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and isinstance(self.application, ASGIHandler):
            await receive()  # the handshake, which servers now answer with 403
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        if unreadable := _unreadable(scope):
            await _refuse(scope, send, 400, "parse_error", unreadable)
            return
        body = _Body(receive, limit=conf.MAX_BODY_BYTES)
        length = dict(scope["headers"]).get(b"content-length", b"")
        announced = float(length) if length.isdigit() else 0  # int() refuses 4,301 digits
        if announced > body.limit:
            if announced <= LINGER * body.limit:
                await body.throw_away()
            await _refuse_large(scope, send, body.limit)
            return
        await self._pass_on(scope, body, send)
        if body.is_too_large:  # Django took the client for gone, and answered nothing
            await body.throw_away()
            await _refuse_large(scope, send, body.limit)

    async def _pass_on(self, scope: Any, body: _Body, send: Send) -> None:
        has_begun = False

        async def send_on(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.application(scope, body.receive, send_on)
        except Exception:
            # Django could not make a request of it: the folder for temporary files is full, for instance.
            request_id.current.set(_id(scope))
            logger.exception("Unexpected error before there was a request.")
            if has_begun:
                raise
            await _refuse(scope, send, 500, "error", "Something went wrong on our side.")


class _Body:
    """A request's body, as it comes."""

    def __init__(self, receive: Receive, *, limit: int) -> None:
        self.limit = limit
        self._receive = receive
        self._size = 0
        self._is_over = False

    @property
    def is_too_large(self) -> bool:
        return self._size > self.limit

    async def receive(self) -> Any:
        message = await self._next()
        return {"type": "http.disconnect"} if self.is_too_large else message

    async def throw_away(self) -> None:
        while not self._is_over and self._size <= LINGER * self.limit:
            await self._next()

    async def _next(self) -> Any:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._is_over = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def _unreadable(scope: Any) -> str:
    """What Django cannot read of a request, and answers without a word, or with a 500."""
    try:
        scope.get("query_string", b"").decode()
    except UnicodeDecodeError:
        return "The query string is no UTF-8."
    try:
        parse_header_parameters(b",".join(_headers(scope, b"content-type")).decode("latin-1"))
    except ValueError:
        return "The header Content-Type cannot be read. Send one like application/json."
    return ""


def _id(scope: Any) -> str:
    """The request's id, the same whenever it is asked for."""
    state = scope.setdefault("state", {})
    if "tryon_request_id" not in state:
        sent = b",".join(_headers(scope, request_id.HEADER.lower().encode())).decode("latin-1")
        state["tryon_request_id"] = request_id.choose(sent)
    chosen: str = state["tryon_request_id"]
    return chosen


def _headers(scope: Any, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


async def _refuse_large(scope: Any, send: Send, limit: int) -> None:
    detail = f"The body has more than {limit:,} bytes, the limit. Send smaller photos, or their URLs."
    await _refuse(scope, send, 413, "body_too_large", detail)


async def _refuse(scope: Any, send: Send, status: int, code: str, detail: str) -> None:
    body = json.dumps({"detail": detail, "code": code}).encode()
    told = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        request_id.HEADER: _id(scope),
        **COMMON,
        POLICY: DATA,
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
