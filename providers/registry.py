"""Providers by alias, in the shape of Django's STORAGES setting."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import AIProvider

Config = Mapping[str, Mapping[str, Any]]


LONGEST_ALIAS = 50
"""Characters."""


class InvalidProviderError(ImproperlyConfigured):
    """An entry of ``TRYON["PROVIDERS"]`` cannot be used; the message names it and the fix."""


class ProviderRegistry:
    """``registry["openai"]`` is the provider of that alias, created at first use and kept.

    ``config`` is called when an alias is first asked for, so nothing is read at import time.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._providers: dict[str, AIProvider] = {}

    def __getitem__(self, alias: str) -> AIProvider:
        provider = self._providers.get(alias)
        if provider is None:
            with self._lock:
                provider = self._providers.get(alias) or self._create(alias)
                self._providers[alias] = provider
        return provider

    def __iter__(self) -> Iterator[str]:
        return iter(self._config())

    def created(self) -> list[AIProvider]:
        """The providers that are in use so far."""
        return list(self._providers.values())

    def clear(self) -> None:
        """Forget all providers, for changed settings."""
        with self._lock:
            self._providers.clear()

    def _create(self, alias: str) -> AIProvider:
        config = self._config()
        try:
            entry = config[alias]
        except KeyError:
            known = ", ".join(sorted(config)) or "none"
            raise InvalidProviderError(
                f'TRYON["PROVIDERS"] has no provider {alias!r}. Add it, or choose one of: {known}.'
            ) from None
        where = f'TRYON["PROVIDERS"]["{alias}"]'
        if len(alias) > LONGEST_ALIAS:
            raise InvalidProviderError(
                f"{where}: the alias has {len(alias)} characters. Use {LONGEST_ALIAS} at most: runs are found by it."
            )
        self._check_entry(where, entry)
        cls = self._load(where, entry.get("BACKEND", ""))
        options = dict(entry.get("OPTIONS", {}))
        parameters = dict(inspect.signature(cls).parameters)
        parameters.pop("alias", None)
        for option in options:
            if option not in parameters:
                raise InvalidProviderError(
                    f'{where}["OPTIONS"] has an unknown option {option!r}. '
                    f"{cls.__name__} accepts: {', '.join(parameters) or 'no options'}."
                )
        for option, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
            if required and option not in options:
                raise InvalidProviderError(
                    f'{where}["OPTIONS"] has no {option!r}, which {cls.__name__} needs. Add it.'
                )
        return cls(alias, **options)

    @staticmethod
    def _check_entry(where: str, entry: Mapping[str, Any]) -> None:
        for key in entry:
            if key not in ("BACKEND", "OPTIONS", "TIMEOUT", "MAX_RUNS"):
                raise InvalidProviderError(
                    f'{where} has an unknown key {key!r}. Use "BACKEND", "OPTIONS", "TIMEOUT" and "MAX_RUNS".'
                )
        timeout, most = entry.get("TIMEOUT"), entry.get("MAX_RUNS")
        if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout < float("inf")):
            raise InvalidProviderError(f'{where}["TIMEOUT"] is {timeout!r}. Give seconds, more than 0.')
        if most is not None and (type(most) is not int or most < 1):
            raise InvalidProviderError(f'{where}["MAX_RUNS"] is {most!r}. Give a whole number, 1 or more.')

    @staticmethod
    def _load(where: str, backend: object) -> type[AIProvider]:
        try:
            cls = import_string(str(backend))
        except ImportError as error:
            raise InvalidProviderError(
                f'{where}["BACKEND"] is {backend!r}, which cannot be imported: {error}. '
                "Give the dotted path of an AIProvider subclass."
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, AIProvider)):
            raise InvalidProviderError(
                f'{where}["BACKEND"] is {backend!r}, which is not a subclass of providers.base.AIProvider.'
            )
        return cls
