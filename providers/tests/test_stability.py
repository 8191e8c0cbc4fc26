"""Stability AI: what only its adapter has. The rest is in test_vendors.py."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.base import Photo
from providers.errors import ContentRefused, ImageUnusable, ProviderRejectedInput, UnsupportedFeature
from providers.stability import MAX_REQUEST_BYTES, MAX_SEED, NO_FITTING, StabilityProvider

from .asking import failure_of, try_on
from .vendor import Answer, VendorServer, photo, try_on_request
from .vendors import KEY
from .vendors.stability import ID, Stability, error, success


@pytest.fixture
def stability() -> Iterator[VendorServer]:
    with VendorServer(Stability()) as server:
        yield server


def make(server: VendorServer, **options: Any) -> StabilityProvider:
    return StabilityProvider("stability", **{"api_key": KEY, "base_url": server.base_url} | options)


def fields(server: VendorServer) -> dict[str, str]:
    return {part.name: part.data.decode() for part in server.calls[-1].parts if not part.filename}


def test_both_photos_are_sent_the_garment_as_the_style(stability: VendorServer) -> None:
    request = try_on_request()

    try_on(make(stability))

    (call,) = stability.calls
    assert (call.method, call.path) == ("POST", "/v1/stable-image/control/style-transfer")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["accept"] == "image/*"
    assert "stability-client-user-id" not in call.headers
    images = [part for part in call.parts if part.filename]
    assert [(part.name, part.filename, part.content_type, part.data) for part in images] == [
        ("init_image", "person.jpeg", "image/jpeg", request.person.data),
        ("style_image", "garment.png", "image/png", request.garment.data),
    ]
    assert fields(stability) == {"prompt": "Dress the person.", "output_format": "png"}


def test_options_and_what_is_asked_for_reach_the_vendor(stability: VendorServer) -> None:
    provider = make(stability, style_strength=0, composition_fidelity=0.5, change_strength=1, output_format="jpeg")

    result = try_on(provider, category="dresses", seed=7, output_format="webp", end_user="5f2c")

    assert fields(stability) == {
        "prompt": "Dress the person.\n\nThe garment is one piece for the whole body.",
        "output_format": "webp",
        "style_strength": "0",
        "composition_fidelity": "0.5",
        "change_strength": "1",
        "seed": "7",
    }
    assert stability.calls[0].headers["stability-client-user-id"] == "5f2c"
    assert result.warnings == (NO_FITTING,)


def test_the_option_says_the_format_where_the_request_does_not(stability: VendorServer) -> None:
    try_on(make(stability, output_format="jpeg"))
    assert fields(stability)["output_format"] == "jpeg"


def test_the_result_says_what_the_vendor_said_and_what_it_cost(stability: VendorServer) -> None:
    result = try_on(make(stability))

    assert (result.content_type, result.model, result.provider_id) == ("image/png", "style-transfer", "")
    assert result.seed == 343940597
    assert result.usage == {"credits": 8}
    assert result.cost_usd == Decimal("0.08")


@pytest.mark.parametrize("seed", ["", "many", "-1", "9" * 40])
def test_an_odd_seed_costs_nobody_the_picture(stability: VendorServer, seed: str) -> None:
    stability.answer = success(b"picture", seed=seed)
    assert try_on(make(stability), seed=5).seed == 5


def test_the_type_is_that_of_the_answer(stability: VendorServer) -> None:
    stability.answer = success(b"picture", content_type="image/webp; charset=binary")
    assert try_on(make(stability)).content_type == "image/webp"


def test_an_answer_without_finish_reason_is_a_picture(stability: VendorServer) -> None:
    stability.answer = Answer(body=b"picture", headers={"content-type": "image/png"})
    assert try_on(make(stability)).data == b"picture"


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_that_the_vendor_does_not_take_is_refused_before_anything_is_sent(
    stability: VendorServer, seed: int
) -> None:
    failure = failure_of(make(stability), seed=seed)
    assert type(failure) is UnsupportedFeature
    assert str(failure).startswith(f"seed={seed}: Stability AI takes 0 to 4294967294.")
    assert not stability.calls


@pytest.mark.parametrize("seed", [0, MAX_SEED])
def test_the_outermost_seeds_are_sent(stability: VendorServer, seed: int) -> None:
    try_on(make(stability), seed=seed)
    assert fields(stability)["seed"] == str(seed)


@pytest.mark.parametrize(
    ("field", "name"), [("person", "Person photo"), ("garment", "Garment photo")], ids=["person", "garment"]
)
@pytest.mark.parametrize(("width", "height"), [(63, 1000), (1000, 63), (64, 16_385)])
def test_a_photo_of_a_size_that_the_vendor_does_not_take(
    stability: VendorServer, field: str, name: str, width: int, height: int
) -> None:
    changes: dict[str, Any] = {field: Photo(data=b"photo", content_type="image/png", width=width, height=height)}
    failure = failure_of(make(stability), **changes)
    assert type(failure) is ImageUnusable
    assert str(failure) == f"{name}: it has {width}x{height} pixels. Use one whose sides have 64 to 16384."
    assert not stability.calls


def test_photos_of_the_outermost_sizes_are_sent(stability: VendorServer) -> None:
    edge = Photo(data=b"photo", content_type="image/png", width=64, height=16_384)
    try_on(make(stability), person=edge, garment=edge)
    assert len(stability.calls) == 1


def test_a_photo_that_leaves_no_room_for_the_other_is_not_sent(stability: VendorServer) -> None:
    most = StabilityProvider.max_photo_bytes
    failure = failure_of(make(stability), garment=photo(bytes(most + 1)))
    assert type(failure) is ProviderRejectedInput
    assert not stability.calls


def test_the_largest_request_has_no_more_bytes_than_the_vendor_takes(stability: VendorServer) -> None:
    largest = photo(bytes(StabilityProvider.max_photo_bytes))
    try_on(make(stability), person=largest, garment=largest, prompt="\N{DRESS}" * 10_000)
    assert len(stability.calls[0].body) <= MAX_REQUEST_BYTES


def test_a_refusal_and_its_id_are_told_by_their_codes(stability: VendorServer) -> None:
    stability.answer = error(403, "content_moderation")
    failure = failure_of(make(stability))
    assert str(failure) == "Stability AI answered 403 (content_moderation). Its content policy refused."
    assert (failure.status, failure.request_id) == (403, ID)


def test_a_filtered_picture_is_a_refusal_that_is_not_retried(stability: VendorServer) -> None:
    stability.answer = success(b"blurred", finish_reason="CONTENT_FILTERED")
    failure = failure_of(make(stability))
    assert isinstance(failure, ContentRefused)
    assert str(failure) == "Stability AI filtered its own picture (CONTENT_FILTERED)."
    assert not failure.retryable


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("output_format", "gif", "Use one of: png, jpeg, webp."),
        ("style_strength", 1.1, "Give a number from 0 to 1, or leave it out."),
        ("style_strength", True, "Give a number from 0 to 1, or leave it out."),
        ("composition_fidelity", -0.1, "Give a number from 0 to 1, or leave it out."),
        ("composition_fidelity", "much", "Give a number from 0 to 1, or leave it out."),
        ("change_strength", 0, "Give a number from 0.1 to 1, or leave it out."),
        ("change_strength", float("nan"), "Give a number from 0.1 to 1, or leave it out."),
    ],
)
def test_a_bad_option_is_refused_at_once(option: str, value: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        StabilityProvider("shop", **{option: value})
    assert str(caught.value) == f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["{option}"] is {value!r}. {advice}'


def test_check_tells_of_the_missing_key_and_of_the_training_clause() -> None:
    no_key, clause = StabilityProvider("shop").check()
    assert no_key.fatal
    assert "STABILITY_API_KEY" in no_key.hint
    assert not clause.fatal
    assert "train" in clause.message
    assert list(StabilityProvider("shop", api_key=KEY).check()) == [clause]


def test_the_default_server_is_the_vendors() -> None:
    assert StabilityProvider("shop")._base_url == "https://api.stability.ai/v2beta"
