"""fal, a platform of models behind a queue: POST queue.fal.run/{model}, GET .../requests/{id}/status, GET .../{id}.

Sources: fal.ai/docs, "Asynchronous inference" (the queue, PUT .../cancel), "Model errors" and "Request errors"
(the two forms of ``detail``, X-Fal-Error-Type, X-Fal-Retryable); inputs of models from their pages at fal.ai/models.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, Final

from .base import Model, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from .fieldmaps import FieldMap, MappedProvider
from .rest import Reply

FASHN: Final = "fal-ai/fashn/tryon/v1.6"
KNOWN: Final = {
    FASHN: FieldMap(
        fields={
            "person": "model_image",
            "garment": "garment_image",
            "category": "category",
            "seed": "seed",
            "pictures": "num_samples",
            "output_format": "output_format",
        },
        categories={"auto": "auto", "dresses": "one-pieces"},
        max_pictures=4,
        output_formats=("png", "jpeg"),
        price=Decimal("0.075"),
    ),
    "fal-ai/flux-pro/v1/vto": FieldMap(
        fields={"person": "human_image_url", "garment": "garment_image_url", "prompt": "prompt"}
    ),
    "google/nano-banana-2.1/edit": FieldMap(
        fields={"person": "image_urls[]", "garment": "image_urls[]", "prompt": "prompt"}
    ),
    "fal-ai/flux-2-lora-gallery/virtual-tryon": FieldMap(
        fields={"person": "image_urls[]", "garment": "image_urls[]", "prompt": "prompt"}
    ),
}

PHOTOS: Final = {"person": "Person photo", "garment": "Garment photo"}
SIZES: Final = {
    "image_too_large": "too large for the model. Use a smaller one.",
    "image_too_small": "too small for the model. Use a larger one.",
}


class FalProvider(MappedProvider):
    """Any try-on model at fal; FASHN's v1.6 unless told otherwise.

    ``inputs={"sync_mode": True}`` has the models that know it answer with the picture itself, and not with a link.
    Cancelling a run tells the queue; a model that has begun may finish all the same, and then counts.
    """

    name: ClassVar[str] = "fal"
    default_base_url: ClassVar[str] = "https://queue.fal.run"
    key_variable: ClassVar[str] = "FAL_KEY"
    # Those of the default model; each provider has those of its own.
    supports_prompt = False
    supports_seed = True
    supports_category = True
    max_pictures = KNOWN[FASHN].max_pictures
    output_formats = KNOWN[FASHN].output_formats
    models: ClassVar[tuple[Model, ...]] = (
        *(Model(name) for name in KNOWN),
        Model("fal-ai/fashn/tryon", date(2026, 11, 23), FASHN),  # gone on that day; since when, nobody says
        Model("fal-ai/kling/v1-5/kolors-virtual-try-on", date(2026, 9, 15), FASHN),  # its vendor's end, not fal's
    )
    known: ClassVar[Mapping[str, FieldMap]] = KNOWN
    default_model: ClassVar[str] = FASHN
    model_pattern: ClassVar[str] = r"[\w-][\w.-]*(/[\w-][\w.-]*)+"
    model_example: ClassVar[str] = FASHN

    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Key {self._api_key.reveal()}"}

    async def submit(self, request: TryOnRequest) -> str:
        reply = await self.ask("POST", f"/{self._model}", json=self._map.inputs_for(request))
        answer = self.read(reply)
        job = answer.get("request_id")
        # A request belongs to the app, which is the first two parts of the model's name.
        app = "/".join(self._model.split("/")[:2])
        return self.job_path(reply, answer.get("response_url"), f"{app}/requests/{job}" if job else "")

    async def poll(self, job: str) -> TryOnResult | None:
        reply = await self.ask_about(f"/{job}/status")
        match self.read(reply).get("status"):
            case "IN_QUEUE" | "IN_PROGRESS":
                return None
            case "COMPLETED":
                return await self._result(job)
        raise self.problem(InvalidProviderResponse, reply, f"{self.name} answered without a status of the job.")

    async def cancel(self, job: str) -> None:
        await self.ask("PUT", f"/{job}/cancel")

    async def _result(self, job: str) -> TryOnResult:
        """The pictures of a job that is done. A model that failed is done as well: its error is then the response."""
        try:
            answer = self.read(await self.ask_about(f"/{job}"))
        except (ContentRefused, ImageUnusable, ProviderRejectedInput) as error:
            error.job_is_over = True
            raise
        images = answer.get("images") or [answer.get("image")]
        links = [image.get("url") if isinstance(image, dict) else None for image in _list(images)]
        return await self.result(job, links)

    def explain(self, reply: Reply) -> ProviderError:
        """Our word for an error of the model (``detail`` is a list), of its runner (it has a type), or of the API."""
        detail = reply.content.get("detail") if isinstance(reply.content, dict) else None
        found = [entry for entry in _list(detail) if isinstance(entry, dict)]
        error = self._of_model(reply, found) or super().explain(reply)
        if reply.status == 403 and isinstance(detail, str) and "balance" in detail.lower():
            error = self.problem(ProviderQuotaExceeded, reply, f"{self.said(reply)} The account has no money left.")
        elif reply.status == 499 or (type(error) is ProviderRejectedInput and _may_retry(reply)):
            error = self.problem(ProviderUnavailable, reply, self.said(reply))
        # A runner's or a model's last word. Others, of the gateway or about the account, say nothing about the job.
        error.job_is_over = bool(found or self._type(reply)) and not isinstance(error, ProviderMisconfigured)
        return error

    def _of_model(self, reply: Reply, found: list[dict[str, Any]]) -> ProviderError | None:
        """Our word for what a model says about the photos or the prompt."""
        for entry in found:
            kind = entry.get("type")
            if isinstance(kind, str) and "content_policy" in kind:
                category = ", ".join(filter(None, map(self.short, _list(entry.get("categories")))))
                said = f"{self.name}'s content policy refused. {self.said(reply)}"
                return self.problem(ContentRefused, reply, said, category=category)
            photo = self._map.photo_at(_list(entry.get("loc"))[1:])
            if photo and kind in SIZES:
                return self.problem(ImageUnusable, reply, f"{PHOTOS[photo]}: it is {SIZES[kind]}")
        return None

    def said(self, reply: Reply) -> str:
        code = self.short(self.code_of(reply.content)) or self._type(reply)
        return f"{self.name} answered {reply.status}" + (f" ({code})." if code else ".")

    def code_of(self, content: Any) -> object:
        if not isinstance(content, dict):
            return ""
        found = [entry for entry in _list(content.get("detail")) if isinstance(entry, dict)]
        return found[0].get("type") if found else content.get("error_type")

    def _type(self, reply: Reply) -> str:
        """What the platform calls an error of its own."""
        content = reply.content if isinstance(reply.content, dict) else {}
        return self.short(content.get("error_type")) or self.short(reply.headers.get("x-fal-error-type"))


def _may_retry(reply: Reply) -> bool:
    # "false" is not looked at: where it comes with a 5xx, another provider may do it all the same.
    return any(reply.headers.get(name) in ("true", "1") for name in ("x-fal-retryable", "x-fal-needs-retry"))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
