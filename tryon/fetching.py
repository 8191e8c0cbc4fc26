"""The only place that opens a URL somebody typed."""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import urljoin, urlsplit

from providers import http

from .conf import conf
from .exceptions import ImageTooLarge, ImageUnreachable

logger = logging.getLogger("tryon.fetching")

MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class FetchError(Exception):
    """Why a URL was not fetched, for the log."""


async def fetch(url: str, *, field: str) -> bytes:
    """The body behind ``url``, at most ``MAX_IMAGE_BYTES``, within ``FETCH_TIMEOUT`` seconds.

    Only public addresses are dialled, whatever DNS or redirects say (``providers.http``). Whatever goes wrong
    the client hears one vague ``ImageUnreachable`` that names ``field``; the log says what it was. More bytes
    than allowed raise ``ImageTooLarge``.
    """
    try:
        # A client for each download, not one for all: a pool of httpcore 1.0.9 loses a place for good whenever a
        # download is cancelled, and a hundred clients that hang up would stop all downloads.
        async with (
            asyncio.timeout(conf.FETCH_TIMEOUT),
            http.guarded_client(allowed_hosts=conf.FETCH_ALLOWED_HOSTS, timeout=conf.FETCH_TIMEOUT) as client,
        ):
            return await _follow(client, url, field=field)
    except (FetchError, http.BlockedAddress, http.HTTPError, http.InvalidURL, OSError, ValueError) as error:
        # ValueError: an address that urllib or the international names' encoding cannot read, here or in a redirect.
        # Only the host: paths and queries of signed URLs are secrets.
        logger.warning("Could not fetch %s: %s: %s", field, type(error).__name__, error, extra={"host": _host(url)})
        raise ImageUnreachable(f"{field}: {ImageUnreachable.default_detail}", field=field) from None


async def _follow(client: http.AsyncClient, url: str, *, field: str) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        _check(url)
        async with client.stream("GET", url) as response:
            if response.status_code in REDIRECTS:
                url = urljoin(url, response.headers.get("location", ""))
                continue
            if response.status_code != 200:
                raise FetchError(f"the server answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("the body is compressed although we asked for it plain")
            return await _read(response, field=field)
    raise FetchError(f"more than {MAX_REDIRECTS} redirects")


async def _read(response: http.Response, *, field: str) -> bytes:
    limit = conf.MAX_IMAGE_BYTES
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise ImageTooLarge(f"{field}: the image has more than {limit:,} bytes.", field=field)
    return bytes(body)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise FetchError(f"no valid URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"the scheme is {parts.scheme!r}, not http or https")
    if parts.username is not None or parts.password is not None:
        raise FetchError("the URL carries a user name")


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2][:255]
    except ValueError:
        return ""
