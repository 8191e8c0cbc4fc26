"""No key and no photo gets into a log, whatever a line is made of; and no line is forged or lost."""

from __future__ import annotations

import base64
import io
import json
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from concurrent_log_handler import ConcurrentRotatingFileHandler
from django.conf import settings as django_settings
from django.test import RequestFactory
from pytest_django import Settings

from providers.base import Secret
from providers.tests.vendor import Answer, VendorServer
from providers.tests.vendors import KEY, Double
from providers.tests.vendors.all import DOUBLES
from settings import base
from tryon import signed_urls
from tryon.masking import MaskSecrets, forget_secrets, mask
from tryon.models import ApiKey

from .shop import Shop, jpeg

VENDORS = "vendor-key-of-no-known-form-7"
DATABASES = "p@ss word/7"


@pytest.fixture(autouse=True)
def _secrets(tryon: Callable[..., None], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Secrets in the settings that look like nothing."""
    openai = {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": {"api_key": VENDORS, "model": "gpt-image-2"}}
    fal = {"BACKEND": "providers.fal.FalProvider", "OPTIONS": {"api_key": Secret("another-vendors-key")}}
    tryon(PROVIDERS={"openai": openai, "fal": fal, "fake": {"BACKEND": "providers.fake.FakeProvider"}})
    monkeypatch.setitem(django_settings.DATABASES["default"], "PASSWORD", DATABASES)
    settings.SECRET_KEY = "the-key-of-the-sessions"
    yield
    forget_secrets()


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What the project's handlers write for the logger "masked"."""
    file = io.StringIO()
    handler = {"class": "logging.StreamHandler", "stream": file, "formatter": "json"}
    logging.config.dictConfig(
        {
            **{name: value for name, value in base.LOGGING.items() if name in ("version", "filters", "formatters")},
            "incremental": False,
            "disable_existing_loggers": False,
            "handlers": {"out": {**handler, "filters": base.HANDLERS["console"]["filters"]}},
            "loggers": {"masked": {"handlers": ["out"], "level": "DEBUG", "propagate": False}},
        }
    )
    yield file
    logging.getLogger("masked").handlers.clear()


logger = logging.getLogger("masked")


def raised(text: str) -> Exception:
    """An error with a traceback and a cause, both of which repeat ``text``."""
    try:
        try:
            raise ValueError(f"caused by {text}")
        except ValueError as cause:
            raise RuntimeError(f"failed with {text}") from cause
    except RuntimeError as error:
        return error


class Thing:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f"thing of {self.text}"

    __repr__ = __str__


WAYS: dict[str, Callable[[str], None]] = {
    "message": lambda text: logger.info(f"with {text}."),
    "argument": lambda text: logger.info("with %s, %d", text, 7),
    "argument cut short": lambda text: logger.info("with %.2s", text),
    "repr of an argument": lambda text: logger.info("with %r", {"a": [text]}),
    "mapping": lambda text: logger.info("with %(a)s", {"a": text}),
    "dictionary": lambda text: logger.info({"a": text, "b": {"c": [text]}}),
    "object": lambda text: logger.info("with %s", Thing(text)),
    "object as the message": lambda text: logger.info(Thing(text)),
    "error as the message": lambda text: logger.error(raised(text)),
    "error as an argument": lambda text: logger.error("failed: %s", raised(text)),
    "exception": lambda text: logger.error("failed", exc_info=raised(text)),
    "extra": lambda text: logger.info("with", extra={"a": text}),
    "nested extra": lambda text: logger.info("with", extra={"a": {"b": [{"c": (text, 1)}]}}),
    "extra object": lambda text: logger.info("with", extra={"a": Thing(text)}),
    "extra error": lambda text: logger.info("with", extra={"a": raised(text)}),
    "extra request": lambda text: logger.info("with", extra={"a": RequestFactory().get("/", {"q": f"{text}"})}),
    "extra bytes": lambda text: logger.info("with", extra={"a": text.encode()}),
    "wrong arguments": lambda text: logger.info("with %d", text),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", [VENDORS, "another-vendors-key", "the-key-of-the-sessions", VENDORS.upper()])
def test_the_secrets_of_the_settings_are_masked_wherever_they_stand(out: io.StringIO, way: str, secret: str) -> None:
    WAYS[way](secret)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert json.loads(line)["logger"] == "masked"
    assert secret.lower() not in line.lower()
    assert base64.b64encode(secret.encode()).decode() not in line
    assert way == "argument cut short" or "***" in line


def test_the_stack_is_masked(out: io.StringIO) -> None:
    logger.info("with", stack_info=True)
    assert "test_the_stack_is_masked" in out.getvalue()
    record = logging.makeLogRecord({"msg": "with", "stack_info": f"Stack:\n  f({VENDORS!r})"})
    MaskSecrets().filter(record)
    assert record.stack_info == "Stack:\n  f('***')"


@pytest.mark.parametrize("form", [DATABASES, "p%40ss%20word%2F7", repr(DATABASES)[1:-1]])
def test_a_password_is_masked_as_it_is_written_in_a_url_too(out: io.StringIO, form: str) -> None:
    logger.error("could not connect to postgres://me:%s@host/name", form)
    assert form not in out.getvalue()


def test_changed_settings_count_and_short_ones_do_not(out: io.StringIO, settings: Settings) -> None:
    settings.SECRET_KEY = "the-newer-key-of-the-sessions"
    logger.info("the-newer-key-of-the-sessions")
    settings.SECRET_KEY = "the"
    logger.info("the-newer-key-of-the-sessions, the end")
    first, second = out.getvalue().splitlines()
    assert json.loads(first)["message"] == "***"
    assert json.loads(second)["message"] == "the-newer-key-of-the-sessions, the end"


OURS = "tryon_" + "Ab0-_" * 8 + "xyz"
FAL = "0b1c2d3e-1111-2222-3333-0123456789ab:00112233445566778899aabbccddeeff"
PHOTO = base64.b64encode(jpeg()).decode()
TOKEN = signed_urls.sign(signed_urls.Claim(UUID(int=7), "photo1", 1_795_423_435))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"api_key {OURS}", OURS),
        (f'{{"api_key": "{OURS}x"}}', OURS),
        ("key sk-proj-Abcdefghij0123456789_-x is wrong", "Abcdefghij"),
        ("Incorrect API key provided: sk-abcd1234efgh5678ijkl", "abcd1234"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "SyA123"),
        ("r8_ABCDEFabcdef0123456789ABCDEFabcdef012", "ABCDEF"),
        (f"Key {FAL}", FAL.partition(":")[2]),
        ("ya29.a0AfH6SMBx-0123456789_abcdefghij", "a0AfH6"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIi"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----", "MIIEvQ"),
        ("Authorization: Basic YWRhOnNlY3JldA==", "YWRhOn"),
        ("(b'authorization', b'Key 0123456789abc')", "0123456789abc"),
        ("{'x-key': '0123456789abc'}", "0123456789abc"),
        ("Bearer abcdef0123456789", "abcdef0123456789"),
        ("GET https://a.com/x?key=abcdef&b=1", "abcdef"),
        ("GET https://a.com/x?b=1&api_key=abcdef", "abcdef"),
        ("https://b.s3.amazonaws.com/x.png?X-Amz-Expires=9&X-Amz-Signature=0a1b2c&x=1", "0a1b2c"),
        ("https://acc.blob.core.windows.net/x.png?sv=1&sig=a%2Fb%3D&se=2", "a%2Fb%3D"),
        ("https://a.com/x?a=1&amp;token=abcdef", "abcdef"),
        ("redis://:hunter2hunter2@host:6379/0", "hunter2hunter2"),
        ("postgres://me:hunter2hunter2@host/name", "hunter2hunter2"),
        ("OpenAI(api_key='abcdef', model='x')", "abcdef"),
        ("{'password': 'abcdef'}", "abcdef"),
        (f"https://a.com/shop/api/v1/pictures/{TOKEN}", TOKEN.rpartition(".")[2]),
        (f"/login?next=%2Fapi%2Fv1%2Fpictures%2F{TOKEN}", TOKEN.rpartition(".")[2]),
        ("AccountName=shop;AccountKey=Ab+/0123456789==;EndpointSuffix=core.windows.net", "0123456789"),
        (json.dumps(json.dumps({"api_key": "abcdef", "a": 1})), "abcdef"),
        (json.dumps(json.dumps(json.dumps({"account_key": "abcdef"}))), "abcdef"),
        (repr("'" + repr({"password": "abcdef"}) + '"'), "abcdef"),
        (json.dumps(json.dumps({"Authorization": "Basic YWRhOnNlY3JldA=="})), "YWRhOn"),
        (json.dumps(json.dumps({"x-key": "0123456789abc"})), "0123456789abc"),
        (f"data:image/jpeg;base64,{PHOTO}", PHOTO[:40]),
        (f"DATA:image/jpeg;base64,{PHOTO[:80]}", PHOTO[:40]),
        (f"photo={PHOTO}", PHOTO[40:80]),
        ("\n".join(PHOTO[i : i + 76] for i in range(0, len(PHOTO), 76)), PHOTO[:40]),
        (repr("\n".join(PHOTO[i : i + 76] for i in range(0, len(PHOTO), 76))), PHOTO[:40]),
        (base64.urlsafe_b64encode(jpeg()).decode(), PHOTO[4:14]),
        (f"body {jpeg()!r}", "JFIF"),
    ],
)
def test_what_looks_like_a_key_or_a_photo_is_masked(out: io.StringIO, text: str, hidden: str) -> None:
    assert hidden in text
    logger.info("It was %s, it seems.", text)
    line = out.getvalue()
    assert hidden not in line
    assert "It was " in line
    assert "***" in line


