"""The Vertex AI adapter, by Google's own SDK, against a loopback vendor; its failures are in ``test_vendors``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import errors
from providers.base import Photo
from providers.vertex import SUCCESSOR, VertexProvider

from .asking import failure_of, try_on
from .vendor import VendorServer, json_answer, photo, try_on_request
from .vendors import KEY, picture
from .vendors.gemini import ENVIRONMENT
from .vendors.vertex import REASON, Vertex, prediction


@pytest.fixture
def vertex() -> Iterator[tuple[Vertex, VendorServer]]:
    with VendorServer(double := Vertex()) as server:
        yield double, server


def make(server: VendorServer, **options: Any) -> VertexProvider:
    return VertexProvider("shop", **Vertex().options(server) | options)


def image(photo: Photo) -> dict[str, Any]:
    return {"image": {"bytesBase64Encoded": base64.b64encode(photo.data).decode(), "mimeType": photo.content_type}}


# What goes over the wire


def test_request_on_the_wire(vertex: tuple[Vertex, VendorServer]) -> None:
    double, server = vertex
    request = try_on_request()

    result = try_on(make(server))

    (call,) = server.calls
    assert (call.method, call.path) == (
        "POST",
        "/v1/projects/my-shop/locations/us-central1/publishers/google/models/virtual-try-on-001:predict",
    )
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert "x-goog-api-key" not in call.headers
    assert double.asked == {
        "instances": [{"personImage": image(request.person), "productImages": [image(request.garment)]}],
        "parameters": {"sampleCount": 1, "outputOptions": {"mimeType": "image/png"}},
    }
    assert (result.data, result.content_type, result.model) == (double.picture, "image/png", "virtual-try-on-001")
    assert (result.seed, result.cost_usd, result.more) == (None, None, ())


def test_what_is_asked_for_reaches_the_wire(vertex: tuple[Vertex, VendorServer]) -> None:
    double, server = vertex

    result = try_on(
        make(server, location="europe-west4", model="virtual-try-on-002", output_format="jpeg"), pictures=3, seed=0
    )

    assert "/locations/europe-west4/" in server.calls[0].path
    assert server.calls[0].path.endswith("/virtual-try-on-002:predict")
    assert double.asked["parameters"] == {
        "sampleCount": 3,
        "seed": 0,
        "addWatermark": False,
        "outputOptions": {"mimeType": "image/jpeg"},
    }
    assert (result.data, result.more) == (double.picture, (double.picture,) * 2)
    assert result.seed == 0
    assert result.warnings == ("With a seed this picture has no watermark that tells how it was made.",)


def test_the_requests_output_format_comes_before_the_options(vertex: tuple[Vertex, VendorServer]) -> None:
    double, server = vertex
    try_on(make(server), output_format="jpeg")
    assert double.asked["parameters"]["outputOptions"] == {"mimeType": "image/jpeg"}


def test_what_the_picture_can_do_without_is_dropped_with_a_warning(vertex: tuple[Vertex, VendorServer]) -> None:
    double, server = vertex
    result = try_on(make(server), category="tops", output_format="webp")
    assert len(result.warnings) == 2
    assert double.asked["parameters"]["outputOptions"] == {"mimeType": "image/png"}


@pytest.mark.parametrize("feature", [{"pictures": 5}, {"size": "1k"}])
def test_what_vertex_cannot_do_is_refused_by_name(
    vertex: tuple[Vertex, VendorServer], feature: dict[str, Any]
) -> None:
    error = failure_of(make(vertex[1]), **feature)
    assert type(error) is errors.UnsupportedFeature
    assert next(iter(feature)) in str(error)
    assert not vertex[1].calls


def test_environment_is_not_read(vertex: tuple[Vertex, VendorServer], monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = vertex
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    try_on(make(server))

    (call,) = server.calls
    assert call.path.startswith("/v1/projects/my-shop/locations/us-central1/")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert "from-the-environment" not in str(call)


def test_google_is_asked_in_the_region_without_a_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", "http://127.0.0.1:1")
    provider = VertexProvider("shop", location="europe-west9")
    assert provider._base_url == "https://europe-west9-aiplatform.googleapis.com"


# What comes back


def test_a_filtered_picture_of_several_is_a_refusal() -> None:
    """Whoever pays for three is not given two."""
    first, second = picture(color="#111111"), picture("JPEG", "#222222")
    predictions = [{"raiFilteredReason": REASON}, prediction(first), prediction(second, mimeType="image/jpeg")]
    with VendorServer(json_answer({"predictions": predictions})) as server:
        assert type(failure_of(make(server), pictures=3)) is errors.ContentRefused
        result = try_on(make(server), pictures=2)
    assert (result.data, result.more, result.content_type) == (first, (second,), "image/png")


def test_the_type_is_the_one_asked_for_where_none_is_told() -> None:
    answer = json_answer({"predictions": [{"bytesBase64Encoded": "AAAA"}]})
    with VendorServer(answer) as server:
        assert try_on(make(server, output_format="jpeg")).content_type == "image/jpeg"


def test_a_refusal_names_the_codes_and_not_the_sentence() -> None:
    with VendorServer(json_answer({"predictions": [{"raiFilteredReason": REASON}]})) as server:
        error = failure_of(make(server))
    assert str(error) == "Vertex AI's content policy refused (56562880)."
    assert not error.retryable


# Before anything is sent


@pytest.mark.parametrize("role", ["person", "garment"])
def test_a_photo_of_a_type_that_the_model_does_not_read(vertex: tuple[Vertex, VendorServer], role: str) -> None:
    changes: dict[str, Any] = {role: photo(b"RIFF....WEBP", "image/webp")}
    error = failure_of(make(vertex[1]), **changes)
    assert type(error) is errors.ProviderRejectedInput
    assert str(error) == f"The {role}'s photo is image/webp; Vertex AI takes image/jpeg, image/png."
    assert not vertex[1].calls


@pytest.mark.parametrize("role", ["person", "garment"])
def test_a_photo_that_is_too_large(vertex: tuple[Vertex, VendorServer], role: str) -> None:
    changes: dict[str, Any] = {role: photo(bytes(7 * 1024 * 1024 + 1))}
    error = failure_of(make(vertex[1]), **changes)
    assert type(error) is errors.ProviderRejectedInput
    assert role in str(error)
    assert not vertex[1].calls


def test_no_project_sends_nothing(vertex: tuple[Vertex, VendorServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-the-environment")
    error = failure_of(make(vertex[1], project=""))
    assert type(error) is errors.ProviderMisconfigured
    assert "GOOGLE_PROJECT_ID" in str(error)
    assert not vertex[1].calls


# Settings


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("location", "global", '"global" has it not'),
        ("location", "", "Use a region"),
        ("location", None, "Use a region"),
        ("location", "us", "Use a region"),
        ("location", "US-CENTRAL1", "Use a region"),
        ("location", "us-central1.example.com/", "Use a region"),
        ("project", "my shop", "Give the id of a Google Cloud project."),
        ("project", "../x", "Give the id of a Google Cloud project."),
        ("project", None, "Give the id of a Google Cloud project."),
        ("model", "", "Give the name of a model."),
        ("output_format", "webp", "Use one of: png, jpeg."),
        ("base_url", "example.com", "Use an http or https URL"),
    ],
)
def test_bad_option_is_refused_at_once(option: str, value: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        VertexProvider("shop", **{"location": "us-central1", option: value})
    message = str(caught.value)
    assert message.startswith(f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["{option}"] is {value!r}. ')
    assert advice in message


@pytest.mark.parametrize(
    "location",
    [
        *("us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1", "us-west4"),
        *("northamerica-northeast1", "europe-west1", "europe-west4", "europe-west8", "europe-west9"),
        *("europe-southwest1", "europe-north1", "asia-northeast1", "asia-southeast1", "me-central1"),
    ],
)
def test_regions_that_have_the_model(location: str) -> None:
    VertexProvider("shop", location=location)


def test_credentials_that_are_neither_a_path_nor_googles_are_refused_without_showing_them() -> None:
    with pytest.raises(ImproperlyConfigured, match=r'\["credentials"\] is <class \'dict\'>') as caught:
        VertexProvider("shop", location="us-central1", credentials={"private_key": KEY})  # type: ignore[arg-type]
    assert KEY not in str(caught.value)


def problems(**options: Any) -> dict[str, bool]:
    """What ``check()`` says, and whether it is fatal."""
    provider = VertexProvider("shop", **{"location": "us-central1", "project": "my-shop"} | options)
    return {problem.message: problem.fatal for problem in provider.check()}


def test_the_model_retires() -> None:
    assert problems() == {}
    model, _ = VertexProvider.models
    assert (model.shutdown, model.successor) == (date(2027, 1, 20), SUCCESSOR)


def test_check_tells_of_a_project_that_is_missing() -> None:
    message = 'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["project"] is empty.'
    assert problems(project="") == {message: True}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "which is not there"),
        (b"", "which is not JSON"),
        (b"\xff\xfe", "which is not JSON"),
        (b"[]", "which is not the key of a service account"),
        (b'{"type": "authorized_user"}', "which is not the key of a service account"),
    ],
)
def test_check_tells_what_is_wrong_with_the_file(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    message = f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["credentials"] is {str(path)!r}, a file {what}.'
    assert problems(credentials=str(path)) == {message: True}


def test_check_tells_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (message, *_) = problems(credentials=str(tmp_path))
    assert message.endswith("a file which cannot be read.")


def test_a_missing_file_is_of_this_machine_and_not_of_the_settings() -> None:
    provider = VertexProvider("shop", location="us-central1", project="p", credentials="/nowhere/key.json")
    (file,) = provider.check()
    assert not file.of_settings
    assert "GOOGLE_APPLICATION_CREDENTIALS" in file.hint


def test_check_is_content_with_a_service_account(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"type": "service_account"}))
    assert problems(credentials=str(path)) == {}
