"""Bodies, headers and addresses of people who try: never a 5xx, never HTML that nobody asked for, nothing charged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from pytest_django import Settings

from providers.fake import FakeProvider
from tryon.body_limit import BodyLimit
from tryon.credits import get_credits
from tryon.exceptions import STATUS
from tryon.models import TryOn
from tryon.request_id import RequestIDFilter

from .hostile_bodies import (
    FIELDS,
    MULTIPART,
    SECTIONS,
    TEXTS,
    VALUES,
    Hostile,
    code_of,
    multipart,
    order,
    part,
    uri,
    written,
)
from .shop import CHARGED, RELEASED, URL, Shop, jpeg
from .uvicorn_process import SECONDS, Server, serve

__all__ = ["serve"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

MOST_SAID = 4000
"""Bytes of a refusal, at most; what was sent may have megabytes."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self.body[:200]
        return json.loads(self.body)


def send(case: Hostile, key: str, application: Any = None) -> Answer:
    """The request over ASGI, as the project's server passes it on."""
    headers = {
        "host": b"testserver",
        "content-type": case.content_type.encode("latin-1"),
        "content-length": str(len(case.body)).encode(),
        "x-api-key": key.encode(),
    }
    headers |= dict(case.headers)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": case.method,
        "path": case.path,
        "query_string": case.query,
        "headers": [(name.encode(), value) for name, value in headers.items()],
        "client": ("198.51.100.7", 5000),
    }

    async def main() -> Answer:
        limited = BodyLimit(application or ASGIHandler())
        connection: Any = ApplicationCommunicator(limited, scope)  # type: ignore[no-untyped-call]
        await connection.send_input({"type": "http.request", "body": case.body})
        start = await connection.receive_output(timeout=30)
        body = b""
        more = True
        while more:
            message = await connection.receive_output(timeout=30)
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await connection.wait()
        sent = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], sent, body)

    return asyncio.run(main())


class Log(logging.Handler):
    """What all loggers write, in the project's format."""

    def __init__(self) -> None:
        super().__init__()
        self.formatter = logging.getLogger("tryon").handlers[0].formatter
        self.addFilter(RequestIDFilter())
        self.records: list[logging.LogRecord] = []
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.text += self.format(record) + "\n"

    def assert_harmless(self) -> None:
        """A line for each record, and nothing that went wrong on our side."""
        entries = [json.loads(line) for line in self.text.splitlines()]
        assert [(entry["level"], entry["logger"]) for entry in entries] == [
            (record.levelname, record.name) for record in self.records
        ]
        for record in self.records:
            assert record.levelno < logging.ERROR, record.getMessage()
            assert record.exc_info is None


@pytest.fixture
def lines() -> Iterator[Log]:
    log = Log()
    loggers = [logging.getLogger(name) for name in ("tryon", "providers", "django", "")]
    for logger in loggers:
        logger.addHandler(log)
    yield log
    for logger in loggers:
        logger.removeHandler(log)


@pytest.fixture
def key(shop: Shop, fake: Callable[..., FakeProvider]) -> str:
    """Of a shopper with many credits, in a shop whose pictures are small."""
    fake(size="16x16")
    get_credits().grant(shop.user, 1000, reason="test")
    return shop.key


def assert_refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status, body["code"]) == (status, code), body
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert len(answer.body) < MOST_SAID
    assert "Traceback" not in body["detail"]
    return body


