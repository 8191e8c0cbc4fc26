"""A provider whose models end, one of them long ago; and settings that use it."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

from providers.base import AIProvider, Model

SHUTDOWN = date(2027, 3, 1)
BACKEND = "tryon.tests.aged_provider.AgedProvider"


class AgedProvider(AIProvider):
    """``base_url`` is a server of the operator's own, which has the vendor's names and not its dates."""

    name: ClassVar[str] = "Aged"
    models: ClassVar[tuple[Model, ...]] = (
        Model("aged-3"),
        Model("aged-2", SHUTDOWN, successor="aged-3"),
        Model("aged-1", date(2025, 1, 1)),
    )

    def __init__(self, alias: str, *, model: str = "aged-2", renderer: str = "", base_url: str = "") -> None:
        super().__init__(alias)
        self._used = tuple(filter(None, (model, renderer)))
        self._base_url = base_url

    @property
    def model(self) -> str:
        return self._used[-1]

    @property
    def models_in_use(self) -> tuple[str, ...]:
        return self._used

    @property
    def known_models(self) -> tuple[Model, ...]:
        return () if self._base_url else self.models


def aged(**options: Any) -> dict[str, Any]:
    """An entry of PROVIDERS."""
    return {"BACKEND": BACKEND, "OPTIONS": options}
