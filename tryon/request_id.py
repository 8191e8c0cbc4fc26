"""One id for everything that belongs to one request: its response, its run, its log lines."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER: Final = "X-Request-ID"
ACCEPTABLE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

current: ContextVar[str] = ContextVar("tryon_request_id", default="")
"""The id of the request that the running code works for."""


def choose(sent: str) -> str:
    """What a client sent as its request's id, if it is harmless, else a new one."""
    return sent if ACCEPTABLE.fullmatch(sent) else uuid.uuid4().hex


def assign(request: HttpRequest) -> str:
    """The request's id: what the client sent, if it is harmless, else a new one. Assigned once."""
    request_id: str | None = getattr(request, "tryon_request_id", None)
    if request_id is None:
        request_id = choose(request.headers.get(HEADER, ""))
        request.tryon_request_id = request_id  # type: ignore[attr-defined]
        current.set(request_id)
    return request_id


@sync_and_async_middleware
def request_id_middleware(
    get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]:
    """Put the id on every response. The try-on views do so themselves where this is not installed."""
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            request_id = assign(request)
            response: HttpResponseBase = await get_response(request)
            response.headers.setdefault(HEADER, request_id)
            return response

        return async_middleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request_id = assign(request)
        response = get_response(request)
        assert not isinstance(response, Awaitable)  # noqa: S101 - tells the type checker
        response.headers.setdefault(HEADER, request_id)
        return response

    return middleware


class RequestIDFilter(logging.Filter):
    """Add ``request_id`` to every log record that does not carry one yet."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = current.get()
        return True
