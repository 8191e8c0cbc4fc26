"""OpenAI, and servers that speak its image API: POST /v1/images/edits."""

from __future__ import annotations

import asyncio
import functools
import operator
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .base import AIProvider, Photo, Problem, Secret, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderTimeout,
    ProviderUnavailable,
)
from .utils import (
    PerLoop,
    bad_option,
    check_choice,
    check_key,
    check_url,
    fits_a_header,
    one_line,
    prompt_for,
    retry_after,
)

if TYPE_CHECKING:
    import ssl

    import openai

BASE_URL: Final = "https://api.openai.com/v1"

QUALITIES: Final = ("auto", "low", "medium", "high", "xhigh", "max")
OUTPUT_FORMATS: Final = ("png", "jpeg", "webp")

MAX_EDGE: Final = 3840
"""Pixels, of the longer edge of a picture."""
MIN_PIXELS: Final = 655_360
MAX_PIXELS: Final = 8_294_400

CONNECT_TIMEOUT: Final = 10.0
"""Seconds."""
READ_TIMEOUT: Final = 600.0
"""Seconds of silence. Only a net under ``try_on()``, whose timeout is the one that counts."""

PACKAGES: Final = ("openai", "aiohttp", "orjson", "pybase64")
INSTALL: Final = 'Run `pip install "openai[aiohttp]" orjson pybase64` (the extra openai).'

PRICES: Final = (
    # Model family, US dollars per million tokens: text in, image in, image out.
    (re.compile(r"gpt-image-2\.[56]-"), Decimal(5), Decimal(8), Decimal(30)),
)

QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
REFUSAL_CODES: Final = frozenset({"moderation_blocked", "content_policy_violation"})
OWN_PARAMS: Final = frozenset({"model", "quality", "size", "output_format"})
"""Fields of the request that come from the options, not from the shopper."""


