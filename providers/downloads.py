"""The only way a URL that somebody else wrote is opened: a user's, or one in a vendor's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final
from urllib.parse import urljoin, urlsplit

from . import http

MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class DownloadFailed(Exception):
    """Why there is nothing behind a URL. For the log: whoever gave the URL could learn of our network by it."""


class Blocked(DownloadFailed):
    """The URL itself is none that may be followed, or leads to a place that is not public."""


class TooLarge(Exception):
    """More bytes than allowed."""


async def download(url: str, *, max_bytes: int, timeout: float, allowed_hosts: Collection[str] = ()) -> bytes:
    """The body behind ``url``, at most ``max_bytes``, within ``timeout`` seconds.

    Only public addresses are dialled, whatever DNS or redirects say; ``allowed_hosts`` are those of our own that are
    open all the same (``http.guarded_client()``). Raise ``TooLarge``, or ``DownloadFailed`` for everything else.
    """
    try:
        # A client for each download, not one for all: a pool of httpcore 1.0.9 loses a place for good whenever a
        # download is cancelled, and a hundred clients that hang up would stop all downloads.
        async with (
            asyncio.timeout(timeout),
            http.guarded_client(allowed_hosts=allowed_hosts, timeout=timeout) as client,
        ):
            return await _follow(client, url, max_bytes)
    except http.BlockedAddress as error:
        raise Blocked(str(error)) from None
    except (http.InvalidURL, ValueError) as error:
        # ValueError: an address that urllib or the international names' encoding cannot read, here or in a redirect.
        raise Blocked(f"{type(error).__name__}: {error}") from None
    except (http.HTTPError, OSError) as error:
        raise DownloadFailed(f"{type(error).__name__}: {error}") from None


def host(url: str) -> str:
    """The part of ``url`` that may be logged: paths and queries of signed URLs are secrets."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2][:255]
    except ValueError:
        return ""


async def _follow(client: http.AsyncClient, url: str, max_bytes: int) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        _check(url)
        async with client.stream("GET", url) as response:
            if response.status_code in REDIRECTS:
                url = urljoin(url, response.headers.get("location", ""))
                continue
            if response.status_code != 200:
                raise DownloadFailed(f"the server answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise DownloadFailed("the body is compressed although we asked for it plain")
            return await _read(response, max_bytes)
    raise DownloadFailed(f"more than {MAX_REDIRECTS} redirects")


async def _read(response: http.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"more than {max_bytes:,} bytes")
    return bytes(body)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise Blocked(f"no valid URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Blocked(f"the scheme is {parts.scheme!r}, not http or https")
    if parts.username is not None or parts.password is not None:
        raise Blocked("the URL carries a user name")
