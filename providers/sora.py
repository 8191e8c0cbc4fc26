"""The videos API that OpenAI had for Sora, at servers that still speak it.

POST /v1/videos, then GET /v1/videos/{id}, then GET /v1/videos/{id}/content (as in openai 3.54, resources/videos.py and
types/video*.py; its own methods all warn that they are deprecated).
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlsplit

from PIL import Image

from .base import Model, Photo, Problem, Secret, TryOnRequest, TryOnResult
from .errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from .openai.failures import QUOTA_CODES
from .rest import JobProvider, Reply
from .utils import bad_option, image_type, prompt_for

SHUTDOWN: Final = date(2026, 9, 24)
SUCCESSOR: Final = "a model of the server at base_url"

OWN_PARAMS: Final = frozenset({"model", "seconds", "size"})
"""Fields of the request that come from the options, not from the shopper."""
REFUSAL: Final = re.compile("moderation|content_policy|safety")
"""In a code. OpenAI's are moderation_blocked and content_policy_violation; other servers' are not known."""
NOT_THERE: Final = frozenset({400, 404, 405, 410, 422})
"""Answers to a request that has nothing to be wrong but what it asks for."""

MAX_SECONDS: Final = 60
MAX_SIDE: Final = 4096
"""Pixels."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two polls, whatever the server asks for."""

PERSONS_SHARE: Final = 2 / 3
"""Of the longer side of the reference picture."""
QUALITY: Final = 95
"""Of the reference picture as a JPEG."""

LAYOUT: Final = (
    "The reference picture is a sheet with two photos. The first one, {first}, is the person. "
    "The second one, {second}, is the garment. Never show the sheet itself: from the first moment on, "
    "show the person alone, filling the frame and wearing the garment."
)
MAY_SHOW_THE_SHEET: Final = "The clip may begin with the two photos that it was made from."