@contextlib.contextmanager
def named(case: Hostile) -> Iterator[None]:
    """Tell which of many it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"The request: {case.name}")
        raise


@pytest.mark.parametrize("section", SECTIONS)
def test_hostile_requests(shop: Shop, key: str, media: Path, lines: Log, section: str) -> None:
    for case in SECTIONS[section]:
        with named(case):
            before, files = shop.ledger(), set(media.rglob("*"))
            answer = send(case, key)
            charged, added = shop.ledger()[len(before) :], set(media.rglob("*")) - files - {media}
            if case.code:
                body = assert_refused(answer, case.status, case.code)
                said = json.dumps([body["detail"], body.get("errors")], ensure_ascii=False)
                assert charged in ([], RELEASED)
                assert not added
            else:
                body = answer.json()
                assert answer.status == case.status, body
                said = json.dumps(body["warnings"], ensure_ascii=False)
                assert len(body["warnings"]) <= 5
                assert charged == CHARGED
                [file] = added
                assert file.parent == media
                assert re.fullmatch(r"ada_[A-Za-z0-9-]{1,40}_[0-9]+_[0-9a-f]{32}\.png", file.name)
                assert body["image_url"] == f"http://testserver/media/{file.name}"
            assert case.says in said
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers.get("x-request-id", "none"))
            lines.assert_harmless()
    assert lines.records
    gc.collect()  # tells of files that nobody closed


@pytest.mark.parametrize("field", FIELDS)
def test_values_of_the_wrong_type(shop: Shop, key: str, lines: Log, field: str) -> None:
    expected = {name: code_of(field, name) for name in VALUES}
    found = {}
    for name, value in VALUES.items():
        answer = send(Hostile(name, 0, body=written(field, value)), key)
        found[name] = answer.json().get("code", "")
        if found[name]:
            assert_refused(answer, STATUS[found[name]], found[name])
    assert found == expected
    taken = sum(not code for code in expected.values())
    assert shop.ledger()[2:] == CHARGED * taken
    assert TryOn.objects.count() == taken
    lines.assert_harmless()


def test_the_table_is_long_enough() -> None:
    names = [case.name for section in SECTIONS.values() for case in section]
    assert len(set(names)) == len(names) > 200


# In a browser

BROWSER = ("accept", b"text/html,application/xhtml+xml,*/*;q=0.8")


@pytest.mark.parametrize("section", SECTIONS)
def test_hostile_requests_from_a_browser(key: str, lines: Log, section: str) -> None:
    """A page, where the API can make one; and nothing in it that was not there before."""
    for case in SECTIONS[section]:
        with named(case):
            answer = send(replace(case, headers=(BROWSER, *case.headers)), key)
            assert answer.status == (200 if case.method == "GET" else case.status)
            if answer.headers["content-type"] == "application/json":
                answer.json()
            else:
                page = answer.body.decode()
                assert 'name="catalog_id"' in page
                assert "<script>alert" not in page
                assert key not in page
            lines.assert_harmless()
    assert lines.records
    gc.collect()


@pytest.mark.parametrize("field", [*FIELDS, TEXTS["markup"]])
def test_a_page_shows_no_markup_of_a_clients(key: str, field: str) -> None:
    for value in ('"><script>alert(1)</script>', "' onfocus=alert(1) x='", "</textarea><script>alert(1)</script>"):
        body = json.dumps(json.loads(order()) | {field: value}).encode()
        for case in (
            Hostile("JSON", 0, body=body),
            Hostile("multipart", 0, body=multipart(part(field.replace('"', "%22"), value)), content_type=MULTIPART),
            Hostile("header", 0, headers=(("idempotency-key", value.encode() * 9), ("x-request-id", value.encode()))),
            Hostile("type", 0, content_type=f"a/b; x={value}"),
        ):
            answer = send(replace(case, headers=(BROWSER, *case.headers)), key)
            assert answer.status < 500
            assert answer.headers["content-type"].startswith("text/html")
            page = answer.body.decode()
            assert value not in page
            assert "<script>alert" not in page


# Where files are put


@pytest.mark.parametrize("form", [False, True])
def test_a_folder_for_temporary_files_that_is_away_is_said_in_json(
    shop: Shop, key: str, settings: Settings, tmp_path: Path, form: bool
) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "nowhere")
    photo = jpeg() + bytes(100_000)
    case = Hostile("", 500, body=order(user_image=uri(photo)))
    if form:
        case = Hostile("", 500, body=multipart(part("other", photo, file="a.jpg")), content_type=MULTIPART)
    assert_refused(send(case, key), 500, "error")
    assert shop.ledger()[2:] == []


def test_what_goes_wrong_before_there_is_a_request_is_said_in_json(lines: Log) -> None:
    """As where Django cannot write a large body to the disk; a server would answer a text."""

    async def disk_is_full(scope: Any, receive: Any, send: Any) -> None:
        raise OSError("No space left on device")

    assert_refused(send(Hostile("", 500), "", disk_is_full), 500, "error")
    assert [(record.name, record.levelname) for record in lines.records] == [("tryon.body_limit", "ERROR")]


# On the wire


def post(body: bytes, *headers: str, path: str = URL, version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1") + body


def with_length(body: bytes, *headers: str, **options: str) -> bytes:
    return post(body, f"Content-Length: {len(body)}", *headers, **options)


def wire(body: bytes) -> dict[str, tuple[bytes, tuple[int, str] | None]]:
    """What is sent, and status and code of the answer; ``None`` for one of the server's own."""
    length = f"{len(body):x}".encode()
    chunked = length + b"\r\n" + body + b"\r\n0\r\n\r\n"
    te = "Transfer-Encoding: chunked"
    return {
        "an ordinary one": (with_length(body), (200, "")),
        "in chunks": (post(chunked, te), (200, "")),
        "a chunk's extension": (post(chunked.replace(b"\r\n", b';a="b"\r\n', 1), te), (200, "")),
        "a trailer": (post(chunked[:-2] + b"X-Request-ID: evil\r\n\r\n", te), (200, "")),
        "HTTP/1.0": (with_length(body, version="1.0"), (200, "")),
        "no length": (post(b""), (401, "not_authenticated")),
        "an expectation": (with_length(body, "Expect: 100-continue"), (200, "")),
        "an odd expectation": (with_length(body, "Expect: 200-ok"), (200, "")),
        "a path with dots": (with_length(body, path="/api/v1/x/../create-image"), (404, "not_found")),
        "a path with dots, escaped": (with_length(body, path="/api/v1/%2e%2e/v1/create-image"), (404, "not_found")),
        "a path with two slashes": (with_length(body, path=f"/{URL}"), (404, "not_found")),
        "a path that is escaped": (with_length(body, path="/api/v1/create%2Dimage"), (200, "")),
        "a path with a NUL": (with_length(body, path=f"{URL}%00"), (404, "not_found")),
        "a path with a line break": (with_length(body, path=f"{URL}%0d%0aINFO:%20forged"), (404, "not_found")),
        "a path in no UTF-8": (with_length(body, path="/%ff"), (404, "not_found")),
        "a query with a line break": (with_length(body, path=f"{URL}?%0aINFO:%20forged"), (200, "")),
        "a whole address": (with_length(body, path=f"http://evil.example{URL}"), (200, "")),
        "TRACE": (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (405, "method_not_allowed")),
        "a header of bytes": (with_length(body, "X-Request-ID: \xff\xfe"), (200, "")),
        "another address in headers": (
            with_length(body, "X-Forwarded-For: evil", "X-Forwarded-Proto: gopher"),
            (200, ""),
        ),
        "gzip and chunks": (post(chunked, "Transfer-Encoding: gzip, chunked"), (200, "")),
        "a header of 100 kB": (with_length(body, f"X-A: {'x' * 100_000}"), (200, "")),
        # The server's own, before there is a request
        "a query of bytes": (with_length(body, path=f"{URL}?\xff"), None),
        "two lengths": (post(body, f"Content-Length: {len(body)}", "Content-Length: 5"), None),
        "a length and chunks": (post(chunked, f"Content-Length: {len(chunked)}", te), None),
        "a length below zero": (post(body, "Content-Length: -1"), None),
        "a length of 5,000 digits": (post(body, f"Content-Length: {'9' * 5000}"), None),
        "chunks of no size": (post(b"x\r\n" + body, te), None),
        "chunks below zero": (post(b"-5\r\n" + body, te), None),
        "chunks and gzip": (post(chunked, "Transfer-Encoding: chunked, gzip"), None),
        "a space before a colon": (with_length(body, "X-Api-Key : x"), None),
        "a line that goes on": (with_length(body, "X-A: a\r\n b"), None),
        "a NUL in a header": (with_length(body, "X-A: a\0b"), None),
        "a line feed in a header": (with_length(body, "X-A: a\nX-B: b"), None),
        "HTTP/3.7": (with_length(body, version="3.7"), None),
        "nonsense": (b"\x16\x03\x01\x02\0\r\n\r\n", None),
    }


def exchange(port: int, data: bytes) -> tuple[int, str] | None:
    """Status and code of the application's answer; ``None`` if the server has one of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
    if body == b"Invalid HTTP request received.":
        assert response.status == 400
        return None
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(body).get("code", "")


def test_hostile_requests_on_the_wire(shop: Shop, serve: Callable[..., Server]) -> None:
    get_credits().grant(shop.user, 100, reason="test")
    server = serve()
    requests = wire(json.dumps(shop.body).encode())
    found = {name: exchange(server.port, data) for name, (data, _) in requests.items()}
    assert found == {name: expected for name, (_, expected) in requests.items()}
    made = sum(answer == (200, "") for answer in found.values())
    assert shop.ledger()[2:] == CHARGED * made
    assert "Traceback" not in server.output
    _, _, output = server.output.partition("Uvicorn running on")
    for line in output.splitlines()[1:]:
        if line.startswith("{"):
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
        else:  # the server's own
            assert re.match(r'INFO: +[\w.]+:\d+ - "|WARNING: +Invalid HTTP request received', line)
