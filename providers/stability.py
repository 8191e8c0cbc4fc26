"""Stability AI's REST API: POST /v2beta/stable-image/control/style-transfer.

The wire format is that of platform.stability.ai/docs/api-reference (the ranges of the three strengths as in
docs.comfy.org, which passes them on); there is no SDK for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar, Final

from .base import Photo, Problem, Secret, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderError,
    ProviderRateLimited,
)
from .rest import Reply, RestProvider
from .utils import bad_option, check_choice, one_line, prompt_for

OUTPUT_FORMATS: Final = ("png", "jpeg", "webp")

MIN_SIDE: Final = 64
"""Pixels."""
MAX_SIDE: Final = 16_384
"""Pixels."""
MAX_REQUEST_BYTES: Final = 10 * 1024 * 1024
"""Of a whole request; a larger one is answered with 413."""
FORM_BYTES: Final = 64 * 1024
"""Kept free for what is sent besides the photos. The prompt is the most of it: 10 000 characters."""
MAX_SEED: Final = 4_294_967_294

PAUSE: Final = 60.0
"""Seconds for which everything is refused after 150 requests within 10; no header says so."""

CREDITS: Final = 8
"""Of one picture; a call that fails is free."""
DOLLARS_PER_CREDIT: Final = Decimal("0.01")

NO_FITTING: Final = (
    "This picture takes over the look of the garment, its colours and its pattern; "
    "its cut and its details may be different from the real one."
)


class StabilityProvider(RestProvider):
    """The person's photo in the style of the garment's. An impression, not a fitting.

    This vendor has nothing that puts a garment on a person. Of what it has, style-transfer is the only route that
    takes two photos, so it is the only one whose picture depends on the garment's; it carries over the look of it and
    promises nothing about its cut, which ``warnings`` tells the shopper. The routes edit/inpaint and
    edit/search-and-replace redraw the clothes alone, which is closer to a try-on, but they never see the garment: they
    take it in words, which a request does not hold, and would draw another one of the same description.

    ``style_strength`` and ``composition_fidelity`` (0 to 1) and ``change_strength`` (0.1 to 1) are the vendor's: how
    much of the garment's look there is, how much of the person's pose is kept, how far the picture may be from the
    photo. Left out, the vendor's own defaults count. Its pictures have about a million pixels. With the seed 0 it may
    take another; the result has the one it says it took.

    Its terms allow it to train on what it is sent, unless one opts out.
    """

    name: ClassVar[str] = "Stability AI"
    default_base_url: ClassVar[str] = "https://api.stability.ai/v2beta"
    key_variable: ClassVar[str] = "STABILITY_API_KEY"
    supports_seed = True
    max_photo_bytes = (MAX_REQUEST_BYTES - FORM_BYTES) // 2
    supports_category = True
    output_formats: tuple[str, ...] = OUTPUT_FORMATS

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        output_format: str = "png",
        style_strength: float | None = None,
        composition_fidelity: float | None = None,
        change_strength: float | None = None,
        base_url: str = "",
    ) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url)
        check_choice(alias, "output_format", output_format, OUTPUT_FORMATS)
        self._output_format = output_format
        self._strengths: dict[str, str] = {}
        for option, value, least in (
            ("style_strength", style_strength, 0),
            ("composition_fidelity", composition_fidelity, 0),
            ("change_strength", change_strength, 0.1),
        ):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1:
                raise bad_option(alias, option, value, f"Give a number from {least} to 1, or leave it out.")
            self._strengths[option] = str(value)

    @property
    def model(self) -> str:
        return "style-transfer"

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield Problem(
            "The terms of Stability AI allow it to train on the photos that it is sent.",
            hint=f'Opt out of it there before shoppers\' photos go to the provider "{self.alias}".',
            fatal=False,
        )

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        self._demand_sendable(request)
        reply = await self.ask(
            "POST",
            "/stable-image/control/style-transfer",
            headers=_headers(request),
            data=self._fields(request),
            files={
                "init_image": _upload("person", request.person),
                "style_image": _upload("garment", request.garment),
            },
        )
        return self._result(reply, request)

    def _demand_sendable(self, request: TryOnRequest) -> None:
        """Refuse what the vendor is known to refuse."""
        if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
            self._refuse("seed", request.seed, f"takes 0 to {MAX_SEED}. Use one of these, or leave seed out.")
        for called, photo in (("Person photo", request.person), ("Garment photo", request.garment)):
            if min(photo.width, photo.height) < MIN_SIDE or max(photo.width, photo.height) > MAX_SIDE:
                raise ImageUnusable(
                    f"{called}: it has {photo.width}x{photo.height} pixels. "
                    f"Use one whose sides have {MIN_SIDE} to {MAX_SIDE}."
                )

    def _fields(self, request: TryOnRequest) -> dict[str, str]:
        fields = {
            "prompt": prompt_for(request),
            "output_format": request.output_format or self._output_format,
            **self._strengths,
        }
        if request.seed is not None:
            fields["seed"] = str(request.seed)
        return fields

    def _result(self, reply: Reply, request: TryOnRequest) -> TryOnResult:
        # A filtered picture comes as a success, blurred.
        reason = self.short(reply.headers.get("finish-reason", "SUCCESS"))
        if reason == "CONTENT_FILTERED":
            raise self.problem(ContentRefused, reply, f"{self.name} filtered its own picture ({reason}).")
        content_type = one_line(reply.headers.get("content-type", "").partition(";")[0])
        if reason != "SUCCESS" or not content_type.startswith("image/"):
            said = f"{len(reply.body)} bytes of {content_type or 'no content type'}"
            raise self.problem(
                InvalidProviderResponse, reply, f"{self.name} answered with {said}, finish-reason {reason or 'none'}."
            )
        return TryOnResult(
            data=reply.body,
            content_type=content_type,
            model=self.model,
            provider_id=self.request_id(reply),
            seed=_seed(reply.headers.get("seed", ""), request.seed),
            usage={"credits": CREDITS},
            cost_usd=CREDITS * DOLLARS_PER_CREDIT,
            warnings=(NO_FITTING,),
        )

    def explain(self, reply: Reply) -> ProviderError:
        if self.code_of(reply.content) == "content_moderation":
            return self.problem(ContentRefused, reply, f"{self.said(reply)} Its content policy refused.")
        error = super().explain(reply)
        if isinstance(error, ProviderRateLimited) and error.retry_after is None:
            error.retry_after = PAUSE
        return error

    def code_of(self, content: Any) -> object:
        return content.get("name") if isinstance(content, dict) else ""

    def request_id(self, reply: Reply) -> str:
        # Only errors are known to have an id, in their body.
        content = reply.content
        return self.short(content.get("id")) if isinstance(content, dict) else super().request_id(reply)


def _headers(request: TryOnRequest) -> dict[str, str]:
    headers = {"Accept": "image/*"}
    if request.end_user:
        headers["Stability-Client-User-ID"] = request.end_user
    return headers


def _upload(name: str, photo: Photo) -> tuple[str, bytes, str]:
    return f"{name}.{photo.content_type.removeprefix('image/')}", photo.data, photo.content_type


def _seed(text: str, asked: int | None) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else asked
