"""Downloads: what is announced before a body is read, what counts as time, and servers that send too much of all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from providers import downloads

from .hostile_urls import HOSTILE, SECRET
from .vendor import Answer, Call, VendorServer

LONG = 60.0
"""Seconds: nothing here takes that long, unless it is broken."""


async def get(server: VendorServer, *, max_bytes: int = 1000, timeout: float = LONG, **options: Any) -> bytes:
    host = f"127.0.0.1:{server.port}"
    return await downloads.download(
        f"http://{host}/a", max_bytes=max_bytes, timeout=timeout, allowed_hosts=[host], **options
    )


def raw(head: str, body: bytes = b"") -> Answer:
    return Answer(raw=b"HTTP/1.1 " + head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body, end="close")


# Before the body


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (Answer(body=b"x" * 500), 500),
        (Answer(body=b""), 0),
        (Answer(body=b"x" * 1000), 1000),
        (raw("200 OK", b"x" * 500), 500),
        (raw("200 OK\nContent-Length: 5, 5", b"x" * 5), 5),
        (raw("200 OK\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"), 3),
        (raw("200 OK\nTransfer-Encoding: chunked\nContent-Length: 1", b"3\r\nabc\r\n0\r\n\r\n"), 3),
        (raw("200 OK\nTransfer-Encoding: chunked\nContent-Length: 9999", b"3\r\nabc\r\n0\r\n\r\n"), 3),
    ],
)
def test_a_body_arrives_however_it_is_framed(answer: Answer, size: int) -> None:
    with VendorServer(answer) as server:
        assert len(asyncio.run(get(server))) == size


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body=b"x"),
        Answer(status=206, body=b"x"),
        raw("204 No Content"),
        raw("304 Not Modified\nLocation: /b"),
        raw("300 Multiple Choices\nLocation: /b\nContent-Length: 0"),
        raw("101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade"),
        raw("200 OK\nContent-Encoding: gzip", b"x"),
        raw("200 OK\nTransfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
        raw("200 OK\nContent-Length: -1", b"x"),
        raw("200 OK\nContent-Length: +1", b"x"),
        raw("200 OK\nContent-Length: 1\nContent-Length: 2", b"xy"),
        raw("200 OK\nno colon", b"x"),
        raw("302 Found\nContent-Length: 0"),
        Answer(raw=b"not HTTP at all\r\n\r\n", end="close"),
        Answer(raw=b"", end="close"),
    ],
)
def test_what_is_no_plain_answer_with_a_body_is_refused(answer: Answer) -> None:
    with VendorServer(answer) as server, pytest.raises(downloads.DownloadFailed):
        asyncio.run(get(server))


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    with (
        VendorServer(Answer(body=b"x", missing=1000, end="hang")) as server,
        pytest.raises(downloads.TooLarge, match="more than 1,000 bytes"),
    ):
        asyncio.run(get(server))


def test_a_body_that_does_not_say_it_is_stopped() -> None:
    with VendorServer(raw("200 OK", b"x" * 1001)) as server, pytest.raises(downloads.TooLarge):
        asyncio.run(get(server))


def test_a_full_disk_is_not_the_servers_fault() -> None:
    with VendorServer(Answer(body=b"x" * 500)) as server, open("/dev/full", "wb", buffering=0) as full:
        host = f"127.0.0.1:{server.port}"
        with pytest.raises(downloads.NotWritten, match="No space left"):
            asyncio.run(
                downloads.download_to(full, f"http://{host}/a", max_bytes=1000, timeout=LONG, allowed_hosts=[host])
            )


def test_a_body_has_only_the_time_that_its_head_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round, a server would get twice the time."""
    later = 0.0

    def answer(call: Call) -> Answer:
        nonlocal later
        later = LONG - 0.5
        return Answer(body=b"x", missing=9, end="hang")

    async def main(server: VendorServer) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + later)
        with pytest.raises(downloads.DownloadFailed, match="TimeoutError"):
            await get(server)

    started = time.monotonic()
    with VendorServer(answer) as server:
        asyncio.run(main(server))
    assert time.monotonic() - started < LONG / 2


# Servers that send too much


def flood(start: bytes, again: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(start)
                while True:
                    writer.write(again * 1000)
                    await writer.drain()
        finally:
            writer.transport.abort()

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="continue"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", id="early hints"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: ", b"bbbbbbbb", id="one header"),
        pytest.param(b"HTTP/1.1 ", b"20000000", id="status line"),
        pytest.param(b"", b"\r\n", id="empty lines"),
        pytest.param(CHUNKED, b"1\r\nx\r\n", id="tiny chunks"),
        pytest.param(CHUNKED, b"1;" + b"a" * 100 + b"\r\nx\r\n", id="extensions of chunks"),
        pytest.param(CHUNKED + b"0\r\n", b"A: b\r\n", id="trailers"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: /", b"a" * 100, id="location"),
    ],
)
def test_a_flood_of_what_is_no_body_ends_long_before_the_time_does(start: bytes, again: bytes) -> None:
    """Else one URL keeps the event loop, and with it every other request, busy for all of that time."""

    async def main() -> None:
        server = await asyncio.start_server(flood(start, again), "127.0.0.1", 0)
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            with pytest.raises(downloads.DownloadFailed, match="RemoteProtocolError"):
                await downloads.download(f"http://{host}/", max_bytes=10_000_000, timeout=LONG, allowed_hosts=[host])

    asyncio.run(main())


def chunks(size: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"%x\r\n" % size + b"x" * size + b"\r\n"
    yield b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "count"), [(256, 20_000), (1400, 5000), (16_384, 500)])
def test_a_large_body_in_ordinary_chunks_arrives(size: int, count: int) -> None:
    answer = Answer(raw=CHUNKED + b"".join(chunks(size, count)), end="close")
    with VendorServer(answer) as server:
        assert len(asyncio.run(get(server, max_bytes=10_000_000))) == size * count


def test_tiny_chunks_keep_nobody_waiting() -> None:
    async def main(server: VendorServer) -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        assert await get(server, max_bytes=5000) == b"x" * 5000
        task.cancel()
        return turns

    answer = Answer(raw=CHUNKED + b"".join(chunks(1, 5000)), end="close")
    with VendorServer(answer) as server:
        assert asyncio.run(main(server)) >= 5000


def test_a_large_body_in_one_piece_arrives() -> None:
    with VendorServer(Answer(body=b"x" * 9_000_000)) as server:
        assert len(asyncio.run(get(server, max_bytes=10_000_000))) == 9_000_000


# What may be logged


@pytest.mark.parametrize("row", HOSTILE, ids=lambda row: row.name)
def test_the_host_for_the_log_is_one_word_without_secrets(row: Any) -> None:
    host = downloads.host(row.url_on(8000))
    assert host.isascii()
    assert host == "" or host.isprintable()
    assert "\n" not in host
    assert SECRET not in host
    assert "@" not in host


def test_the_host_for_the_log() -> None:
    assert downloads.host(f"https://me:{SECRET}@Media.Example:8443/{SECRET}?{SECRET}") == "media.example:8443"
    assert downloads.host("http://[::1]/") == "::1"
    assert downloads.host("http://[") == ""


def test_a_failure_is_one_line_without_what_follows_the_host() -> None:
    assert str(downloads.DownloadFailed("a\r\nERROR b\u2028c\x1b[31m")) == "a ERROR b c [31m"
