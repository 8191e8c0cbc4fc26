"""The OpenAI adapter against a loopback vendor: what it sends, what it makes of every answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import logging
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import errors
from providers import openai as adapter
from providers.base import OutputFormat, Photo, Secret, TryOnResult
from providers.openai import OpenAIProvider, models

from .asking import failure_of, run, try_on
from .conftest import PICTURE
from .vendor import Answer, Call, VendorServer, openai_answer, try_on_request
from .vendors import KEY
from .vendors.openai import make


def fields_of(call: Call) -> dict[str, str]:
    """The fields of the form but for its files."""
    return {part.name: part.data.decode() for part in call.parts if not part.filename}


# What goes over the wire


def test_request_on_the_wire(vendor: VendorServer) -> None:
    request = try_on_request(prompt='Été, "quoted"\nand a second line ✿', end_user="5f2c")

    try_on(make(vendor), prompt=request.prompt, end_user="5f2c")

    (call,) = vendor.calls
    assert (call.method, call.path) == ("POST", "/v1/images/edits")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    images = [part for part in call.parts if part.filename]
    assert [(part.name, part.filename, part.content_type, part.data) for part in images] == [
        ("image[]", "person.jpeg", "image/jpeg", request.person.data),
        ("image[]", "garment.png", "image/png", request.garment.data),
    ]
    assert fields_of(call) == {
        "model": "gpt-image-2.6-sunburst",
        "prompt": request.prompt,
        "quality": "high",
        "size": "auto",
        "output_format": "png",
        "safety_identifier": "5f2c",
    }


def test_options_reach_the_wire(vendor: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    provider = make(
        vendor,
        api_key=Secret(f" {KEY}\n"),
        model="gpt-image-2.5-flare",
        quality="xhigh",
        size="1024x1536",
        output_format="webp",
        output_compression=80,
        background="transparent",
        organization="org-1",
        project="proj-1",
    )

    try_on(provider)

    (call,) = vendor.calls
    assert fields_of(call) == {
        "model": "gpt-image-2.5-flare",
        "prompt": "Dress the person.",
        "quality": "xhigh",
        "size": "1024x1536",
        "output_format": "webp",
        "output_compression": "80",
        "background": "transparent",
    }
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert (call.headers["openai-organization"], call.headers["openai-project"]) == ("org-1", "proj-1")


def test_what_a_request_asks_for_reaches_the_wire(vendor: VendorServer) -> None:
    try_on(make(vendor, size="1024x1024"), pictures=3, size="2k", output_format="webp")

    fields = fields_of(vendor.calls[0])
    assert (fields["n"], fields["size"], fields["output_format"]) == ("3", "1760x2352", "webp")


@pytest.mark.parametrize(("output_format", "compression"), [("png", None), ("jpeg", "60"), ("webp", "60")])
def test_compression_goes_to_formats_that_know_it(
    vendor: VendorServer, output_format: OutputFormat, compression: str | None
) -> None:
    try_on(make(vendor, output_compression=60), output_format=output_format)

    assert fields_of(vendor.calls[0]).get("output_compression") == compression


def test_jpeg_cannot_be_transparent(vendor: VendorServer) -> None:
    result = try_on(make(vendor, background="transparent"), output_format="jpeg")

    assert fields_of(vendor.calls[0])["output_format"] == "png"
    assert result.warnings == ("OpenAI cannot be told to make jpeg; this is what it makes.",)
    with pytest.raises(ImproperlyConfigured, match="Use one of: png, webp"):
        make(vendor, background="transparent", output_format="jpeg")


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (768, 1024, "1k", "880x1168"),
        (768, 1024, "4k", "2480x3312"),
        (1000, 1000, "1k", "1024x1024"),
        (4000, 3000, "2k", "2352x1760"),
        (1080, 1920, "4k", "2160x3840"),
        (2416, 3433, "4k", "2416x3424"),  # to the nearest it would have too many pixels
        (1920, 1080, "4k", "3840x2160"),
        (100, 1000, "1k", "576x1728"),
        (1000, 100, "4k", "3840x1280"),
    ],
)
def test_size_follows_the_persons_photo(width: int, height: int, size: str, expected: str) -> None:
    assert models.size_for(Photo(data=b"", content_type="", width=width, height=height), size) == expected


@pytest.mark.parametrize("size", ["1k", "2k", "4k"])
def test_size_for_any_photo_is_one_that_the_model_makes(size: str) -> None:
    for width in range(100, 3000, 37):
        made = models.size_for(Photo(data=b"", content_type="", width=width, height=1000), size)
        models.check_size("shop", made, "gpt-image-2")
        edges = models.edges_of(made)
        assert edges is not None
        ratio = min(max(width / 1000, 1 / 3), 3)
        assert edges[0] / edges[1] == pytest.approx(ratio, rel=0.01)
        assert edges[0] * edges[1] == pytest.approx(models.PIXELS[size], rel=0.06) or max(edges) > 3800


ENVIRONMENT = {
    **dict.fromkeys(
        (
            "OPENAI_API_KEY",
            "OPENAI_ADMIN_KEY",
            "OPENAI_ORG_ID",
            "OPENAI_PROJECT_ID",
            "OPENAI_API_VERSION",
            "OPENAI_WEBHOOK_SECRET",
            "AZURE_OPENAI_API_KEY",
            "AZURE_OPENAI_AD_TOKEN",
        ),
        "from-the-environment",
    ),
    "OPENAI_BASE_URL": "http://127.0.0.1:1/from-the-environment",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:1/from-the-environment",
    "OPENAI_CUSTOM_HEADERS": "X-Custom: from-the-environment\nAuthorization: from-the-environment",
}


@pytest.mark.parametrize("options", [{}, {"azure_api_version": "2030-01-01"}], ids=["openai", "azure"])
def test_environment_is_not_read(
    vendor: VendorServer, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    try_on(make(vendor, **options))

    (call,) = vendor.calls
    assert "from-the-environment" not in str((call.path, call.headers, call.body))
    assert OpenAIProvider("vendor")._base_url == "https://api.openai.com/v1"


# What comes back


def test_result(vendor: VendorServer) -> None:
    result = try_on(make(vendor))

    assert result.data == PICTURE
    assert result.content_type == "image/png"
    assert result.model == "gpt-image-2.6-sunburst"
    assert result.provider_id == "req_123"
    assert result.usage == {
        "input_tokens": 1100,
        "input_text_tokens": 100,
        "input_image_tokens": 1000,
        "output_tokens": 2000,
        "total_tokens": 3100,
    }
    assert result.cost_usd == Decimal("0.0685")  # 100 * $5 + 1000 * $8 + 2000 * $30, per million


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        ("gpt-image-2.6-flare", Decimal("0.0685")),
        ("gpt-image-2.5-sunburst-2026-09-08", Decimal("0.0685")),
        ("gpt-image-2", None),
        ("gpt-image-3", None),
        ("somebody-elses-model", None),
    ],
)
def test_cost_is_told_only_for_models_with_a_known_price(
    vendor: VendorServer, model: str, cost: Decimal | None
) -> None:
    assert try_on(make(vendor, model=model)).cost_usd == cost


@pytest.mark.parametrize(
    ("cached", "cost"),
    [
        ({"cached_tokens": 0}, "0.0685"),
        # Of 1000 image tokens 600 at $2, of 100 text tokens 40 at $1.25.
        ({"cached_tokens": 640, "cached_tokens_details": {"image_tokens": 600, "text_tokens": 40}}, "0.06475"),
        # Not told of what kind: 100 of the text, then 540 of the images.
        ({"cached_tokens": 640}, "0.064885"),
        ({"cached_tokens": 99999}, "0.062125"),
        ({"cached_tokens": -5, "cached_tokens_details": ["odd"]}, "0.0685"),
    ],
)
def test_cached_input_costs_less(vendor: VendorServer, cached: dict[str, Any], cost: str) -> None:
    details = {"image_tokens": 1000, "text_tokens": 100} | cached
    usage = {"input_tokens": 1100, "input_tokens_details": details, "output_tokens": 2000}
    vendor.answer = openai_answer(PICTURE, usage=usage)

    assert try_on(make(vendor)).cost_usd == Decimal(cost)


@pytest.mark.parametrize(
    ("usage", "counters"),
    [
        (None, {}),
        ("many", {}),
        ({"output_tokens": 5, "input_tokens": "7", "total_tokens": True}, {"output_tokens": 5}),
        ({"output_tokens": 5, "input_tokens_details": None}, {"output_tokens": 5}),
    ],
)
def test_odd_usage_costs_nobody_the_picture(vendor: VendorServer, usage: object, counters: dict[str, int]) -> None:
    vendor.answer = openai_answer(PICTURE, usage=usage)

    result = try_on(make(vendor))

    assert (result.data, result.usage, result.cost_usd) == (PICTURE, counters, None)


def test_content_type_follows_the_answer_then_the_option(vendor: VendorServer) -> None:
    vendor.answer = openai_answer(PICTURE, output_format="jpeg")
    assert try_on(make(vendor)).content_type == "image/jpeg"
    vendor.answer = openai_answer(PICTURE, output_format="text/html")
    assert try_on(make(vendor, output_format="webp")).content_type == "image/webp"


def test_every_picture_of_the_answer_comes_back(vendor: VendorServer) -> None:
    data = [{"b64_json": base64.b64encode(picture).decode()} for picture in (b"one", b"two", b"three")]
    vendor.answer = openai_answer(PICTURE, data=data)

    result = try_on(make(vendor), pictures=3)

    assert (result.data, result.more, result.warnings) == (b"one", (b"two", b"three"), ())


def test_pictures_that_nobody_asked_for_are_not_looked_at(vendor: VendorServer) -> None:
    data = [{"b64_json": base64.b64encode(b"one").decode()}, {"url": "http://10.0.0.1/a.png"}]
    vendor.answer = openai_answer(PICTURE, data=data)

    result = try_on(make(vendor))

    assert (result.data, result.more) == (b"one", ())


def test_an_id_that_repeats_the_key_is_not_kept(vendor: VendorServer) -> None:
    answer = openai_answer(PICTURE)
    vendor.answer = dataclasses.replace(answer, headers={**answer.headers, "x-request-id": f"Bearer {KEY.upper()}"})

    assert try_on(make(vendor)).provider_id == ""


def test_fewer_pictures_than_asked_for_come_back_as_they_are(vendor: VendorServer) -> None:
    """The caller knows how many it wants to pay for."""
    result = try_on(make(vendor), pictures=4)

    assert (result.data, result.more, result.warnings) == (PICTURE, (), ())


@pytest.mark.parametrize(
    ("size", "edges"),
    [("1536x864", (1536, 864)), ("auto", (None, None)), (None, (None, None)), (["1x1"], (None, None))],
)
def test_width_and_height_are_those_of_the_answer(
    vendor: VendorServer, size: object, edges: tuple[int | None, int | None]
) -> None:
    vendor.answer = openai_answer(PICTURE, size=size)

    result = try_on(make(vendor))

    assert (result.width, result.height) == edges


def test_no_log_level_shows_the_key_or_the_prompt(vendor: VendorServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    try_on(make(vendor))

    assert KEY not in caplog.text
    assert "Dress the person" not in caplog.text


# Clients and loops


def test_one_client_for_all_calls_of_a_loop(vendor: VendorServer) -> None:
    provider = make(vendor)

    async def twice() -> None:
        for _ in range(2):
            await provider.try_on(try_on_request(), timeout=30)

    run(provider, twice())
    assert (len(vendor.calls), vendor.connections) == (2, 1)

    run(provider, twice())
    assert (len(vendor.calls), vendor.connections) == (4, 2)


@pytest.mark.parametrize("answer", [openai_answer(PICTURE), Answer(status=500), Answer(status=500, end="close")])
def test_loops_that_end_without_closing(vendor: VendorServer, answer: Answer) -> None:
    """As under WSGI, where every request has a loop of its own: nothing fails and no connection is left."""
    vendor.answer = answer
    provider = make(vendor)

    for _ in range(3):
        with contextlib.suppress(errors.ProviderUnavailable):
            asyncio.run(provider.try_on(try_on_request(), timeout=30))
    gc.collect()  # what complains about not being closed does it here

    assert len(vendor.calls) == 3
    assert not provider._clients._keepers


def test_provider_works_again_after_aclose(vendor: VendorServer) -> None:
    provider = make(vendor)

    async def close_between() -> None:
        await provider.aclose()
        await provider.try_on(try_on_request(), timeout=30)
        await provider.aclose()
        await provider.aclose()
        await provider.try_on(try_on_request(), timeout=30)

    run(provider, close_between())
    assert len(vendor.calls) == 2


def test_many_waiting_calls_do_not_queue() -> None:
    many = 130

    def answer(call: Call) -> Answer:
        return openai_answer(PICTURE)

    with VendorServer(answer, together=many) as vendor:
        provider = make(vendor)

        async def all_at_once() -> list[TryOnResult]:
            return await asyncio.gather(*(provider.try_on(try_on_request(), timeout=60) for _ in range(many)))

        results = run(provider, all_at_once())

    assert [result.data for result in results] == [PICTURE] * many
    assert vendor.connections == many


# Settings


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("quality", "ultra", "Use one of: auto, low, medium, high, xhigh, max."),
        ("quality", "standard", "Use one of: auto"),
        ("quality", None, "Use one of: auto"),
        ("output_format", "gif", "Use one of: png, jpeg, webp."),
        ("output_compression", 101, "Give a percentage from 0 to 100, or leave it out."),
        ("output_compression", "80", "Give a percentage"),
        ("output_compression", True, "Give a percentage"),
        ("background", "pink", "Use one of: , auto, opaque, transparent."),
        ("image_field", "images", "Use one of: image[], image."),
        ("azure_api_version", "next week", 'Give its date, such as "YYYY-MM-DD"'),
        ("azure_api_version", None, "Give its date"),
        ("size", "big", "WIDTHxHEIGHT"),
        ("size", "1024", "WIDTHxHEIGHT"),
        ("size", (1024, 1024), "WIDTHxHEIGHT"),
        ("size", "1000x1000", "divisible by 16"),
        ("size", "512x512", "655360"),
        ("size", "3840x3840", "8294400"),
        ("size", "4096x1536", "at most 3840"),
        ("size", "3200x1024", "three times"),
        ("model", "", "Give the name of an image model."),
        ("model", None, "Give the name of an image model."),
        ("base_url", "api.openai.com/v1", "Use an http or https URL"),
        ("base_url", "ftp://example.com", "Use an http or https URL"),
        ("base_url", "https://", "Use an http or https URL"),
        ("base_url", "https://example.com:port/v1", "Use an http or https URL"),
        ("base_url", None, "Use an http or https URL"),
        ("organization", "my org", "Give its id, or leave it out."),
        ("project", 5, "Give its id, or leave it out."),
    ],
)
def test_bad_option_is_refused_at_once(option: str, value: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        OpenAIProvider("shop", **{option: value})

    message = str(caught.value)
    assert message.startswith(f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["{option}"] is {value!r}. ')
    assert advice in message


@pytest.mark.parametrize("quality", ["xhigh", "max"])
def test_the_best_qualities_are_for_models_since_2_5(quality: str) -> None:
    for model in ("gpt-image-2", "gpt-image-2-2026-04-21", "gpt-image-1.5", "gpt-image-1", "chatgpt-image-latest"):
        with pytest.raises(ImproperlyConfigured, match=r"Use one of: auto, low, medium, high\."):
            OpenAIProvider("shop", model=model, quality=quality)
    for model in ("gpt-image-2.5-flare-2026-09-08", "gpt-image-2.6-sunburst", "gpt-image-3", "somebody-elses"):
        OpenAIProvider("shop", model=model, quality=quality)


@pytest.mark.parametrize("size", ["auto", "1024x1024", "1024x1536", "2160x3840", "3840x2160", "1536x864"])
def test_good_sizes(size: str) -> None:
    OpenAIProvider("shop", size=size)


def test_size_for_prices_is_one_that_the_options_fix() -> None:
    assert OpenAIProvider("shop", size="1024x1536").size == "1024x1536"
    assert OpenAIProvider("shop", size="auto").size == ""


def test_other_models_have_their_own_sizes() -> None:
    assert OpenAIProvider("shop", size="512x512", model="flux").sizes == ()
    assert OpenAIProvider("shop", model="gpt-image-2").sizes == ("1k", "2k", "4k")


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-with space", "sk-\u2019quoted\u2019"])
def test_key_that_is_no_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="api_key") as caught:
        OpenAIProvider("shop", api_key=key)
    assert key not in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_password_in_base_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ImproperlyConfigured, match="base_url") as caught:
        OpenAIProvider("shop", base_url="https://me:hunter2@example.com/v1")
    assert "hunter2" not in str(caught.value)


def test_key_is_in_no_repr() -> None:
    provider = OpenAIProvider("shop", api_key=KEY)
    assert KEY not in repr(provider) + str(provider) + repr(vars(provider))


def test_check() -> None:
    assert not list(OpenAIProvider("shop", api_key=KEY).check())
    (problem,) = OpenAIProvider("shop").check()
    assert problem.fatal
    assert problem.message == 'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["api_key"] is empty.'
    assert "OPENAI_API_KEY" in problem.hint


def test_no_key_sends_nothing(vendor: VendorServer) -> None:
    error = failure_of(make(vendor, api_key="  "))

    assert type(error) is errors.ProviderMisconfigured
    assert "OPENAI_API_KEY" in str(error)
    assert not vendor.calls


HINT = 'Run `pip install "openai[aiohttp]"` (the extra openai).'


@pytest.mark.parametrize("package", adapter.PACKAGES)
def test_missing_package(vendor: VendorServer, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    adapter._import.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)

    error = failure_of(make(vendor))

    assert type(error) is errors.ProviderMisconfigured
    assert str(error) == f"OpenAI cannot be used: {package} is missing. {HINT}"


def test_check_tells_of_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    (problem,) = OpenAIProvider("shop", api_key=KEY).check()
    assert problem.message.endswith("not installed: openai, aiohttp.")
    assert problem.hint == HINT


def test_creating_and_checking_imports_no_sdk() -> None:
    code = (
        "import sys; from providers.openai import OpenAIProvider;"
        "list(OpenAIProvider('a', api_key='k').check());"
        "print(sorted({'openai', 'aiohttp', 'httpx', 'httpx2'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
