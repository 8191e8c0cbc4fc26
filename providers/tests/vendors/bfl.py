"""api.bfl.ai: POST /flux-tools/vto-v1, then the polling_url, which is elsewhere, then the picture's signed URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from providers.errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, json_answer

from . import KEY, Expected, Trouble, link
from .jobs import NO_LINKS, End, JobDouble, no_pictures

JOB = "8f5f2d6e-6d0b-4a43-9e0c-0a7f3f6d1c11"

STATUSES: tuple[tuple[str, Expected], ...] = (
    ("Request Moderated", ContentRefused),
    ("Content Moderated", ContentRefused),
    ("Error", ProviderUnavailable),
    ("Task not found", ProviderRejectedInput),
)


class BFL(JobDouble):
    alias = "bfl"
    backend = "providers.bfl.BFLProvider"
    steps = ("submit", "poll", "download")
    overrides = {("poll", "404"): ProviderRejectedInput}
    final = frozenset({("poll", "404"), ("download", "empty"), ("download", "to a private address")}) | {
        ("download", "to a file")
    }

    def step(self, call: Call) -> str:
        if call.method == "POST":
            return "submit"
        return "download" if call.path.startswith("/signed/") else "poll"

    def behave(self, call: Call) -> Answer:
        match self.step(call):
            case "submit":
                self.asked = json.loads(call.body)
                return self.submitted(link(call, f"/eu/get_result?id={JOB}"))
            case "download":
                return Answer(body=self.picture, headers={"content-type": "image/png"})
        if self.is_at_work():
            return json_answer({"id": JOB, "status": "Pending", "result": None})
        return self.ready({"sample": link(call, "/signed/sample.png?sig=secret")})

    def submitted(self, polling_url: Any, **more: Any) -> Answer:
        content = {"id": JOB, "polling_url": polling_url, "cost": 4.75, "input_mp": 2.0, "output_mp": 1.0}
        return json_answer(content | more)

    def ready(self, result: Any) -> Answer:
        return json_answer({"id": JOB, "status": "Ready", "result": result})

    def own_troubles(self) -> Iterator[Trouble]:
        for status, expected in STATUSES:
            answer = json_answer({"id": JOB, "status": status, "details": {"reason": KEY}})
            yield End(status, "poll", answer, expected)
        invalid = json_answer({"detail": [{"loc": ["body", "prompt"], "msg": KEY, "type": "missing"}]}, 422)
        yield Trouble("422 with a reason", "submit", invalid, ProviderRejectedInput)
        yield Trouble("odd status", "poll", json_answer({"status": 7}), InvalidProviderResponse)
        for name, url in (
            ("no polling_url", None),
            ("polling_url elsewhere", "https://bfl.ai.example.com/v1/get_result?id=1"),
            ("polling_url without TLS", "http://api.eu.bfl.ai/v1/get_result?id=1"),
            ("polling_url of a user", "https://u:p@api.eu.bfl.ai/v1/get_result?id=1"),
            ("polling_url that is none", "http://[/"),
            ("long polling_url", "https://api.eu.bfl.ai/v1/get_result?id=" + "1" * 200),
        ):
            yield Trouble(name, "submit", self.submitted(url), InvalidProviderResponse)
        for name, result in (("no result", None), ("result of a list", [])):
            yield End(name, "poll", self.ready(result), InvalidProviderResponse)
        for name, sample in NO_LINKS:
            yield End(name, "poll", self.ready({"sample": sample}), InvalidProviderResponse)
        yield from no_pictures("download")
