"""drf-spectacular's decorator where it is installed; the app does not need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    from drf_spectacular.utils import extend_schema
except ImportError:

    def extend_schema(**kwargs: Any) -> Callable[[F], F]:  # type: ignore[misc]
        """Leave the method as it is: nobody is there to read the schema."""
        return lambda method: method


__all__ = ["extend_schema"]
