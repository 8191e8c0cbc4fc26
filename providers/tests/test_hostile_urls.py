"""Strangers' URLs, one by one, on a network that would answer: nothing private is dialled, and nothing is touched."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from providers import downloads, http

from .hostile_urls import HOSTILE, PARSERS, PHOTO, PUBLIC, SECRET, USER_INFO, Hostile, Internet, internet
from .vendor import Answer, VendorServer

__all__ = ["internet"]


def download(url: str, *, allowed_hosts: list[str] | None = None) -> bytes:
    return asyncio.run(downloads.download(url, max_bytes=1000, timeout=5, allowed_hosts=allowed_hosts or []))


def test_there_are_many_and_each_has_its_own_name_and_trick() -> None:
    assert len(HOSTILE) >= 120
    assert max(Counter(row.name for row in HOSTILE).values()) == 1
    assert max(Counter((row.url_on(8000), row.location, row.answers) for row in HOSTILE).values()) == 1


@pytest.mark.parametrize("row", HOSTILE, ids=lambda row: row.name)
def test_a_hostile_url_is_refused_and_touches_nothing(row: Hostile, internet: Internet) -> None:
    with pytest.raises(downloads.DownloadFailed) as caught:
        download(internet.meet(row))

    assert not internet.touched()
    assert all(http.is_public_address(address) for address in internet.dialled)
    assert internet.dialled == [] or row.location is not None or row.name.startswith("rebinding")
    why = str(caught.value)
    assert why.isascii()
    assert why.isprintable()
    assert SECRET not in why


@pytest.mark.parametrize("row", [*USER_INFO, *PARSERS], ids=lambda row: row.name)
def test_what_could_be_read_in_two_ways_is_not_even_looked_up(row: Hostile, internet: Internet) -> None:
    with pytest.raises(downloads.Blocked):
        download(internet.meet(row))
    assert internet.asked == []


LETTERS = "a control character or a backslash"
TWO_WAYS = "can be read in two ways"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://stranger.test/a\\b", LETTERS),
        ("http://stranger.test/a\tb", LETTERS),
        ("http://stranger.test/photo\n", LETTERS),
        ("http://stranger\u3002test/photo", TWO_WAYS),
        ("http://stranger.test\uff0e/photo", TWO_WAYS),
        ("http://stranger.test:0/photo", TWO_WAYS),
        ("http://%73tranger.test/photo", "no name and no address"),
        ("http://stranger,test/photo", "no name and no address"),
        ("http://stranger.test /photo", "no name and no address"),
        ("http://[::1%25lo]/", "no name and no address"),
        ("http://@stranger.test/photo", "user name"),
        (f"http://me:{SECRET}\uff03@stranger.test/photo", "no valid URL: ValueError$"),
        ("gopher://stranger.test/", "the scheme is 'gopher', not http or https"),
        (f"https://{PUBLIC}:22/", "port 22 is not allowed"),
        ("http://localhost/", "localhost is 127.0.0.1, which is not a public address"),
    ],
)
def test_the_operator_learns_why(internet: Internet, url: str, why: str) -> None:
    with pytest.raises(downloads.Blocked, match=why):
        download(url)
    assert internet.dialled == []


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("/a\\b", LETTERS),
        ("\\\\127.0.0.1\\", LETTERS),
        ("http:\\\\127.0.0.1\\", f"InvalidURL|{LETTERS}"),  # httpx reads every Location itself, httpx2 does not
        ("/a\tb", f"non-printable|{LETTERS}"),
        ("http://127\u30020.0.1/", TWO_WAYS),
    ],
)
def test_a_redirect_that_could_be_read_in_two_ways_is_refused(location: str, why: str) -> None:
    with (
        VendorServer(Answer(status=302, headers={"location": location})) as server,
        pytest.raises(downloads.DownloadFailed, match=why),
    ):
        download(f"http://127.0.0.1:{server.port}/", allowed_hosts=[f"127.0.0.1:{server.port}"])


@pytest.mark.parametrize("row", [row for row in HOSTILE if row.location is not None], ids=lambda row: row.name)
def test_a_host_that_is_open_by_name_opens_nothing_by_redirects(row: Hostile, internet: Internet) -> None:
    host = f"127.0.0.1:{internet.stranger.port}"
    internet.meet(row)
    with pytest.raises(downloads.DownloadFailed):
        download(f"http://{host}{row.url_on(0).partition('.test')[2]}", allowed_hosts=[host])

    assert internet.stranger.calls
    assert not internet.touched()


def test_what_is_not_hostile_arrives(internet: Internet) -> None:
    """Else all of the above could be refused for another reason."""
    for url in ("http://stranger.test/photo", "HTTP://Stranger.TEST.:80/photo?a=b c#d", f"http://{PUBLIC}/photo"):
        assert download(url) == PHOTO
    assert set(internet.dialled) == {PUBLIC}


def test_the_listener_is_there(internet: Internet) -> None:
    """Else nobody could touch it."""
    for host in ("localhost", "127.0.0.1"):
        with pytest.raises(downloads.DownloadFailed):
            asyncio.run(
                downloads.download(
                    f"http://{host}:{internet.port}/",
                    max_bytes=1,
                    timeout=0.2,
                    allowed_hosts=[f"{host}:{internet.port}"],
                )
            )
        assert internet.touched()


def test_a_redirect_may_lead_to_a_host_that_is_open(internet: Internet) -> None:
    """Whoever made it could have given that URL at once."""
    row = next(row for row in HOSTILE if row.name == "redirect: to localhost")
    with pytest.raises(downloads.DownloadFailed):
        asyncio.run(
            downloads.download(
                internet.meet(row), max_bytes=1, timeout=0.5, allowed_hosts=[f"localhost:{internet.port}"]
            )
        )
    assert internet.touched()
