"""The one interface over all vendors: request, result and the base class of every provider."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal, final

from .errors import InvalidProviderResponse, ProviderError, ProviderTimeout, UnsupportedFeature

Category = Literal["auto", "tops", "bottoms", "dresses"]


class Secret:
    """A key that no repr, log line or traceback shows. ``reveal()`` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str | Secret | None) -> None:
        self._text: str = text.reveal() if isinstance(text, Secret) else (text or "")

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret('***')" if self._text else "Secret('')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A normalised photo: upright, free of metadata, of a type every provider reads."""

    data: bytes = field(repr=False)
    content_type: str
    """``image/jpeg``, ``image/png`` or ``image/webp``."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


async def _nobody_notes(job: str) -> None:
    """Where nothing outlives the process, there is nothing to look up later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TryOnRequest:
    """What to make: this person wearing this garment."""

    person: Photo
    garment: Photo
    prompt: str
    category: Category = "auto"
    seed: int | None = None
    end_user: str = ""
    """Opaque, stable id of the end user (a hash), for vendors that want one."""
    request_id: str = ""
    """Our id of the run, for logs."""
    note_job: Callable[[str], Awaitable[None]] = field(default=_nobody_notes, repr=False, compare=False)
    """Awaited by a provider that ``keeps_jobs``, with the job's id, before it waits for the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TryOnResult:
    """The picture as the vendor sent it, byte for byte, and what the vendor said about it."""

    data: bytes = field(repr=False)
    content_type: str
    """What the vendor calls it; the caller looks at the bytes before believing it."""
    model: str
    provider_id: str = ""
    """The vendor's own id of the call."""
    seed: int | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    """The vendor's own counters, for instance tokens."""
    cost_usd: Decimal | None = None
    """US dollars, when it can be told from the answer."""
    warnings: tuple[str, ...] = ()
    """Plain sentences for the shopper."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding of ``AIProvider.check()``: what is wrong and what to do about it."""

    message: str
    hint: str
    fatal: bool = True
    """Whether the provider cannot work at all."""
    of_settings: bool = True
    """Wrong in the settings. Otherwise something of this machine that may be mended at any time, such as a file."""


class AIProvider:
    """Base of all providers.

    A provider is created once, from ``TRYON["PROVIDERS"][alias]``: the OPTIONS become keyword arguments of
    ``__init__``, which must accept no others. Creating one contacts nobody and imports no vendor SDK.
    Subclasses implement ``generate_image()``; callers use ``try_on()``.
    """

    name: ClassVar[str] = ""
    """The vendor's display name."""

    supports_prompt: ClassVar[bool] = True
    """Follows the prompt. Where it is False the garment's photo says enough, and the prompt is not looked at."""

    supports_seed: ClassVar[bool] = False
    """The same seed gives a comparable picture."""

    keeps_jobs: ClassVar[bool] = False
    """The vendor makes pictures as jobs that outlive our call: ``resume()`` can ask for one by its id."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}>"

    @property
    def model(self) -> str:
        """The model a request would go to, for logs and prices."""
        return ""

    @property
    def size(self) -> str:
        """The picture's size as the vendor calls it, for prices; empty where the options do not fix one."""
        return ""

    def check(self) -> Iterator[Problem]:
        """Yield what would keep this provider from working, without contacting anyone."""
        yield from ()

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        """Make the picture. Raise a ``ProviderError`` for every failure; let cancellation through."""
        raise NotImplementedError(f"{type(self).__name__} must implement generate_image().")

    async def resume(self, job: str) -> TryOnResult:
        """Wait for the picture of a job that another process began; errors as in ``generate_image()``.

        Only for providers that ``keep_jobs``. A job that the vendor does not know is a ``ProviderRejectedInput``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement resume(), or not keep jobs.")

    async def aclose(self) -> None:
        """Close what belongs to the running event loop. Called where the loop ends with a command or a request."""

    @final
    async def try_on(self, request: TryOnRequest, *, timeout: float) -> TryOnResult:
        """Check the request, make the picture within ``timeout`` seconds and check that there is one."""
        if request.seed is not None and not self.supports_seed:
            raise UnsupportedFeature(
                f"seed={request.seed}: {self.name} cannot repeat a picture by seed. Leave seed out.",
                provider=self.alias,
            )
        return await self._within(timeout, self.generate_image(request))

    @final
    async def look_up(self, job: str, *, timeout: float) -> TryOnResult:
        """The picture of a job that another process began, if it is done within ``timeout`` seconds."""
        return await self._within(timeout, self.resume(job))

    async def _within(self, timeout: float, picture: Coroutine[None, None, TryOnResult]) -> TryOnResult:
        try:
            async with asyncio.timeout(timeout):
                result = await picture
        except TimeoutError as error:
            raise ProviderTimeout(
                f"{self.name} gave no picture within {timeout:.1f} s.", provider=self.alias
            ) from error
        except ProviderError as error:
            error.provider = error.provider or self.alias
            raise
        if not result.data:
            raise InvalidProviderResponse(
                f"{self.name} answered without a picture.",
                provider=self.alias,
                request_id=result.provider_id,
            )
        return result
