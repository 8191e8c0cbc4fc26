"""Google's Gemini API: an image model, and a vision model before it if wanted.

POST /v1/models/{model}:generateContent. The wire format is that of google-genai 3 (google/genai/models.py,
``_generate_content``); the answer is the ``GenerateContentResponse`` of google/genai/types.py, in camel case.
A refusal comes as a success without a picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, Final

from .base import Model, Photo, Problem, Secret, TryOnRequest, TryOnResult
from .errors import ContentRefused, InvalidProviderResponse, ProviderMisconfigured, ProviderRejectedInput
from .google import GoogleProvider, NothingMade, a_code, as_dict, as_list, check_model, is_refusal
from .utils import check_choice, check_key, decode_base64, one_line, prompt_for, short

BASE_URL: Final = "https://generativelanguage.googleapis.com"
KEY_VARIABLE: Final = "GOOGLE_API_KEY"

IMAGE_MODEL: Final = "gemini-nano-banana-2.1"
VISION_MODEL: Final = "gemini-3.8-flash"
"""The one to give as ``describe_with``."""

SIZES: Final = ("1K", "2K", "4K")
ONLY_1K: Final = frozenset({"gemini-3.1-flash-lite-image"})

ASPECT_RATIOS: Final = (
    *("1:1", "1:4", "1:8", "2:3", "3:2", "3:4", "4:1", "4:3", "4:5", "5:4", "8:1", "9:16", "16:9", "21:9"),
)
"""Width to height."""

PRICES: Final = {
    # US dollars per million tokens: in, text out, image out. List prices of November 2026.
    IMAGE_MODEL: (Decimal("1.50"), Decimal("7.50"), Decimal(30)),
    "gemini-4-hydrogen": (Decimal("1.50"), Decimal("7.50"), Decimal(0)),
}

TRY_AGAIN: Final = frozenset({"NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE"})
"""Reasons for having nothing that are nobody's fault."""

DESCRIBE: Final = (
    "The first photo shows a person, the second a garment. Describe both for a photographer who will show this person "
    "wearing this garment. Of the person: pose, build, framing, what is worn that stays, light and background. Of the "
    "garment: kind, cut, length, colours, pattern and where it sits, fabric, neckline, sleeves, closures, prints and "
    "their text. Only what can be seen, in plain sentences. Do not guess the person's name, age, origin or health."
)
MAX_DESCRIPTION: Final = 8000
"""Characters."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one model said, without its thoughts."""

    model: str
    parts: list[dict[str, Any]]
    reason: str
    """Why it stopped."""
    usage: dict[str, int]
    id: str

    @property
    def text(self) -> str:
        texts = [part["text"] for part in self.parts if isinstance(part.get("text"), str)]
        return "\n".join(texts).encode(errors="replace").decode().strip()

    @property
    def image(self) -> dict[str, Any]:
        """The last one: those before it are on the way to it."""
        images = [as_dict(part.get("inlineData")) for part in self.parts]
        images = [image for image in images if str(image.get("mimeType")).startswith("image/")]
        return images[-1] if images else {}

    @property
    def cost(self) -> Decimal | None:
        """US dollars at list price. None if not known."""
        prices = PRICES.get(self.model)
        if prices is None or not {"prompt_tokens", "candidates_tokens"} <= self.usage.keys():
            return None
        given, text, image = prices
        out = self.usage["candidates_tokens"]
        images = self.usage.get("candidates_image_tokens", out - self.usage.get("candidates_text_tokens", 0))
        texts = out - images + self.usage.get("thoughts_tokens", 0)
        return (self.usage["prompt_tokens"] * given + texts * text + images * image) / 1_000_000


