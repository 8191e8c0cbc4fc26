"""A server that speaks the videos API: POST /videos, GET and DELETE /videos/{id}, GET /videos/{id}/content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from providers.errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, VendorServer, json_answer, openai_error

from . import KEY, Double, Expected, Trouble, picture

JOB = "video_68d7512d07848190b3e45da0ecbebcde004da08e1e0678d5"
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(range(256)) * 4


class Sora(Double):
    alias = "sora"
    backend = "providers.sora.SoraProvider"
    steps = ("create", "status", "video", "thumbnail")
    overrides = {
        ("status", "404"): ProviderRejectedInput,
        **{(step, name): InvalidProviderResponse for step in ("video", "thumbnail") for name in ("400", "404", "422")},
    }

    def __init__(self) -> None:
        super().__init__()
        self.picture = picture("WEBP")
        self.still_working = 1
        """Polls that find the job at work."""
        self.poll_after: dict[str, str] = {}
        """Headers of these."""

    def options(self, server: VendorServer) -> dict[str, Any]:
        # A small size, so that the reference picture is made in no time.
        return {
            "api_key": KEY,
            "base_url": server.base_url,
            "model": "acme-video-3",
            "size": "72x128",
            "poll_every": 0.01,
        }

    def step(self, call: Call) -> str:
        if call.method != "GET":
            return "create" if call.method == "POST" else "cancel"
        _, _, variant = call.path.partition("/content?variant=")
        return variant or "status"

    def behave(self, call: Call) -> Answer:
        match self.step(call):
            case "create":
                return job("queued")
            case "status" if self.still_working:
                self.still_working -= 1
                return job("in_progress", **self.poll_after)
            case "status":
                return job("completed")
            case "cancel":
                return json_answer({"id": JOB, "object": "video.deleted", "deleted": True})
            case "video":
                return Answer(body=MP4, headers={"content-type": "video/mp4"})
        return Answer(body=self.picture, headers={"content-type": "image/webp"})

    def own_troubles(self) -> Iterator[Trouble]:
        codes: list[tuple[int, str, str | None, Expected]] = [
            (400, "moderation_blocked", None, ContentRefused),
            (400, "content_policy_violation", None, ContentRefused),
            (403, "safety_system", None, ContentRefused),
            (400, "invalid_value", "input_reference", ProviderRejectedInput),
            (400, "invalid_value", "size", ProviderMisconfigured),
            (400, "invalid_value", "seconds", ProviderMisconfigured),
            (400, "model_not_found", None, ProviderMisconfigured),
            (400, "billing_hard_limit_reached", None, ProviderQuotaExceeded),
            (401, "invalid_api_key", None, ProviderMisconfigured),
            (401, KEY, None, ProviderMisconfigured),
            (404, "model_not_found", "model", ProviderMisconfigured),
            (429, "rate_limit_exceeded", None, ProviderRateLimited),
            (429, "insufficient_quota", None, ProviderQuotaExceeded),
            (500, "server_error", None, ProviderUnavailable),
        ]
        for status, code, param, expected in codes:
            answer = openai_error(status, code, param=param, message=KEY)
            yield Trouble(f"{status} {code if code != KEY else 'key'} {param}", "create", answer, expected)
        yield Trouble("error as a text", "create", json_answer({"error": "No."}, 400), ProviderRejectedInput)
        yield Trouble("no id", "create", json_answer({"id": None}), InvalidProviderResponse)
        yield Trouble("odd id", "create", json_answer({"id": "../a b"}), InvalidProviderResponse)
        ends: list[tuple[object, Expected]] = [
            ("moderation_blocked", ContentRefused),
            ("input_moderation", ContentRefused),
            ("content_policy_violation", ContentRefused),
            ("insufficient_quota", ProviderQuotaExceeded),
            ("rate_limit_exceeded", ProviderRateLimited),
            ("invalid_prompt", ProviderRejectedInput),
            ("something_new", ProviderUnavailable),
            (None, ProviderUnavailable),
            (5, ProviderUnavailable),
        ]
        for end, expected in ends:
            answer = job("failed", error={"code": end, "message": KEY})
            yield Trouble(f"failed {end}", "status", answer, expected)
        by_type = job("failed", error={"code": "odd", "type": "invalid_request_error", "message": KEY})
        yield Trouble("failed by type", "status", by_type, ProviderRejectedInput)
        yield Trouble("failed without error", "status", job("failed", error=None), ProviderUnavailable)
        yield Trouble("failed with a text", "status", job("failed", error=KEY), ProviderUnavailable)
        yield Trouble("another status", "status", job("thinking"), InvalidProviderResponse)
        video, image = {"content-type": "video/mp4"}, {"content-type": "image/webp"}
        contents = [
            ("a picture", "video", Answer(body=picture(), headers=video)),
            ("webm", "video", Answer(body=b"\x1aE\xdf\xa3\x01\x00\x00\x00", headers=video)),
            ("nothing of a video", "video", Answer(headers=video)),
            ("the video again", "thumbnail", Answer(body=MP4, headers=image)),
            ("a text", "thumbnail", Answer(body=b"no thumbnail", headers=image)),
            ("a sound", "thumbnail", Answer(body=b"RIFF\x00\x00\x00\x00WAVEfmt ", headers=image)),
            ("nothing of a picture", "thumbnail", Answer(headers=image)),
            ("405", "thumbnail", Answer(status=405)),
        ]
        for name, step, answer in contents:
            yield Trouble(name, step, answer, InvalidProviderResponse)


def job(status: str, *, error: object = None, **headers: str) -> Answer:
    content = {
        "id": JOB,
        "object": "video",
        "created_at": 1795000000,
        "model": "acme-video-3",
        "progress": 0,
        "seconds": "4",
        "size": "72x128",
        "status": status,
        "error": error,
    }
    return json_answer(content, 200, **headers)
