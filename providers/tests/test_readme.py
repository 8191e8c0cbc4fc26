"""The examples of the README are providers that work, and keep what it demands of all."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import errors
from providers.base import AIProvider, Model
from providers.registry import ProviderRegistry
from providers.rest import JobProvider

from . import test_vendors
from .asking import run, try_on
from .readme import README, project
from .vendor import Answer, Call, VendorServer, json_answer, try_on_request
from .vendors import Double

__all__ = ["project"]

each_vendor = pytest.mark.parametrize("vendor", ["Acme", "Tailor"])


@pytest.fixture
def double(project: Path) -> Callable[[str], type[Double]]:
    """The double of this name in the README."""

    def find(name: str) -> type[Double]:
        found = getattr(import_module("shop.doubles"), name)
        assert isinstance(found, type)
        assert issubclass(found, Double)
        return found

    return find


def make(double: type[Double], server: VendorServer, **options: Any) -> AIProvider:
    """The provider as the settings choose it."""
    entry = {"BACKEND": double.backend, "OPTIONS": double().options(server) | options}
    return ProviderRegistry(lambda: {double.alias: entry})[double.alias]


@each_vendor
def test_picture(double: Callable[[str], type[Double]], vendor: str) -> None:
    test_vendors.test_the_picture_comes_back_byte_for_byte(double(vendor))


@each_vendor
def test_every_trouble(
    double: Callable[[str], type[Double]], vendor: str, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    cls = double(vendor)
    troubles = list(cls().troubles())
    assert {trouble.step for trouble in troubles} == set(cls.steps)
    for trouble in troubles:
        with subtests.test(f"{trouble.name} at {trouble.step}"):
            test_vendors.test_trouble(cls, trouble, caplog)


@each_vendor
def test_cancellation(double: Callable[[str], type[Double]], vendor: str) -> None:
    for step in double(vendor).steps:
        test_vendors.test_cancellation_passes_through_and_closes_the_connection(double(vendor), step)


def test_what_acme_claims_it_sends(double: Callable[[str], type[Double]]) -> None:
    cls = double("Acme")
    with VendorServer(cls()) as server:
        result = try_on(make(cls, server, quality="draft", model="acme-1"), seed=7, output_format="jpeg")
        plain = try_on(make(cls, server), category="tops", output_format="webp")
    assert (result.model, result.seed, result.warnings) == ("acme-1", 7, ())
    fields = {part.name: part.data for part in server.calls[0].parts}
    person, garment = fields.pop("person"), fields.pop("garment")
    assert (person, garment) == (try_on_request().person.data, try_on_request().garment.data)
    assert fields == {"model": b"acme-1", "quality": b"draft", "format": b"jpeg", "seed": b"7"}
    assert len(plain.warnings) == 2
    assert {part.name: part.data for part in server.calls[1].parts}["format"] == b"png"


def test_acme_checks_its_options_and_its_key(double: Callable[[str], type[Double]]) -> None:
    cls = double("Acme")
    with VendorServer(cls()) as server:
        assert list(make(cls, server).check()) == []
        [problem] = make(cls, server, api_key="").check()
        assert "ACME_API_KEY" in problem.hint
        with pytest.raises(ImproperlyConfigured, match=r"quality.*Use one of: draft, final"):
            make(cls, server, quality="best")


def test_acme_tells_its_models(double: Callable[[str], type[Double]]) -> None:
    cls = double("Acme")
    with VendorServer(json_answer({"models": ["acme-2", "acme-3"]})) as server:
        provider = make(cls, server)
        assert provider.lists_models
        assert run(provider, provider.remote_models()) == [Model("acme-2"), Model("acme-3")]
        server.answer = json_answer({"models": None})
        provider = make(cls, server)
        with pytest.raises(errors.InvalidProviderResponse):
            run(provider, provider.remote_models())
    assert [call.path for call in server.calls] == ["/v1/models"] * 2
    assert Model("acme-1", date(2027, 3, 1), "acme-2") in provider.known_models


def test_tailors_job_is_noted_and_another_process_gets_its_picture(double: Callable[[str], type[Double]]) -> None:
    cls = double("Tailor")
    noted: list[str] = []

    async def note(job: str) -> None:
        noted.append(job)
        assert [call.method for call in server.calls] == ["POST"], "before it waits"

    with VendorServer(vendor := cls()) as server:
        try_on(make(cls, server), note_job=note, category="dresses")
        again = make(cls, server)
        assert again.keeps_jobs
        picture = run(again, again.look_up(noted[0], timeout=30))
    assert (noted, picture.data, picture.provider_id) == (["job-1"], vendor.picture, "job-1")
    assert [call.method for call in server.calls].count("POST") == 1
    assert b"one piece for the whole body" in server.calls[0].body


def test_tailor_is_told_that_nobody_wants_the_picture(double: Callable[[str], type[Double]]) -> None:
    cls = double("Tailor")
    with VendorServer(Answer()) as server:
        provider = make(cls, server)
        run(provider, provider.cancel("job-1"))
    assert [(call.method, call.path) for call in server.calls] == [("DELETE", "/v1/jobs/job-1")]


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        (json_answer({"status": "failed", "reason": "content_policy"}), True),
        (json_answer({"status": "failed", "reason": "no_gpu"}), True),
        (json_answer({"status": "failed"}), True),
        (Answer(status=404), True),
        (Answer(status=503), False),
        (Answer(raw=b"", end="reset"), False),
    ],
)
def test_tailors_job_is_over_when_its_vendor_says_so(
    double: Callable[[str], type[Double]], answer: Answer, over: bool
) -> None:
    def poll(call: Call) -> Answer:
        return json_answer({"id": "job-1"}) if call.method == "POST" else answer

    with VendorServer(poll) as server, pytest.raises(errors.ProviderError) as caught:
        try_on(make(double("Tailor"), server))
    assert caught.value.job_is_over is over


@pytest.mark.usefixtures("project")
def test_a_class_with_generate_image_and_nothing_else_is_a_provider() -> None:
    mine = ProviderRegistry(lambda: {"mine": {"BACKEND": "shop.mine.MyProvider"}})["mine"]
    assert try_on(mine).data == try_on_request().garment.data
    assert list(mine.check()) == []
    assert (mine.model, mine.models_in_use, mine.known_models) == ("", (), ())
    with pytest.raises(errors.UnsupportedFeature, match="seed=7: mine cannot repeat a picture by seed"):
        try_on(mine, seed=7)


def test_the_rules_name_what_there_is() -> None:
    """Every attribute of a provider that a subclass may set, every error, and no method that is none."""
    text = README.read_text()
    public = [name for name in vars(AIProvider) if not name.startswith("_")]
    told = text.replace("`supports_*`", " ".join(name for name in public if name.startswith("supports_")))
    for_callers = {"demand", "look_up", "size", "check"}
    assert [name for name in public if name not in told and name not in for_callers] == []
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.ProviderError) and error is not errors.ProviderError:
            assert f"`{error.__name__}" in text
    for name in re.findall(r"`(\w+)\([a-z]*\)`", text):
        assert hasattr(JobProvider, name), name
