"""{location}-aiplatform.googleapis.com: POST .../publishers/google/models/virtual-try-on-001:predict."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from google.oauth2.credentials import Credentials

from providers.errors import ContentRefused, InvalidProviderResponse
from providers.tests.vendor import Answer, Call, VendorServer, json_answer

from . import KEY, Double, Trouble
from .gemini import google_troubles

REASON = (
    "Unable to show generated images. All images were filtered out because they violated the usage guidelines. "
    f"Support codes: 56562880. {KEY}"
)


def prediction(data: bytes, **more: Any) -> dict[str, Any]:
    return {"mimeType": "image/png", "bytesBase64Encoded": base64.b64encode(data).decode()} | more


class Vertex(Double):
    """With a token that is valid already; how tokens are fetched is in test_google_auth."""

    alias = "vertex"
    backend = "providers.vertex.VertexProvider"
    steps = ("predict",)

    def options(self, server: VendorServer) -> dict[str, Any]:
        return {
            "project": "my-shop",
            "location": "us-central1",
            "credentials": Credentials(KEY),  # type: ignore[no-untyped-call]
            "base_url": f"http://127.0.0.1:{server.port}",
        }

    def step(self, call: Call) -> str:
        return "predict"

    def behave(self, call: Call) -> Answer:
        self.asked = json.loads(call.body)
        wanted = self.asked["parameters"]["sampleCount"]
        return json_answer({"predictions": [prediction(self.picture) for _ in range(wanted)]})

    def own_troubles(self) -> Iterator[Trouble]:
        yield from google_troubles("predict")
        for name, predictions, category in (
            ("filtered", [{"raiFilteredReason": REASON}], "56562880"),
            ("filtered without codes", [{"raiFilteredReason": "No."}], ""),
            ("all filtered", [{"raiFilteredReason": REASON}, {"raiFilteredReason": "Code 29310472."}],
             "56562880, 29310472"),
        ):  # fmt: skip
            answer = json_answer({"predictions": predictions})
            yield Trouble(name, "predict", answer, ContentRefused, category=category)
        for name, content in (
            ("null", None),
            ("empty", []),
            ("number", 5),
            ("of null", [None]),
            ("of number", [5]),
            ("of text", ["AAAA"]),
            ("of nothing", [{}]),
            ("picture empty", [{"bytesBase64Encoded": ""}]),
            ("picture null", [{"bytesBase64Encoded": None}]),
            ("picture number", [{"bytesBase64Encoded": 5}]),
            ("broken base64", [{"bytesBase64Encoded": "AAAA*"}]),
            ("cut base64", [{"bytesBase64Encoded": "AAAAA"}]),
            ("not ascii", [{"bytesBase64Encoded": "é" * 8}]),
            ("odd type", [{"bytesBase64Encoded": "AAAA", "mimeType": 5}]),
            ("odd reason", [{"raiFilteredReason": 5}]),
        ):
            yield Trouble(f"predictions: {name}", "predict", json_answer({"predictions": content}),
                          InvalidProviderResponse)  # fmt: skip
