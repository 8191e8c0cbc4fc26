"""Doubles of the vendors: how each of them speaks when all is well, and its own ways to fail.

A double is the ``answer`` of a ``VendorServer``. With ``trouble`` it behaves until the call of that step, which gets
the trouble's answer instead.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from PIL import Image

from providers.base import AIProvider
from providers.errors import (
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, VendorServer

Expected: TypeAlias = type[ProviderError]

KEY = "test-key-0123456789abcdef"
HTML = {"content-type": "text/html"}


def picture(image_format: str = "PNG", color: str = "#b07d62") -> bytes:
    """A small picture that is one."""
    file = io.BytesIO()
    Image.new("RGB", (96, 128), color).save(file, image_format)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong at one step of a run, and what it is to us."""

    name: str
    step: str
    answer: Answer
    expected: Expected
    category: str = ""
    """Of a ``ContentRefused``."""
    retry_after: float | None = None


COMMON: tuple[tuple[str, Answer, Expected], ...] = (
    ("html", Answer(body=b"<html>hello</html>", headers=HTML), InvalidProviderResponse),
    ("empty", Answer(), InvalidProviderResponse),
    ("half a json", Answer(body=b'{"id": "AAAA'), InvalidProviderResponse),
    ("json list", Answer(body=b"[]"), InvalidProviderResponse),
    ("json of nothing", Answer(body=b"{}"), InvalidProviderResponse),
    ("deep json", Answer(body=b"[" * 100_000), InvalidProviderResponse),
    ("truncated", Answer(body=b'{"id": ', missing=100, end="close"), InvalidProviderResponse),
    ("reset in the body", Answer(body=b'{"id": ', missing=9999, end="reset"), InvalidProviderResponse),
    ("400", Answer(status=400), ProviderRejectedInput),
    ("401", Answer(status=401), ProviderMisconfigured),
    ("402", Answer(status=402), ProviderQuotaExceeded),
    ("403", Answer(status=403), ProviderMisconfigured),
    ("404", Answer(status=404, body=b"<html>404</html>", headers=HTML), ProviderMisconfigured),
    ("408", Answer(status=408), ProviderUnavailable),
    ("413", Answer(status=413, body=b"<html>too large</html>", headers=HTML), ProviderRejectedInput),
    ("422", Answer(status=422), ProviderRejectedInput),
    ("429", Answer(status=429), ProviderRateLimited),
    ("429 retry-after", Answer(status=429, headers={"retry-after": "7"}), ProviderRateLimited),
    ("500", Answer(status=500), ProviderUnavailable),
    ("502 html", Answer(status=502, body=b"<html>bad gateway</html>", headers=HTML), ProviderUnavailable),
    ("503", Answer(status=503), ProviderUnavailable),
    ("503 retry-after", Answer(status=503, headers={"retry-after": "7"}), ProviderUnavailable),
    ("503 truncated", Answer(status=503, missing=100, end="close"), ProviderUnavailable),
    ("redirect", Answer(status=307, headers={"location": "http://127.0.0.1:1/"}), ProviderMisconfigured),
    ("closed", Answer(raw=b"", end="close"), ProviderUnavailable),
    ("reset", Answer(raw=b"", end="reset"), ProviderUnavailable),
)
"""At every step that is a call of the vendor's API."""

DOWNLOADS: tuple[tuple[str, Answer, Expected], ...] = (
    ("403", Answer(status=403), ProviderUnavailable),
    ("404", Answer(status=404), ProviderUnavailable),
    ("500", Answer(status=500), ProviderUnavailable),
    ("truncated", Answer(body=b"\x89PNG", missing=100, end="close"), ProviderUnavailable),
    ("reset in the body", Answer(body=b"\x89PNG", missing=9999, end="reset"), ProviderUnavailable),
    ("closed", Answer(raw=b"", end="close"), ProviderUnavailable),
    ("gzip", Answer(body=b"\x1f\x8b", headers={"content-encoding": "gzip"}), ProviderUnavailable),
    ("empty", Answer(), InvalidProviderResponse),
    (
        "to a private address",
        Answer(status=302, headers={"location": "http://10.0.0.1/"}),
        InvalidProviderResponse,
    ),
    ("to a file", Answer(status=302, headers={"location": "file:///etc/passwd"}), InvalidProviderResponse),
)
"""Where a picture is downloaded from a URL."""


class Double:
    """Base of the doubles."""

    alias: ClassVar[str]
    backend: ClassVar[str]
    """Dotted path of the provider class."""
    steps: ClassVar[tuple[str, ...]] = ("create",)
    """The calls of one run, in their order; ``download`` is one of a picture and not of the API."""
    overrides: ClassVar[dict[tuple[str, str], Expected]] = {}
    """By step and name of a common trouble: what it is at this vendor, where it is something else."""

    def __init__(self) -> None:
        self.picture = picture()
        self.trouble: Trouble | None = None

    def options(self, server: VendorServer) -> dict[str, Any]:
        """OPTIONS by which the provider finds this double."""
        return {"api_key": KEY, "base_url": server.base_url}

    def step(self, call: Call) -> str:
        """Which step this call is."""
        return "create"

    def behave(self, call: Call) -> Answer:
        """The answer when all is well."""
        raise NotImplementedError

    def own_troubles(self) -> Iterator[Trouble]:
        """The vendor's own ways to fail: refusals in each form, codes, and pictures that are none."""
        yield from ()

    def common_troubles(self, step: str) -> Iterator[Trouble]:
        """What any vendor may answer at this step."""
        for name, answer, expected in DOWNLOADS if step == "download" else COMMON:
            wait = float(answer.headers["retry-after"]) if "retry-after" in answer.headers else None
            yield Trouble(name, step, answer, self.overrides.get((step, name), expected), retry_after=wait)

    def troubles(self) -> Iterator[Trouble]:
        for step in self.steps:
            yield from self.common_troubles(step)
        yield from self.own_troubles()

    def __call__(self, call: Call) -> Answer:
        if self.trouble is not None and self.step(call) == self.trouble.step:
            return self.trouble.answer
        return self.behave(call)

    def provider(self, server: VendorServer, **options: Any) -> AIProvider:
        from django.utils.module_loading import import_string

        cls: type[AIProvider] = import_string(self.backend)
        return cls(self.alias, **self.options(server) | options)


def link(call: Call, path: str) -> str:
    """A URL on the server that was called."""
    return f"http://{call.headers['host']}{path}"
