"""Bodies that are too large are refused before Django writes them to the disk, all of them, whoever sends them.

A host puts it around Django's application::

    application = Lifespan(BodyLimit(get_asgi_application()))

It holds for every address that the application serves: where others of a host's take larger bodies, leave it out and
have the proxy limit those of ``/api/v1/create-image``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from .conf import conf

# asgi.py imports this module before Django is set up.

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]

LINGER: Final = 2
"""Times the limit that are read and thrown away before the refusal is sent: a client that is cut off as it sends does
not read why. Whoever announces more than that hears it at once."""


class BodyLimit:
    """ASGI application that passes requests with at most ``MAX_BODY_BYTES`` of body on to ``application``."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        body = _Body(receive, limit=conf.MAX_BODY_BYTES)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > body.limit:
            if int(length) <= LINGER * body.limit:
                await body.throw_away()
            await _refuse(send, body.limit)
            return
        await self.application(scope, body.receive, send)
        if body.is_too_large:  # Django took the client for gone, and answered nothing
            await body.throw_away()
            await _refuse(send, body.limit)


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


async def _refuse(send: Send, limit: int) -> None:
    detail = f"The body has more than {limit:,} bytes, the limit. Send smaller photos, or their URLs."
    body = json.dumps({"detail": detail, "code": "body_too_large"}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 413, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