class GeminiProvider(GoogleProvider):
    """The prompt, the person's photo and the garment's, made into one picture of the shape of the person's photo.

    ``describe_with`` is the name of a vision model, for instance "gemini-3.8-flash": it describes person and garment
    first, and the image model gets the description as well as the photos. That is a second call to wait and pay for.

    ``size`` is about 1, 4 or 16 million pixels. ``base_url`` points to a server that passes requests on. The SDK's
    environment variables do not count.
    """

    name: ClassVar[str] = "Gemini"
    identity_advice: ClassVar[str] = "Check the api_key, and what it may be used for."
    supports_category = True
    sizes: tuple[str, ...] = ("1k", "2k", "4k")
    lists_models = True
    models: ClassVar[tuple[Model, ...]] = (
        Model(IMAGE_MODEL),
        Model("gemini-3-pro-image"),
        Model("gemini-3.1-flash-image", date(2026, 10, 29), IMAGE_MODEL),
        Model("gemini-3.1-flash-lite-image"),
        Model("gemini-2.5-flash-image", successor=IMAGE_MODEL),
        Model("gemini-3-pro-image-preview", date(2026, 6, 25), "gemini-3-pro-image"),
        Model("gemini-3.1-flash-image-preview", date(2026, 6, 25), IMAGE_MODEL),
        # For describe_with:
        Model(VISION_MODEL),
        Model("gemini-3.5-flash-lite"),
        Model("gemini-4-hydrogen"),
        Model("gemini-4-carbon"),
        Model("gemini-4-argon"),
        Model("gemini-3.7-flash", date(2026, 10, 8), VISION_MODEL),
        Model("gemini-3.5-flash", date(2026, 10, 8), "gemini-3.6-flash"),
        Model("gemini-2.5-pro", date(2026, 12, 1), VISION_MODEL),
        Model("gemini-2.5-flash", date(2026, 12, 1), VISION_MODEL),
        Model("gemini-1.5-pro", date(2025, 12, 31), VISION_MODEL),  # some day of that year
    )

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = IMAGE_MODEL,
        size: str = "1K",
        describe_with: str = "",
        base_url: str = "",
    ) -> None:
        model, describe_with = _plain(model), _plain(describe_with)
        super().__init__(alias, model=model, base_url=base_url or BASE_URL)
        self._api_key = check_key(alias, "api_key", api_key)
        check_choice(alias, "size", size, SIZES[:1] if model in ONLY_1K else SIZES)
        if describe_with != "":
            check_model(alias, "describe_with", describe_with)
        self._size = size
        self._describe_with = describe_with
        if model in ONLY_1K:
            self.sizes = ("1k",)

    @property
    def size(self) -> str:
        return self._size

    @property
    def models_in_use(self) -> tuple[str, ...]:
        return tuple(model for model in (self._model, self._describe_with) if model)

    def check(self) -> Iterator[Problem]:
        if not self._api_key:
            yield Problem(
                f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["api_key"] is empty.',
                hint=f"Set the environment variable {KEY_VARIABLE} to a key of Google AI Studio.",
            )
        yield from super().check()

    def identity(self) -> dict[str, Any]:
        return {"enterprise": False, "api_key": self._api_key.reveal()}

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        self._demand_key()
        prompt = prompt_for(request)
        if not _is_sendable(prompt):
            raise ProviderRejectedInput("The prompt has characters that cannot be sent to Gemini.")
        described = await self._describe(request) if self._describe_with else None
        if described is not None:
            prompt = f"{prompt}\n\nThe person and the garment in words:\n{described.text[:MAX_DESCRIPTION]}"
        rendered = await self._generate(
            self._model,
            [prompt, request.person, request.garment],
            response_modalities=["IMAGE"],
            image_config={
                "aspect_ratio": nearest_ratio(request.person),
                "image_size": request.size.upper() or self._size,
            },
        )
        return self._result(rendered, [described, rendered] if described is not None else [rendered])

    async def remote_models(self) -> list[Model]:
        self._demand_key()
        known = {model.name: model for model in self.models}

        async def names(models: Any) -> list[str]:
            return [
                one_line(model.name).removeprefix("models/")
                async for model in await models.list()
                if "generateContent" in (model.supported_actions or ())
            ]

        return [known.get(name, Model(name)) for name in await self.call(names) if name]

    def _demand_key(self) -> None:
        if not self._api_key:
            raise ProviderMisconfigured(f"Gemini has no api_key. Set {KEY_VARIABLE}.")

    async def _describe(self, request: TryOnRequest) -> _Answer:
        answer = await self._generate(self._describe_with, [request.person, request.garment, DESCRIBE])
        if not answer.text:
            raise self._nothing(answer.reason)
        return answer

    async def _generate(self, model: str, contents: list[str | Photo], **config: Any) -> _Answer:
        """One call of one model."""
        await self.import_packages()
        from google.genai import types

        parts = [
            types.Part.from_bytes(data=part.data, mime_type=part.content_type)
            if isinstance(part, Photo)
            else types.Part.from_text(text=part)
            for part in contents
        ]
        options = types.GenerateContentConfig(
            # As it came: else the SDK asks again where a model stopped early, and warns of values it does not know.
            should_return_http_response=True,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            **config,
        )
        content = [types.Content(role="user", parts=parts)]
        response = await self.call(
            lambda models: models.generate_content(model=model, contents=content, config=options)
        )
        body = response.sdk_http_response and response.sdk_http_response.body
        return self._answer(model, self._parse(body or ""))

    def _parse(self, body: str) -> dict[str, Any]:
        try:
            answer = json.loads(body)  # unlike orjson it reads the half characters that models write at times
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise InvalidProviderResponse(
                f"Gemini answered with {len(body)} characters that are no JSON object.", status=200
            )
        return answer

    def _answer(self, model: str, answer: Mapping[str, Any]) -> _Answer:
        """The first candidate. Raise ``ContentRefused`` if the request or the candidate was blocked."""
        feedback = as_dict(answer.get("promptFeedback"))
        candidate = as_dict(next(iter(as_list(answer.get("candidates"))), None))
        reason = a_code(candidate.get("finishReason"))
        answer_id = short(answer.get("responseId"), self._api_key)
        if "blockReason" in feedback:
            raise _refused(feedback, a_code(feedback["blockReason"]), answer_id)
        if is_refusal(reason):
            raise _refused(candidate, reason, answer_id)
        if reason == "PUP_LIMITED_DISABLED":
            raise ProviderMisconfigured(
                f"Gemini made nothing ({reason}). Google has limited the account over its prohibited use policy.",
                status=200,
                request_id=answer_id,
            )
        parts = [as_dict(part) for part in as_list(as_dict(candidate.get("content")).get("parts"))]
        return _Answer(
            model=model,
            parts=[part for part in parts if part.get("thought") is not True],
            reason=reason,
            usage=_usage(as_dict(answer.get("usageMetadata"))),
            id=answer_id,
        )

    def _nothing(self, reason: str) -> InvalidProviderResponse:
        """The error for an answer without what was asked for."""
        kind = NothingMade if reason in TRY_AGAIN else InvalidProviderResponse
        return kind(f"Gemini made nothing ({reason or 'it does not say why'}).", status=200)

    def _result(self, rendered: _Answer, steps: list[_Answer]) -> TryOnResult:
        image = rendered.image
        if not image and rendered.text and rendered.reason in ("", "STOP"):
            # It excuses itself in words, which are not for a log.
            raise ContentRefused("Gemini answered with words instead of a picture.", status=200)
        if not image:
            raise self._nothing(rendered.reason)
        try:
            data = decode_base64(image.get("data"))
        except ValueError:
            raise InvalidProviderResponse(
                "Gemini answered with a picture that is not base64.", status=200, request_id=rendered.id
            ) from None
        costs = [step.cost for step in steps]
        return TryOnResult(
            data=data,
            content_type=one_line(image["mimeType"]),
            model=self._model,
            provider_id=rendered.id,
            usage={name: sum(step.usage.get(name, 0) for step in steps) for step in steps for name in step.usage},
            cost_usd=None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0)),
        )


