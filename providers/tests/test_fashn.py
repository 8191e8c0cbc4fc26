"""The FASHN adapter against its double: what it sends for each model, and what it tells of the pictures."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.errors import ImageUnusable, UnsupportedFeature
from providers.fashn import FashnProvider
from providers.utils import data_uri

from .asking import failure_of, try_on
from .vendor import Answer, Call, VendorServer, json_answer, try_on_request
from .vendors import KEY, Trouble, link, picture
from .vendors.fashn import JOB, Fashn
from .vendors.jobs import data_uri as picture_uri

PERSON, GARMENT = data_uri(try_on_request().person), data_uri(try_on_request().garment)


def asked_by(changes: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What goes to the vendor for a request, from a provider with these options."""
    with VendorServer(vendor := Fashn()) as server:
        try_on(vendor.provider(server, **options), **changes)
        assert (server.calls[0].method, server.calls[0].path) == ("POST", "/v1/run")
        assert (server.calls[1].method, server.calls[1].path) == ("GET", f"/v1/status/{JOB}")
        for call in server.calls:
            assert call.headers["authorization"] == f"Bearer {KEY}"
    return vendor.asked


def test_tryon_max_on_the_wire() -> None:
    assert asked_by({}) == {
        "model_name": "tryon-max",
        "inputs": {
            "model_image": PERSON,
            "product_image": GARMENT,
            "prompt": "Dress the person.",
            "generation_mode": "balanced",
            "resolution": "1k",
            "num_images": 1,
            "output_format": "png",
            "return_base64": True,
        },
    }


def test_tryon_v1_6_on_the_wire() -> None:
    assert asked_by({}, model="tryon-v1.6") == {
        "model_name": "tryon-v1.6",
        "inputs": {
            "model_image": PERSON,
            "garment_image": GARMENT,
            "category": "auto",
            "mode": "balanced",
            "num_samples": 1,
            "output_format": "png",
            "return_base64": True,
        },
    }


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"seed": 0}, "seed", 0),
        ({"pictures": 4}, "num_images", 4),
        ({"size": "4k"}, "resolution", "4k"),
        ({"output_format": "jpeg"}, "output_format", "jpeg"),
        ({"category": "dresses"}, "prompt", "Dress the person.\n\nThe garment is one piece for the whole body."),
    ],
)
def test_tryon_max_is_asked_for_what_the_request_says(changes: dict[str, Any], field: str, expected: object) -> None:
    assert asked_by(changes)["inputs"][field] == expected


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"seed": 0}, "seed", 0),
        ({"pictures": 4}, "num_samples", 4),
        ({"output_format": "jpeg"}, "output_format", "jpeg"),
        ({"category": "tops"}, "category", "tops"),
        ({"category": "bottoms"}, "category", "bottoms"),
        ({"category": "dresses"}, "category", "one-pieces"),
    ],
)
def test_tryon_v1_6_is_asked_for_what_the_request_says(changes: dict[str, Any], field: str, expected: object) -> None:
    assert asked_by(changes, model="tryon-v1.6")["inputs"][field] == expected


def test_options_are_what_a_request_does_not_say() -> None:
    inputs = asked_by({}, mode="quality", resolution="2k", output_format="jpeg")["inputs"]
    assert (inputs["generation_mode"], inputs["resolution"], inputs["output_format"]) == ("quality", "2k", "jpeg")
    assert asked_by({}, model="tryon-v1.6", mode="performance")["inputs"]["mode"] == "performance"


def test_tryon_v1_6_has_one_size() -> None:
    with VendorServer(vendor := Fashn()) as server:
        provider = vendor.provider(server, model="tryon-v1.6")
        error = failure_of(provider, size="2k")
    assert type(error) is UnsupportedFeature
    assert "size=2k" in str(error)
    assert not server.calls
    assert provider.size == ""


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_type_is_that_of_the_picture_and_not_of_the_options(image_format: str) -> None:
    vendor = Fashn()
    vendor.picture = picture(image_format)
    with VendorServer(vendor) as server:
        result = try_on(vendor.provider(server), output_format=image_format.lower())
    assert result.content_type == f"image/{image_format.lower()}"
    assert not result.warnings


def test_output_format_that_cannot_be_made_is_dropped_with_a_warning() -> None:
    with VendorServer(vendor := Fashn()) as server:
        result = try_on(vendor.provider(server), output_format="webp")
    assert vendor.asked["inputs"]["output_format"] == "png"
    assert "webp" in result.warnings[0]


def test_all_pictures_and_their_cost() -> None:
    with VendorServer(vendor := Fashn()) as server:
        result = try_on(vendor.provider(server), pictures=3)
    assert (result.data, *result.more) == (vendor.picture,) * 3
    assert result.provider_id == JOB
    assert result.usage == {"credits": 4}
    assert result.cost_usd == Decimal("0.300")


@pytest.mark.parametrize("said", ["", "free", "-1", "1e9", "9999999"])
def test_cost_that_is_not_told_is_not_invented(said: str) -> None:
    vendor = Fashn()
    answer = vendor.completed([picture_uri(vendor.picture)], credits_used=said)
    with VendorServer(lambda call: answer if call.method == "GET" else vendor(call)) as server:
        result = try_on(vendor.provider(server))
    assert result.cost_usd is None
    assert result.usage == {}


def test_pictures_behind_links_are_fetched_without_the_key() -> None:
    """From a server that does not know return_base64."""
    vendor = Fashn()

    def answer(call: Call) -> Answer:
        if call.path == "/out.png":
            return Answer(body=vendor.picture)
        return vendor.completed([link(call, "/out.png")]) if call.method == "GET" else vendor(call)

    with VendorServer(answer) as server:
        assert try_on(vendor.provider(server)).data == vendor.picture
    assert server.calls[-1].path == "/out.png"
    assert KEY not in str(server.calls[-1].headers)


def test_shopper_is_told_which_photo_has_no_pose() -> None:
    vendor = Fashn()
    vendor.trouble = next(trouble for trouble in vendor.own_troubles() if trouble.name == "PoseError")
    with VendorServer(vendor) as server:
        error = failure_of(vendor.provider(server))
    assert type(error) is ImageUnusable
    assert str(error).startswith("Person photo: no person was found")


def test_operator_is_told_the_code_and_not_the_sentence() -> None:
    vendor = Fashn()
    answer = json_answer({"error": "OutOfCredits", "message": "Buy some."}, 429)
    vendor.trouble = Trouble("", "run", answer, ImageUnusable)
    with VendorServer(vendor) as server:
        error = failure_of(vendor.provider(server))
    assert str(error) == "FASHN answered 429 (OutOfCredits). The account has no credits left."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, r'"model"\] is \'\'. Use tryon-max or tryon-v1.6.'),
        ({"model": None}, r'"model"\] is None'),
        ({"mode": "performance"}, r'"mode"\] is \'performance\'. Use one of: balanced, quality.'),
        ({"model": "tryon-v1.6", "mode": "fast"}, "Use one of: performance, balanced, quality."),
        ({"resolution": "8k"}, "Use one of: 1k, 2k, 4k."),
        ({"output_format": "webp"}, "Use one of: png, jpeg."),
        ({"poll_every": 0}, r'"poll_every"\] is 0. Give seconds'),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        FashnProvider("fashn", **options)