class SoraProvider(JobProvider):
    """A short clip of the person in the garment, and a still of it.

    OpenAI's own service ended on 2026-09-24 and nothing of OpenAI's follows it. So ``base_url`` has to be that of
    another server that speaks the same API, and ``model`` one of that server's.

    The API takes one reference picture, of exactly the dimensions of ``size``. Both photos are needed for a try-on, so
    they are put on one sheet, whole and undistorted on white: along its longer side two thirds for the person, whose
    face matters most, and the last third for the garment. The prompt says which is which and that the sheet itself is
    not to be seen. A server that takes the reference for the first frame begins with the sheet all the same, and its
    still may be the sheet: look at a few clips of your server first.

    ``seconds`` is the clip's length. OpenAI's models made 4, 8 or 12 of 720x1280, 1280x720, 1024x1792 or 1792x1024;
    other models have other limits. Clips take longer than pictures: mind the deadline.
    """

    name: ClassVar[str] = "Sora"
    default_base_url: ClassVar[str] = ""
    key_variable: ClassVar[str] = "SORA_API_KEY"
    supports_category = True
    makes_video = True
    models: ClassVar[tuple[Model, ...]] = (
        Model("sora-2", SHUTDOWN, SUCCESSOR),
        Model("sora-2-pro", SHUTDOWN, SUCCESSOR),
    )

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        base_url: str = "",
        model: str = "",
        seconds: int = 4,
        size: str = "720x1280",
        poll_every: float = 2.0,
    ) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url, poll_every=poll_every)
        if not isinstance(model, str):
            raise bad_option(alias, "model", model, "Give the name of a video model of the server at base_url.")
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= MAX_SECONDS:
            raise bad_option(alias, "seconds", seconds, f"Give a whole number from 1 to {MAX_SECONDS}.")
        self._model = model
        self._seconds = seconds
        self._size = size
        self._width, self._height = _dimensions(alias, size)

    @property
    def model(self) -> str:
        return self._model

    @property
    def size(self) -> str:
        return self._size

    @property
    def known_models(self) -> tuple[Model, ...]:
        return ()  # another server's models live as long as that server likes, whatever they are called

    def check(self) -> Iterator[Problem]:
        if problem := self._no_server():
            yield problem
        yield from super().check()

    def _no_server(self) -> Problem | None:
        """What is wrong with ``base_url`` or ``model``."""
        hint = "Set base_url to a server that still speaks OpenAI's videos API, or use another provider."
        if not self._base_url:
            return Problem(f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["base_url"] is empty.', hint)
        host = (urlsplit(self._base_url).hostname or "").rstrip(".")
        if host == "api.openai.com" or host.endswith(".api.openai.com"):
            return Problem(f"OpenAI ended Sora and its videos API on {SHUTDOWN}; {host} has nothing left of it.", hint)
        if not self._model:
            return Problem(
                f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["model"] is empty.',
                hint="Name a video model of the server at base_url.",
            )
        return None

    async def ask(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **content: Any) -> Reply:
        if problem := self._no_server():
            raise ProviderMisconfigured(f"{problem.message} {problem.hint}")
        return await super().ask(method, url, headers=headers, **content)

    async def submit(self, request: TryOnRequest) -> str:
        sheet = await asyncio.to_thread(_sheet, request, self._width, self._height)
        reply = await self.ask(
            "POST",
            "/videos",
            data={
                "prompt": self._prompt(request),
                "model": self._model,
                "seconds": str(self._seconds),
                "size": self._size,
            },
            files={"input_reference": ("reference.jpeg", sheet, "image/jpeg")},
        )
        return self.job_id(reply, self.read(reply).get("id"))

    async def poll(self, job: str) -> TryOnResult | None:
        reply = await self.ask_about(_path(job))
        answer = self.read(reply)
        match answer.get("status"):
            case "queued" | "in_progress":
                await self._wait_as_told(reply)
                return None
            case "completed":
                return await self._result(job)
            case "failed":
                raise self._failed(answer, reply)
        raise self.problem(InvalidProviderResponse, reply, f"{self.name} answered without a status of the job.")

    async def cancel(self, job: str) -> None:
        """Delete the job. OpenAI let go of ended ones only; whether a running one stops is the server's business."""
        await self.ask("DELETE", _path(job))

    def _prompt(self, request: TryOnRequest) -> str:
        stacked = _is_stacked(self._width, self._height)
        first, second = ("above", "below") if stacked else ("on the left", "on the right")
        return f"{LAYOUT.format(first=first, second=second)}\n\n{prompt_for(request)}"

    async def _wait_as_told(self, reply: Reply) -> None:
        """What the server wants us to wait, besides the pause that is made anyway."""
        hint = reply.headers.get("openai-poll-after-ms", "")
        if re.fullmatch(r"[0-9]{1,15}", hint):
            await asyncio.sleep(max(0.0, min(int(hint) / 1000, LONGEST_PAUSE) - self._poll_every))

    async def _result(self, job: str) -> TryOnResult:
        video = await self._content(job, "video")
        if video[4:8] != b"ftyp":
            raise InvalidProviderResponse(
                f"{self.name} answered with {len(video)} bytes that are no MP4.", status=200, request_id=job
            )
        still = await self._content(job, "thumbnail")
        content_type = image_type(still)  # both are delivered as bytes of any kind
        if not content_type:
            raise InvalidProviderResponse(
                f"{self.name} made a video, but its still of {len(still)} bytes is no picture.",
                status=200,
                request_id=job,
            )
        return TryOnResult(
            data=still,
            content_type=content_type,
            video=video,
            model=self._model,
            provider_id=job,
            warnings=(MAY_SHOW_THE_SHEET,),
        )

    async def _content(self, job: str, variant: str) -> bytes:
        try:
            reply = await self.ask(
                "GET",
                f"{_path(job)}/content",
                params={"variant": variant},
                headers={"Accept": "application/binary"},
            )
        except ProviderError as error:
            if error.status not in NOT_THERE:
                raise
            said = f"{self.name} made a video, but has no {variant} to give (it answered {error.status})."
            raise InvalidProviderResponse(said, status=error.status, request_id=job, job_is_over=True) from None
        return reply.body

    def _failed(self, answer: Mapping[str, Any], reply: Reply) -> ProviderError:
        """Our word for a job that ended without a video."""
        details = _details(answer)
        code = self.short(self.code_of(answer))
        kind: type[ProviderError] = ProviderUnavailable
        if REFUSAL.search(code):
            kind = ContentRefused
        elif code in QUOTA_CODES:
            kind = ProviderQuotaExceeded
        elif code == "rate_limit_exceeded":
            kind = ProviderRateLimited
        elif code.startswith("invalid_") or details.get("type") == "invalid_request_error":
            kind = ProviderRejectedInput
        return self.problem(kind, reply, f"{self.name} made no video ({code or 'failed'}).", job_is_over=True)

    def explain(self, reply: Reply) -> ProviderError:
        details = _details(reply.content)
        code = self.short(self.code_of(reply.content))
        said = self.said(reply)
        if REFUSAL.search(code):
            return self.problem(ContentRefused, reply, f"{said} The content policy refused.")
        if code in QUOTA_CODES:
            return self.problem(ProviderQuotaExceeded, reply, f"{said} The account has no money or quota left.")
        if reply.status in (400, 422) and (code == "model_not_found" or details.get("param") in OWN_PARAMS):
            return self.problem(ProviderMisconfigured, reply, f"{said} Check the options of this provider.")
        return super().explain(reply)

    def code_of(self, content: Any) -> object:
        details = _details(content)
        return details.get("code") or details.get("type")


def _path(job: str) -> str:
    return f"/videos/{quote(job, safe='')}"


def _details(content: Any) -> dict[str, Any]:
    """The ``error`` of an answer or of a job."""
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {}


def _dimensions(alias: str, size: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", size) if isinstance(size, str) else None
    if match is None or max(int(match[1]), int(match[2])) > MAX_SIDE:
        advice = f'Use WIDTHxHEIGHT in pixels, for instance "720x1280", each of 10 to {MAX_SIDE}.'
        raise bad_option(alias, "size", size, advice)
    return int(match[1]), int(match[2])


def _is_stacked(width: int, height: int) -> bool:
    """Whether the person is above the garment; otherwise on its left."""
    return height >= width


def _sheet(request: TryOnRequest, width: int, height: int) -> bytes:
    """Both photos on one JPEG of exactly this size. Takes up to a second of CPU, for large photos."""
    sheet = Image.new("RGB", (width, height), "white")
    if _is_stacked(width, height):
        cut = round(height * PERSONS_SHARE)
        first, second = (0, 0, width, cut), (0, cut, width, height)
    else:
        cut = round(width * PERSONS_SHARE)
        first, second = (0, 0, cut, height), (cut, 0, width, height)
    _place(sheet, "Person photo", request.person, first)
    _place(sheet, "Garment photo", request.garment, second)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _place(sheet: Image.Image, called: str, photo: Photo, box: tuple[int, int, int, int]) -> None:
    """Put the photo in the middle of the box, as large as it fits."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    try:
        with Image.open(io.BytesIO(photo.data)) as image:
            image.draft("RGB", (width, height))  # a large JPEG is read at a fraction of its size
            picture = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError):
        raise ImageUnusable(f"{called}: it cannot be read. Use another one.") from None
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(picture, (left + (width - size[0]) // 2, top + (height - size[1]) // 2), picture)
