"""api.replicate.com/v1: POST /models/{owner}/{name}/predictions, GET /predictions/{id}, then the picture's URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from providers.errors import InvalidProviderResponse, ProviderRejectedInput, ProviderUnavailable
from providers.tests.vendor import Answer, Call, VendorServer, json_answer

from . import KEY, Trouble, link
from .jobs import NO_LINKS, End, JobDouble, no_pictures

JOB = "ufawqhfynnddngldkgtslldrkq"
PREDICTION = f"/v1/predictions/{JOB}"


class Replicate(JobDouble):
    alias = "replicate"
    backend = "providers.replicate.ReplicateProvider"
    steps = ("create", "get", "download")
    overrides = {("get", "404"): ProviderRejectedInput}
    final = frozenset({("get", "404")}) | {
        ("download", name) for name in ("empty", "to a private address", "to a file")
    }
    cancels = ("POST", f"{PREDICTION}/cancel")

    def options(self, server: VendorServer) -> dict[str, Any]:
        fields = {"person": "human", "garment": "cloth", "prompt": "text"}
        return super().options(server) | {"model": "acme/try-on", "fields": fields}

    def step(self, call: Call) -> str:
        if call.method == "POST":
            return "cancel" if call.path.endswith("/cancel") else "create"
        return "download" if call.path.startswith("/files/") else "get"

    def behave(self, call: Call) -> Answer:
        match self.step(call):
            case "create":
                self.asked = json.loads(call.body)
                return self.prediction("starting", link(call, PREDICTION), http_status=201)
            case "cancel":
                return self.prediction("canceled", link(call, PREDICTION))
            case "download":
                return Answer(body=self.picture, headers={"content-type": "image/png"})
        status = "processing" if self.is_at_work() else "succeeded"
        output = link(call, "/files/out.png") if status == "succeeded" else None
        return self.prediction(status, link(call, PREDICTION), output=output)

    def prediction(
        self, status: Any, url: Any = None, *, job: Any = JOB, http_status: int = 200, **more: Any
    ) -> Answer:
        urls = {"get": url, "cancel": f"{url}/cancel"}
        return json_answer({"id": job, "status": status, "urls": urls, "error": None} | more, http_status)

    def own_troubles(self) -> Iterator[Trouble]:
        for error in (KEY, "NSFW content detected. Try another prompt.", None, {"a": KEY}):
            answer = self.prediction("failed", error=error)
            yield End(f"failed: {str(error)[:4]}", "get", answer, InvalidProviderResponse)
        yield End("canceled", "get", self.prediction("canceled"), ProviderUnavailable)
        yield Trouble("odd status", "get", self.prediction("exploded"), InvalidProviderResponse)
        invalid = json_answer({"title": "Input validation failed", "detail": KEY, "status": 422}, 422)
        yield Trouble("422 with a reason", "create", invalid, ProviderRejectedInput)
        for name, answer in (
            ("no id", self.prediction("starting", job=None)),
            ("odd id", self.prediction("starting", job="../a b")),
            ("id that leads elsewhere", self.prediction("starting", job="../account")),
            ("long id", self.prediction("starting", job="a" * 200)),
            ("no id, links elsewhere", self.prediction("starting", "http://127.0.0.1:1/a/b", job=None)),
            ("odd urls", json_answer({"urls": ["get"]})),
        ):
            yield Trouble(name, "create", answer, InvalidProviderResponse)
        for name, output in NO_LINKS:
            yield End(name, "get", self.prediction("succeeded", output=output), InvalidProviderResponse)
            yield End(f"a list, {name}", "get", self.prediction("succeeded", output=[output]), InvalidProviderResponse)
        yield End("no output", "get", self.prediction("succeeded", output=[]), InvalidProviderResponse)
        yield from no_pictures("download")
