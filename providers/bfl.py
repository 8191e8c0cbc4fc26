"""Black Forest Labs: POST /v1/flux-tools/vto-v1, then GET the ``polling_url`` it answers with.

Wire format as in docs.bfl.ai/api-reference/models/virtual-try-on, the prompt as in docs.bfl.ai/flux_tools/flux_vto.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urldefrag, urlsplit

from .base import Model, Photo, Problem, Secret, TryOnRequest, TryOnResult
from .errors import ContentRefused, InvalidProviderResponse, ProviderRejectedInput, ProviderUnavailable
from .rest import JobProvider
from .utils import bad_option, check_choice, image_type, prompt_for

V1: Final = "flux-tools/vto-v1"
V2: Final = "flux-tools/vto-v2"
OUTPUT_FORMATS: Final = ("png", "jpeg", "webp")

TRY_ON: Final = (
    "TRY-ON: The person of image 1, maintaining exactly their face and pose, wearing the garment of image 2."
)
"""Comes before the prompt: the models are made for this sentence, and know the photos by these names."""


class BFLProvider(JobProvider):
    """FLUX virtual try-on; the picture has the shape of the person's photo and at most 2 megapixels.

    By the terms of service of 2026-08-04 Black Forest Labs may train on what is sent and made, photos of persons
    included, and there is no way to opt out short of an enterprise agreement. A check says so.

    ``safety_tolerance`` is from 0, the strictest, to 5. The picture is behind a link that ends after ten minutes and
    is fetched at once.

    A job's id is the URL where it is polled, in whichever region that is, and after ``#cost=``, which is not sent,
    what it cost in credits: that is said at the submission only. The answer does not say what a credit is in dollars,
    so ``cost_usd`` stays empty, and ``usage`` counts thousandths of credits.
    """

    name: ClassVar[str] = "Black Forest Labs"
    default_base_url: ClassVar[str] = "https://api.bfl.ai/v1"
    key_variable: ClassVar[str] = "BFL_API_KEY"
    supports_seed = True
    supports_category = True
    output_formats: tuple[str, ...] = OUTPUT_FORMATS
    models: ClassVar[tuple[Model, ...]] = (Model(V1), Model(V2))

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = V1,
        safety_tolerance: int = 2,
        output_format: str = "png",
        base_url: str = "",
        poll_every: float = 1.0,
    ) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url, poll_every=poll_every)
        if not (isinstance(model, str) and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", model)):
            raise bad_option(alias, "model", model, f"Use {V1} or {V2}.")
        if type(safety_tolerance) is not int or not 0 <= safety_tolerance <= 5:
            raise bad_option(alias, "safety_tolerance", safety_tolerance, "Give a whole number from 0 to 5.")
        check_choice(alias, "output_format", output_format, OUTPUT_FORMATS)
        self._model = model
        self._safety_tolerance = safety_tolerance
        self._output_format = output_format

    @property
    def model(self) -> str:
        return self._model

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield Problem(
            f'The provider "{self.alias}" sends photos of persons to {self.name}, whose terms of service of '
            "2026-08-04 let it train on them, without a way to opt out.",
            hint="Use another provider, or make an enterprise agreement with them and silence this check.",
            fatal=False,
        )

    def authorization(self) -> dict[str, str]:
        return {"x-key": self._api_key.reveal()}

    def is_own(self, url: str) -> bool:
        """Jobs are polled where they run, which may be api.eu.bfl.ai or api.us.bfl.ai."""
        return super().is_own(url) or _is_bfl(url)

    async def submit(self, request: TryOnRequest) -> str:
        content: dict[str, Any] = {
            "prompt": f"{TRY_ON}\n\n{prompt_for(request)}",
            "person": _base64(request.person),
            "garment": _base64(request.garment),
            "safety_tolerance": self._safety_tolerance,
            "output_format": request.output_format or self._output_format,
        }
        if request.seed is not None:
            content["seed"] = request.seed
        reply = await self.ask("POST", f"/{self._model}", json=content)
        answer = self.read(reply)
        url = answer.get("polling_url")
        if isinstance(url, str) and not self.is_own(url):
            said = f"{self.name} names another server as its own; the key does not go there."
            raise self.problem(InvalidProviderResponse, reply, said)
        return self.job_id(reply, _with_cost(url, answer.get("cost")))

    async def poll(self, job: str) -> TryOnResult | None:
        url, cost = urldefrag(job)
        reply = await self.ask_about(url)
        answer = self.read(reply)
        match answer.get("status"):
            case "Pending":
                return None
            case "Ready":
                return await self._result(answer, cost)
            case "Request Moderated" | "Content Moderated" as status:
                said = f"{self.name}'s content policy refused ({status})."
                raise self.problem(ContentRefused, reply, said, job_is_over=True)
            case "Error":
                raise self.problem(ProviderUnavailable, reply, f"{self.name} made no picture.", job_is_over=True)
            case "Task not found":
                said = f"{self.name} does not know the job."
                raise self.problem(ProviderRejectedInput, reply, said, job_is_over=True)
        raise self.problem(InvalidProviderResponse, reply, f"{self.name} answered without a status of the job.")

    async def _result(self, answer: Mapping[str, Any], cost: str) -> TryOnResult:
        result = answer.get("result")
        (picture,) = await self.pictures([result.get("sample") if isinstance(result, dict) else None])
        return TryOnResult(
            data=picture,
            content_type=image_type(picture),
            model=self._model,
            provider_id=self.short(answer.get("id")),
            usage=_usage(cost),
        )


def _is_bfl(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.username is None and parts.port in (None, 443)
    except ValueError:
        return False
    return plain and re.fullmatch(r"([a-z0-9-]+\.)*bfl\.ai", parts.hostname or "") is not None


def _base64(photo: Photo) -> str:
    return base64.b64encode(photo.data).decode()


def _with_cost(url: object, cost: object) -> object:
    is_cost = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 < cost < 1000
    return f"{url}#cost={cost:.3f}" if isinstance(url, str) and is_cost else url


def _usage(cost: str) -> dict[str, int]:
    match = re.fullmatch(r"cost=([0-9]+)\.([0-9]{3})", cost)
    return {"millicredits": int(match[1] + match[2])} if match else {}
