"""queue.fal.run: POST /{model}, GET .../requests/{id}/status, GET .../requests/{id}, then the picture's URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from providers.errors import (
    ContentRefused,
    ImageUnusable,
    InvalidProviderResponse,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRejectedInput,
    ProviderUnavailable,
)
from providers.tests.vendor import Answer, Call, json_answer

from . import KEY, Expected, Trouble, link
from .jobs import NO_LINKS, End, JobDouble, no_pictures

JOB = "80e732af-660e-45cd-bd63-580e4f2a94cc"
REQUEST = f"/v1/fal-ai/fashn/requests/{JOB}"

RUNNER: tuple[tuple[int, str, Expected], ...] = (
    (504, "request_timeout", ProviderUnavailable),
    (504, "startup_timeout", ProviderUnavailable),
    (500, "runner_server_error", ProviderUnavailable),
    (503, "runner_connection_refused", ProviderUnavailable),
    (499, "client_cancelled", ProviderUnavailable),
    (400, "bad_request", ProviderRejectedInput),
)


class Fal(JobDouble):
    alias = "fal"
    backend = "providers.fal.FalProvider"
    steps = ("submit", "status", "response", "download")
    overrides = {("status", "404"): ProviderRejectedInput, ("response", "404"): ProviderRejectedInput}
    final = frozenset(
        {("status", "404"), ("response", "404"), ("response", "400"), ("response", "413"), ("response", "422")}
        | {("response", "json of nothing")}
        | {("download", name) for name in ("empty", "to a private address", "to a file")}
    )
    cancels = ("PUT", f"{REQUEST}/cancel")

    def step(self, call: Call) -> str:
        if call.method == "POST":
            return "submit"
        if call.path.startswith("/files/"):
            return "download"
        if call.method == "PUT":
            return "cancel"
        return "status" if call.path.endswith("/status") else "response"

    def behave(self, call: Call) -> Answer:
        match self.step(call):
            case "submit":
                self.asked = json.loads(call.body)
                return self.submitted(link(call, REQUEST))
            case "status":
                return json_answer({"status": "IN_PROGRESS" if self.is_at_work() else "COMPLETED"})
            case "cancel":
                return json_answer({"status": "CANCELLATION_REQUESTED"}, 202)
            case "download":
                return Answer(body=self.picture, headers={"content-type": "image/png"})
        image = {"url": link(call, "/files/penguin/a.png"), "content_type": "image/png"}
        return json_answer({"images": [image] * self.asked.get("num_samples", 1)})

    def submitted(self, url: Any, request_id: Any = JOB) -> Answer:
        urls = {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}
        return json_answer({"request_id": request_id, "queue_position": 0} | urls)

    def own_troubles(self) -> Iterator[Trouble]:
        yield from self._model_errors()
        for step in ("submit", "response"):
            kind = End if step == "response" else Trouble
            for status, code, expected in RUNNER:
                body = json_answer({"detail": KEY, "error_type": code}, status)
                yield kind(f"{status} {code}", step, body, expected)
                header = json_answer({"detail": KEY}, status, x_fal_error_type=code)
                yield kind(f"{status} {code} in a header", step, header, expected)
            retryable = json_answer({"detail": []}, 422, x_fal_retryable="true")
            yield Trouble("422 that may be tried again", step, retryable, ProviderUnavailable)
            needs_retry = json_answer({"detail": []}, 422, x_fal_needs_retry="1")
            yield Trouble("422 that needs another try", step, needs_retry, ProviderUnavailable)
        locked = json_answer({"detail": f"User is locked. Reason: Exhausted balance. {KEY}"}, 403)
        yield Trouble("403 exhausted balance", "submit", locked, ProviderQuotaExceeded)
        forbidden = json_answer({"detail": KEY, "error_type": "bad_request"}, 403)
        yield Trouble("403 with a type", "response", forbidden, ProviderMisconfigured)
        for name, answer in (
            ("no id", json_answer({"request_id": None})),
            ("odd id", json_answer({"request_id": "../../a b"})),
            ("id that leads elsewhere", json_answer({"request_id": "../../credits"})),
            ("id with a query", json_answer({"request_id": "a?b"})),
            ("no id, links elsewhere", self.submitted("http://127.0.0.1:1/a/requests/b", None)),
            ("long id", self.submitted(None, "a" * 200)),
        ):
            yield Trouble(name, "submit", answer, InvalidProviderResponse)
        yield Trouble("odd status", "status", json_answer({"status": "DONE"}), InvalidProviderResponse)
        for name, images in (("no images", None), ("no image", []), ("images of a text", "a"), ("a text", ["a"])):
            yield End(name, "response", json_answer({"images": images}), InvalidProviderResponse)
        for name, url in NO_LINKS:
            yield End(name, "response", json_answer({"images": [{"url": url}]}), InvalidProviderResponse)
            yield End(f"one image, {name}", "response", json_answer({"image": {"url": url}}), InvalidProviderResponse)
        yield from no_pictures("download")

    def _model_errors(self) -> Iterator[Trouble]:
        policy = {"categories": ["sexual", "violence"]}
        errors: list[tuple[str, list[str], dict[str, Any], Expected]] = [
            ("content_policy_violation", ["body", "prompt"], {}, ContentRefused),
            ("content_policy_violation", ["body", "model_image"], policy, ContentRefused),
            ("content_policy_violation", ["body", "model_image"], {"categories": [KEY, None]}, ContentRefused),
            ("image_too_large", ["body", "model_image"], {}, ImageUnusable),
            ("image_too_small", ["body", "garment_image"], {}, ImageUnusable),
            ("image_too_large", ["body", "mask"], {}, ProviderRejectedInput),
            ("missing", ["body", "garment_image"], {}, ProviderRejectedInput),
            (KEY, ["body"], {}, ProviderRejectedInput),
        ]
        for step in ("submit", "response"):
            for kind, place, more, expected in errors:
                entry = {"loc": place, "msg": KEY, "type": kind, "url": KEY, "ctx": {}, "input": KEY} | more
                category = "sexual, violence" if more is policy else ""
                answer = json_answer({"detail": ["noise", entry]}, 422)
                name = f"{kind if kind != KEY else 'the key as a type'} {place[-1]} {len(more)}{category}"
                trouble = End if step == "response" else Trouble
                yield trouble(name, step, answer, expected, category=category)
        entry = {"loc": ["body"], "msg": KEY, "type": "internal_server_error"}
        failed = json_answer({"detail": [entry]}, 500, x_fal_retryable="false")
        yield End("500 internal_server_error", "response", failed, ProviderUnavailable)
