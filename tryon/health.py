"""What a try-on needs, looked at without a billed call."""

from __future__ import annotations

import logging
import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from django.conf import settings
from django.core.cache import caches
from django.db import close_old_connections, connections, router

from . import circuit
from .dispatch import aliases_in_use, choose_provider
from .lifespan import is_draining
from .models import TryOn

logger = logging.getLogger("tryon.health")


class NotReady(Exception):
    """A part is not ready. The message is for whoever may see the report, and names no secret."""


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
    except NotReady as error:
        logger.error("The %s is not ready: %s", name, error)
        return {"ok": False, "detail": str(error)}
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
    """Ready, if the first of the providers in use could work; which fallbacks could not is told as well."""
    in_use = aliases_in_use()
    useless = [alias for alias in in_use if not _could_work(alias)]
    broken = f"cannot work: {', '.join(map(str, useless)) or 'none is in use'}; see the log."
    # No fallback makes up for what is wrong with the first: without it there is no price, and its key is asked first.
    if not in_use or in_use[0] in useless:
        raise NotReady(broken)
    working = ", ".join(alias for alias in in_use if alias not in useless)
    return f"{working}; {broken}" if useless else working


def _could_work(alias: str) -> bool:
    try:
        fatal = [problem.message for problem in choose_provider(alias).check() if problem.fatal]
    except Exception:
        logger.exception("Provider %r cannot work.", alias)
        return False
    for message in fatal:
        logger.error("Provider %r cannot work: %s", alias, message)
    return not fatal


def _circuits() -> str:
    """What each circuit is like, and always ready.

    A vendor that is down is down for all servers: whoever took them out of rotation for that would have none left,
    not even to say that no picture can be made.
    """
    try:
        states = circuit.states(aliases_in_use())
    except Exception:
        logger.exception("The circuits cannot be told.")
        return "unknown; see the log."
    return "; ".join(f"{alias}: {_describe(state)}" for alias, state in states.items())


def _describe(state: circuit.State) -> str:
    return f"open for {math.ceil(state.wait)} s" if state.wait else state.name


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "cache": _cache,
    "storage": _storage,
    "provider": _provider,
    "circuits": _circuits,
}
