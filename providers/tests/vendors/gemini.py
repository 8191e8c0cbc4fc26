"""generativelanguage.googleapis.com: POST /v1/models/{model}:generateContent, once or twice a run; GET /v1/models."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from providers.errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.gemini import VISION_MODEL
from providers.google import NothingMade
from providers.tests.vendor import Answer, Call, VendorServer, json_answer

from . import KEY, Double, Expected, Trouble

ENVIRONMENT = {
    "GOOGLE_API_KEY": "from-the-environment",
    "GEMINI_API_KEY": "from-the-environment",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1",
    "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:1",
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "GOOGLE_GENAI_USE_ENTERPRISE": "false",
    "GOOGLE_GENAI_API_VERSION": "v9",
    "GOOGLE_GENAI_CLIENT_MODE": "replay",
    "GOOGLE_GENAI_REPLAYS_DIRECTORY": "/nowhere",
    "GOOGLE_GENAI_HTTP_CLIENT": "httpx",
    "GOOGLE_CLOUD_PROJECT": "from-the-environment",
    "GOOGLE_CLOUD_LOCATION": "global",
}
"""Names by which Google's SDK and its tools would read what our settings do not say."""
DESCRIPTION = "A woman in three quarter view. A red linen shirt with a small collar."

STATUSES: tuple[tuple[int, str, Expected], ...] = (
    (400, "INVALID_ARGUMENT", ProviderRejectedInput),
    (400, "FAILED_PRECONDITION", ProviderMisconfigured),
    (401, "UNAUTHENTICATED", ProviderMisconfigured),
    (403, "PERMISSION_DENIED", ProviderMisconfigured),
    (404, "NOT_FOUND", ProviderMisconfigured),
    (409, "ABORTED", ProviderUnavailable),
    (429, "RESOURCE_EXHAUSTED", ProviderRateLimited),
    (500, "INTERNAL", ProviderUnavailable),
    (503, "UNAVAILABLE", ProviderUnavailable),
    (504, "DEADLINE_EXCEEDED", ProviderUnavailable),
)
REASONS: tuple[tuple[str, Expected], ...] = (
    ("API_KEY_INVALID", ProviderMisconfigured),
    ("API_KEY_SERVICE_BLOCKED", ProviderMisconfigured),
    ("BILLING_DISABLED", ProviderQuotaExceeded),
)
BLOCKS = (
    *("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"),
    "SOMETHING_NEW",
)
REFUSALS = (
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"),
    *("IMAGE_RECITATION", "ESCALATION", "MODEL_ARMOR"),
)
ENDS: tuple[tuple[str, Expected], ...] = (
    ("NO_IMAGE", NothingMade),
    ("IMAGE_OTHER", NothingMade),
    ("OTHER", NothingMade),
    ("MALFORMED_RESPONSE", NothingMade),
    ("STOP", InvalidProviderResponse),
    ("MAX_TOKENS", InvalidProviderResponse),
    ("LANGUAGE", InvalidProviderResponse),
    ("CONTINUATION", InvalidProviderResponse),
    ("SOMETHING_NEW", InvalidProviderResponse),
    ("PUP_LIMITED_DISABLED", ProviderMisconfigured),
)


def google_error(status: int, code: str, *details: Mapping[str, Any], **headers: str) -> Answer:
    """An error as Google's APIs send it."""
    error = {"code": status, "message": f"Key {KEY}. Dress the person.", "status": code, "details": list(details)}
    return json_answer({"error": error}, status, **headers)


def error_info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def retry_info(delay: object) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota_failure(*ids: str) -> dict[str, Any]:
    violations = [{"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": quota} for quota in ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


def image_part(data: bytes, mime_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}} | more


def candidate(*parts: Any, reason: str | None = "STOP", **more: Any) -> Answer:
    """An answer with one candidate."""
    content: dict[str, Any] = {"index": 0} | ({"finishReason": reason} if reason else {}) | more
    if parts:
        content["content"] = {"role": "model", "parts": list(parts)}
    return json_answer({"candidates": [content], "responseId": "resp-1", "usageMetadata": usage(IMAGE=1120)})


def usage(**out: int) -> dict[str, Any]:
    return {
        "promptTokenCount": 1000,
        "candidatesTokenCount": sum(out.values()),
        "thoughtsTokenCount": 200,
        "totalTokenCount": 1200 + sum(out.values()),
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}, {"modality": "IMAGE", "tokenCount": 900}],
        "candidatesTokensDetails": [{"modality": name, "tokenCount": count} for name, count in out.items()],
    }


