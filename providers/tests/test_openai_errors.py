"""Every failure of OpenAI's API that a loopback server can play, and the error it becomes."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from providers import errors
from providers import openai as adapter
from providers.errors import ProviderError

from .test_openai import KEY, chain, failure_of, make, run
from .vendor import Answer, VendorServer, json_answer, openai_error, try_on_request

HTML = {"content-type": "text/html"}
LEAK = f"Incorrect API key provided: {KEY}. Prompt: Dress the person."

FAILURES: list[tuple[str, Answer, type[ProviderError]]] = [
    ("400", openai_error(400, "invalid_image"), errors.ProviderRejectedInput),
    ("400 model", openai_error(400, "invalid_value", param="size"), errors.ProviderMisconfigured),
    ("400 unknown model", openai_error(400, "model_not_found"), errors.ProviderMisconfigured),
    ("400 billing", openai_error(400, "billing_hard_limit_reached"), errors.ProviderQuotaExceeded),
    ("401", openai_error(401, "invalid_api_key", message=LEAK), errors.ProviderMisconfigured),
    ("401 key in code", openai_error(401, KEY, type=LEAK, param=LEAK), errors.ProviderMisconfigured),
    ("401 key in id", openai_error(401, headers={"x_request_id": LEAK}), errors.ProviderMisconfigured),
    ("402", openai_error(402), errors.ProviderQuotaExceeded),
    ("403", openai_error(403, "organization_must_be_verified"), errors.ProviderMisconfigured),
    ("404", openai_error(404, "model_not_found"), errors.ProviderMisconfigured),
    ("408", openai_error(408), errors.ProviderUnavailable),
    ("409", openai_error(409), errors.ProviderUnavailable),
    ("410", openai_error(410), errors.ProviderMisconfigured),
    ("413 html", Answer(status=413, body=b"<html>too large</html>"), errors.ProviderRejectedInput),
    ("422", openai_error(422), errors.ProviderRejectedInput),
    ("429 quota", openai_error(429, "insufficient_quota"), errors.ProviderQuotaExceeded),
    ("429 quota type", openai_error(429, type="insufficient_quota"), errors.ProviderQuotaExceeded),
    ("429 rate", openai_error(429, "rate_limit_exceeded"), errors.ProviderRateLimited),
    ("429 empty", Answer(status=429), errors.ProviderRateLimited),
    ("500", openai_error(500, "server_error"), errors.ProviderUnavailable),
    ("502 html", Answer(status=502, body=b"<html>bad gateway</html>"), errors.ProviderUnavailable),
    ("503", openai_error(503), errors.ProviderUnavailable),
    ("529", openai_error(529), errors.ProviderUnavailable),
    ("400 list", json_answer([1, 2], 400), errors.ProviderRejectedInput),
    ("400 error is text", json_answer({"error": LEAK}, 400), errors.ProviderRejectedInput),
    ("400 odd types", openai_error(400, code=7, type=[], param={}), errors.ProviderRejectedInput),  # type: ignore[arg-type]
    ("redirect", Answer(status=307, headers={"location": "http://127.0.0.1:1/"}), errors.ProviderMisconfigured),
    ("refused", openai_error(400, "moderation_blocked"), errors.ContentRefused),
    ("refused 500", openai_error(500, message="Rejected by the safety system."), errors.ContentRefused),
    ("refused list", openai_error(400, safety_violations=["sexual"]), errors.ContentRefused),
    ("html", Answer(body=b"<html>hello</html>", headers=HTML), errors.InvalidProviderResponse),
    ("empty body", Answer(), errors.InvalidProviderResponse),
    ("half a json", Answer(body=b'{"data": [{"b64_json": "AAAA'), errors.InvalidProviderResponse),
    ("not utf-8", Answer(body=b'{"data": "\xff"}'), errors.InvalidProviderResponse),
    ("json list", json_answer([]), errors.InvalidProviderResponse),
    ("no data", json_answer({"created": 1}), errors.InvalidProviderResponse),
    ("data null", json_answer({"data": None}), errors.InvalidProviderResponse),
    ("data empty", json_answer({"data": []}), errors.InvalidProviderResponse),
    ("data of null", json_answer({"data": [None]}), errors.InvalidProviderResponse),
    ("picture null", json_answer({"data": [{"b64_json": None}]}), errors.InvalidProviderResponse),
    ("picture empty", json_answer({"data": [{"b64_json": ""}]}), errors.InvalidProviderResponse),
    ("picture number", json_answer({"data": [{"b64_json": 5}]}), errors.InvalidProviderResponse),
    ("picture cut", json_answer({"data": [{"b64_json": "AAAAA"}]}), errors.InvalidProviderResponse),
    ("picture odd", json_answer({"data": [{"b64_json": "A*A="}]}), errors.InvalidProviderResponse),
    ("picture not ascii", json_answer({"data": [{"b64_json": "é" * 8}]}), errors.InvalidProviderResponse),
    ("link", json_answer({"data": [{"url": "https://example.com/a.png"}]}), errors.InvalidProviderResponse),
    ("truncated", Answer(body=b'{"data": [', missing=100, end="close"), errors.InvalidProviderResponse),
    ("reset in the body", Answer(body=b'{"data": [', missing=9999, end="reset"), errors.InvalidProviderResponse),
    ("bad chunks", Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", end="close"),
     errors.InvalidProviderResponse),
    ("bad gzip", Answer(body=b'{"data": []}', headers={"content-encoding": "gzip"}), errors.InvalidProviderResponse),
    ("closed", Answer(raw=b"", end="close"), errors.ProviderUnavailable),
    ("reset", Answer(raw=b"", end="reset"), errors.ProviderUnavailable),
    ("not http", Answer(raw=b"SSH-2.0-OpenSSH_9.9\r\n\r\n", end="close"), errors.InvalidProviderResponse),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failure(
    vendor: VendorServer, answer: Answer, expected: type[ProviderError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    vendor.answer = answer
    provider = make(vendor)

    error = failure_of(provider)

    assert type(error) is expected
    assert len(vendor.calls) == 1, "an adapter never repeats a call"
    assert error.provider == "vendor"
    assert "OpenAI" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 300
    logging.getLogger("test").error("failed", exc_info=error)
    everything = [repr(provider), repr(vars(error)), caplog.text, *traceback.format_exception(error)]
    everything += [f"{link!s} {link!r} {vars(link)!r}" for link in chain(error)]
    for text in everything:
        assert KEY not in text
        assert "Dress the person" not in text.replace("try_on_request", "")


def test_retryable_failures_are_those_of_the_moment() -> None:
    retryable = {name for name, _, error in FAILURES if error.retryable}
    assert retryable == {
        *("408", "409", "429 rate", "429 empty", "500", "502 html", "503", "529"),
        *("closed", "reset"),
    }


def test_failure_names_status_code_and_id(vendor: VendorServer) -> None:
    vendor.answer = openai_error(400, "invalid\nimage", param="image[1]")

    error = failure_of(make(vendor))

    assert str(error) == "OpenAI answered 400 (invalid image for image[1])."
    assert (error.status, error.request_id, error.retry_after) == (400, "req_123", None)


def test_retry_after_may_be_a_date(vendor: VendorServer) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    vendor.answer = openai_error(429, headers={"retry_after": format_datetime(later, usegmt=True)})

    wait = failure_of(make(vendor)).retry_after
    assert wait is not None
    assert 0 <= (later - datetime.now(UTC)).total_seconds() - wait + 60 <= 120


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "later"}, None),
        ({"retry_after": ","}, None),
        ({"retry_after": "1 2 3 4 5 6"}, None),
        ({"retry_after": "Wed, 21 Oct 99999999999 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(vendor: VendorServer, headers: dict[str, str], seconds: float | None) -> None:
    vendor.answer = openai_error(429, "rate_limit_exceeded", headers=headers)

    error = failure_of(make(vendor))

    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("details", "category"),
    [
        ({"moderation_details": {"categories": ["sexual", "violence"]}}, "sexual, violence"),
        ({"moderation_details": {"moderation_stage": "input", "categories": []}}, ""),
        ({"moderation_details": "odd"}, ""),
        ({"safety_violations": ["self-harm"]}, "self-harm"),
        ({"message": "Rejected by the safety system. safety_violations=[sexual]."}, "sexual"),
        ({}, ""),
    ],
)  # fmt: skip
def test_refusal_names_the_category(vendor: VendorServer, details: dict[str, Any], category: str) -> None:
    vendor.answer = openai_error(400, "moderation_blocked", **details)

    error = failure_of(make(vendor))

    assert isinstance(error, errors.ContentRefused)
    assert error.category == category
    assert not error.retryable


def test_refused_connection(vendor: VendorServer, unused_tcp_url: str) -> None:
    error = failure_of(make(vendor, base_url=unused_tcp_url))

    assert type(error) is errors.ProviderUnavailable
    assert not vendor.calls


@pytest.fixture
def unused_tcp_url() -> str:
    with VendorServer(Answer()) as gone:
        return gone.base_url


def test_the_sdks_own_timeout(vendor: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "READ_TIMEOUT", 0.2)
    vendor.answer = Answer(end="hang")

    assert type(failure_of(make(vendor))) is errors.ProviderTimeout
    assert len(vendor.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [Answer(end="hang"), Answer(body=b"{", missing=10, end="hang"), Answer(body=b"[" * 10_000, drip=0.02)],
    ids=["no answer", "half an answer", "slow drip"],
)  # fmt: skip
def test_run_timeout_closes_the_connection(vendor: VendorServer, answer: Answer) -> None:
    vendor.answer = answer
    provider = make(vendor)

    error = failure_of(provider, timeout=0.3)

    assert type(error) is errors.ProviderTimeout
    assert len(vendor.calls) == 1
    assert vendor.hung_up.wait(10)


@pytest.mark.parametrize("answer", [Answer(end="hang"), Answer(body=b"{", missing=10, end="hang")])
def test_cancellation_passes_through_and_closes_the_connection(vendor: VendorServer, answer: Answer) -> None:
    vendor.answer = answer
    provider = make(vendor)

    async def cancel() -> None:
        task = asyncio.create_task(provider.try_on(try_on_request(), timeout=60))
        await asyncio.to_thread(vendor.called.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # While the client is still open: it is the call's own connection that goes.
        assert await asyncio.to_thread(vendor.hung_up.wait, 10)

    run(provider, cancel())


def test_prompt_that_cannot_be_encoded(vendor: VendorServer) -> None:
    error = failure_of(make(vendor), try_on_request(prompt="\ud800"))

    assert type(error) is errors.ProviderRejectedInput
    assert not vendor.calls
