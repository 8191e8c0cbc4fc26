"""TRYON["PROVIDERS"]: what it creates, and what it says about a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from providers.base import AIProvider
from providers.fake import FakeProvider
from providers.registry import InvalidProviderError, ProviderRegistry

FAKE = "providers.fake.FakeProvider"


class Needy(AIProvider):
    """For the tests: an option without a default."""

    def __init__(self, alias: str, *, region: str) -> None:
        super().__init__(alias)
        self.region = region


class NotAProvider:
    """For the tests."""


def create(entry: Any) -> AIProvider:
    return ProviderRegistry(lambda: {"shop": entry})["shop"]


def refusal(entry: Any) -> str:
    with pytest.raises(InvalidProviderError) as caught:
        create(entry)
    return str(caught.value)


def test_provider_is_created_once_and_knows_its_alias() -> None:
    registry = ProviderRegistry(lambda: {"a": {"BACKEND": FAKE}, "b": {"BACKEND": FAKE, "OPTIONS": {"size": "8x8"}}})

    assert registry.created() == []
    provider = registry["a"]

    assert isinstance(provider, FakeProvider)
    assert provider.alias == "a"
    assert registry["a"] is provider
    assert registry["b"] is not provider
    assert list(registry) == ["a", "b"]
    assert registry.created() == [provider, registry["b"]]


def test_settings_are_read_at_first_use_and_again_after_clear() -> None:
    settings: dict[str, Any] = {}
    registry = ProviderRegistry(lambda: settings)
    settings["late"] = {"BACKEND": FAKE}
    provider = registry["late"]

    registry.clear()

    assert registry.created() == []
    assert registry["late"] is not provider


def test_unknown_alias() -> None:
    registry = ProviderRegistry(lambda: {"openai": {"BACKEND": FAKE}, "local": {"BACKEND": FAKE}})
    with pytest.raises(InvalidProviderError, match=r"no provider 'opnai'\. Add it, or choose one of: local, openai\."):
        registry["opnai"]
    with pytest.raises(InvalidProviderError, match="choose one of: none"):
        ProviderRegistry(dict)["openai"]


def test_unknown_key() -> None:
    assert refusal({"BACKEND": FAKE, "OPTION": {}}) == (
        'TRYON["PROVIDERS"]["shop"] has an unknown key \'OPTION\'. Use "BACKEND", "OPTIONS", "TIMEOUT" and "MAX_RUNS".'
    )


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("inf"), float("nan")])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    assert refusal({"BACKEND": FAKE, "TIMEOUT": timeout}) == (
        f'TRYON["PROVIDERS"]["shop"]["TIMEOUT"] is {timeout!r}. Give seconds, more than 0.'
    )


@pytest.mark.parametrize("most", [0, -1, "5", True, 1.5])
def test_a_number_of_runs_that_is_none(most: Any) -> None:
    assert refusal({"BACKEND": FAKE, "MAX_RUNS": most}) == (
        f'TRYON["PROVIDERS"]["shop"]["MAX_RUNS"] is {most!r}. Give a whole number, 1 or more.'
    )


def test_an_alias_that_no_row_can_hold() -> None:
    registry = ProviderRegistry(lambda: {"a" * 51: {"BACKEND": FAKE}})
    with pytest.raises(InvalidProviderError, match=r"the alias has 51 characters\. Use 50 at most"):
        registry["a" * 51]


def test_unknown_option() -> None:
    assert refusal({"BACKEND": FAKE, "OPTIONS": {"colour": "#ffffff"}}) == (
        'TRYON["PROVIDERS"]["shop"]["OPTIONS"] has an unknown option \'colour\'. '
        "FakeProvider accepts: delay, error, size, color, confidence."
    )


def test_alias_is_no_option() -> None:
    assert "unknown option 'alias'" in refusal({"BACKEND": FAKE, "OPTIONS": {"alias": "other"}})


def test_missing_option() -> None:
    backend = f"{__name__}.Needy"
    assert refusal({"BACKEND": backend}) == (
        'TRYON["PROVIDERS"]["shop"]["OPTIONS"] has no \'region\', which Needy needs. Add it.'
    )
    provider = create({"BACKEND": backend, "OPTIONS": {"region": "eu"}})
    assert isinstance(provider, Needy)
    assert provider.region == "eu"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "which cannot be imported"),
        ({"BACKEND": ""}, "which cannot be imported"),
        ({"BACKEND": None}, "which cannot be imported"),
        ({"BACKEND": "openai"}, "which cannot be imported"),
        ({"BACKEND": "providers.nothing.Provider"}, "No module named 'providers.nothing'"),
        ({"BACKEND": "providers.fake.Provider"}, "Give the dotted path of an AIProvider subclass."),
        ({"BACKEND": f"{__name__}.NotAProvider"}, "which is not a subclass of providers.base.AIProvider."),
        ({"BACKEND": f"{__name__}.create"}, "which is not a subclass of providers.base.AIProvider."),
    ],
)
def test_bad_backend(entry: dict[str, Any], message: str) -> None:
    refused = refusal(entry)
    assert refused.startswith('TRYON["PROVIDERS"]["shop"]["BACKEND"] is ')
    assert message in refused