def google_troubles(step: str) -> Iterator[Trouble]:
    """The codes that all of Google's APIs share."""
    for status, code, expected in STATUSES:
        yield Trouble(f"{status} {code}", step, google_error(status, code), expected)
    for reason, expected in REASONS:
        answer = google_error(400, "INVALID_ARGUMENT", error_info(reason))
        yield Trouble(f"400 {reason}", step, answer, expected)
    exhausted = "RESOURCE_EXHAUSTED"
    minute, day = "GenerateRequestsPerMinutePerProjectPerModel", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
    for name, details, expected in (
        ("of a minute", [quota_failure(minute), retry_info("34.5s")], ProviderRateLimited),
        ("of a day", [quota_failure(minute, day), retry_info("34.5s")], ProviderQuotaExceeded),
    ):
        answer = google_error(429, exhausted, *details)
        yield Trouble(f"429 {name}", step, answer, expected, retry_after=34.5)
    both = google_error(429, exhausted, retry_info("34.5s"), retry_after="7")
    yield Trouble("429 of header and body", step, both, ProviderRateLimited, retry_after=7)
    for name, content, expected in (
        ("403 in a list", [{"error": {"code": 403, "status": "PERMISSION_DENIED"}}], ProviderMisconfigured),
        ("403 of text", {"error": KEY}, ProviderMisconfigured),
        ("403 of odd details", {"error": {"status": [], "details": [5, {"violations": 5}]}}, ProviderMisconfigured),
        ("403 of a list", [1, 2], ProviderMisconfigured),
    ):
        yield Trouble(name, step, json_answer(content, 403), expected)
    yield Trouble("502 not utf-8", step, Answer(status=502, body=b"<html>\xe9"), ProviderUnavailable)
    yield Trouble("400 deep json", step, Answer(status=400, body=b"[" * 100_000), ProviderRejectedInput)
    yield Trouble("204", step, Answer(status=204), InvalidProviderResponse)
    gzip = Answer(body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    yield Trouble("gzip", step, gzip, InvalidProviderResponse)


class Gemini(Double):
    alias = "gemini"
    backend = "providers.gemini.GeminiProvider"
    steps: ClassVar[tuple[str, ...]] = ("render",)

    def options(self, server: VendorServer) -> dict[str, Any]:
        return {"api_key": KEY, "base_url": f"http://127.0.0.1:{server.port}"}

    def step(self, call: Call) -> str:
        return "describe" if VISION_MODEL in call.path else "render"

    def behave(self, call: Call) -> Answer:
        if self.step(call) == "describe":
            return json_answer({
                "candidates": [{"content": {"parts": [{"text": DESCRIPTION}]}, "finishReason": "STOP"}],
                "usageMetadata": usage(TEXT=300),
            })  # fmt: skip
        self.asked = json.loads(call.body)
        return candidate({"text": "Thinking.", "thought": True}, {"text": "Here it is."}, image_part(self.picture))

    def own_troubles(self) -> Iterator[Trouble]:
        for step in self.steps:
            yield from google_troubles(step)
            yield from self._refusals(step)
            for reason, expected in ENDS:
                yield Trouble(f"nothing: {reason}", step, candidate(reason=reason), expected)
            for name, content in (
                ("candidates null", {"candidates": None}),
                ("candidates empty", {"candidates": []}),
                ("candidates number", {"candidates": 5}),
                ("candidate null", {"candidates": [None]}),
                ("content null", {"candidates": [{"content": None}]}),
                ("parts number", {"candidates": [{"content": {"parts": 5}}]}),
                ("part number", {"candidates": [{"content": {"parts": [5]}}]}),
                ("text number", {"candidates": [{"content": {"parts": [{"text": 5}]}}]}),
                ("reason number", {"candidates": [{"finishReason": 5}]}),
            ):
                yield Trouble(name, step, json_answer(content), InvalidProviderResponse)
            yield Trouble("thoughts only", step, candidate({"text": "Hm.", "thought": True}), InvalidProviderResponse)
        yield from self._pictures_that_are_none()

    def _refusals(self, step: str) -> Iterator[Trouble]:
        for reason in BLOCKS:
            answer = json_answer({"promptFeedback": {"blockReason": reason}})
            yield Trouble(f"blocked: {reason}", step, answer, ContentRefused, category=reason)
        odd = json_answer({"promptFeedback": {"blockReason": KEY}})
        yield Trouble("blocked: odd", step, odd, ContentRefused)
        for reason in REFUSALS:
            answer = candidate(reason=reason, finishMessage=f"No. {KEY}")
            yield Trouble(f"refused: {reason}", step, answer, ContentRefused, category=reason)
        ratings = [
            {"category": "HARM_CATEGORY_SEXUALLY_EXPLICIT", "probability": "HIGH", "blocked": True},
            {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
        ]
        rated = candidate(reason="SAFETY", safetyRatings=ratings)
        yield Trouble("refused: rated", step, rated, ContentRefused, category="HARM_CATEGORY_SEXUALLY_EXPLICIT")
        with_content = candidate({"text": "A"}, image_part(self.picture), reason="IMAGE_SAFETY")
        yield Trouble("refused: half made", step, with_content, ContentRefused, category="IMAGE_SAFETY")

    def _pictures_that_are_none(self) -> Iterator[Trouble]:
        sorry = {"text": f"Sorry. {KEY}"}
        yield Trouble("words: STOP", "render", candidate(sorry), ContentRefused)
        yield Trouble("words: no reason", "render", candidate(sorry, reason=None), ContentRefused)
        yield Trouble("words: NO_IMAGE", "render", candidate(sorry, reason="NO_IMAGE"), NothingMade)
        thought = candidate(image_part(self.picture, thought=True))
        yield Trouble("thought picture", "render", thought, InvalidProviderResponse)
        for name, data in (
            ("empty", ""),
            ("null", None),
            ("number", 5),
            ("broken base64", "AAAA*"),
            ("cut base64", "AAAAA"),
            ("not ascii", "é" * 8),
        ):
            answer = candidate({"inlineData": {"mimeType": "image/png", "data": data}})
            yield Trouble(f"picture: {name}", "render", answer, InvalidProviderResponse)
        for kind in ("text/html", "application/pdf"):
            yield Trouble(f"picture: {kind}", "render", candidate(image_part(b"A", kind)), InvalidProviderResponse)
        without_type = candidate({"inlineData": {"data": "AAAA"}})
        yield Trouble("picture: no type", "render", without_type, InvalidProviderResponse)


class GeminiInTwoSteps(Gemini):
    steps: ClassVar[tuple[str, ...]] = ("describe", "render")

    def options(self, server: VendorServer) -> dict[str, Any]:
        return super().options(server) | {"describe_with": VISION_MODEL}
