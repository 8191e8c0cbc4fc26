"""api.fashn.ai: POST /run, GET /status/{id}."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from providers.errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, json_answer

from . import KEY, Expected, Trouble
from .jobs import NO_LINKS, End, JobDouble, data_uri

JOB = "123a87r9-4129-4bb3-be18-9c9fb5bd7fc1-u1"

CODES: tuple[tuple[int, str, Expected], ...] = (
    (429, "RateLimitExceeded", ProviderRateLimited),
    (429, "ConcurrencyLimitExceeded", ProviderRateLimited),
    (429, "OutOfCredits", ProviderQuotaExceeded),
    (400, "BadRequest", ProviderRejectedInput),
    (500, "InternalServerError", ProviderUnavailable),
)
ENDS: tuple[tuple[str, Expected], ...] = (
    ("ImageLoadError", ProviderRejectedInput),
    ("ContentModerationError", ContentRefused),
    ("PoseError", ImageUnusable),
    ("InputValidationError", ProviderRejectedInput),
    ("PipelineError", ProviderUnavailable),
    ("ThirdPartyError", ProviderUnavailable),
    ("3rdPartyProviderError", ProviderUnavailable),
    ("InternalServerError", ProviderUnavailable),
    ("PollingTimeout", ProviderUnavailable),
    ("SomethingNew", ProviderUnavailable),
    (KEY, ProviderUnavailable),
)


class Fashn(JobDouble):
    alias = "fashn"
    backend = "providers.fashn.FashnProvider"
    steps = ("run", "status")
    overrides = {("status", "404"): ProviderRejectedInput}
    final = frozenset({("status", "404")})

    def step(self, call: Call) -> str:
        return "run" if call.method == "POST" else "status"

    def behave(self, call: Call) -> Answer:
        if self.step(call) == "run":
            self.asked = json.loads(call.body)
            return json_answer({"id": JOB, "error": None})
        if self.is_at_work():
            return json_answer({"id": JOB, "status": "processing", "output": None, "error": None})
        inputs = self.asked.get("inputs", {})
        output = [data_uri(self.picture)] * inputs.get("num_images", inputs.get("num_samples", 1))
        return self.completed(output, credits_used="4")

    def completed(self, output: Any, credits_used: str = "") -> Answer:
        content = {"id": JOB, "status": "completed", "output": output, "error": None}
        return json_answer(content, x_fashn_credits_used=credits_used)

    def own_troubles(self) -> Iterator[Trouble]:
        for step in self.steps:
            for status, code, expected in CODES:
                answer = json_answer({"error": code, "message": KEY}, status)
                yield Trouble(f"{status} {code}", step, answer, expected)
        for name, expected in ENDS:
            error = {"name": name, "message": KEY}
            yield End(name, "status", json_answer({"id": JOB, "status": "failed", "error": error}), expected)
        for status_name in ("failed", "canceled", "time_out"):
            answer = json_answer({"id": JOB, "status": status_name, "error": None})
            yield End(status_name, "status", answer, ProviderUnavailable)
        yield Trouble("no id", "run", json_answer({"id": None}), InvalidProviderResponse)
        yield Trouble("id with the key in it", "run", json_answer({"id": f"job-{KEY}"}), InvalidProviderResponse)
        yield Trouble("odd id", "run", json_answer({"id": "../a b"}), InvalidProviderResponse)
        yield Trouble("long id", "run", json_answer({"id": "a" * 201}), InvalidProviderResponse)
        yield Trouble("odd status", "status", json_answer({"status": ["completed"]}), InvalidProviderResponse)
        for name, output in (("no output", None), ("empty output", []), ("output of a text", "a.png")):
            yield End(name, "status", self.completed(output), InvalidProviderResponse)
        for name, link in NO_LINKS:
            yield End(name, "status", self.completed([link]), InvalidProviderResponse)
