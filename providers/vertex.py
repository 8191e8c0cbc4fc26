"""Google's try-on model on Vertex AI, now Agent Platform.

POST /v1/projects/{project}/locations/{location}/publishers/google/models/{model}:predict, with one person and one
product image in ``instances`` and pictures in ``predictions`` (google-genai 3: google/genai/models.py,
``recontext_image``). It takes no API key: a service account signs, or whoever runs this machine.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from .base import Model, Photo, Problem, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from .google import GoogleProvider
from .utils import bad_option, check_choice, one_line

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.genai.models import AsyncModels
    from google.genai.types import GeneratedImage, RecontextImageResponse

T = TypeVar("T")

MODEL: Final = "virtual-try-on-001"
SUCCESSOR: Final = "the provider gemini with its model gemini-nano-banana-2.1"
SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)


UNMARKED: Final = "With a seed this picture has no watermark that tells how it was made."


class VertexProvider(GoogleProvider):
    """The photos are all it takes; the picture has the size of the person's.

    ``project`` and ``location`` are Google Cloud's, for instance "us-central1". ``credentials`` is the path of a
    service account's JSON file; empty for the Application Default Credentials of this machine, which are the one thing
    that comes from the environment; or an object of google.auth.

    A seed costs the picture its invisible watermark, SynthID: Google has one or the other.
    """

    name: ClassVar[str] = "Vertex AI"
    photo_types = ("image/jpeg", "image/png")
    identity_advice: ClassVar[str] = "Check the credentials, and what they may do in the project."
    supports_prompt = False
    supports_seed = True
    max_pictures = 4
    output_formats: tuple[str, ...] = ("png", "jpeg")
    models: ClassVar[tuple[Model, ...]] = (
        # The earlier of the two days that Google has named; the other is 2027-03-15.
        Model(MODEL, date(2027, 1, 20), SUCCESSOR),
        Model("virtual-try-on-preview-08-04", successor=MODEL),
    )

    def __init__(
        self,
        alias: str,
        *,
        location: str,
        project: str = "",
        credentials: str | Credentials = "",
        model: str = MODEL,
        output_format: str = "png",
        base_url: str = "",
    ) -> None:
        _check_location(alias, location)
        super().__init__(alias, model=model, base_url=base_url or f"https://{location}-aiplatform.googleapis.com")
        if not (isinstance(project, str) and re.fullmatch(r"[a-z0-9.:-]*", project)):
            raise bad_option(alias, "project", project, "Give the id of a Google Cloud project.")
        if not isinstance(credentials, str) and not hasattr(credentials, "refresh"):
            raise bad_option(alias, "credentials", type(credentials), "Give the path of a service account's file.")
        check_choice(alias, "output_format", output_format, self.output_formats)
        self._project = project
        self._location = location
        self._path = credentials if isinstance(credentials, str) else ""
        self._credentials = None if isinstance(credentials, str) else credentials
        self._output_format = output_format

    def check(self) -> Iterator[Problem]:
        options = f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]'
        if not self._project:
            yield Problem(
                f'{options}["project"] is empty.',
                hint="Set the environment variable GOOGLE_PROJECT_ID to the id of a Google Cloud project.",
            )
        if self._path:
            try:
                _service_account(self._path)
            except ValueError as error:
                yield Problem(
                    f'{options}["credentials"] is {self._path!r}, a file {error}.',
                    hint="Set GOOGLE_APPLICATION_CREDENTIALS to the path of a service account's JSON file.",
                    of_settings=False,
                )
        yield from super().check()

    def identity(self) -> dict[str, Any]:
        return {
            "enterprise": True,
            "project": self._project,
            "location": self._location,
            "credentials": self._credentials,
        }

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        if not self._project:
            raise ProviderMisconfigured("Vertex AI has no project. Set GOOGLE_PROJECT_ID.")
        await self.import_packages()
        from google.genai import types

        source = types.RecontextImageSource(
            person_image=_image(request.person),
            product_images=[types.ProductImage(product_image=_image(request.garment))],
        )
        config = types.RecontextImageConfig(
            number_of_images=request.pictures,
            seed=request.seed,
            add_watermark=None if request.seed is None else False,
            output_mime_type=f"image/{request.output_format or self._output_format}",
        )
        response = await self.call(
            lambda models: models.recontext_image(model=self._model, source=source, config=config)
        )
        return self._result(request, response)

    async def call(self, ask: Callable[[AsyncModels], Awaitable[T]]) -> T:
        await self.import_packages()
        from google.auth import exceptions

        failure: ProviderError
        try:
            if self._credentials is None:
                # Reads a file, and may ask the machine's metadata server.
                loaded = await asyncio.to_thread(self._load_credentials)
                self._credentials = self._credentials or loaded
            return await super().call(ask)
        except exceptions.TransportError as error:
            failure = ProviderUnavailable(f"Vertex AI: no token could be fetched: {type(error).__name__}.")
        except exceptions.GoogleAuthError as error:
            kind = ProviderUnavailable if error.retryable else ProviderMisconfigured
            failure = kind(f"Vertex AI gave no token: {type(error).__name__}. {self.identity_advice}")
        # Out here, so that the library's error is not its context: that may hold a token or parts of the private key.
        raise failure

    def _load_credentials(self) -> Credentials:
        """Raise ``GoogleAuthError`` for default credentials that are not there."""
        import google.auth
        from google.oauth2 import service_account

        if not self._path:
            default: Credentials = google.auth.default(scopes=SCOPES)[0]
            return default
        try:
            info = _service_account(self._path)
            loaded: Credentials = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
        except _Unusable as error:
            problem = str(error)
        except (ValueError, TypeError, AttributeError):  # a private key that is none, for instance
            problem = "which has no usable key"
        else:
            return loaded
        raise ProviderMisconfigured(f"Vertex AI cannot be used with the option credentials, a file {problem}.")

    def _result(self, request: TryOnRequest, response: RecontextImageResponse) -> TryOnResult:
        made = response.generated_images or []
        pictures = [data for image in made if (data := _bytes(image))]
        if len(pictures) < request.pictures and any(image.rai_filtered_reason for image in made):
            codes = ", ".join(_support_codes(made))
            raise ContentRefused(
                f"Vertex AI's content policy refused ({codes or 'it does not say why'}).", category=codes, status=200
            )
        if not pictures:
            raise InvalidProviderResponse("Vertex AI answered without a picture.", status=200)
        first = next(image.image for image in made if _bytes(image))
        asked = f"image/{request.output_format or self._output_format}"
        return TryOnResult(
            data=pictures[0],
            more=tuple(pictures[1:]),
            content_type=one_line(first and first.mime_type) or asked,
            model=self._model,
            seed=request.seed,
            warnings=() if request.seed is None else (UNMARKED,),
        )


class _Unusable(ValueError):
    """What is wrong with a file of credentials, to follow its name."""


def _service_account(path: str) -> dict[str, Any]:
    """What is in the file of a service account. Raise ``_Unusable``."""
    try:
        info = json.loads(Path(path).read_bytes())
    except OSError:
        raise _Unusable("which cannot be read" if Path(path).exists() else "which is not there") from None
    except (ValueError, RecursionError):
        raise _Unusable("which is not JSON") from None
    if not (isinstance(info, dict) and info.get("type") == "service_account"):
        raise _Unusable("which is not the key of a service account")
    return info


def _check_location(alias: str, location: object) -> None:
    if not (isinstance(location, str) and re.fullmatch(r"[a-z]+-[a-z]+[0-9]{1,2}", location)):
        advice = 'Use a region that has the model, such as "us-central1" or "europe-west4"; "global" has it not.'
        raise bad_option(alias, "location", location, advice)


def _image(photo: Photo) -> Any:
    from google.genai import types

    return types.Image(image_bytes=photo.data, mime_type=photo.content_type)


def _bytes(image: GeneratedImage) -> bytes:
    return (image.image and image.image.image_bytes) or b""


def _support_codes(made: list[GeneratedImage]) -> list[str]:
    """The numbers by which Google's sentences tell why: the rest of them is not for a log."""
    found = (code for image in made for code in re.findall(r"\b[0-9]{6,10}\b", image.rai_filtered_reason or ""))
    return list(dict.fromkeys(found))
