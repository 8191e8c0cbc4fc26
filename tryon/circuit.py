"""A circuit for each provider, shared by all processes through the cache: what is broken is left alone for a while.

Closed, until the provider failed ``CIRCUIT_FAILURES`` runs within ``CIRCUIT_WINDOW`` seconds; then open for
``CIRCUIT_PAUSE`` seconds, in which no new run asks it; then half-open: one run, of whichever process, is the probe.
Its success closes the circuit, its failure opens it anew.

All functions ask the cache and belong in a thread. A cache that is away opens nothing: the provider may be well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from django.core.cache import BaseCache, caches

from .conf import conf

T = TypeVar("T")

logger = logging.getLogger("tryon.circuit")

REMEMBERED: Final = 3600
"""Seconds after its pause for which a circuit stays half-open if nobody probes. Then it is closed."""


@dataclass(frozen=True, slots=True)
class State:
    """What a provider's circuit is like at one moment."""

    name: str
    """``closed``, ``open`` or ``half-open``."""
    wait: float = 0.0
    """Seconds until it is half-open."""

    @property
    def is_closed(self) -> bool:
        return self.name == "closed"


CLOSED: Final = State("closed")
HALF_OPEN: Final = State("half-open")


def states(aliases: Iterable[str]) -> dict[str, State]:
    """The circuits of these providers, in one question to the cache."""
    keys = {_key(alias, "open"): alias for alias in aliases}
    found = dict.fromkeys(keys.values(), CLOSED)
    if not conf.CIRCUIT_FAILURES:
        return found
    opened: dict[str, float] = _asking(lambda: {key: float(it) for key, it in _cache().get_many(keys).items()}, {})
    for key, until in opened.items():
        wait = until - time.time()
        # No clock of ours is wrong by more than the pause; a longer wait is one of an older setting.
        found[keys[key]] = State("open", min(wait, conf.CIRCUIT_PAUSE)) if wait > 0 else HALF_OPEN
    return found


def claim_probe(alias: str) -> bool:
    """Whether this run is the one that asks a half-open provider. If so, it must tell how that went."""
    # If it dies without telling, another one may probe when it would have been over.
    return _asking(lambda: bool(_cache().add(_key(alias, "probe"), 1, conf.DEADLINE + 5)), True)


def note_failure(alias: str, *, was_probe: bool = False) -> bool:
    """The provider failed once more; whether that opened its circuit."""
    if not conf.CIRCUIT_FAILURES:
        return False
    return _asking(lambda: _note_failure(alias, was_probe=was_probe), False)


def _note_failure(alias: str, *, was_probe: bool) -> bool:
    if not was_probe and _cache().get(_key(alias, "open")) is not None:
        return False  # of a run that began before; it is for the probe to tell
    failures = _key(alias, "failures")
    _cache().add(failures, 0, conf.CIRCUIT_WINDOW)
    try:
        count = _cache().incr(failures)
    except ValueError:  # the window ended in between
        count = 1
    if not was_probe and count < conf.CIRCUIT_FAILURES:
        return False
    until = time.time() + conf.CIRCUIT_PAUSE
    _cache().set(_key(alias, "open"), until, conf.CIRCUIT_PAUSE + REMEMBERED)
    _cache().delete_many([failures, _key(alias, "probe")])
    logger.error("The circuit of provider %r is open for %g s.", alias, conf.CIRCUIT_PAUSE)
    return True


def note_success(alias: str) -> None:
    """The probe found the provider well."""
    _asking(lambda: _close(alias), None)


def _close(alias: str) -> None:
    _cache().delete_many([_key(alias, name) for name in ("open", "failures", "probe")])
    logger.warning("The circuit of provider %r is closed again.", alias)


def give_up_probe(alias: str) -> None:
    """The probe ended without having learned anything; another run may be it."""
    _asking(lambda: _cache().delete(_key(alias, "probe")), False)


def _cache() -> BaseCache:
    return caches[conf.CIRCUIT_CACHE]


def _key(alias: str, name: str) -> str:
    # Aliases may be any text, which some caches do not take for a key.
    return f"tryon.circuit.{alias.encode().hex()}.{name}"


def _asking(question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except Exception:
        logger.exception("The cache of the circuits cannot be used; the provider is asked all the same.")
        return otherwise
