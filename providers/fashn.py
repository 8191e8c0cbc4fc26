"""FASHN, a specialist: POST /v1/run, then GET /v1/status/{id} (docs.fashn.ai; field names as in its SDK 0.9.0).

What a job cost in credits is a header of its status, so that it is known as well to a process that resumes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final
from urllib.parse import quote

from .base import Model, Secret, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from .rest import JobProvider, Reply
from .utils import bad_option, check_choice, data_uri, image_type, prompt_for

MAX: Final = "tryon-max"
V1_6: Final = "tryon-v1.6"
MODES: Final = ("balanced", "quality")
V1_MODES: Final = ("performance", "balanced", "quality")
RESOLUTIONS: Final = ("1k", "2k", "4k")
CATEGORIES: Final = {"auto": "auto", "tops": "tops", "bottoms": "bottoms", "dresses": "one-pieces"}

DOLLARS_PER_CREDIT: Final = Decimal("0.075")
"""What others sell one for; FASHN's own list price could not be verified. Whoever has a plan pays less."""


class FashnProvider(JobProvider):
    """The models tryon-max (follows the prompt; 1k to 4k) and tryon-v1.6 (by category; 864x1296 pixels; faster).

    ``mode`` weighs time against quality; ``resolution`` is for tryon-max alone. Pictures come as base64 and are then
    not stored at the vendor. Failed jobs are not charged, so another attempt is not a second paid one.
    """

    name: ClassVar[str] = "FASHN"
    default_base_url: ClassVar[str] = "https://api.fashn.ai/v1"
    key_variable: ClassVar[str] = "FASHN_API_KEY"
    supports_seed = True
    supports_category = True
    max_pictures = 4
    sizes: tuple[str, ...] = RESOLUTIONS
    output_formats: tuple[str, ...] = ("png", "jpeg")
    models: ClassVar[tuple[Model, ...]] = (Model(MAX), Model(V1_6, successor=MAX))

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = MAX,
        mode: str = "balanced",
        resolution: str = "1k",
        output_format: str = "png",
        base_url: str = "",
        poll_every: float = 1.0,
    ) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url, poll_every=poll_every)
        if not (isinstance(model, str) and model):
            raise bad_option(alias, "model", model, f"Use {MAX} or {V1_6}.")
        self._is_v1 = model.startswith("tryon-v1")
        check_choice(alias, "mode", mode, V1_MODES if self._is_v1 else MODES)
        check_choice(alias, "resolution", resolution, RESOLUTIONS)
        check_choice(alias, "output_format", output_format, self.output_formats)
        self._model = model
        self._mode = mode
        self._resolution = resolution
        self._output_format = output_format
        # The class says what some of its models can do; this one:
        self.supports_prompt = not self._is_v1
        self.sizes = () if self._is_v1 else RESOLUTIONS

    @property
    def model(self) -> str:
        return self._model

    @property
    def size(self) -> str:
        return "" if self._is_v1 else self._resolution

    async def submit(self, request: TryOnRequest) -> str:
        reply = await self.ask("POST", "/run", json={"model_name": self._model, "inputs": self._inputs(request)})
        return self.job_id(reply, self.read(reply).get("id"))

    async def poll(self, job: str) -> TryOnResult | None:
        reply = await self.ask_about(f"/status/{quote(job, safe='')}")
        answer = self.read(reply)
        match answer.get("status"):
            case "starting" | "in_queue" | "processing":
                return None
            case "completed":
                return await self._result(job, answer, reply)
            case "failed" | "canceled" | "time_out":
                raise self._failed(answer, reply)
        raise self.problem(InvalidProviderResponse, reply, f"{self.name} answered without a status of the job.")

    def _inputs(self, request: TryOnRequest) -> dict[str, Any]:
        """FASHN's own names for what is asked for."""
        inputs: dict[str, Any] = {
            "model_image": data_uri(request.person),
            "output_format": request.output_format or self._output_format,
            "return_base64": True,
        }
        if request.seed is not None:
            inputs["seed"] = request.seed
        if self._is_v1:
            inputs |= {
                "garment_image": data_uri(request.garment),
                "category": CATEGORIES[request.category],
                "mode": self._mode,
                "num_samples": request.pictures,
            }
        else:
            inputs |= {
                "product_image": data_uri(request.garment),
                "prompt": prompt_for(request),
                "generation_mode": self._mode,
                "resolution": request.size or self._resolution,
                "num_images": request.pictures,
            }
        return inputs

    async def _result(self, job: str, answer: Mapping[str, Any], reply: Reply) -> TryOnResult:
        pictures = await self.pictures(answer.get("output"))
        credits_used = _credits(reply.headers.get("x-fashn-credits-used", ""))
        return TryOnResult(
            data=pictures[0],
            more=tuple(pictures[1:]),
            content_type=image_type(pictures[0]),
            model=self._model,
            provider_id=job,
            usage={"credits": credits_used} if credits_used else {},
            cost_usd=credits_used * DOLLARS_PER_CREDIT if credits_used else None,
        )

    def _failed(self, answer: Mapping[str, Any], reply: Reply) -> ProviderError:
        """Our word for a job that ended without a picture."""
        error = answer.get("error")
        name = self.short(error.get("name")) if isinstance(error, dict) else ""
        said = f"{self.name} made no picture ({name or self.short(answer.get('status'))})."
        over: dict[str, Any] = {"job_is_over": True}
        match name:
            case "ContentModerationError":
                return self.problem(ContentRefused, reply, said, **over)
            case "PoseError":
                sentence = (
                    "Person photo: no person was found whose pose could be read. Use a clear photo of one person."
                )
                return self.problem(ImageUnusable, reply, sentence, **over)
            case "ImageLoadError" | "InputValidationError":
                return self.problem(ProviderRejectedInput, reply, said, **over)
        return self.problem(ProviderUnavailable, reply, said, **over)

    def explain(self, reply: Reply) -> ProviderError:
        if reply.status == 429 and self.code_of(reply.content) == "OutOfCredits":
            return self.problem(ProviderQuotaExceeded, reply, f"{self.said(reply)} The account has no credits left.")
        return super().explain(reply)

    def code_of(self, content: Any) -> object:
        return content.get("error") if isinstance(content, dict) else ""


def _credits(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
