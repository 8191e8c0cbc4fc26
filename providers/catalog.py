"""The provider classes of this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import providers

from .base import AIProvider


def provider_classes() -> list[type[AIProvider]]:
    """The package's own classes, by the names of their modules. Imports those, and with them no vendor's SDK."""
    names = sorted(info.name for info in pkgutil.iter_modules(providers.__path__, f"{providers.__name__}."))
    return [cls for name in names if name != f"{providers.__name__}.tests" for cls in _defined_in(name)]


def _defined_in(module: str) -> Iterator[type[AIProvider]]:
    for cls in vars(import_module(module)).values():
        # Bases have no name of a vendor; and what the module imported is another's.
        if isinstance(cls, type) and issubclass(cls, AIProvider) and cls.name and cls.__module__ == module:
            yield cls