def test_a_photo_in_an_extra_is_told_by_its_size(out: io.StringIO) -> None:
    logger.info("with", extra={"photo": jpeg()})
    assert json.loads(out.getvalue())["photo"] == f"{len(jpeg()):,} bytes"


@pytest.mark.parametrize(
    "text",
    [
        "Refused a request: Invalid HTTP_HOST header: 'a.com'. You may need to add 'a.com' to ALLOWED_HOSTS.",
        'TRYON["PROVIDERS"]["openai"]["OPTIONS"]["api_key"] is empty. Set the environment variable OPENAI_API_KEY.',
        "The request is invalid: api_key: This field is required.",
        "tryon_apikey_prefix_1a2b3c4d_like, tryon_creditentry_one_hold",
        "disk-0123456789abcdef0123, task-0123456789abcdef0123, sk-test",
        "1110de56-0a4c-4a8f-9d4f-0b7b9a1c2d3e at 12:30:59, sha256:" + "0" * 64,
        "https://shop.example.com/media/ada_dress-7_1795423435_0a1b2c3d4e5f.png?width=7&monkey=8",
        json.dumps(json.dumps({"key": "a", "monkey": "b", "Authorization": ""})) + " 2 pictures/0a1b.1.2.x",
        "b'hello', data: none, the bearer of the key, a token",
        "x" * 150,
        "/".join(["srv", "www", "sakura.example.com", "lib", "python3.11", "site-packages"] * 6),
        "naïve Ⅷ ß İ 漢字\n\ttab",
    ],
)
def test_ordinary_lines_stay_the_very_same_object(text: str) -> None:
    assert mask(text, (VENDORS,)) is text


