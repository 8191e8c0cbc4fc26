"""The fal adapter against its double: what each model is sent, whose links are followed, what its errors tell."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.errors import ImageUnusable, UnsupportedFeature
from providers.fal import FalProvider
from providers.utils import data_uri

from .asking import failure_of, job_of, resume, run, try_on
from .vendor import Answer, Call, VendorServer, json_answer, try_on_request
from .vendors import KEY, Trouble, picture
from .vendors.fal import JOB, REQUEST, Fal
from .vendors.jobs import data_uri as picture_uri

PERSON, GARMENT = data_uri(try_on_request().person), data_uri(try_on_request().garment)


def asked_by(changes: dict[str, Any], **options: Any) -> dict[str, Any]:
    with VendorServer(vendor := Fal()) as server:
        try_on(vendor.provider(server, **options), **changes)
    return vendor.asked


def test_request_on_the_wire() -> None:
    with VendorServer(vendor := Fal()) as server:
        try_on(vendor.provider(server))
    assert [(call.method, call.path) for call in server.calls] == [
        ("POST", "/v1/fal-ai/fashn/tryon/v1.6"),
        ("GET", f"{REQUEST}/status"),
        ("GET", f"{REQUEST}/status"),
        ("GET", REQUEST),
        ("GET", "/files/penguin/a.png"),
    ]
    for call in server.calls[:-1]:
        assert call.headers["authorization"] == f"Key {KEY}"
    assert KEY not in str(server.calls[-1].headers)
    assert vendor.asked == {
        "model_image": PERSON,
        "garment_image": GARMENT,
        "category": "auto",
        "num_samples": 1,
    }


def test_request_reaches_the_inputs_of_the_default_model() -> None:
    changes = {"seed": 0, "pictures": 4, "output_format": "jpeg", "category": "dresses"}
    asked = asked_by(changes)
    assert (asked["seed"], asked["num_samples"]) == (0, 4)
    assert (asked["output_format"], asked["category"]) == ("jpeg", "one-pieces")
    assert asked_by({"category": "tops"})["category"] == "tops"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "fal-ai/flux-pro/v1/vto",
            {"human_image_url": PERSON, "garment_image_url": GARMENT, "prompt": "Dress the person."},
        ),
        ("google/nano-banana-2.1/edit", {"image_urls": [PERSON, GARMENT], "prompt": "Dress the person."}),
        ("fal-ai/flux-2-lora-gallery/virtual-tryon", {"image_urls": [PERSON, GARMENT], "prompt": "Dress the person."}),
    ],
)
def test_other_models_that_are_known(model: str, expected: dict[str, Any]) -> None:
    assert asked_by({}, model=model) == expected


def test_any_model_by_a_field_map() -> None:
    fields = {
        "person": "photos[]",
        "garment": "photos[]",
        "prompt": "text",
        "category": "kind",
        "seed": "noise",
        "pictures": "count",
        "output_format": "format",
    }
    options: dict[str, Any] = {
        "model": "acme/dress/v2",
        "fields": fields,
        "categories": {"dresses": "full_body"},
        "inputs": {"steps": 30, "format": "png"},
        "max_pictures": 2,
        "output_formats": ["png", "webp"],
    }
    assert asked_by({}, **options) == {
        "photos": [PERSON, GARMENT],
        "text": "Dress the person.",
        "count": 1,
        "steps": 30,
        "format": "png",
    }
    asked = asked_by({"category": "dresses", "seed": 3, "pictures": 2, "output_format": "webp"}, **options)
    assert asked["text"] == "Dress the person.", "the kind of garment has an input of its own"
    assert (asked["kind"], asked["noise"], asked["count"], asked["format"]) == ("full_body", 3, 2, "webp")


def test_a_known_model_can_be_sent_more() -> None:
    asked = asked_by({}, inputs={"mode": "quality", "sync_mode": True})
    assert (asked["mode"], asked["sync_mode"], asked["num_samples"]) == ("quality", True, 1)


def test_capabilities_are_those_of_the_model() -> None:
    fashn = FalProvider("fal")
    nano = FalProvider("fal", model="google/nano-banana-2.1/edit")
    for name in ("supports_prompt", "supports_seed", "supports_category", "max_pictures", "output_formats"):
        assert getattr(fashn, name) == getattr(FalProvider, name), "the class tells of its default"
    assert (nano.supports_prompt, nano.supports_seed, nano.max_pictures) == (True, False, 1)
    assert nano.output_formats == ()
    with pytest.raises(UnsupportedFeature, match="seed=1"):
        nano.demand(try_on_request(seed=1))


def test_cost_where_the_model_has_one_price() -> None:
    with VendorServer(vendor := Fal()) as server:
        result = try_on(vendor.provider(server), pictures=2)
        other = try_on(vendor.provider(server, model="fal-ai/flux-pro/v1/vto"))
    assert (result.data, *result.more) == (vendor.picture,) * 2
    assert result.cost_usd == Decimal("0.150")
    assert result.provider_id == JOB
    assert other.cost_usd is None


def answering(vendor: Fal, response: dict[str, Any]) -> Fal:
    vendor.trouble = Trouble("", "response", json_answer(response), ImageUnusable)
    return vendor


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("shape", ["images", "image"])
def test_picture_in_the_answer_itself(shape: str, image_format: str) -> None:
    """Of ``sync_mode``, and of models that make one."""
    data = picture(image_format)
    image = {"url": picture_uri(data)}
    vendor = answering(Fal(), {shape: [image] if shape == "images" else image})
    with VendorServer(vendor) as server:
        result = try_on(vendor.provider(server))
    assert result.data == data
    assert result.content_type == f"image/{image_format.lower()}"


@pytest.mark.parametrize(
    "response_url",
    ["https://queue.fal.run/fal-ai/fashn/requests/other", "http://127.0.0.1:1/a/requests/b", "OURS/../x/y", None, 7],
)
def test_links_elsewhere_are_not_followed_and_the_job_is_found_at_our_server(response_url: Any) -> None:
    """As behind a proxy, whose answers lead past it."""
    vendor = Fal()

    def answer(call: Call) -> Answer:
        good = vendor(call)
        url = response_url.replace("OURS", server.base_url) if isinstance(response_url, str) else response_url
        return vendor.submitted(url) if call.method == "POST" else good

    with VendorServer(answer) as server:
        job = job_of(vendor.provider(server))
        assert resume(vendor.provider(server), job).data == vendor.picture
        provider = vendor.provider(server)
        run(provider, provider.cancel(job))
    assert job == f"fal-ai/fashn/requests/{JOB}"
    assert server.calls[-1].path == f"{REQUEST}/cancel"


def test_links_to_our_server_are_followed() -> None:
    vendor = Fal()

    def answer(call: Call) -> Answer:
        good = vendor(call)
        return vendor.submitted(f"{server.base_url}/eu/app/requests/r1") if call.method == "POST" else good

    with VendorServer(answer) as server:
        job = job_of(vendor.provider(server))
        resume(vendor.provider(server), job)
    assert server.calls[1].path == "/v1/eu/app/requests/r1/status"
    assert server.calls[-2].path == "/v1/eu/app/requests/r1"


@pytest.mark.parametrize(
    ("options", "place", "photo"),
    [
        ({}, ["body", "model_image"], "Person photo"),
        ({}, ["body", "garment_image"], "Garment photo"),
        ({"model": "google/nano-banana-2.1/edit"}, ["body", "image_urls", 0], "Person photo"),
        ({"model": "google/nano-banana-2.1/edit"}, ["body", "image_urls", 1], "Garment photo"),
    ],
)
def test_shopper_is_told_which_photo_is_too_large(options: dict[str, Any], place: list[object], photo: str) -> None:
    vendor = Fal()
    detail = [{"loc": place, "msg": "Too large.", "type": "image_too_large"}]
    vendor.trouble = Trouble("", "response", json_answer({"detail": detail}, 422), ImageUnusable)
    with VendorServer(vendor) as server:
        error = failure_of(vendor.provider(server, **options))
    assert type(error) is ImageUnusable
    assert str(error) == f"{photo}: it is too large for the model. Use a smaller one."


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        ({"detail": [{"type": "missing", "msg": "A sentence."}]}, {}, " (missing)"),
        ({"detail": "A sentence.", "error_type": "bad_request"}, {}, " (bad_request)"),
        ({"detail": "A sentence."}, {"x_fal_error_type": "bad_request"}, " (bad_request)"),
        ({"detail": "A sentence."}, {}, ""),
        ({"detail": 7}, {}, ""),
        (["detail"], {}, ""),
    ],
)
def test_operator_is_told_the_code_and_not_the_sentence(content: Any, headers: dict[str, str], code: str) -> None:
    vendor = Fal()
    vendor.trouble = Trouble("", "submit", json_answer(content, 400, **headers), ImageUnusable)
    with VendorServer(vendor) as server:
        error = failure_of(vendor.provider(server))
    assert str(error) == f"fal answered 400{code}."


FIELDS = {"person": "a", "garment": "b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, r'"model"\] is None. Give the name of a try-on model, such as "fal-ai/fashn/tryon/v1.6".'),
        ({"model": "fashn", "fields": FIELDS}, r'"model"\] is \'fashn\''),
        ({"model": "a/../b", "fields": FIELDS}, r'"model"\]'),
        ({"model": "acme/dress"}, r'"fields"\] is None. Say which inputs of acme/dress get what.'),
        ({"fields": {"person": "a"}}, r'"fields"\] is .* Give the name of an input for person and for garment'),
        ({"fields": FIELDS | {"colour": "c"}}, r'"fields"\]'),
        ({"fields": FIELDS | {"prompt": 7}}, r'"fields"\]'),
        ({"fields": FIELDS | {"prompt": "[]"}}, r'"fields"\]'),
        ({"fields": {"person": "a", "garment": "a"}}, r"end it with \[\] if several go into one"),
        ({"fields": ["person", "garment"]}, r'"fields"\]'),
        (
            {"fields": FIELDS, "max_pictures": 2},
            r'"max_pictures"\] is 2. Say in "fields" which input gets "pictures".',
        ),
        ({"max_pictures": 0}, r'"max_pictures"\] is 0. Give a whole number from 1.'),
        ({"max_pictures": True}, r'"max_pictures"\] is True'),
        ({"fields": FIELDS, "output_formats": ["png"]}, r'Say in "fields" which input gets "output_format".'),
        ({"output_formats": ["gif"]}, "Use some of: png, jpeg, webp."),
        ({"inputs": ["a"]}, r'"inputs"\] is \[\'a\'\]. Give a dict.'),
        ({"categories": "tops"}, r'"categories"\] is \'tops\'. Give a dict.'),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        FalProvider("fal", **options)
