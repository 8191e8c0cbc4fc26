"""api.stability.ai: POST /v2beta/stable-image/control/style-transfer."""

from __future__ import annotations

import json
from collections.abc import Iterator

from providers.errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, json_answer

from . import KEY, Double, Expected, Trouble, picture

ID = "4e0d1a7f9a2d4b7cb1b1f2e1a5c3d9e8"


class Stability(Double):
    alias = "stability"
    backend = "providers.stability.StabilityProvider"

    def behave(self, call: Call) -> Answer:
        return success(self.picture)

    def own_troubles(self) -> Iterator[Trouble]:
        codes: list[tuple[int, str, Expected]] = [
            (400, "bad_request", ProviderRejectedInput),
            (401, "unauthorized", ProviderMisconfigured),
            (402, "payment_required", ProviderQuotaExceeded),
            (403, "content_moderation", ContentRefused),
            (403, "forbidden", ProviderMisconfigured),
            (404, "not_found", ProviderMisconfigured),
            (413, "payload_too_large", ProviderRejectedInput),
            (422, "unprocessable_entity", ProviderRejectedInput),
            (500, "internal_error", ProviderUnavailable),
        ]
        for status, name, expected in codes:
            yield Trouble(f"{status} {name}", "create", error(status, name), expected)
        limited = error(429, "rate_limit_exceeded")
        yield Trouble("429 rate_limit_exceeded", "create", limited, ProviderRateLimited, retry_after=60.0)
        yield Trouble("the key as a code", "create", error(401, KEY), ProviderMisconfigured)
        yield Trouble("no name", "create", json_answer({"name": None}, 400), ProviderRejectedInput)
        yield Trouble("filtered", "create", success(picture(), finish_reason="CONTENT_FILTERED"), ContentRefused)
        for name, answer in (
            ("another finish-reason", success(picture(), finish_reason="ERROR")),
            ("no bytes", success(b"")),
            ("another type", success(b"%PDF-1.7", content_type="application/pdf")),
            ("base64", json_answer({"image": "iVBORw0KGgo=", "finish_reason": "SUCCESS", "seed": 1})),
            ("a job", json_answer({"id": ID}, 202)),
        ):
            yield Trouble(name, "create", answer, InvalidProviderResponse)


def success(picture: bytes, **headers: str) -> Answer:
    names = {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "343940597"}
    return Answer(body=picture, headers=names | {name.replace("_", "-"): value for name, value in headers.items()})


def error(status: int, name: str) -> Answer:
    body = json.dumps({"id": ID, "name": name, "errors": [f"No, {KEY}."]}).encode()
    return Answer(status=status, body=body, headers={"content-type": "application/json"})
