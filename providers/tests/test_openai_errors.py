"""What errors of OpenAI's API tell. Which failure is which: ``vendors/openai.py``, by ``test_vendors.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from providers import errors
from providers import openai as adapter

from .asking import failure_of
from .vendor import Answer, VendorServer, openai_error
from .vendors.openai import make


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


def test_the_sdks_own_timeout(vendor: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "READ_TIMEOUT", 0.2)
    vendor.answer = Answer(end="hang")

    assert type(failure_of(make(vendor))) is errors.ProviderTimeout
    assert len(vendor.calls) == 1


def test_prompt_that_cannot_be_encoded(vendor: VendorServer) -> None:
    error = failure_of(make(vendor), prompt="\ud800")

    assert type(error) is errors.ProviderRejectedInput
    assert not vendor.calls
