"""A provider without a vendor, for tests and demonstrations: free, offline and always the same."""

from __future__ import annotations

import asyncio
import hashlib
import re
import struct
import zlib
from collections import deque
from decimal import Decimal
from typing import ClassVar, Final

from . import errors
from .base import AIProvider, TryOnRequest, TryOnResult
from .utils import bad_option, check_choice

ERRORS: Final[dict[str, type[errors.ProviderError]]] = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ProviderError)
}

MAX_EDGE: Final = 4096


class FakeProvider(AIProvider):
    """Draws a PNG whose stripes follow from the two photos, the prompt and the seed.

    ``delay``: seconds that a call takes. ``error``: the ``code`` of a ``ProviderError`` to raise in place of the
    picture. ``size``: of the picture, in pixels. ``color``: ``"#rrggbb"``, of the background; empty to have it follow
    from the request as well. ``confidence``: what the provider says of its picture, 0 to 1; None to say nothing.
    """

    name: ClassVar[str] = "Fake"
    supports_seed = True
    supports_category = True
    max_pictures = 4
    output_formats = ("png",)
    ai_generated = False  # stripes; nobody takes them for a photo, so the file has no mark either

    def __init__(
        self,
        alias: str,
        *,
        delay: float = 0.0,
        error: str = "",
        size: str = "512x768",
        color: str = "",
        confidence: float | None = None,
    ) -> None:
        super().__init__(alias)
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < float("inf"):
            raise bad_option(alias, "delay", delay, "Give the seconds a call takes, 0 or more.")
        check_choice(alias, "error", error, ["", *sorted(ERRORS)])
        match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", size) if isinstance(size, str) else None
        if match is None or max(int(match[1]), int(match[2])) > MAX_EDGE:
            raise bad_option(
                alias, "size", size, f'Use WIDTHxHEIGHT in pixels, at most {MAX_EDGE}, for instance "512x768".'
            )
        if not (isinstance(color, str) and re.fullmatch(r"(#[0-9a-fA-F]{6})?", color)):
            raise bad_option(alias, "color", color, 'Use a color such as "#ffb7c5", or leave it out.')
        is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
        if confidence is not None and not (is_number and 0 <= confidence <= 1):
            raise bad_option(alias, "confidence", confidence, "Give a number from 0 to 1, or leave it out.")
        self._delay = delay
        self._error = error
        self._width, self._height = int(match[1]), int(match[2])
        self._color = bytes.fromhex(color.removeprefix("#"))
        self._confidence = confidence
        self.calls: deque[TryOnRequest] = deque(maxlen=100)
        """The latest requests, oldest first. Bounded, because each keeps its photos."""

    @property
    def model(self) -> str:
        return "fake"

    @property
    def size(self) -> str:
        return f"{self._width}x{self._height}"

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        self.calls.append(request)
        await asyncio.sleep(self._delay)
        if self._error:
            raise ERRORS[self._error](f"Fake was told to fail with {self._error}.")
        digests = [self._digest(request, number) for number in range(request.pictures)]
        first, *others = [_png(self._width, self._height, d, self._color or d[-3:]) for d in digests]
        return TryOnResult(
            data=first,
            more=tuple(others),
            content_type="image/png",
            model=self.model,
            provider_id=f"fake-{digests[0].hex()[:16]}",
            seed=request.seed,
            cost_usd=Decimal(0),
            confidence=self._confidence,
            width=self._width,
            height=self._height,
        )

    @staticmethod
    def _digest(request: TryOnRequest, number: int) -> bytes:
        """What the picture of this number follows from, as 32 bytes."""
        parts = [
            request.person.data,
            request.garment.data,
            request.prompt.encode(errors="replace"),
            str(request.seed).encode(),
        ]
        parts += [request.category.encode()] if request.category != "auto" else []
        parts += [str(number).encode()] if number else []
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _png(width: int, height: int, digest: bytes, background: bytes) -> bytes:
    """Eight stripes of the digest's colors on a background, as a PNG of 8-bit RGB."""
    stripes = [digest[index * 3 : index * 3 + 3] for index in range(8)]
    left, right = width // 4, width - 2 * (width // 4)
    rows = [b"\0" + background * left + stripes[y * 8 // height] * right + background * left for y in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"".join(rows), 6)), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
