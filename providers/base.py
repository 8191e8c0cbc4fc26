"""The one interface over all vendors: request, result and the base class of every provider."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import ClassVar, Final, Literal, final

from .errors import (
    InvalidProviderResponse,
    ProviderError,
    ProviderRejectedInput,
    ProviderTimeout,
    UnsupportedFeature,
)

Category = Literal["auto", "tops", "bottoms", "dresses"]
Size = Literal["", "1k", "2k", "4k"]
"""About 1, 4 or 16 million pixels; empty leaves it to the provider's options."""
OutputFormat = Literal["", "png", "jpeg", "webp"]
"""Empty leaves it to the provider's options."""

SIZES: Final[tuple[Size, ...]] = ("1k", "2k", "4k")
OUTPUT_FORMATS: Final[tuple[OutputFormat, ...]] = ("png", "jpeg", "webp")


class Secret:
    """A key that no repr, log line or traceback shows. ``reveal()`` is the only way to its text.

    It is not pickled: a pickle would carry the text to wherever it goes. A copy is the object itself.
    """

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

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __getstate__(self) -> object:
        raise TypeError("A Secret is not pickled. Hand over the name of the setting or variable that it comes from.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A normalised photo: upright, in sRGB, free of metadata."""

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
    pictures: int = 1
    """How many to make of it."""
    size: Size = ""
    output_format: OutputFormat = ""
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
    confidence: float | None = None
    """How sure the provider is that the picture is right, 0 to 1; None where it does not say."""
    width: int | None = None
    """Pixels, where the vendor says."""
    height: int | None = None
    """Pixels, where the vendor says."""
    more: tuple[bytes, ...] = field(default=(), repr=False)
    """The other pictures, where several were asked for."""
    video: bytes = field(default=b"", repr=False)
    """An MP4 clip whose still is ``data``, from providers that ``make_video``."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a vendor, and for how long there is one."""

    name: str
    shutdown: date | None = None
    """The day it was or will be shut down, where that was announced."""
    successor: str = ""
    """What its vendor says to use instead; or who to ask, where the vendor has nothing."""


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
    """The vendor's display name; empty in classes that are only bases of others."""

    supports_prompt: bool = True
    """Follows the prompt. Where it is False the garment's photo says enough, and the prompt is not looked at."""

    supports_seed: bool = False
    """The same seed gives a comparable picture."""

    supports_category: bool = False
    """Can be told what kind of garment it is."""

    max_pictures: int = 1
    """The most pictures one call makes."""

    sizes: tuple[str, ...] = ()
    """Those of a request's ``size`` it can make."""

    output_formats: tuple[str, ...] = ()
    """Those of a request's ``output_format`` it can make."""

    photo_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    """Content types of photos it reads. The caller converts others to JPEG, which every provider must read."""

    max_photo_bytes: int = 50_000_000
    """Bytes of one photo it takes. The caller makes larger ones smaller."""

    ai_generated: bool = True
    """A generative model makes the picture, which shoppers may have a right to be told."""

    makes_video: bool = False
    """Makes a clip as well as a picture."""

    keeps_jobs: bool = False
    """The vendor makes pictures as jobs that outlive our call: ``resume()`` can ask for one by its id."""

    lists_models: bool = False
    """The vendor can tell which models there are: ``remote_models()``."""

    models: ClassVar[tuple[Model, ...]] = ()
    """Those this class knows of, as of the day it was last looked over. Any other name works as well."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}>"

    def __str__(self) -> str:
        """How it is called in sentences."""
        return self.name or self.alias

    def __getstate__(self) -> object:
        raise TypeError(f"{self!r} is not pickled: it holds keys and connections. Make one where it is needed.")

    @property
    def model(self) -> str:
        """The model a request would go to, for logs and prices."""
        return ""

    @property
    def size(self) -> str:
        """The picture's size as the vendor calls it, for prices; empty where the options do not fix one."""
        return ""

    @property
    def models_in_use(self) -> tuple[str, ...]:
        """Every model a request would go to; more than one where there are several steps."""
        return (self.model,) if self.model else ()

    @property
    def known_models(self) -> tuple[Model, ...]:
        """``models``, unless the options name another server, which serves what it likes for as long as it likes."""
        return self.models

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

    async def cancel(self, job: str) -> None:
        """Tell the vendor that nobody wants this job's picture any more, where it can be told. Errors as above."""

    async def remote_models(self) -> list[Model]:
        """The models that the vendor itself lists now; errors as in ``generate_image()``.

        Only for providers that ``list_models``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement remote_models(), or not list models.")

    async def aclose(self) -> None:
        """Close what belongs to the running event loop. Called where the loop ends with a command or a request."""

    @final
    async def try_on(self, request: TryOnRequest, *, timeout: float) -> TryOnResult:
        """Check the request, make the picture within ``timeout`` seconds and check that there is one."""
        self.demand(request)
        self._demand_readable(person=request.person, garment=request.garment)
        request, warnings = self._without_what_is_lacking(request)
        result = await self._within(timeout, self.generate_image(request))
        return dataclasses.replace(result, warnings=(*warnings, *result.warnings)) if warnings else result

    @final
    def demand(self, request: TryOnRequest) -> None:
        """Raise ``UnsupportedFeature``, which names it, for what this provider cannot do and nobody can do without."""
        if request.seed is not None and not self.supports_seed:
            self._refuse("seed", request.seed, "cannot repeat a picture by seed. Leave seed out.")
        if not 1 <= request.pictures <= self.max_pictures:
            most = self.max_pictures
            makes = (
                f"makes 1 to {most} at a time. Ask for that many." if most > 1 else "makes one at a time. Ask for 1."
            )
            self._refuse("pictures", request.pictures, makes)
        if request.size and request.size not in self.sizes:
            known = f"Use one of: {', '.join(self.sizes)}." if self.sizes else "Leave size out."
            self._refuse("size", request.size, f"cannot be told this size. {known}")

    def _demand_readable(self, **photos: Photo) -> None:
        for role, photo in photos.items():
            if photo.content_type not in self.photo_types:
                found, takes = photo.content_type, ", ".join(self.photo_types)
            elif len(photo.data) > self.max_photo_bytes:
                found, takes = f"of {len(photo.data):,} bytes", f"at most {self.max_photo_bytes:,}"
            else:
                continue
            raise ProviderRejectedInput(f"The {role}'s photo is {found}; {self} takes {takes}.", provider=self.alias)

    def _refuse(self, field: str, value: object, sentence: str) -> None:
        raise UnsupportedFeature(f"{field}={value}: {self} {sentence}", field=field, provider=self.alias)

    def _without_what_is_lacking(self, request: TryOnRequest) -> tuple[TryOnRequest, tuple[str, ...]]:
        """The request without what this provider cannot do and the picture can do without; and what to say of it."""
        changes: dict[str, str] = {}
        warnings: list[str] = []
        if request.category != "auto" and not self.supports_category:
            changes["category"] = "auto"
            warnings.append(f"{self} cannot be told what kind of garment it is; it goes by the photo.")
        if request.output_format and request.output_format not in self.output_formats:
            changes["output_format"] = ""
            warnings.append(f"{self} cannot be told to make {request.output_format}; this is what it makes.")
        return (dataclasses.replace(request, **changes) if changes else request), tuple(warnings)  # type: ignore[arg-type]

    @final
    async def look_up(self, job: str, *, timeout: float) -> TryOnResult:
        """The picture of a job that another process began, if it is done within ``timeout`` seconds."""
        return await self._within(timeout, self.resume(job))

    async def _within(self, timeout: float, picture: Coroutine[None, None, TryOnResult]) -> TryOnResult:
        failure: ProviderError | None = None
        try:
            async with asyncio.timeout(timeout):
                result = await picture
        except TimeoutError:
            failure = ProviderTimeout(f"{self} gave no picture within {timeout:.1f} s.", provider=self.alias)
        except ProviderError as error:
            error.provider = error.provider or self.alias
            failure = error.with_traceback(None)
        if failure is not None:
            # Out here and without the frames of the call: their variables hold the key, or an answer that repeats it.
            raise failure
        if not result.data:
            raise InvalidProviderResponse(
                f"{self} answered without a picture.",
                provider=self.alias,
                request_id=result.provider_id,
            )
        return result