def nearest_ratio(photo: Photo) -> str:
    """The shape that a picture can have which is nearest to the photo's."""

    def distance(ratio: str) -> float:
        width, height = ratio.split(":")
        return abs(math.log(photo.width / photo.height) - math.log(int(width) / int(height)))

    return min(ASPECT_RATIOS, key=distance)


def _plain(model: str) -> str:
    """The model's name as we know it; the API knows it by both."""
    return model.removeprefix("models/") if isinstance(model, str) else model


def _is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(blocked: Mapping[str, Any], reason: str, answer_id: str) -> ContentRefused:
    """By what was found to be harmful, where that is told; else by the reason."""
    ratings = [as_dict(rating) for rating in as_list(blocked.get("safetyRatings"))]
    harms = [a_code(rating.get("category")) for rating in ratings if rating.get("blocked") is True]
    category = ", ".join(harm for harm in harms if harm) or reason
    return ContentRefused(
        f"Gemini's content policy refused ({category or 'it does not say why'}).",
        category=category,
        status=200,
        request_id=answer_id,
    )


def _usage(usage: Mapping[str, Any]) -> dict[str, int]:
    """The token counters: ``prompt_tokens``, ``candidates_tokens``, ``candidates_image_tokens`` and so on."""
    counters: dict[str, int] = {}
    for side in ("prompt", "candidates", "thoughts", "total"):
        if type(count := usage.get(f"{side}TokenCount")) is int:
            counters[f"{side}_tokens"] = count
        for detail in map(as_dict, as_list(usage.get(f"{side}TokensDetails"))):
            modality, count = a_code(detail.get("modality")).lower(), detail.get("tokenCount")
            if modality and type(count) is int:
                counters[f"{side}_{modality}_tokens"] = count
    return counters
