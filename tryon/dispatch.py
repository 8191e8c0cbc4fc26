"""Which provider makes the picture."""

from __future__ import annotations

from typing import Any

from providers.base import AIProvider
from providers.registry import ProviderRegistry

from .conf import conf

providers = ProviderRegistry(lambda: conf.PROVIDERS)
"""The providers of the settings, by alias."""


def choose_provider(alias: str = "") -> AIProvider:
    """The provider called ``alias``, by default the one of the settings. Raise ``ImproperlyConfigured``."""
    return providers[alias or conf.PROVIDER]


def forget_providers(*, setting: str, **kwargs: Any) -> None:
    """Receiver of ``setting_changed``, so that ``override_settings`` reaches the providers."""
    if setting == "TRYON":
        providers.clear()


async def close_providers() -> None:
    """Close what the providers opened on the running event loop."""
    for provider in providers.created():
        await provider.aclose()
