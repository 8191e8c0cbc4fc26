"""The adapter of Black Forest Labs against its double: what it sends, where the key goes, what a picture cost."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.bfl import TRY_ON, BFLProvider
from providers.errors import InvalidProviderResponse

from .asking import failure_of, job_of, resume, try_on
from .vendor import Answer, Call, VendorServer, try_on_request
from .vendors import KEY, Trouble, link, picture
from .vendors.bfl import BFL, JOB


def asked_by(changes: dict[str, Any], **options: Any) -> dict[str, Any]:
    with VendorServer(vendor := BFL()) as server:
        try_on(vendor.provider(server, **options), **changes)
    return vendor.asked


def test_request_on_the_wire() -> None:
    request = try_on_request()
    with VendorServer(vendor := BFL()) as server:
        try_on(vendor.provider(server))
    submit, poll, again, download = server.calls
    assert (submit.method, submit.path) == ("POST", "/v1/flux-tools/vto-v1")
    assert (poll.method, poll.path) == (again.method, again.path) == ("GET", f"/eu/get_result?id={JOB}")
    assert vendor.asked == {
        "prompt": f"{TRY_ON}\n\nDress the person.",
        "person": base64.b64encode(request.person.data).decode(),
        "garment": base64.b64encode(request.garment.data).decode(),
        "safety_tolerance": 2,
        "output_format": "png",
    }
    for call in (submit, poll, again):
        assert call.headers["x-key"] == KEY
        assert "authorization" not in call.headers
    assert download.path == "/signed/sample.png?sig=secret"
    assert KEY not in str(download.headers), "the link is signed; whoever serves it needs no key"


def test_prompt_names_both_photos() -> None:
    assert TRY_ON.startswith("TRY-ON")
    assert "image 1" in TRY_ON
    assert "image 2" in TRY_ON


def test_request_and_options_reach_the_wire() -> None:
    asked = asked_by(
        {"seed": 0, "output_format": "webp", "category": "tops"}, safety_tolerance=0, output_format="jpeg"
    )
    assert asked["seed"] == 0
    assert asked["output_format"] == "webp"
    assert asked["safety_tolerance"] == 0
    assert asked["prompt"].endswith("The garment is worn on the upper body.")
    assert asked_by({}, output_format="jpeg")["output_format"] == "jpeg"


def test_model_is_an_option() -> None:
    with VendorServer(vendor := BFL()) as server:
        result = try_on(vendor.provider(server, model="flux-tools/vto-v2"))
    assert server.calls[0].path == "/v1/flux-tools/vto-v2"
    assert result.model == "flux-tools/vto-v2"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_type_is_that_of_the_picture(image_format: str) -> None:
    vendor = BFL()
    vendor.picture = picture(image_format)
    with VendorServer(vendor) as server:
        assert try_on(vendor.provider(server)).content_type == f"image/{image_format.lower()}"


@pytest.mark.parametrize(
    ("cost", "usage"),
    [
        (4.75, {"millicredits": 4750}),
        (5, {"millicredits": 5000}),
        (0.001, {"millicredits": 1}),
        (None, {}),
        ("4.75", {}),
        (True, {}),
        (-1, {}),
        (1e300, {}),
    ],
)
def test_cost_is_told_at_the_submission_and_known_to_whoever_resumes(cost: object, usage: dict[str, int]) -> None:
    vendor = BFL()
    good = vendor.behave

    def answer(call: Call) -> Answer:
        if call.method == "POST":
            return vendor.submitted(link(call, "/eu/get_result?id=1"), cost=cost)
        return good(call)

    with VendorServer(answer) as server:
        result = resume(vendor.provider(server), job_of(vendor.provider(server)))
    assert result.usage == usage
    assert result.cost_usd is None
    assert "cost" not in server.calls[-2].path, "what it cost is for us"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.bfl.ai/v1/get_result?id=1", True),
        ("https://api.eu.bfl.ai/v1/get_result?id=1", True),
        ("https://api.us.bfl.ai:443/v1/get_result?id=1", True),
        ("http://127.0.0.1:8000/other", True),
        ("http://api.eu.bfl.ai/v1/get_result?id=1", False),
        ("https://api.eu.bfl.ai:8443/v1/get_result?id=1", False),
        ("https://bfl.ai.example.com/", False),
        ("https://notbfl.ai/", False),
        ("https://example.com/.bfl.ai", False),
        ("https://example.com#.bfl.ai", False),
        ("https://example.com\\.bfl.ai/", False),
        ("https://user@api.bfl.ai/", False),
        ("https://api.bfl.ai@example.com/", False),
        ("https://api.bfl.ai:x/", False),
        ("https://[/", False),
        ("http://127.0.0.1:8001/", False),
        ("/v1/get_result", False),
        ("", False),
    ],
)
def test_key_goes_to_the_operators_server_and_to_those_of_bfl(url: str, own: bool) -> None:
    assert BFLProvider("bfl", api_key=KEY, base_url="http://127.0.0.1:8000/v1").is_own(url) is own


@pytest.mark.parametrize("moment", ["submission", "resumption"])
def test_nothing_is_sent_to_another_server_that_an_answer_names(moment: str) -> None:
    vendor = BFL()
    with VendorServer(Answer(body=b"{}")) as other, VendorServer(vendor) as server:
        provider = vendor.provider(server)
        if moment == "submission":
            vendor.trouble = Trouble("", "submit", vendor.submitted(f"{other.base_url}/x"), InvalidProviderResponse)
            error: Exception = failure_of(provider)
        else:
            with pytest.raises(InvalidProviderResponse) as caught:
                resume(provider, f"{other.base_url}/x")
            error = caught.value
    assert type(error) is InvalidProviderResponse
    assert not other.calls


def test_operator_is_told_of_training_and_the_provider_works_all_the_same() -> None:
    (problem,) = BFLProvider("bfl", api_key=KEY).check()
    assert "2026-08-04" in problem.message
    assert "train" in problem.message
    assert not problem.fatal
    missing, _ = BFLProvider("bfl").check()
    assert missing.fatal
    assert "BFL_API_KEY" in missing.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, r'"model"\] is \'\'. Use flux-tools/vto-v1 or flux-tools/vto-v2.'),
        ({"model": "../credits"}, r'"model"\]'),
        ({"model": "vto?a=b"}, r'"model"\]'),
        ({"safety_tolerance": 6}, r'"safety_tolerance"\] is 6. Give a whole number from 0 to 5.'),
        ({"safety_tolerance": True}, r'"safety_tolerance"\] is True'),
        ({"output_format": "gif"}, "Use one of: png, jpeg, webp."),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        BFLProvider("bfl", **options)