def test_a_record_in_which_nothing_is_masked_stays_as_it_is() -> None:
    """So what other handlers make of exception, arguments and extras works as ever."""
    error = raised("nothing")
    info = (type(error), error, error.__traceback__)
    extra: dict[str, Any] = {"a": {"b": [1, 2.5, None, True, ("x", {"y"})]}, "request": RequestFactory().get("/")}
    args = ("x", Thing("y"))
    record = logging.makeLogRecord({"msg": "%s %s", "args": args, "exc_info": info, **extra})
    before = dict(record.__dict__)
    assert MaskSecrets().filter(record)
    assert record.__dict__.keys() == before.keys()
    assert all(record.__dict__[name] is value for name, value in before.items())


def test_a_secret_by_its_name_is_masked_in_extras(out: io.StringIO) -> None:
    headers = {"Authorization": "abcdefgh", "x-api-key": "abcdefgh", "x-goog-api-key": "abcdefgh"}
    logger.info("with %s", headers, extra={"api_key": "abcdefgh", "a": headers})
    assert "abcdefgh" not in out.getvalue()


def test_nothing_that_is_logged_makes_the_filter_fail(out: io.StringIO) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    endless: dict[str, Any] = {}
    endless["a"] = endless
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    for value in (Rude(), endless, deep, "\ud800", b"\xff", object(), {1: 2}, {("a",): Rude()}, float("nan")):
        record = logging.makeLogRecord({"msg": "%s", "args": (value,), "extra": value})
        assert MaskSecrets().filter(record)
    assert out.getvalue() == ""


