"""What adapters share. Nothing here imports a vendor's SDK or an HTTP library."""

from __future__ import annotations

import asyncio
import contextlib
import math
import operator
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import pybase64
from django.core.exceptions import ImproperlyConfigured

from .base import Photo, Secret, TryOnRequest

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One client per event loop: an async client used from a second loop fails with "Event loop is closed".

    Under ASGI there is one loop and so one client, shared by all requests; under WSGI, in commands and in
    tests loops come and go. ``create`` is called in the loop; ``close`` defaults to the value's ``aclose()``.

    A client ends with its loop: ``asyncio.run()``, and with it asgiref and every server, closes the async generators
    of a loop before the loop itself, and each client lives in one.
    """

    def __init__(
        self,
        create: Callable[[], T],
        close: Callable[[T], Awaitable[object]] = operator.methodcaller("aclose"),
    ) -> None:
        self._create = create
        self._close = close
        # Not a WeakKeyDictionary: the client's open connections hold the loop, so no key would ever die.
        self._keepers: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T]]] = {}

    async def get(self) -> T:
        """The running loop's client, made at the first call."""
        loop = asyncio.get_running_loop()
        if loop not in self._keepers:
            self._forget_ended_loops()
            keeper = self._keep(loop)
            self._keepers[loop] = await anext(keeper), keeper
        return self._keepers[loop][0]

    async def aclose(self) -> None:
        """Close the client of the running loop. The next ``get()`` makes a new one."""
        _, keeper = self._keepers.get(asyncio.get_running_loop(), (None, None))
        if keeper is not None:
            await keeper.aclose()

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[T]:
        client = self._create()
        try:
            yield client
        finally:
            self._keepers.pop(loop, None)
            await self._close(client)

    def _forget_ended_loops(self) -> None:
        """Those closed without their generators. Their sockets ended with them: nothing is left to close."""
        for loop in list(self._keepers):
            if loop.is_closed():
                self._keepers.pop(loop, None)


def check_choice(alias: str, option: str, value: object, allowed: Collection[str]) -> None:
    """Refuse an option whose value is not one of ``allowed``."""
    if value not in allowed:
        raise bad_option(alias, option, value, f"Use one of: {', '.join(allowed)}.")


def bad_option(alias: str, option: str, value: object, advice: str) -> ImproperlyConfigured:
    """The error for an option of this provider: where it stands, what it is, what to write instead."""
    return ImproperlyConfigured(f'TRYON["PROVIDERS"]["{alias}"]["OPTIONS"]["{option}"] is {value!r}. {advice}')


def check_key(alias: str, option: str, key: str | Secret | None) -> Secret:
    """The key without the white space around it. Refuse one that cannot be sent."""
    secret = Secret(str(Secret(key).reveal()).strip())
    if not fits_a_header(secret.reveal()):
        raise bad_option(alias, option, secret, "It has a space, a line break or a letter that no key has.")
    return secret


def fits_a_header(text: str) -> bool:
    """Whether this can be the value of an HTTP header, and has no space in it."""
    return re.fullmatch(r"[\x21-\x7e]*", text) is not None


def check_url(alias: str, option: str, url: str) -> None:
    """Refuse an address of an API that is neither empty nor a plain http or https URL."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        good = good and parts.port != 0 and not parts.query and not parts.fragment
    except (ValueError, AttributeError, TypeError):
        good = False
    if url != "" and not good:
        advice = 'Use an http or https URL such as "https://api.example.com/v1", without a name or password.'
        raise bad_option(alias, option, Secret(url) if "@" in str(url) else url, advice)


def check_seconds(alias: str, option: str, value: object) -> float:
    """The option as seconds. Refuse what is not a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise bad_option(alias, option, value, "Give seconds, more than 0.")
    return float(value)


def decode_base64(text: object) -> bytes:
    """The bytes of base64 with or without line breaks, or of a ``data:`` URI. Raise ``ValueError``."""
    if not isinstance(text, str):
        raise ValueError("not a text")
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("a data URI that is not base64")
    if not text:
        raise ValueError("empty")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        plain = re.sub(r"[\r\n\t ]+", "", text)
        if plain == text or not plain:
            raise
        return pybase64.b64decode(plain, validate=True)


def data_uri(photo: Photo) -> str:
    """The photo as a ``data:`` URI."""
    return f"data:{photo.content_type};base64,{pybase64.b64encode_as_string(photo.data)}"


def image_type(data: bytes) -> str:
    """``image/png``, ``image/jpeg`` or ``image/webp`` by the first bytes; empty if it is none of them."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else ""


GARMENTS = {
    "tops": "The garment is worn on the upper body.",
    "bottoms": "The garment is worn on the lower body.",
    "dresses": "The garment is one piece for the whole body.",
}


def prompt_for(request: TryOnRequest) -> str:
    """The prompt, and what kind of garment it is about, for models that read both."""
    sentence = GARMENTS.get(request.category)
    return f"{request.prompt}\n\n{sentence}" if sentence else request.prompt


def one_line(value: object, limit: int = 100) -> str:
    """A vendor's short text, such as an error code, made safe for a log line; empty if it is not a text."""
    if not isinstance(value, str):
        return ""
    return re.sub(r"[^\x21-\x7e]+", " ", value).strip()[:limit]


def short(value: object, key: Secret) -> str:
    """A vendor's code or id on one line; nothing at all if it repeats the key, in whatever case."""
    text = one_line(value)
    return "" if key and key.reveal().lower() in text.lower() else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds a vendor asks us to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    ``headers`` must ignore case, as those of every HTTP library do. None if absent, past or not readable.
    """
    with contextlib.suppress(ValueError):
        return _positive(float(headers.get("retry-after-ms", "")) / 1000)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return _positive(float(value))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date without a zone is in UTC: HTTP knows no other.
    return _positive((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _positive(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