class OpenAIProvider(AIProvider):
    """The person's photo first, the garment's second, edited by a GPT image model.

    The defaults favour a faithful picture over a cheap one: the Sunburst model, which is made for consistent edits;
    "high", because prints and seams of the garment are lost below; "auto", so that the model keeps the shape of the
    person's photo; "png", because nothing is lost in it.

    ``base_url`` points to a compatible server. ``organization`` and ``project`` are ids of OpenAI's own, for keys that
    belong to several. The SDK's environment variables for these and for the key do not count.

    A price by size needs a ``size`` of one's own: with "auto" there is none.
    """

    name: ClassVar[str] = "OpenAI"
    supports_category = True

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = "gpt-image-2.6-sunburst",
        quality: str = "high",
        size: str = "auto",
        output_format: str = "png",
        base_url: str = "",
        organization: str = "",
        project: str = "",
    ) -> None:
        super().__init__(alias)
        self._api_key = check_key(alias, "api_key", api_key)
        if not (isinstance(model, str) and model):
            raise bad_option(alias, "model", model, "Give the name of an image model.")
        for option, value in (("organization", organization), ("project", project)):
            if not (isinstance(value, str) and fits_a_header(value)):
                raise bad_option(alias, option, value, "Give its id, or leave it out.")
        check_choice(alias, "quality", quality, QUALITIES)
        check_choice(alias, "output_format", output_format, OUTPUT_FORMATS)
        _check_size(alias, size, model)
        check_url(alias, "base_url", base_url)
        self._model = model
        self._quality = quality
        self._size = size
        self._output_format = output_format
        self._base_url = base_url or BASE_URL
        self._organization = organization
        self._project = project
        self._clients = PerLoop(self._create_client, close=operator.methodcaller("close"))

    @property
    def model(self) -> str:
        return self._model

    @property
    def size(self) -> str:
        # What "auto" comes to depends on the photo: nobody knows it when the price is held.
        return "" if self._size == "auto" else self._size

    def check(self) -> Iterator[Problem]:
        if not self._api_key:
            yield Problem(
                f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["api_key"] is empty.',
                hint="Set the environment variable OPENAI_API_KEY to a key of your OpenAI project.",
            )
        missing = [package for package in PACKAGES if find_spec(package) is None]
        if missing:
            yield Problem(
                f'The provider "{self.alias}" needs packages that are not installed: {", ".join(missing)}.',
                hint=INSTALL,
            )

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        if not self._api_key:
            raise ProviderMisconfigured("OpenAI has no api_key. Set OPENAI_API_KEY.")
        await self._import_packages()
        import aiohttp
        import openai

        client = await self._clients.get()
        optional = {"safety_identifier": request.end_user} if request.end_user else {}
        failure: ProviderError
        try:
            # The raw response: the SDK's typed one costs four times the CPU of everything else here.
            response = await client.images.with_raw_response.edit(
                model=self._model,
                image=[_upload("person", request.person), _upload("garment", request.garment)],
                prompt=prompt_for(request),
                quality=self._quality,
                size=self._size,
                output_format=self._output_format,
                **optional,
            )
        except openai.APIStatusError as error:
            failure = self._refusal(error)
        except openai.APIConnectionError as error:
            failure = _lost(error)
        except (openai.OpenAIError, aiohttp.ClientError) as error:  # for instance, an answer that is not HTTP
            failure = InvalidProviderResponse(f"OpenAI answered with something else than HTTP: {_root(error)}.")
        except UnicodeEncodeError:
            failure = ProviderRejectedInput("The prompt has characters that cannot be sent to OpenAI.")
        else:
            return self._result(response.content, response.headers)
        # Out here, so that the SDK's error is not its context: that holds the key and repeats it in its text.
        raise failure

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _import_packages(self) -> None:
        try:
            if not _imported():
                # Takes a second of CPU, which the event loop does not have.
                await asyncio.to_thread(_import)
        except ImportError as error:
            raise ProviderMisconfigured(
                f"OpenAI cannot be used: {one_line(error.name) or 'a package'} is missing. {INSTALL}"
            ) from error

    def _create_client(self) -> openai.AsyncOpenAI:
        import httpx2
        import openai

        timeout = openai.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
        client = openai.AsyncOpenAI(
            api_key=self._api_key.reveal(),
            base_url=self._base_url,
            max_retries=0,  # the caller retries, who knows the deadline and the other providers
            timeout=timeout,
            http_client=openai.DefaultAioHttpClient(
                # 0 is aiohttp's "no limit", where None would be its default of 100: a request waits for its
                # picture for a minute, and must not make others wait for a connection.
                limits=httpx2.Limits(max_connections=0),
                timeout=timeout,
                follow_redirects=False,  # photos and key go to the configured server, to no other
                verify=_tls(),
            ),
        )
        # Given as None they would be taken from the environment.
        client.organization = self._organization or None
        client.project = self._project or None
        return client

    def _result(self, body: bytes, headers: Mapping[str, str]) -> TryOnResult:
        """The picture in a successful answer, and what it cost."""
        import orjson
        import pybase64

        request_id = one_line(headers.get("x-request-id"))
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            content_type = one_line(headers.get("content-type")) or "no content type"
            raise InvalidProviderResponse(
                f"OpenAI answered with {len(body)} bytes of {content_type} that are not JSON.",
                status=200,
                request_id=request_id,
            ) from None
        data = answer.get("data") if isinstance(answer, dict) else None
        image = data[0] if isinstance(data, list) and data else None
        encoded = image.get("b64_json") if isinstance(image, dict) else None
        if not (isinstance(encoded, str) and encoded):
            link = isinstance(image, dict) and image.get("url")
            raise InvalidProviderResponse(
                "OpenAI answered with a link instead of the picture, which is not supported."
                if link
                else "OpenAI answered without a picture.",
                status=200,
                request_id=request_id,
            )
        try:
            picture = pybase64.b64decode(encoded, validate=True)
        except ValueError:
            raise InvalidProviderResponse(
                "OpenAI answered with a picture that is not base64.", status=200, request_id=request_id
            ) from None
        usage = _usage(answer.get("usage"))
        output_format = answer.get("output_format")
        return TryOnResult(
            data=picture,
            content_type=f"image/{output_format if output_format in OUTPUT_FORMATS else self._output_format}",
            model=self._model,
            provider_id=request_id,
            usage=usage,
            cost_usd=_cost(self._model, usage),
        )

    def _refusal(self, error: openai.APIStatusError) -> ProviderError:
        """Our word for an answer that is not a success.

        Only the vendor's codes go into the message: its sentences repeat parts of the key and of the prompt.
        """
        status = error.status_code
        details = error.body if isinstance(error.body, dict) else {}
        code, kind, param = (self._short(details.get(field)) for field in ("code", "type", "param"))
        known: dict[str, Any] = {
            "status": status,
            "request_id": self._short(error.request_id),
            "retry_after": retry_after(error.response.headers),
        }
        named = " ".join(word for word in (code or kind, f"for {param}" if param else "") if word)
        said = f"OpenAI answered {status}" + (f" ({named})." if named else ".")

        category = _refused_category(error.body)
        if category is not None or code in REFUSAL_CODES:
            category = self._short(category)
            reason = f" for {category}" if category else ""
            return ContentRefused(f"OpenAI's content policy refused{reason}. {said}", category=category, **known)
        # By its code: an account without money has been seen as 400, 403 and 429.
        if status == 402 or not QUOTA_CODES.isdisjoint((code, kind)):
            return ProviderQuotaExceeded(f"{said} The account has no money or quota left.", **known)
        match status:
            case 401:
                return ProviderMisconfigured(f"{said} Check the api_key.", **known)
            case 403:
                return ProviderMisconfigured(
                    f"{said} The key may not use {self._model}; image models need a verified organization.", **known
                )
            case 404 | 405 | 410:
                return ProviderMisconfigured(
                    f"{said} Check base_url, and that the model {self._model} is not retired.", **known
                )
            case 429:
                return ProviderRateLimited(said, **known)
            case 408 | 409 | 425:
                return ProviderUnavailable(said, **known)
        if status >= 500:
            return ProviderUnavailable(said, **known)
        if status < 400:
            return ProviderMisconfigured(f"{said} It redirects; set base_url to where the API is.", **known)
        if code == "model_not_found" or param in OWN_PARAMS:
            return ProviderMisconfigured(f"{said} Check the options of this provider.", **known)
        return ProviderRejectedInput(said, **known)

    def _short(self, value: object) -> str:
        """A vendor's code on one line; nothing at all if it repeats the key."""
        text = one_line(value)
        return "" if self._api_key.reveal().lower() in text.lower() else text  # whatever case our own code gave it


