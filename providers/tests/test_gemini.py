"""The Gemini adapter, by Google's own SDK, against a loopback vendor; each kind of failure is in ``test_vendors``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import errors
from providers import google as shared
from providers.base import Model, Photo, Secret, TryOnResult
from providers.errors import ProviderError
from providers.gemini import ASPECT_RATIOS, DESCRIBE, MAX_DESCRIPTION, GeminiProvider, nearest_ratio

from .asking import failure_of, run, try_on
from .vendor import Answer, Call, VendorServer, json_answer, photo, try_on_request
from .vendors import KEY, picture
from .vendors.gemini import (
    DESCRIPTION,
    ENVIRONMENT,
    Gemini,
    GeminiInTwoSteps,
    candidate,
    error_info,
    google_error,
    image_part,
    retry_info,
    usage,
)


@pytest.fixture
def gemini() -> Iterator[tuple[Gemini, VendorServer]]:
    with VendorServer(double := Gemini()) as server:
        yield double, server


@pytest.fixture
def two_steps() -> Iterator[tuple[GeminiInTwoSteps, VendorServer]]:
    with VendorServer(double := GeminiInTwoSteps()) as server:
        yield double, server


def make(server: VendorServer, **options: Any) -> GeminiProvider:
    return GeminiProvider("shop", **Gemini().options(server) | options)


def answer_with(answer: Answer, **options: Any) -> TryOnResult:
    with VendorServer(answer) as server:
        return try_on(make(server, **options))


def failure_with(answer: Answer, **options: Any) -> ProviderError:
    with VendorServer(answer) as server:
        return failure_of(make(server, **options))


def inline(photo: Photo) -> dict[str, Any]:
    return {"inlineData": {"mime_type": photo.content_type, "data": base64.urlsafe_b64encode(photo.data).decode()}}


# What goes over the wire


def test_request_on_the_wire(gemini: tuple[Gemini, VendorServer]) -> None:
    double, server = gemini
    request = try_on_request(prompt='Été, "quoted"\nand a second line ✿', end_user="5f2c")

    try_on(make(server), prompt=request.prompt, end_user="5f2c")

    (call,) = server.calls
    assert (call.method, call.path) == ("POST", "/v1/models/gemini-nano-banana-2.1:generateContent")
    assert call.headers["x-goog-api-key"] == KEY
    assert "x-server-timeout" not in call.headers
    parts = [{"text": request.prompt}, inline(request.person), inline(request.garment)]
    assert double.asked == {
        "contents": [{"role": "user", "parts": parts}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "3:4", "imageSize": "1K"},
        },
    }


def test_options_reach_the_wire(gemini: tuple[Gemini, VendorServer]) -> None:
    double, server = gemini

    result = try_on(make(server, api_key=Secret(f" {KEY}\n"), model="gemini-3-pro-image", size="2K"))

    assert server.calls[0].path == "/v1/models/gemini-3-pro-image:generateContent"
    assert server.calls[0].headers["x-goog-api-key"] == KEY
    assert double.asked["generationConfig"]["imageConfig"]["imageSize"] == "2K"
    assert result.model == "gemini-3-pro-image"


@pytest.mark.parametrize(("size", "sent"), [("1k", "1K"), ("2k", "2K"), ("4k", "4K"), ("", "2K")])
def test_the_requests_size_comes_before_the_options(gemini: tuple[Gemini, VendorServer], size: str, sent: str) -> None:
    double, server = gemini
    try_on(make(server, size="2K"), size=size)
    assert double.asked["generationConfig"]["imageConfig"]["imageSize"] == sent


def test_what_the_lite_model_cannot_make_is_refused_by_name(gemini: tuple[Gemini, VendorServer]) -> None:
    _, server = gemini
    lite = "gemini-3.1-flash-lite-image"
    assert try_on(make(server, model=lite), size="1k").data

    error = failure_of(make(server, model=lite), size="2k")

    assert type(error) is errors.UnsupportedFeature
    assert len(server.calls) == 1
    with pytest.raises(ImproperlyConfigured, match="Use one of: 1K"):
        GeminiProvider("shop", model=lite, size="2K")


@pytest.mark.parametrize(
    ("width", "height", "ratio"),
    [
        (768, 1024, "3:4"),
        (1024, 1024, "1:1"),
        (1000, 1010, "1:1"),
        (1080, 1920, "9:16"),
        (800, 1000, "4:5"),
        (1000, 1500, "2:3"),
        (1920, 1080, "16:9"),
        (2560, 1080, "21:9"),
        (300, 4000, "1:8"),
        (1, 4096, "1:8"),
        (4096, 1, "8:1"),
    ],
)
def test_the_picture_has_the_shape_of_the_persons_photo(
    gemini: tuple[Gemini, VendorServer], width: int, height: int, ratio: str
) -> None:
    double, server = gemini
    person = Photo(data=b"\xff\xd8", content_type="image/jpeg", width=width, height=height)

    try_on(make(server), person=person)

    assert double.asked["generationConfig"]["imageConfig"]["aspectRatio"] == ratio


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
def test_a_photo_of_a_shape_that_can_be_made_keeps_it(ratio: str) -> None:
    width, height = (int(side) for side in ratio.split(":"))
    assert nearest_ratio(Photo(data=b"", content_type="", width=width * 100, height=height * 100)) == ratio


def test_the_kind_of_garment_is_told_with_the_prompt(gemini: tuple[Gemini, VendorServer]) -> None:
    double, server = gemini
    result = try_on(make(server), category="bottoms")
    assert double.asked["contents"][0]["parts"][0]["text"].endswith("The garment is worn on the lower body.")
    assert not result.warnings


def test_environment_is_not_read(gemini: tuple[Gemini, VendorServer], monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = gemini
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    try_on(make(server))

    (call,) = server.calls
    assert call.path.startswith("/v1/models/")
    assert call.headers["x-goog-api-key"] == KEY
    assert "from-the-environment" not in str(call)


def test_google_is_asked_without_a_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:1")
    assert GeminiProvider("shop")._base_url == "https://generativelanguage.googleapis.com"


# What comes back


def test_an_id_that_repeats_the_key_is_not_kept(gemini: tuple[Gemini, VendorServer]) -> None:
    double, server = gemini
    good = double.behave

    def echo(call: Call) -> Answer:
        answer = json.loads(good(call).body) | {"responseId": f"resp-{KEY}"}
        return json_answer(answer)

    server.answer = echo
    assert try_on(make(server)).provider_id == ""


def test_result(gemini: tuple[Gemini, VendorServer]) -> None:
    double, server = gemini

    result = try_on(make(server))

    assert result.data == double.picture
    assert (result.content_type, result.model, result.provider_id) == (
        "image/png",
        "gemini-nano-banana-2.1",
        "resp-1",
    )
    assert result.usage == {
        "prompt_tokens": 1000,
        "prompt_text_tokens": 100,
        "prompt_image_tokens": 900,
        "candidates_tokens": 1120,
        "candidates_image_tokens": 1120,
        "thoughts_tokens": 200,
        "total_tokens": 2320,
    }
    assert result.cost_usd == Decimal("0.0366")  # 1000 * $1.50 + 200 * $7.50 + 1120 * $30, per million


def test_the_last_picture_that_is_no_thought_is_the_one() -> None:
    first, last, thought = picture(color="#111111"), picture("JPEG", "#222222"), picture(color="#333333")
    result = answer_with(
        candidate(
            image_part(thought, thought=True),
            image_part(first),
            image_part(last, "image/jpeg"),
            {"text": "Done."},
            image_part(thought, thought=True),
        )
    )
    assert (result.data, result.content_type) == (last, "image/jpeg")


@pytest.mark.parametrize("reason", ["STOP", "SOMETHING_NEW", "MAX_TOKENS", "NO_IMAGE", None])
def test_a_picture_counts_whatever_ended_it(reason: str | None) -> None:
    """As no warning: the SDK has one for every value that it does not know, and warnings are errors here."""
    made = picture()
    assert answer_with(candidate(image_part(made), reason=reason, safetyRatings=[{"category": "NEW"}])).data == made


def test_text_beside_the_picture_costs_what_text_costs() -> None:
    content = {
        "candidates": [{"content": {"parts": [image_part(b"A")]}}],
        "usageMetadata": usage(IMAGE=1000, TEXT=100),
    }
    # 1000 * $1.50 + (100 + 200) * $7.50 + 1000 * $30, per million
    assert answer_with(json_answer(content)).cost_usd == Decimal("0.03375")


def test_without_details_all_that_came_out_is_the_picture() -> None:
    tokens = {"promptTokenCount": 1000, "candidatesTokenCount": 1120}
    content = {"candidates": [{"content": {"parts": [image_part(b"A")]}}], "usageMetadata": tokens}
    assert answer_with(json_answer(content)).cost_usd == Decimal("0.0351")


@pytest.mark.parametrize("model", ["gemini-3-pro-image", "gemini-nano-banana-3"])
def test_cost_is_told_only_for_models_with_a_known_price(gemini: tuple[Gemini, VendorServer], model: str) -> None:
    assert try_on(make(gemini[1], model=model)).cost_usd is None


@pytest.mark.parametrize(
    ("tokens", "counters"),
    [
        (None, {}),
        ("many", {}),
        ({"promptTokenCount": 5, "candidatesTokenCount": "7", "totalTokenCount": True}, {"prompt_tokens": 5}),
        (
            {"promptTokenCount": 5, "promptTokensDetails": [5, {"modality": "a b", "tokenCount": 1}]},
            {"prompt_tokens": 5},
        ),
        (
            {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": "1"}]},
            {"prompt_tokens": 5},
        ),
    ],
)
def test_odd_usage_costs_nobody_the_picture(tokens: object, counters: dict[str, int]) -> None:
    content = {"candidates": [{"content": {"parts": [image_part(b"A")]}}], "usageMetadata": tokens}
    result = answer_with(json_answer(content))
    assert (result.data, result.usage, result.cost_usd) == (b"A", counters, None)


@pytest.mark.parametrize(
    "answer",
    [
        candidate(image_part(b"A"), reason="CONTINUATION", continuationToken="AAAA"),
        candidate({"functionCall": {"name": "call_me", "args": {}}}, image_part(b"A")),
    ],
)
def test_the_sdk_does_not_ask_again_on_its_own(answer: Answer) -> None:
    with VendorServer(answer) as server:
        assert try_on(make(server)).data == b"A"
    assert len(server.calls) == 1


def test_no_log_level_shows_the_key_or_the_prompt(
    gemini: tuple[Gemini, VendorServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    try_on(make(gemini[1]))
    assert KEY not in caplog.text
    assert "Dress the person" not in caplog.text


# In two steps


def test_the_vision_model_describes_and_the_image_model_gets_the_description(
    two_steps: tuple[GeminiInTwoSteps, VendorServer],
) -> None:
    double, server = two_steps
    request = try_on_request()

    result = try_on(make(server, describe_with="gemini-3.8-flash"))

    describe, render = server.calls
    assert describe.path == "/v1/models/gemini-3.8-flash:generateContent"
    parts = [inline(request.person), inline(request.garment), {"text": DESCRIBE}]
    assert json.loads(describe.body) == {"contents": [{"role": "user", "parts": parts}], "generationConfig": {}}
    assert render.path == "/v1/models/gemini-nano-banana-2.1:generateContent"
    prompt, *photos = double.asked["contents"][0]["parts"]
    assert prompt["text"].startswith(request.prompt)
    assert prompt["text"].endswith(DESCRIPTION)
    assert photos == [inline(request.person), inline(request.garment)]
    assert (result.data, result.model) == (double.picture, "gemini-nano-banana-2.1")


def server_that_describes_with(answer: Answer) -> VendorServer:
    double = Gemini()
    return VendorServer(lambda call: double.behave(call) if "nano-banana" in call.path else answer)


def test_tokens_and_costs_of_both_steps_are_summed() -> None:
    described = json_answer({
        "candidates": [{"content": {"parts": [{"text": DESCRIPTION}]}}],
        "usageMetadata": usage(TEXT=300),
    })  # fmt: skip
    with server_that_describes_with(described) as server:
        result = try_on(make(server, describe_with="gemini-4-hydrogen"))
    assert result.usage["prompt_tokens"] == 2000
    assert result.usage["candidates_tokens"] == 1420
    assert (result.usage["candidates_text_tokens"], result.usage["candidates_image_tokens"]) == (300, 1120)
    # 1000 * $1.50 + (300 + 200) * $7.50 on top of what the picture costs
    assert result.cost_usd == Decimal("0.0366") + Decimal("0.00525")


def test_no_cost_is_told_where_one_step_has_no_known_price(
    two_steps: tuple[GeminiInTwoSteps, VendorServer],
) -> None:
    double, server = two_steps
    assert double.provider(server).models_in_use == ("gemini-nano-banana-2.1", "gemini-3.8-flash")
    assert try_on(make(server, describe_with="gemini-3.8-flash")).cost_usd is None


def test_a_refusal_of_the_first_step_is_the_last_word() -> None:
    with server_that_describes_with(json_answer({"promptFeedback": {"blockReason": "SAFETY"}})) as server:
        error = failure_of(make(server, describe_with="gemini-3.8-flash"))
    assert isinstance(error, errors.ContentRefused)
    assert len(server.calls) == 1


def test_a_description_is_sent_on_without_what_cannot_be_sent_and_not_without_end() -> None:
    parts = [{"text": "A shirt \ud800."}, {"text": "No.", "thought": True}, {"text": "x" * 10_000}]
    with server_that_describes_with(candidate(*parts)) as server:
        try_on(make(server, describe_with="gemini-3.8-flash"))
    sent = json.loads(server.calls[1].body)["contents"][0]["parts"][0]["text"]
    _, _, description = sent.partition("in words:\n")
    assert description.startswith("A shirt ?.\nxxx")
    assert len(description) == MAX_DESCRIPTION


# Failures, beyond the table


def test_failure_names_status_codes_and_nothing_else() -> None:
    error = failure_with(google_error(400, "INVALID_ARGUMENT", error_info("API_KEY_INVALID")))
    assert str(error) == (
        "Gemini answered 400 (INVALID_ARGUMENT, API_KEY_INVALID). Check the api_key, and what it may be used for."
    )
    assert error.status == 400


def test_an_error_in_a_list_is_one_too() -> None:
    error = failure_with(json_answer([{"error": {"code": 403, "status": "PERMISSION_DENIED"}}], 403))
    assert str(error).startswith("Gemini answered 403 (PERMISSION_DENIED). ")


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("34.074824224s", 34.074824224), ("0s", 0.0), ("7s", 7.0), ("7", None), ("-7s", None), ("soon", None), (7, None),
     ({"seconds": 7}, None), (None, None)],
)  # fmt: skip
def test_retry_delay(delay: object, seconds: float | None) -> None:
    error = failure_with(google_error(429, "RESOURCE_EXHAUSTED", retry_info(delay)))
    assert type(error) is errors.ProviderRateLimited
    assert error.retry_after == seconds


def test_a_model_that_made_nothing_may_be_asked_again_and_one_that_refused_may_not() -> None:
    assert failure_with(candidate(reason="NO_IMAGE")).retryable
    assert failure_with(candidate(reason="NO_IMAGE")).code == "provider_invalid_response"
    assert not failure_with(candidate(reason="STOP")).retryable
    assert not failure_with(candidate({"text": "Sorry."})).retryable


@pytest.mark.parametrize("role", ["person", "garment"])
def test_a_photo_that_is_too_large_is_refused_before_it_is_sent(
    gemini: tuple[Gemini, VendorServer], role: str
) -> None:
    _, server = gemini

    too_large: dict[str, Any] = {role: photo(bytes(7 * 1024 * 1024 + 1))}
    error = failure_of(make(server), **too_large)

    assert type(error) is errors.ProviderRejectedInput
    assert role in str(error)
    assert not server.calls
    largest: dict[str, Any] = {role: photo(bytes(7 * 1024 * 1024))}
    assert try_on(make(server), **largest).data


def test_prompt_that_cannot_be_encoded(gemini: tuple[Gemini, VendorServer]) -> None:
    _, server = gemini
    assert type(failure_of(make(server), prompt="\ud800")) is errors.ProviderRejectedInput
    assert not server.calls


@pytest.mark.parametrize("feature", [{"seed": 5}, {"pictures": 2}])
def test_what_gemini_cannot_do_is_refused_by_name(
    gemini: tuple[Gemini, VendorServer], feature: dict[str, int]
) -> None:
    error = failure_of(make(gemini[1]), **feature)
    assert type(error) is errors.UnsupportedFeature
    assert next(iter(feature)) in str(error)


def test_our_own_limit_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "READ_TIMEOUT", 0.2)
    with VendorServer(Answer(end="hang")) as server:
        assert type(failure_of(make(server))) is errors.ProviderTimeout
    assert len(server.calls) == 1


def test_a_connection_that_is_not_made_in_time(
    gemini: tuple[Gemini, VendorServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "CONNECT_TIMEOUT", 1e-9)
    error = failure_of(make(gemini[1]))
    assert type(error) is errors.ProviderUnavailable
    assert "ConnectTimeout" in str(error)
    assert not gemini[1].calls


# Clients and loops


def test_one_client_for_all_calls_of_a_loop(gemini: tuple[Gemini, VendorServer]) -> None:
    _, server = gemini
    provider = make(server)

    async def twice() -> None:
        for _ in range(2):
            await provider.try_on(try_on_request(), timeout=30)

    run(provider, twice())
    assert (len(server.calls), server.connections) == (2, 1)

    run(provider, twice())
    assert (len(server.calls), server.connections) == (4, 2)


@pytest.mark.parametrize("answer", [None, Answer(status=500), Answer(status=500, end="close")])
def test_loops_that_end_without_closing(gemini: tuple[Gemini, VendorServer], answer: Answer | None) -> None:
    """As under WSGI, where every request has a loop of its own: nothing fails and no connection is left."""
    _, server = gemini
    if answer is not None:
        server.answer = answer
    provider = make(server)

    for _ in range(3):
        with contextlib.suppress(errors.ProviderUnavailable):
            asyncio.run(provider.try_on(try_on_request(), timeout=30))
    gc.collect()  # what complains about not being closed does it here

    assert len(server.calls) == 3
    assert not provider._connections._keepers


def test_many_waiting_calls_do_not_queue() -> None:
    many = 110
    double = Gemini()
    with VendorServer(double, together=many) as server:
        provider = make(server)

        async def all_at_once() -> list[TryOnResult]:
            return await asyncio.gather(*(provider.try_on(try_on_request(), timeout=60) for _ in range(many)))

        results = run(provider, all_at_once())
    assert [result.data for result in results] == [double.picture] * many
    assert server.connections == many


# Models


def pages(call: Call) -> Answer:
    """Two pages of GET /v1/models."""
    methods = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
    if "pageToken=more" in call.path:
        return json_answer({"models": [{"name": "models/gemini-9"} | methods, {"name": "models/embedding-1"}, {}]})
    return json_answer({
        "models": [{"name": "models/gemini-3.1-flash-image"} | methods],
        "nextPageToken": "more",
    })  # fmt: skip


def test_remote_models_are_those_of_all_pages_with_the_days_we_know_of() -> None:
    with VendorServer(pages) as server:
        provider = make(server)
        models = run(provider, provider.remote_models())
    assert models == [
        Model("gemini-3.1-flash-image", date(2026, 10, 29), "gemini-nano-banana-2.1"),
        Model("gemini-9"),
    ]
    assert [call.method for call in server.calls] == ["GET", "GET"]
    assert server.calls[0].headers["x-goog-api-key"] == KEY


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (google_error(400, "INVALID_ARGUMENT", error_info("API_KEY_INVALID")), errors.ProviderMisconfigured),
        (Answer(body=b"<html>"), errors.InvalidProviderResponse),
        (json_answer({"models": 5}), errors.InvalidProviderResponse),
        (json_answer({"models": [{"name": 5}]}), errors.InvalidProviderResponse),
        (Answer(raw=b"", end="close"), errors.ProviderUnavailable),
    ],
)
def test_remote_models_that_cannot_be_had(answer: Answer, expected: type[ProviderError]) -> None:
    with VendorServer(answer) as server:
        provider = make(server)
        with pytest.raises(expected) as caught:
            run(provider, provider.remote_models())
    assert KEY not in str(caught.value)


def test_every_successor_is_a_model_or_has_one() -> None:
    names = {model.name for model in GeminiProvider.models}
    assert GeminiProvider("shop").model in names
    gone = [model for model in GeminiProvider.models if model.shutdown]
    assert gone
    assert all(model.successor for model in gone)


# Settings


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("model", "", "Give the name of a model."),
        ("model", None, "Give the name of a model."),
        ("model", "../files", "Give the name of a model."),
        ("model", "a?key=b", "Give the name of a model."),
        ("describe_with", None, "Give the name of a model."),
        ("describe_with", True, "Give the name of a model."),
        ("size", "1k", "Use one of: 1K, 2K, 4K."),
        ("size", "512", "Use one of: 1K, 2K, 4K."),
        ("size", None, "Use one of: 1K, 2K, 4K."),
        ("base_url", "example.com", "Use an http or https URL"),
    ],
)
def test_bad_option_is_refused_at_once(option: str, value: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        GeminiProvider("shop", **{option: value})
    message = str(caught.value)
    assert message.startswith(f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["{option}"] is {value!r}. ')
    assert advice in message


def test_key_is_in_no_repr_and_a_bad_one_is_not_shown() -> None:
    provider = GeminiProvider("shop", api_key=KEY)
    assert KEY not in repr(provider) + str(provider) + repr(vars(provider))
    with pytest.raises(ImproperlyConfigured, match="api_key") as caught:
        GeminiProvider("shop", api_key="AIza one\nAIza two")
    assert "AIza" not in str(caught.value)


def test_check() -> None:
    assert not list(GeminiProvider("shop", api_key=KEY).check())
    (problem,) = GeminiProvider("shop").check()
    assert problem.fatal
    assert problem.message == 'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["api_key"] is empty.'
    assert "GOOGLE_API_KEY" in problem.hint


def test_no_key_sends_nothing(gemini: tuple[Gemini, VendorServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    provider = make(gemini[1], api_key="  ")

    assert type(failure_of(provider)) is errors.ProviderMisconfigured
    with pytest.raises(errors.ProviderMisconfigured, match="GOOGLE_API_KEY"):
        run(provider, provider.remote_models())
    assert not gemini[1].calls


HINT = "Run `pip install google-genai` (the extra google)."


def test_missing_package(gemini: tuple[Gemini, VendorServer], monkeypatch: pytest.MonkeyPatch) -> None:
    shared._import.cache_clear()
    monkeypatch.setitem(sys.modules, "google.genai", None)
    monkeypatch.delattr("google.genai")

    error = failure_of(make(gemini[1]))

    assert type(error) is errors.ProviderMisconfigured
    assert str(error) == f"Gemini cannot be used: google.genai is missing. {HINT}"


def test_check_tells_of_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    (problem,) = GeminiProvider("shop", api_key=KEY).check()
    assert problem.message.endswith("not installed: google.genai, httpx2.")
    assert problem.hint == HINT


def test_check_tells_of_a_machine_without_anything_of_google(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        if name.startswith("google"):
            raise ModuleNotFoundError(name)
        return importlib.util.find_spec(name)

    monkeypatch.setattr(shared, "find_spec", find_spec)
    (problem,) = GeminiProvider("shop", api_key=KEY).check()
    assert problem.message.endswith("not installed: google.genai.")


def test_creating_and_checking_imports_no_sdk() -> None:
    code = (
        "import sys; from providers.gemini import GeminiProvider; from providers.vertex import VertexProvider;"
        "list(GeminiProvider('a', api_key='k', describe_with='m').check());"
        "list(VertexProvider('b', project='p', location='us-central1', credentials='/nowhere').check());"
        "print(sorted({'google.genai', 'google.auth', 'google.oauth2', 'aiohttp', 'httpx2', 'requests'}"
        " & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_import_does_not_stop_the_loop() -> None:
    """In a process of its own: what the loop does while the SDK, a second of work, is imported."""
    code = (
        "import asyncio, time\n"
        "from providers.gemini import GeminiProvider\n"
        "async def main():\n"
        "    provider = GeminiProvider('a', api_key='k')\n"
        "    task = asyncio.create_task(provider.import_packages())\n"
        "    ticks = 0\n"
        "    while not task.done():\n"
        "        await asyncio.sleep(0.005)\n"
        "        ticks += 1\n"
        "    print(ticks)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 5
