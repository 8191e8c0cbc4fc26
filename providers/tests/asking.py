"""How the tests ask a provider for a picture: on a loop of its own, after which it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from providers.base import AIProvider, TryOnResult
from providers.errors import ProviderError

from .vendor import try_on_request

T = TypeVar("T")


def run(provider: AIProvider, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop of its own and close what the provider opened there."""

    async def main() -> T:
        try:
            return await work
        finally:
            await provider.aclose()

    return asyncio.run(main())


def try_on(provider: AIProvider, timeout: float = 30, **changes: Any) -> TryOnResult:
    """The answer to ``try_on_request(**changes)``."""
    return run(provider, provider.try_on(try_on_request(**changes), timeout=timeout))


def failure_of(provider: AIProvider, timeout: float = 30, **changes: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        try_on(provider, timeout, **changes)
    return caught.value


def job_of(provider: AIProvider) -> str:
    """The id of a job that was begun, and that nobody waits for."""
    jobs: list[str] = []

    class Gone(Exception):
        """The process ends."""

    async def note(job: str) -> None:
        jobs.append(job)
        raise Gone

    with pytest.raises(Gone):
        try_on(provider, note_job=note)
    return jobs[0]


def resume(provider: AIProvider, job: str) -> TryOnResult:
    """What another process gets that knows the job alone."""
    return run(provider, provider.look_up(job, timeout=30))
