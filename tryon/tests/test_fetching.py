"""Strangers' URLs: what is fetched, what is refused, and what the client learns of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.files.base import File
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from providers.tests.vendor import Answer, Call, VendorServer
from tryon import bodies, fetching
from tryon.exceptions import ImageTooLarge, ImageUnreachable


def fetch(url: str) -> bytes:
    with asyncio.run(fetching.fetch(url, field="user_image_url")) as photo:
        return bytes(photo.read())


@pytest.fixture
def server(httpserver: HTTPServer, tryon: Callable[..., None]) -> HTTPServer:
    """A server that may be fetched."""
    tryon(FETCH_ALLOWED_HOSTS=[f"{httpserver.host}:{httpserver.port}"], FETCH_TIMEOUT=5)
    return httpserver


def test_the_body_comes_back_as_it_is(server: HTTPServer) -> None:
    server.expect_request("/a.jpg").respond_with_data(b"\xff\xd8 bytes")
    assert fetch(server.url_for("/a.jpg")) == b"\xff\xd8 bytes"
    headers = server.log[0][0].headers
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.jpg",
        "http://localhost/a.jpg",
        "http://[::1]/a.jpg",
        "http://[::ffff:127.0.0.1]/a.jpg",
        "http://2130706433/a.jpg",
        "http://0x7f.1/a.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://10.0.0.1/",
        "http://user:password@example.com/",
        "https://example.com:22/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
        "http://[::1",
        "http://a..b/",
        "http://example.com:99999/",
        "http://xn--/",
        "http://xn--a/",
        "",
    ],
)
def test_blocked_and_unreachable_sound_the_same(
    url: str, tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    tryon(FETCH_ALLOWED_HOSTS=[])
    with pytest.raises(ImageUnreachable) as caught:
        fetch(url)
    assert str(caught.value) == f"user_image_url: {ImageUnreachable.default_detail}"
    assert caught.value.__cause__ is None
    assert "Could not fetch user_image_url: " in log.text
    assert "password" not in log.text


def test_redirects_are_followed_three_times_and_each_is_checked(server: HTTPServer) -> None:
    for step in range(5):
        server.expect_request(f"/{step}").respond_with_data("", 302, {"Location": f"/{step + 1}"})
    server.expect_request("/5").respond_with_data(b"here")
    assert fetch(server.url_for("/2")) == b"here"
    with pytest.raises(ImageUnreachable):
        fetch(server.url_for("/1"))


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://[", "ValueError"),
        ("http://xn--/", "ConnectError|Error"),
        ("ftp://{authority}/b", "the scheme is 'ftp'"),
        ("http://me:secret@{authority}/b", "the URL carries a user name"),
    ],
)
def test_where_a_redirect_leads_is_looked_at_like_any_url(
    tryon: Callable[..., None], log: pytest.LogCaptureFixture, location: str, why: str
) -> None:
    stranger: VendorServer

    def answer(call: Call) -> Answer:
        return Answer(status=302, headers={"location": location.format(authority=f"127.0.0.1:{stranger.port}")})

    with VendorServer(answer) as stranger:
        tryon(FETCH_ALLOWED_HOSTS=[f"127.0.0.1:{stranger.port}"], FETCH_TIMEOUT=5)
        with pytest.raises(ImageUnreachable):
            fetch(f"http://127.0.0.1:{stranger.port}/a")
    assert re.search(why, log.text)
    assert "secret" not in log.text
    assert len(stranger.calls) == 1


def test_the_log_names_the_host_and_not_what_may_be_a_secret_behind_it(
    server: HTTPServer, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ImageUnreachable):
        fetch(server.url_for("/missing?signature=abcdef"))
    [record] = [record for record in log.records if record.name == "tryon.fetching"]
    assert record.__dict__["host"] == f"{server.host}:{server.port}"
    assert "abcdef" not in str(vars(record))


def test_one_byte_more_than_allowed_is_too_much(server: HTTPServer, tryon: Callable[..., None]) -> None:
    server.expect_request("/a").respond_with_data(b"x" * 1001)
    for limit in (1001, 1000):
        tryon(FETCH_ALLOWED_HOSTS=[f"{server.host}:{server.port}"], MAX_IMAGE_BYTES=limit)
        if limit == 1001:
            assert len(fetch(server.url_for("/a"))) == 1001
        else:
            with pytest.raises(ImageTooLarge):
                fetch(server.url_for("/a"))


def test_an_allowed_host_does_not_open_another_by_redirect(server: HTTPServer, log: pytest.LogCaptureFixture) -> None:
    server.expect_request("/evil").respond_with_data("", 302, {"Location": "http://169.254.169.254/"})
    with pytest.raises(ImageUnreachable):
        fetch(server.url_for("/evil"))
    assert "169.254.169.254 is 169.254.169.254, which is not a public address" in log.text


def test_more_bytes_than_allowed_are_not_read(server: HTTPServer, tryon: Callable[..., None]) -> None:
    sent = []

    def endless(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            for _ in range(1000):
                sent.append(1)
                yield b"x" * 100_000

        return Response(chunks())

    server.expect_request("/endless").respond_with_handler(endless)
    tryon(
        FETCH_ALLOWED_HOSTS=[f"{server.host}:{server.port}"],
        MAX_IMAGE_BYTES=250_000,
    )
    with pytest.raises(ImageTooLarge, match="more than 250,000 bytes"):
        fetch(server.url_for("/endless"))
    assert len(sent) < 1000


def test_a_slow_drip_ends_at_the_deadline(server: HTTPServer, tryon: Callable[..., None]) -> None:
    import threading

    enough = threading.Event()

    def drip(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            for _ in range(1000):
                yield b"x"
                if enough.wait(0.05):
                    return

        return Response(chunks())

    server.expect_request("/drip").respond_with_handler(drip)
    tryon(FETCH_ALLOWED_HOSTS=[f"{server.host}:{server.port}"], FETCH_TIMEOUT=0.3)
    with pytest.raises(ImageUnreachable):
        fetch(server.url_for("/drip"))
    enough.set()


@pytest.mark.parametrize(("status", "headers"), [(404, {}), (500, {}), (204, {}), (200, {"Content-Encoding": "gzip"})])
def test_anything_but_a_plain_200_is_unreachable(server: HTTPServer, status: int, headers: Any) -> None:
    server.expect_request("/a").respond_with_data(b"x", status, headers)
    with pytest.raises(ImageUnreachable):
        fetch(server.url_for("/a"))


def test_proxies_of_the_environment_are_ignored(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.expect_request("/a").respond_with_data(b"direct")
    assert fetch(server.url_for("/a")) == b"direct"


def test_a_hundred_clients_that_hang_up_do_not_stop_the_downloads(server: HTTPServer) -> None:
    server.expect_request("/a").respond_with_data(b"x" * 200_000)
    url = server.url_for("/a")

    async def hang_up() -> None:
        for attempt in range(120):
            task = asyncio.create_task(fetching.fetch(url, field="f"))
            # At another step of the download each time: resolving, connecting, asking, reading.
            for _ in range(attempt % 40):
                await asyncio.sleep(0)
            task.cancel()
            for photo in await asyncio.gather(task, return_exceptions=True):
                if isinstance(photo, File):  # it was there a moment before
                    photo.close()
        with await fetching.fetch(url, field="f") as photo:
            assert photo.size == 200_000

    asyncio.run(hang_up())


def test_without_urls_none_is_opened(server: HTTPServer, tryon: Callable[..., None]) -> None:
    tryon(FETCH_URLS=False)
    with pytest.raises(ImageUnreachable, match=r"^user_image_url: .*Send the photo itself"):
        fetch(server.url_for("/a"))
    assert not server.log


@pytest.mark.parametrize("size", [1000, bodies.IN_MEMORY + 1])
def test_a_photo_waits_on_the_disk_if_it_is_large(server: HTTPServer, size: int) -> None:
    server.expect_request("/a").respond_with_data(b"x" * size)
    with asyncio.run(fetching.fetch(server.url_for("/a"), field="f")) as photo:
        assert photo.size == size
        spooled: Any = photo.file
        assert spooled._rolled is (size > bodies.IN_MEMORY)
        assert photo.read() == b"x" * size
