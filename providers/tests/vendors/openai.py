"""api.openai.com: POST /images/edits."""

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
from providers.openai import OpenAIProvider
from providers.tests.vendor import Answer, Call, VendorServer, json_answer, openai_answer, openai_error

from . import KEY, Double, Expected, Trouble, link

LEAK = f"Incorrect API key provided: {KEY}. Prompt: Dress the person."


class OpenAI(Double):
    alias = "openai"
    backend = "providers.openai.OpenAIProvider"

    def behave(self, call: Call) -> Answer:
        return openai_answer(self.picture)

    def own_troubles(self) -> Iterator[Trouble]:
        for name, answer, expected in CODES + ANSWERS:
            yield Trouble(name, "create", answer, expected)
        for name, answer, category in REFUSALS:
            yield Trouble(name, "create", answer, ContentRefused, category=category)


def make(server: VendorServer, **options: Any) -> OpenAIProvider:
    return OpenAIProvider("vendor", **OpenAI().options(server) | options)


class Compatible(OpenAI):
    """A server that speaks OpenAI's API, but answers with a link to the picture."""

    steps = ("create", "download")

    def step(self, call: Call) -> str:
        return "create" if call.method == "POST" else "download"

    def behave(self, call: Call) -> Answer:
        if self.step(call) == "download":
            return Answer(body=self.picture, headers={"content-type": "image/png"})
        return json_answer({"created": 1795000000, "data": [{"url": link(call, "/files/a.png?signature=secret")}]})


CODES: list[tuple[str, Answer, Expected]] = [
    ("400 code", openai_error(400, "invalid_image"), ProviderRejectedInput),
    ("400 model", openai_error(400, "invalid_value", param="size"), ProviderMisconfigured),
    ("400 unknown model", openai_error(400, "model_not_found"), ProviderMisconfigured),
    ("400 billing", openai_error(400, "billing_hard_limit_reached"), ProviderQuotaExceeded),
    ("400 list", json_answer([1, 2], 400), ProviderRejectedInput),
    ("400 error is text", json_answer({"error": LEAK}, 400), ProviderRejectedInput),
    ("400 odd types", openai_error(400, code=7, type=[], param={}), ProviderRejectedInput),  # type: ignore[arg-type]
    ("400 truncated", Answer(status=400, body=b"{", missing=100, end="reset"), ProviderRejectedInput),
    ("401 code", openai_error(401, "invalid_api_key", message=LEAK), ProviderMisconfigured),
    ("401 key in code", openai_error(401, KEY, type=LEAK, param=LEAK), ProviderMisconfigured),
    ("401 key in id", openai_error(401, headers={"x_request_id": LEAK}), ProviderMisconfigured),
    ("403 code", openai_error(403, "organization_must_be_verified"), ProviderMisconfigured),
    ("403 quota", openai_error(403, "insufficient_quota"), ProviderQuotaExceeded),
    ("404 model", openai_error(404, "model_not_found"), ProviderMisconfigured),
    ("409", openai_error(409), ProviderUnavailable),
    ("410", openai_error(410), ProviderMisconfigured),
    ("429 quota", openai_error(429, "insufficient_quota"), ProviderQuotaExceeded),
    ("429 quota type", openai_error(429, type="insufficient_quota"), ProviderQuotaExceeded),
    ("429 rate", openai_error(429, "rate_limit_exceeded"), ProviderRateLimited),
    ("500 code", openai_error(500, "server_error"), ProviderUnavailable),
    ("529", openai_error(529), ProviderUnavailable),
]

REFUSALS: list[tuple[str, Answer, str]] = [
    ("refused", openai_error(400, "moderation_blocked", type="image_generation_user_error"), ""),
    ("refused policy", openai_error(400, "content_policy_violation"), ""),
    ("refused 500", openai_error(500, message="Rejected by the safety system."), ""),
    ("refused list", openai_error(400, safety_violations=["sexual"]), "sexual"),
    (
        "refused sentence",
        openai_error(400, message="Rejected by the safety system. safety_violations=[self-harm]."),
        "self-harm",
    ),
    (
        "refused input",
        openai_error(
            400,
            "moderation_blocked",
            moderation_details={"moderation_stage": "input", "categories": ["sexual", "violence"]},
        ),
        "sexual, violence",
    ),
    (
        "refused output",
        openai_error(400, "moderation_blocked", moderation_details={"moderation_stage": "output", "categories": []}),
        "",
    ),
    ("refused oddly", openai_error(400, "moderation_blocked", moderation_details="odd"), ""),
    ("refused key", openai_error(400, "moderation_blocked", safety_violations=[KEY]), ""),
]

ANSWERS: list[tuple[str, Answer, Expected]] = [
    ("not utf-8", Answer(body=b'{"data": "\xff"}'), InvalidProviderResponse),
    ("half a picture", Answer(body=b'{"data": [{"b64_json": "AAAA'), InvalidProviderResponse),
    ("data null", json_answer({"data": None}), InvalidProviderResponse),
    ("data empty", json_answer({"data": []}), InvalidProviderResponse),
    ("data of null", json_answer({"data": [None]}), InvalidProviderResponse),
    ("picture null", json_answer({"data": [{"b64_json": None}]}), InvalidProviderResponse),
    ("picture empty", json_answer({"data": [{"b64_json": ""}]}), InvalidProviderResponse),
    ("picture number", json_answer({"data": [{"b64_json": 5}]}), InvalidProviderResponse),
    ("picture cut", json_answer({"data": [{"b64_json": "AAAAA"}]}), InvalidProviderResponse),
    ("picture odd", json_answer({"data": [{"b64_json": "A*A="}]}), InvalidProviderResponse),
    ("picture not ascii", json_answer({"data": [{"b64_json": "é" * 8}]}), InvalidProviderResponse),
    ("link odd", json_answer({"data": [{"url": ["a"]}]}), InvalidProviderResponse),
    ("link to a private address", json_answer({"data": [{"url": "http://10.0.0.1/a.png"}]}), InvalidProviderResponse),
    ("link to a file", json_answer({"data": [{"url": "file:///etc/passwd"}]}), InvalidProviderResponse),
    ("data URI odd", json_answer({"data": [{"url": "data:image/png;base64,AAAA*"}]}), InvalidProviderResponse),
    ("data URI plain", json_answer({"data": [{"url": "data:image/png,AAAA"}]}), InvalidProviderResponse),
    (
        "bad chunks",
        Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", end="close"),
        InvalidProviderResponse,
    ),
    ("bad gzip", Answer(body=b'{"data": []}', headers={"content-encoding": "gzip"}), InvalidProviderResponse),
    ("not http", Answer(raw=b"SSH-2.0-OpenSSH_9.9\r\n\r\n", end="close"), InvalidProviderResponse),
]
