"""What a try-on needs, looked at without a billed call."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from django.conf import settings
from django.core.cache import caches
from django.db import close_old_connections, connections, router

from .dispatch import choose_provider
from .lifespan import is_draining
from .models import TryOn

logger = logging.getLogger("tryon.health")


class Check(TypedDict):
    """One line of the report; ``detail`` is for the operator and names no secret."""

    ok: bool
    detail: str


def report() -> dict[str, Check]:
    """Look at each part; a part that fails does not keep the others from being looked at."""
    if is_draining():
        return {"process": {"ok": False, "detail": "It is shutting down."}}
    try:
        return {name: _look(name, check) for name, check in CHECKS.items()}
    finally:
        close_old_connections()


def _look(name: str, check: Callable[[], str]) -> Check:
    try:
        return {"ok": True, "detail": check()}
    except Exception as error:
        logger.exception("The %s is not ready.", name)
        # The class says enough to whoever may not read the log; messages can hold hosts and passwords.
        return {"ok": False, "detail": f"{type(error).__name__}; see the log."}


def _database() -> str:
    TryOn.objects.exists()  # the tables too, not the server alone
    return connections[router.db_for_read(TryOn)].vendor


def _cache() -> str:
    alias = getattr(settings, "RATELIMIT_USE_CACHE", "default")
    key, value = f"tryon.health.{uuid.uuid4().hex}", "1"
    caches[alias].set(key, value, timeout=10)
    if caches[alias].get(key) != value:
        raise ConnectionError("The cache forgot what it was told.")
    caches[alias].delete(key)
    return type(caches[alias]).__name__


def _storage() -> str:
    storage = TryOn.image.field.storage
    storage.exists("health")
    try:
        folder = Path(storage.path(""))
    except NotImplementedError:
        return "reachable"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"{existing} is not writable.")
    return "writable"


def _provider() -> str:
    provider = choose_provider()
    problems = [problem.message for problem in provider.check() if problem.fatal]
    if problems:
        raise RuntimeError(problems[0])
    return provider.alias


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "cache": _cache,
    "storage": _storage,
    "provider": _provider,
}
