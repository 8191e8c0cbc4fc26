"""The OpenAI adapter against servers that are not quite OpenAI: compatible ones, Azure, and such as have no end."""

from __future__ import annotations

import base64
import gzip
from datetime import date
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import errors, rest
from providers.base import Model
from providers.errors import ProviderError
from providers.openai import OpenAIProvider

from .asking import failure_of, run, try_on
from .conftest import PICTURE
from .vendor import Answer, VendorServer, json_answer, openai_answer, openai_error
from .vendors import KEY, Trouble
from .vendors.openai import Compatible, make

# Compatible servers


def test_a_link_is_followed_to_the_server_that_the_operator_chose() -> None:
    with VendorServer(vendor := Compatible()) as server:
        result = try_on(make(server))

    assert result.data == vendor.picture
    create, download = server.calls
    assert (download.method, download.path) == ("GET", "/files/a.png?signature=secret")
    assert create.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in download.headers


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(trouble, id=trouble.name)
        for trouble in Compatible().troubles()
        if trouble.step == "download"
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_downloaded(trouble: Trouble) -> None:
    vendor = Compatible()
    vendor.trouble = trouble
    with VendorServer(vendor) as server:
        error = failure_of(make(server))

    assert type(error) is trouble.expected
    assert error.request_id == "req_123"
    assert "signature" not in str(error)
    assert [vendor.step(call) for call in server.calls] == ["create", "download"]


def test_another_port_of_the_same_host_is_not_the_server_that_the_operator_chose(vendor: VendorServer) -> None:
    with VendorServer(Answer(body=PICTURE)) as other:
        vendor.answer = json_answer({"data": [{"url": f"http://127.0.0.1:{other.port}/a.png"}]})
        error = failure_of(make(vendor))

    assert type(error) is errors.InvalidProviderResponse
    assert not other.calls


def test_the_bytes_of_an_answer_count_more_than_its_link(vendor: VendorServer) -> None:
    data = [{"b64_json": base64.b64encode(PICTURE).decode(), "url": "http://10.0.0.1/a.png"}]
    vendor.answer = openai_answer(b"", data=data)

    assert try_on(make(vendor)).data == PICTURE


ENCODED = base64.b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    "entry",
    [
        {"b64_json": base64.encodebytes(PICTURE).decode()},
        {"b64_json": base64.encodebytes(PICTURE).decode().replace("\n", "\r\n")},
        {"b64_json": f"data:image/png;base64,{ENCODED}"},
        {"url": f"data:image/png;base64,{ENCODED}"},
        {"b64_json": None, "url": f"data:image/png;base64,{ENCODED}"},
        {"b64_json": "", "url": f"data:image/png;base64,{ENCODED}"},
    ],
    ids=["lines", "lines of Windows", "data URI as base64", "data URI", "null and data URI", "empty and data URI"],
)
def test_other_ways_to_write_a_picture(vendor: VendorServer, entry: dict[str, Any]) -> None:
    vendor.answer = openai_answer(b"", data=[entry])

    assert try_on(make(vendor)).data == PICTURE


def test_a_server_that_knows_only_the_field_image(vendor: VendorServer) -> None:
    try_on(make(vendor, image_field="image"))

    files = [(part.name, part.filename) for part in vendor.calls[0].parts if part.filename]
    assert files == [("image", "person.jpeg"), ("image", "garment.png")]


def test_shutdown_dates_are_those_of_the_server() -> None:
    def dates(**options: Any) -> dict[str, date | None]:
        return {model.name: model.shutdown for model in OpenAIProvider("shop", **options).known_models}

    assert dates()["gpt-image-1.5"] == date(2026, 12, 1)
    assert dates(base_url="https://eu.api.openai.com/v1") == dates()
    assert dates(base_url="https://resource.example.com", azure_api_version="2030-01-01") == {
        "gpt-image-1": date(2026, 10, 23),
        "gpt-image-1.5": date(2026, 12, 16),
        "gpt-image-1-mini": date(2027, 4, 7),
        "gpt-image-2": date(2027, 4, 21),
    }
    assert dates(base_url="https://resource.example.com") == {}
    assert all(model.successor for model in OpenAIProvider.models if model.shutdown)


# Azure


def azure(vendor: VendorServer, **options: Any) -> OpenAIProvider:
    endpoint = vendor.base_url.removesuffix("/v1")
    return make(vendor, base_url=endpoint, azure_api_version="2030-01-01-preview", **options)


@pytest.mark.parametrize("image_field", ["image[]", "image"])
def test_azure_on_the_wire(vendor: VendorServer, image_field: str) -> None:
    result = try_on(azure(vendor, model="my try-on", image_field=image_field))

    (call,) = vendor.calls
    assert (call.method, call.path) == (
        "POST",
        "/openai/deployments/my%20try-on/images/edits?api-version=2030-01-01-preview",
    )
    assert call.headers["api-key"] == KEY
    assert "authorization" not in call.headers
    assert [part.name for part in call.parts if part.filename] == [image_field] * 2
    assert (result.data, result.model) == (PICTURE, "my try-on")