def test_no_text_forges_a_line(out: io.StringIO) -> None:
    forged = '\n{"level": "INFO", "message": "all is well"}\r\n\x1b[2K\x1b[1A\u2028\x85\0'
    logger.info("with %s", forged, extra={"a": forged, forged: 1})
    logger.info(forged)
    logger.error("failed", exc_info=raised(forged))
    lines = out.getvalue().splitlines(keepends=True)
    assert len(lines) == 3
    for line in lines:
        assert json.loads(line)["logger"] == "masked"
        assert all(" " <= letter <= "~" for letter in line[:-1])


def hostile(call: Any) -> Answer:
    """What a vendor may say that wants its customer's key in the logs."""
    problem = {"message": f"wrong key {KEY}", "code": KEY, "type": KEY, "status": KEY, "param": KEY, "reason": KEY}
    body = {"error": problem, "errors": [KEY], "name": KEY, "detail": KEY, "id": KEY, "status": KEY}
    headers = dict.fromkeys(("x-request-id", "request-id", "x-fal-request-id", "retry-after"), KEY)
    return Answer(status=401, body=json.dumps(body).encode(), headers={"content-type": "application/json", **headers})


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
@pytest.mark.parametrize("double", [pytest.param(double, id=double.__name__) for double in DOUBLES])
def test_no_providers_key_gets_into_the_log_file(
    double: type[Double], shop: Shop, tryon: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = logging.getLogger("tryon").handlers
    [file] = [Path(each.baseFilename) for each in handlers if isinstance(each, ConcurrentRotatingFileHandler)]
    before = file.stat().st_size if file.exists() else 0
    with VendorServer(hostile) as server:
        options = double().options(server)
        tryon(
            PROVIDER=double.alias,
            PROVIDERS={double.alias: {"BACKEND": double.backend, "OPTIONS": options}},
            RETRIES=0,
            DEADLINE=5,
        )
        assert shop.post().status_code == 502
    if "api_key" in options:
        # And if an adapter failed to keep it out of its errors.
        for name in ("tryon.views", "providers"):
            logging.getLogger(name).error("Unexpected error: %s", hostile(None).body, exc_info=raised(KEY))
    written = file.read_text()[before:]
    assert "provider_misconfigured" in written
    assert KEY not in written
    assert ApiKey.prefix_of(shop.key) not in written
    assert KEY not in capfd.readouterr().err


def test_the_filter_is_on_every_handler_of_the_project() -> None:
    for name in ("", "tryon", "providers", "django"):
        for handler in logging.getLogger(name).handlers:
            if not type(handler).__module__.startswith(("_pytest", "pytest")):
                assert any(isinstance(each, MaskSecrets) for each in handler.filters), (name, handler)


def test_a_line_that_cannot_be_masked_is_left_out_and_its_time_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(sys.modules["tryon.masking"], "mask", fail)
    record = logging.makeLogRecord({"msg": VENDORS, "exc_info": (RuntimeError, RuntimeError(VENDORS), None), "a": 1})
    assert MaskSecrets().filter(record)
    assert VENDORS not in str(record.__dict__)
