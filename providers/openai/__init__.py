"""OpenAI, its models on Azure, and servers that speak its image API: POST /v1/images/edits.

Fields and limits as in the SDK's ``types/image_edit_params.py``, the answer as in its ``types/images_response.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final

import orjson

from ..base import AIProvider, Model, Photo, Problem, Secret, TryOnRequest, TryOnResult
from ..errors import InvalidProviderResponse, ProviderError, ProviderMisconfigured, ProviderRejectedInput
from ..utils import PerLoop, bad_option, check_choice, check_key, check_url, fits_a_header, one_line, prompt_for, short
from . import failures
from .models import (
    MODELS,
    PIXELS,
    SUNBURST,
    check_size,
    cost_of,
    edges_of,
    makes_any_size,
    models_at,
    qualities_of,
    size_for,
)

if TYPE_CHECKING:
    import ssl

    import httpx2
    import openai

    from .client import File

BASE_URL: Final = "https://api.openai.com/v1"

OUTPUT_FORMATS: Final = ("png", "jpeg", "webp")
BACKGROUNDS: Final = ("", "auto", "opaque", "transparent")
IMAGE_FIELDS: Final = ("image[]", "image")

READ_TIMEOUT: Final = 600.0
"""Seconds of silence. Only a net under ``try_on()``, whose timeout is the one that counts."""

PACKAGES: Final = ("openai", "aiohttp")
INSTALL: Final = 'Run `pip install "openai[aiohttp]"` (the extra openai).'


class OpenAIProvider(AIProvider):
    """The person's photo first, the garment's second, edited by a GPT image model.

    The defaults favour a faithful picture over a cheap one: the Sunburst model, which is made for consistent edits;
    "high", because prints and seams of the garment are lost below; "auto", so that the model keeps the shape of the
    person's photo; "png", because nothing is lost in it. A request's size becomes width and height in the shape of
    the person's photo, as near to it as the model goes: its "4k" are the 8 million pixels of a 4K screen.
    ``output_compression`` is JPEG's or WebP's quality in percent. What is left empty is not sent.

    ``base_url`` points to a compatible server. It may answer with links, and ``image_field`` is "image" for one that
    does not know "image[]". ``organization`` and ``project`` are ids of OpenAI's own, for keys that belong to several.

    With ``azure_api_version`` ``base_url`` is the endpoint of an Azure resource, such as
    "https://shop.openai.azure.com", and ``model`` the name of a deployment in it. It is best named after its model:
    sizes and shutdown dates are known by that name.

    Costs are at OpenAI's list price, whatever server makes the pictures, but for Azure's, which are not known.
    The SDK's environment variables do not count. A price by size needs a ``size`` of one's own: with "auto" there is
    none.
    """

    name: ClassVar[str] = "OpenAI"
    supports_category = True
    max_pictures = 10
    sizes: tuple[str, ...] = tuple(PIXELS)
    output_formats: tuple[str, ...] = OUTPUT_FORMATS
    lists_models = True
    models: ClassVar[tuple[Model, ...]] = MODELS

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = SUNBURST,
        quality: str = "high",
        size: str = "auto",
        output_format: str = "png",
        output_compression: int | None = None,
        background: str = "",
        base_url: str = "",
        image_field: str = "image[]",
        azure_api_version: str = "",
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
        check_choice(alias, "quality", quality, qualities_of(model))
        check_choice(alias, "background", background, BACKGROUNDS)
        if background == "transparent":
            self.output_formats = tuple(known for known in OUTPUT_FORMATS if known != "jpeg")
        check_choice(alias, "output_format", output_format, self.output_formats)
        check_choice(alias, "image_field", image_field, IMAGE_FIELDS)
        _check_compression(alias, output_compression)
        check_size(alias, size, model)
        check_url(alias, "base_url", base_url)
        _check_azure(alias, azure_api_version, base_url)
        self._model = model
        self._quality = quality
        self._size = size
        self._output_format = output_format
        self._output_compression = output_compression
        self._background = background
        self._base_url = base_url or BASE_URL
        self._image_field = image_field
        self._azure_api_version = azure_api_version
        self._organization = organization
        self._project = project
        self._clients = PerLoop(self._create_client, close=operator.methodcaller("close"))
        # The class says what OpenAI's current models can do; this one, there:
        if not makes_any_size(model):
            self.sizes = ()
        self.lists_models = not azure_api_version  # those listed are Azure's, not the resource's deployments

    @property
    def model(self) -> str:
        return self._model

    @property
    def size(self) -> str:
        # What "auto" comes to depends on the photo: nobody knows it when the price is held.
        return "" if self._size == "auto" else self._size

    @property
    def known_models(self) -> tuple[Model, ...]:
        return models_at(self._base_url, self._azure_api_version)

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
        output_format = request.output_format or self._output_format
        files = [
            (self._image_field, _upload("person", request.person)),
            (self._image_field, _upload("garment", request.garment)),
        ]
        response = await self._ask("/images/edits", self._fields(request, output_format), files)
        return await self._result(response, request.pictures, output_format)

    async def remote_models(self) -> list[Model]:
        response = await self._ask("/models")
        entries = self._answer(response).get("data")
        if not isinstance(entries, list):
            raise self._invalid(response, "OpenAI answered without a list of models.")
        return [
            Model(name, _day(entry.get("shutdown_date")))
            for entry in entries
            if isinstance(entry, dict) and (name := one_line(entry.get("id")))
        ]

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _ask(
        self, path: str, fields: Mapping[str, object] | None = None, files: Sequence[File] = ()
    ) -> httpx2.Response:
        """Send one request; its answer if it is a success. Raise a ``ProviderError`` for all else."""
        if not self._api_key:
            raise ProviderMisconfigured("OpenAI has no api_key. Set OPENAI_API_KEY.")
        await self._import_packages()
        import aiohttp
        import openai

        from . import client

        sdk = await self._clients.get()
        failure: ProviderError
        try:
            return await client.ask(sdk, path, fields, files)
        except openai.APIStatusError as error:
            failure = failures.refusal(error, model=self._model, api_key=self._api_key)
        except openai.APIConnectionError as error:
            failure = failures.lost(error)
        except client.TooLong as error:
            failure = InvalidProviderResponse(f"OpenAI's answer {error}.", status=error.status)
        except (openai.OpenAIError, aiohttp.ClientError) as error:  # for instance, an answer that is not HTTP
            said = f"OpenAI answered with something else than HTTP: {failures.root(error)}."
            failure = InvalidProviderResponse(said)
        except UnicodeEncodeError:
            failure = ProviderRejectedInput("The prompt has characters that cannot be sent to OpenAI.")
        # Out here, so that the SDK's error is not its context: that holds the key and repeats it in its text.
        raise failure

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
        from . import client

        return client.create(
            api_key=self._api_key.reveal(),
            base_url=self._base_url,
            organization=self._organization,
            project=self._project,
            azure_api_version=self._azure_api_version,
            timeout=READ_TIMEOUT,
            verify=_tls(),
        )

    def _fields(self, request: TryOnRequest, output_format: str) -> dict[str, object]:
        """The form, but for its files."""
        fields: dict[str, object] = {
            "model": self._model,
            "prompt": prompt_for(request),
            "quality": self._quality,
            "size": size_for(request.person, request.size) if request.size else self._size,
            "output_format": output_format,
        }
        if request.pictures > 1:
            fields["n"] = request.pictures
        if self._output_compression is not None and output_format != "png":
            fields["output_compression"] = self._output_compression
        if self._background:
            fields["background"] = self._background
        if request.end_user:
            fields["safety_identifier"] = request.end_user
        return fields

    async def _result(self, response: httpx2.Response, wanted: int, output_format: str) -> TryOnResult:
        """The pictures in a successful answer, and what they cost."""
        answer = self._answer(response)
        entries = answer.get("data")
        if not (isinstance(entries, list) and entries):
            raise self._invalid(response, "OpenAI answered without a picture.")
        pictures = [await self._picture(entry, response) for entry in entries[:wanted]]
        usage = _usage(answer.get("usage"))
        if answer.get("output_format") in OUTPUT_FORMATS:
            output_format = answer["output_format"]
        width, height = edges_of(answer.get("size")) or (None, None)
        return TryOnResult(
            data=pictures[0],
            more=tuple(pictures[1:]),
            content_type=f"image/{output_format}",
            width=width,
            height=height,
            model=self._model,
            provider_id=self._request_id(response),
            usage=usage,
            cost_usd=None if self._azure_api_version else cost_of(self._model, usage),  # Azure has prices of its own
        )

    async def _picture(self, entry: object, response: httpx2.Response) -> bytes:
        """The bytes of one picture of an answer: in it as base64, or behind its URL."""
        from .. import rest

        encoded, url = (entry.get("b64_json"), entry.get("url")) if isinstance(entry, dict) else (None, None)
        try:
            if encoded or not url:
                return rest.decode_picture(encoded, vendor=self.name)
            return await rest.fetch_picture(url, vendor=self.name, base_url=self._base_url)
        except ProviderError as error:
            error.request_id = self._request_id(response)
            raise

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        """The JSON object of a successful answer."""
        with contextlib.suppress(orjson.JSONDecodeError):
            answer = orjson.loads(response.content)
            return answer if isinstance(answer, dict) else {}
        content_type = one_line(response.headers.get("content-type")) or "no content type"
        raise self._invalid(
            response, f"OpenAI answered with {len(response.content)} bytes of {content_type} that are not JSON."
        )

    def _invalid(self, response: httpx2.Response, message: str) -> InvalidProviderResponse:
        return InvalidProviderResponse(message, status=response.status_code, request_id=self._request_id(response))

    def _request_id(self, response: httpx2.Response) -> str:
        return short(response.headers.get("x-request-id"), self._api_key)


def _imported() -> bool:
    return _import.cache_info().currsize > 0


@functools.cache
def _import() -> None:
    """Import what the first call needs, all at once."""
    import aiohttp  # noqa: F401
    import openai

    from . import client  # noqa: F401

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


def _check_azure(alias: str, azure_api_version: str, base_url: str) -> None:
    if not (isinstance(azure_api_version, str) and fits_a_header(azure_api_version)):
        raise bad_option(
            alias,
            "azure_api_version",
            azure_api_version,
            'Give its date, such as "YYYY-MM-DD" or "YYYY-MM-DD-preview".',
        )
    if azure_api_version and not base_url:
        advice = 'Set base_url to the endpoint of the resource, such as "https://shop.openai.azure.com".'
        raise bad_option(alias, "base_url", base_url, advice)


def _check_compression(alias: str, value: object) -> None:
    if value is not None and not (type(value) is int and 0 <= value <= 100):
        raise bad_option(alias, "output_compression", value, "Give a percentage from 0 to 100, or leave it out.")


def _day(value: object) -> date | None:
    """The day of a date, a time or a Unix timestamp; None for anything odd."""
    with contextlib.suppress(ValueError):
        if isinstance(value, str):
            return datetime.fromisoformat(value).date()
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
        return None if isinstance(value, bool) else datetime.fromtimestamp(float(value), UTC).date()  # type: ignore[arg-type]
    return None


def _usage(usage: object) -> dict[str, int]:
    """The token counters on one level: ``input_tokens``, ``input_image_tokens`` and so on.

    Cached tokens are no part of the SDK's type of this answer. Where the answer has them nevertheless, they are taken
    to be where the SDK's ``types/realtime/realtime_response_usage_input_token_details.py`` has them.
    """
    if not isinstance(usage, dict):
        return {}
    counters = _counters(usage, "")
    for side in ("input", "output"):
        details = usage.get(f"{side}_tokens_details")
        if isinstance(details, dict):
            counters |= _counters(details, f"{side}_")
            counters |= _counters(details.get("cached_tokens_details"), f"{side}_cached_")
    return counters


def _counters(counters: object, prefix: str) -> dict[str, int]:
    if not isinstance(counters, dict):
        return {}
    return {f"{prefix}{key}": value for key, value in counters.items() if type(value) is int and value >= 0}