def test_prices_of_openai_are_not_those_of_azure(vendor: VendorServer) -> None:
    assert try_on(azure(vendor)).cost_usd is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (openai_error(401, KEY, message=KEY), errors.ProviderMisconfigured),
        (openai_error(404, "DeploymentNotFound"), errors.ProviderMisconfigured),
        (openai_error(429, headers={"retry_after": "7"}), errors.ProviderRateLimited),
        (Answer(status=307, headers={"location": "http://127.0.0.1:1/"}), errors.ProviderMisconfigured),
    ],
    ids=["401", "404", "429", "redirect"],
)
def test_azures_failures(vendor: VendorServer, answer: Answer, expected: type[ProviderError]) -> None:
    vendor.answer = answer

    error = failure_of(azure(vendor))

    assert type(error) is expected
    assert len(vendor.calls) == 1
    assert KEY not in str(error)


def test_azure_needs_its_endpoint() -> None:
    with pytest.raises(ImproperlyConfigured, match="Set base_url to the endpoint of the resource"):
        OpenAIProvider("shop", azure_api_version="2030-01-01")


def test_azure_does_not_list_its_deployments(vendor: VendorServer) -> None:
    assert not azure(vendor).lists_models
    assert make(vendor).lists_models


# Models


def remote_models(vendor: VendorServer) -> list[Model]:
    provider = make(vendor)
    return run(provider, provider.remote_models())


def test_remote_models(vendor: VendorServer) -> None:
    vendor.answer = json_answer(
        {
            "object": "list",
            "data": [
                {"id": "gpt-image-2", "object": "model", "created": 1, "owned_by": "openai"},
                {"id": "gpt-image-1.5", "object": "model", "shutdown_date": "2026-12-01"},
            ],
        }
    )

    assert remote_models(vendor) == [Model("gpt-image-2"), Model("gpt-image-1.5", date(2026, 12, 1))]
    (call,) = vendor.calls
    assert (call.method, call.path) == ("GET", "/v1/models")
    assert call.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("shutdown", "day"),
    [
        ("2026-12-01T23:59:59Z", date(2026, 12, 1)),
        (1796083200, date(2026, 12, 1)),
        (1796083200.5, date(2026, 12, 1)),
        ("1796083200", date(2026, 12, 1)),
        (None, None),
        ("", None),
        ("soon", None),
        ("2026-13-01", None),
        (True, None),
        (1e300, None),
        (-(10**15), None),
        (["2026-12-01"], None),
        ({"date": "2026-12-01"}, None),
    ],
)
def test_shutdown_date_in_any_shape(vendor: VendorServer, shutdown: object, day: date | None) -> None:
    vendor.answer = json_answer({"data": [{"id": "m", "shutdown_date": shutdown}]})

    assert remote_models(vendor) == [Model("m", day)]


def test_odd_entries_are_left_out(vendor: VendorServer) -> None:
    vendor.answer = json_answer({"data": [None, "gpt", {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": "good\nname"}]})

    assert remote_models(vendor) == [Model("good name")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(body=b"<html></html>"), errors.InvalidProviderResponse),
        (json_answer([]), errors.InvalidProviderResponse),
        (json_answer({"data": {}}), errors.InvalidProviderResponse),
        (openai_error(401), errors.ProviderMisconfigured),
        (openai_error(503), errors.ProviderUnavailable),
        (Answer(raw=b"", end="reset"), errors.ProviderUnavailable),
    ],
    ids=["html", "list", "no list", "401", "503", "reset"],
)
def test_models_that_cannot_be_listed(vendor: VendorServer, answer: Answer, expected: type[ProviderError]) -> None:
    vendor.answer = answer

    with pytest.raises(ProviderError) as caught:
        remote_models(vendor)

    assert type(caught.value) is expected


# Answers without end


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_hung_up_on(
    vendor: VendorServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(rest, "MAX_ANSWER_BYTES", 100_000)
    vendor.answer = Answer(status=status, body=b"x" * 200_000, missing=10**9, end="hang")

    error = failure_of(make(vendor))

    assert type(error) is errors.InvalidProviderResponse
    assert str(error) == "OpenAI's answer has more than 100,000 bytes."
    assert error.status == status
    assert vendor.hung_up.wait(10)


def test_bytes_count_as_they_come_out_of_the_compression(
    vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "MAX_ANSWER_BYTES", 100_000)
    body = gzip.compress(b" " * 1_000_000)
    assert len(body) < 10_000
    vendor.answer = Answer(body=body, headers={"content-encoding": "gzip"})

    assert str(failure_of(make(vendor))) == "OpenAI's answer has more than 100,000 bytes."


def test_a_compressed_answer_is_read(vendor: VendorServer) -> None:
    plain = openai_answer(PICTURE)
    vendor.answer = Answer(body=gzip.compress(plain.body), headers={**plain.headers, "content-encoding": "gzip"})

    result = try_on(make(vendor))

    assert (result.data, result.provider_id) == (PICTURE, "req_123")