def _imported() -> bool:
    return _import.cache_info().currsize > 0


@functools.cache
def _import() -> None:
    """Import what the first call needs, all at once."""
    import aiohttp  # noqa: F401
    import openai
    import orjson  # noqa: F401
    import pybase64  # noqa: F401

    # Parts that the SDK itself imports only when they are used.
    openai.AsyncOpenAI(api_key="none").images  # noqa: B018


@functools.cache
def _tls() -> ssl.SSLContext:
    """Shared by the clients of all loops: reading the trusted certificates takes as long as ten calls."""
    import httpx2

    return httpx2.create_ssl_context()


def _upload(name: str, photo: Photo) -> tuple[str, bytes, str]:
    extension = photo.content_type.removeprefix("image/")
    return f"{name}.{extension}", photo.data, photo.content_type


def _check_size(alias: str, size: str, model: str) -> None:
    if size == "auto":
        return
    match = re.fullmatch(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", size) if isinstance(size, str) else None
    if match is None:
        raise bad_option(alias, "size", size, 'Use "auto" or WIDTHxHEIGHT in pixels, for instance "1024x1536".')
    width, height = int(match[1]), int(match[2])
    fits = (
        width % 16 == 0
        and height % 16 == 0
        and max(width, height) <= min(3 * min(width, height), MAX_EDGE)
        and MIN_PIXELS <= width * height <= MAX_PIXELS
    )
    # Other models, behind a base_url of one's own, have limits of their own.
    if model.startswith("gpt-image-2") and not fits:
        raise bad_option(
            alias,
            "size",
            size,
            f"{model} makes pictures with edges divisible by 16 and at most {MAX_EDGE}, not longer than three times "
            f"their width, of {MIN_PIXELS} to {MAX_PIXELS} pixels.",
        )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _root(error: BaseException) -> str:
    """The class of what went wrong first. Its text may hold anything, its name does not."""
    *_, root = _causes(error)
    return type(root).__name__


def _lost(error: BaseException) -> ProviderError:
    """Our word for a connection that failed.

    By its root, since the SDK's aiohttp client calls every failed connection a timeout.
    """
    import aiohttp
    import httpx2

    causes = list(_causes(error))
    if any(isinstance(cause, aiohttp.ClientPayloadError | httpx2.DecodingError) for cause in causes):
        return InvalidProviderResponse(f"OpenAI's answer is not complete or not readable: {_root(error)}.")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return ProviderTimeout("OpenAI did not answer in time.")
    return ProviderUnavailable(f"OpenAI could not be reached: {_root(error)}.")


def _refused_category(body: object) -> str | None:
    """What the content policy objected to, ``""`` if it does not say, None if it is not about content."""
    details = body if isinstance(body, dict) else {}
    found = details.get("safety_violations")
    moderation = details.get("moderation_details")
    if isinstance(moderation, dict):
        found = moderation.get("categories") or found
    if isinstance(found, list) and found:
        return ", ".join(one_line(category) for category in found)
    text = details.get("message") or body
    text = text[:10_000].lower() if isinstance(text, str) else ""
    match = re.search(r"safety_violations=\[([^\]]*)\]", text)
    if match is not None:
        return match[1]
    return "" if moderation or "safety system" in text or "safety_violations" in text else None


def _usage(usage: object) -> dict[str, int]:
    """The token counters on one level: ``input_tokens``, ``input_image_tokens`` and so on."""
    if not isinstance(usage, dict):
        return {}
    counters = {key: value for key, value in usage.items() if type(value) is int}
    for side in ("input", "output"):
        details = usage.get(f"{side}_tokens_details")
        if isinstance(details, dict):
            counters |= {f"{side}_{key}": value for key, value in details.items() if type(value) is int}
    return counters


def _cost(model: str, usage: Mapping[str, int]) -> Decimal | None:
    """US dollars at list price, without the discount for cached input. None if not known."""
    for family, text_in, image_in, image_out in PRICES:
        if family.match(model) and {"input_text_tokens", "input_image_tokens", "output_tokens"} <= usage.keys():
            return (
                usage["input_text_tokens"] * text_in
                + usage["input_image_tokens"] * image_in
                + usage["output_tokens"] * image_out
            ) / 1_000_000
    return None
