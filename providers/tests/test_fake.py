"""The provider for tests and demonstrations."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from PIL import Image

from providers.errors import ContentRefused, ProviderError, ProviderTimeout
from providers.fake import ERRORS, FakeProvider

from .asking import try_on
from .vendor import photo


def test_picture_is_a_png_of_the_size() -> None:
    result = try_on(FakeProvider("fake", size="40x64"))

    with Image.open(io.BytesIO(result.data)) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (40, 64))
    assert result.content_type == "image/png"
    assert result.cost_usd == 0


def test_size_is_what_the_options_say() -> None:
    assert FakeProvider("fake", size="40x64").size == "40x64"
    assert FakeProvider("fake").size == "512x768"


def test_color() -> None:
    result = try_on(FakeProvider("fake", size="40x64", color="#FFb7c5"))
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.getpixel((0, 0)) == (0xFF, 0xB7, 0xC5)


@pytest.mark.parametrize("confidence", [None, 0, 0.84, 1])
def test_confidence(confidence: float | None) -> None:
    assert try_on(FakeProvider("fake", confidence=confidence)).confidence == confidence


def test_same_request_same_picture() -> None:
    assert try_on(FakeProvider("one")) == try_on(FakeProvider("two"))


@pytest.mark.parametrize(
    "change", [{"person": photo(b"x")}, {"garment": photo(b"x")}, {"prompt": "x"}, {"seed": 1}, {"seed": 2}]
)
def test_other_request_other_picture(change: dict[str, Any]) -> None:
    assert try_on(FakeProvider("fake"), **change).data != try_on(FakeProvider("fake")).data


def test_calls() -> None:
    provider = FakeProvider("fake")
    for number in range(3):
        try_on(provider, prompt=str(number))
    assert [call.prompt for call in provider.calls] == ["0", "1", "2"]


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_error(code: str) -> None:
    with pytest.raises(ProviderError) as caught:
        try_on(FakeProvider("fake", error=code))
    assert caught.value.code == code
    assert caught.value.provider == "fake"


def test_all_errors_are_known_by_their_code() -> None:
    assert ERRORS["content_refused"] is ContentRefused
    assert ERRORS["provider_timeout"] is ProviderTimeout


def test_delay() -> None:
    start = time.monotonic()
    try_on(FakeProvider("fake", delay=0.05))
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("delay", -1),
        ("delay", "1"),
        ("delay", True),
        ("delay", float("nan")),
        ("delay", float("inf")),
        ("error", "oops"),
        ("size", "0x10"),
        ("size", "5000x10"),
        ("size", None),
        ("color", "red"),
        ("color", "#fff"),
        ("color", None),
        ("confidence", 1.01),
        ("confidence", -0.01),
        ("confidence", float("nan")),
        ("confidence", True),
        ("confidence", "0.5"),
    ],
)
def test_bad_option(option: str, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=option):
        FakeProvider("fake", **{option: value})
