"""Fixtures of the provider tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .models import models
from .vendor import VendorServer, openai_answer

__all__ = ["models"]

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer's shell may hold must not change a test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    """OpenAI on loopback; set ``vendor.answer`` to have it answer something else than a picture."""
    with VendorServer(openai_answer(PICTURE)) as server:
        yield server
