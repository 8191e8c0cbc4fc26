"""The only way a URL that somebody else wrote is opened: a user's, or one in a vendor's answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import Collection, Iterator
from typing import IO, Final
from urllib.parse import urljoin, urlsplit

from . import http
from .utils import one_line

MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
SMALL: Final = 512
"""Bytes of a chunk that is not worth keeping the others waiting for: thousands like it may have come at once."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*")
"""A name, a number or an IPv6 address; no zone id, no percent sign, nothing that another program could read anew."""


class DownloadFailed(Exception):
    """Why there is nothing behind a URL. For the log: whoever gave the URL could learn of our network by it.

    The text is one line, and repeats nothing of the URL that was given but its scheme, host and port.
    """

    def __init__(self, why: str) -> None:
        super().__init__(one_line(why, 300))


class Blocked(DownloadFailed):
    """The URL itself is none that may be followed, or leads to a place that is not public."""


class TooLarge(Exception):
    """More bytes than allowed."""


class NotWritten(Exception):
    """The file took no more, as when the disk is full; the cause says why."""


async def download(url: str, *, max_bytes: int, timeout: float, allowed_hosts: Collection[str] = ()) -> bytes:
    """The body behind ``url``, as by ``download_to()``."""
    body = io.BytesIO()  # gives out what it holds without a copy
    await download_to(body, url, max_bytes=max_bytes, timeout=timeout, allowed_hosts=allowed_hosts)
    return body.getvalue()


async def download_to(
    file: IO[bytes], url: str, *, max_bytes: int, timeout: float, allowed_hosts: Collection[str] = ()
) -> None:
    """Write the body behind ``url`` to ``file``, at most ``max_bytes``, within ``timeout`` seconds.

    Only public addresses are dialled, whatever DNS or redirects say; ``allowed_hosts`` are those of our own that are
    open all the same (``http.guarded_client()``). Raise ``TooLarge``, ``NotWritten``, or
    ``DownloadFailed`` for everything else.
    """
    # A client for each download, not one for all: a pool of httpcore 1.0.9 loses a place for good whenever a
    # download is cancelled, and a hundred clients that hang up would stop all downloads.
    with _failures():
        async with (
            asyncio.timeout(timeout),
            http.guarded_client(allowed_hosts=allowed_hosts, timeout=timeout) as client,
            contextlib.aclosing(await _follow(client, url)) as response,
        ):
            _check_head(response, max_bytes)
            await _read(response, max_bytes, file)


def host(url: str) -> str:
    """The part of ``url`` that may be logged: paths and queries of signed URLs are secrets."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return ""
    return one_line(f"{parts.hostname or ''}{port}", 255)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Whatever goes wrong inside as ``DownloadFailed``."""
    try:
        yield
    except http.BlockedAddress as error:
        raise Blocked(str(error)) from None
    except (http.InvalidURL, ValueError) as error:
        raise Blocked(f"{type(error).__name__}: {error}") from None
    except (http.HTTPError, OSError) as error:
        raise DownloadFailed(f"{type(error).__name__}: {error}") from None


async def _follow(client: http.AsyncClient, url: str) -> http.Response:
    """What is there in the end, its body not read yet."""
    for _ in range(MAX_REDIRECTS + 1):
        target = _check_url(url)
        response = await client.send(client.build_request("GET", target), stream=True)
        if response.status_code not in REDIRECTS:
            return response
        await response.aclose()
        locations = response.headers.get_list("location")
        if len(locations) != 1:
            raise DownloadFailed(f"a redirect to {len(locations)} places")
        _check_letters(locations[0])
        url = urljoin(str(target), locations[0])
    raise DownloadFailed(f"more than {MAX_REDIRECTS} redirects")


def _check_url(url: str) -> http.URL:
    """``url`` as it will be dialled.

    Two parsers read it. Where they disagree it is refused, so that what one of them sees is what the other dials.
    """
    _check_letters(url)
    try:
        seen, dialled = urlsplit(url), http.URL(url)
        port, names = seen.port, (dialled.raw_host.decode("ascii").lower(), dialled.host.lower())
    except (http.InvalidURL, ValueError) as error:
        # Only its type: the text may repeat a password.
        raise Blocked(f"no valid URL: {type(error).__name__}") from None
    if seen.scheme not in DEFAULT_PORTS:
        raise Blocked(f"the scheme is {seen.scheme!r}, not http or https")
    if "@" in seen.netloc:
        raise Blocked("the URL carries a user name")
    if not seen.hostname or not _HOST.fullmatch(names[0]):
        raise Blocked("the URL's host is no name and no address")
    default = DEFAULT_PORTS[seen.scheme]
    is_same = (seen.scheme, port or default) == (dialled.scheme, dialled.port or default) and seen.hostname in names
    if not is_same or port == 0:
        raise Blocked("the URL can be read in two ways")
    return dialled


def _check_letters(url: str) -> None:
    """Refuse what parsers drop or turn, each in its own way."""
    if re.search(r"[\x00-\x1f\x7f\\]", url):
        raise Blocked("the URL has a control character or a backslash")


def _check_head(response: http.Response, max_bytes: int) -> None:
    if response.status_code != 200:
        raise DownloadFailed(f"the server answered {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DownloadFailed("the body is compressed although we asked for it plain")
    length = response.headers.get("content-length", "")
    is_framed_by_it = "transfer-encoding" not in response.headers and re.fullmatch(r"[0-9]{1,18}", length)
    if is_framed_by_it and int(length) > max_bytes:
        raise TooLarge(f"more than {max_bytes:,} bytes")


async def _read(response: http.Response, max_bytes: int, file: IO[bytes]) -> None:
    size = 0
    async for chunk in response.aiter_raw():
        http.count_as_body(response, len(chunk))
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"more than {max_bytes:,} bytes")
        try:
            file.write(chunk)
        except OSError as error:
            raise NotWritten(f"{type(error).__name__}: {error}") from error
        if len(chunk) < SMALL:
            await asyncio.sleep(0)
