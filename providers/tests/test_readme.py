"""The example of the README is a provider that works."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import providers
from providers import errors
from providers.base import AIProvider, TryOnResult
from providers.registry import ProviderRegistry

from .vendor import Answer, VendorServer, try_on_request

README = Path(providers.__file__).with_name("README.md")


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The first block of the README, as the file it says it is."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    path = tmp_path / "acme.py"
    path.write_text(blocks[0])
    spec = spec_from_file_location("providers.acme", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "providers.acme", module)
    spec.loader.exec_module(module)
    return module


def make() -> AIProvider:
    entry = {"BACKEND": "providers.acme.AcmeProvider", "OPTIONS": {"api_key": "k", "quality": "draft"}}
    return ProviderRegistry(lambda: {"acme": entry})["acme"]


def try_on() -> TryOnResult:
    async def main() -> TryOnResult:
        provider = make()
        try:
            return await provider.try_on(try_on_request(seed=7), timeout=30)
        finally:
            await provider.aclose()

    return asyncio.run(main())


def test_picture(acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with VendorServer(Answer(body=b"picture", headers={"content-type": "image/webp"})) as server:
        monkeypatch.setattr(acme, "URL", f"{server.base_url}/try-on")
        result = try_on()

    assert (result.data, result.content_type, result.model, result.seed) == (b"picture", "image/webp", "acme-draft", 7)
    assert [part.name for part in server.calls[0].parts] == ["quality", "seed", "person", "garment"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(status=401), errors.ProviderMisconfigured),
        (Answer(status=413), errors.ProviderRejectedInput),
        (Answer(status=429), errors.ProviderRateLimited),
        (Answer(status=451), errors.ContentRefused),
        (Answer(status=503), errors.ProviderUnavailable),
        (Answer(raw=b"", end="reset"), errors.ProviderUnavailable),
        (Answer(body=b"<html>", headers={"content-type": "text/html"}), errors.InvalidProviderResponse),
    ],
)
def test_failure(
    acme: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, expected: type[errors.ProviderError]
) -> None:
    with VendorServer(answer) as server:
        monkeypatch.setattr(acme, "URL", f"{server.base_url}/try-on")
        with pytest.raises(expected) as caught:
            try_on()

    assert type(caught.value) is expected
    assert caught.value.__context__ is None
    assert len(server.calls) == 1


def test_check(acme: Any) -> None:
    assert list(make().check()) == []
    assert len(list(acme.AcmeProvider("acme").check())) == 1
