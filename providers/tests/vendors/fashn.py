"""api.fashn.ai: POST /run, GET /status/{id}."""

from __future__ import annotations

import base64
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
from providers.tests.vendor import Answer, Call, VendorServer, json_answer

from . import KEY, Double, Expected, Trouble

JOB = "123a87r9-4129-4bb3-be18-9c9fb5bd7fc1-u1"


class Fashn(Double):
    alias = "fashn"
    backend = "providers.fashn.FashnProvider"
    steps = ("run", "status")
    overrides = {("status", "404"): ProviderRejectedInput}

    def __init__(self) -> None:
        super().__init__()
        self.still_working = 1
        """Polls that find the job at work."""

    def options(self, server: VendorServer) -> dict[str, Any]:
        return {"api_key": KEY, "base_url": server.base_url, "poll_every": 0.01}

    def step(self, call: Call) -> str:
        return "run" if call.method == "POST" else "status"

    def behave(self, call: Call) -> Answer:
        if self.step(call) == "run":
            self.asked = json.loads(call.body)
            return json_answer({"id": JOB, "error": None}, x_fashn_credits_used="4")
        if self.still_working:
            self.still_working -= 1
            return json_answer({"id": JOB, "status": "processing", "output": None, "error": None})
        output = "data:image/png;base64," + base64.b64encode(self.picture).decode()
        return json_answer({"id": JOB, "status": "completed", "output": [output], "error": None})

    def own_troubles(self) -> Iterator[Trouble]:
        limits: list[tuple[str, Expected]] = [
            ("RateLimitExceeded", ProviderRateLimited),
            ("ConcurrencyLimitExceeded", ProviderRateLimited),
            ("OutOfCredits", ProviderQuotaExceeded),
        ]
        for code, expected in limits:
            yield Trouble(f"429 {code}", "run", json_answer({"error": code, "message": KEY}, 429), expected)
        ends: list[tuple[str, Expected]] = [
            ("ImageLoadError", ProviderRejectedInput),
            ("ContentModerationError", ContentRefused),
            ("PoseError", ImageUnusable),
            ("InputValidationError", ProviderRejectedInput),
            ("PipelineError", ProviderUnavailable),
            ("ThirdPartyError", ProviderUnavailable),
            ("3rdPartyProviderError", ProviderUnavailable),
            ("InternalServerError", ProviderUnavailable),
            ("SomethingNew", ProviderUnavailable),
        ]
        for name, expected in ends:
            error = {"name": name, "message": KEY}
            yield Trouble(name, "status", json_answer({"id": JOB, "status": "failed", "error": error}), expected)
        for status in ("canceled", "time_out"):
            yield Trouble(status, "status", json_answer({"id": JOB, "status": status}), ProviderUnavailable)
        yield Trouble("no id", "run", json_answer({"id": None}), InvalidProviderResponse)
        yield Trouble("odd id", "run", json_answer({"id": "../a b"}), InvalidProviderResponse)
        for name, output in (
            ("no output", None),
            ("empty output", []),
            ("output of null", [None]),
            ("broken base64", ["data:image/png;base64,AAAA*"]),
            ("data that is not base64", ["data:image/png,AAAA"]),
            ("link to a private address", ["http://10.0.0.1/a.png"]),
        ):
            answer = json_answer({"id": JOB, "status": "completed", "output": output})
            yield Trouble(name, "status", answer, InvalidProviderResponse)
