"""Points of a run at which a server process of the tests can be killed or stopped. Not for the tests' own process."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.dispatch import Signal

from tryon import runs
from tryon.models import CreditEntry, TryOn
from tryon.signals import try_on_failed, try_on_succeeded


def crash(point: str, nth: int, number: int) -> None:
    """Send this process a signal, SIGKILL or SIGSTOP, when it comes to ``point`` for the ``nth`` time."""
    arrivals = itertools.count(1)

    def arrive() -> None:
        if next(arrivals) == nth:
            # To this very thread, which else could go on for a moment before it stops.
            signal.pthread_kill(threading.get_ident(), number)

    POINTS[point](arrive)


def _before(owner: Any, name: str, arrive: Callable[[], None]) -> None:
    function = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arrive()
        return function(*args, **kwargs)

    setattr(owner, name, wrapper)


def _after(owner: Any, name: str, arrive: Callable[[], None]) -> None:
    function = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        arrive()
        return result

    setattr(owner, name, wrapper)


def _booking(kind: CreditEntry.Kind, arrive: Callable[[], None], *, booked: bool) -> None:
    """Before or after a line of the ledger is written, in the transaction."""
    save = CreditEntry.save

    def wrapper(self: CreditEntry, *args: Any, **kwargs: Any) -> None:
        if booked:
            save(self, *args, **kwargs)
        if self.kind == kind:
            arrive()
        if not booked:
            save(self, *args, **kwargs)

    CreditEntry.save = wrapper  # type: ignore[assignment,method-assign]


def _half_way_through_the_file(arrive: Callable[[], None]) -> None:
    def halves(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        data = self.read()
        yield data[: len(data) // 2]
        arrive()
        yield data[len(data) // 2 :]

    runs._Whole.chunks = halves  # type: ignore[method-assign]


def _announcing(announced: Signal, arrive: Callable[[], None], *, told: bool) -> None:
    announce = runs.announce

    def wrapper(signal: Signal, tryon: TryOn, **kwargs: Any) -> None:
        if told:
            announce(signal, tryon, **kwargs)
        if signal is announced:
            arrive()
        if not told:
            announce(signal, tryon, **kwargs)

    runs.announce = wrapper


POINTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "holding": lambda arrive: _booking(CreditEntry.Kind.HOLD, arrive, booked=False),
    "held": lambda arrive: _after(runs, "admit", arrive),
    "answered": lambda arrive: _before(runs, "inspect", arrive),
    "writing": _half_way_through_the_file,
    "written": lambda arrive: _after(runs, "store", arrive),
    "charging": lambda arrive: _booking(CreditEntry.Kind.CAPTURE, arrive, booked=False),
    "committing": lambda arrive: _booking(CreditEntry.Kind.CAPTURE, arrive, booked=True),
    "charged": lambda arrive: _announcing(try_on_succeeded, arrive, told=False),
    "announced": lambda arrive: _announcing(try_on_succeeded, arrive, told=True),
    "releasing": lambda arrive: _booking(CreditEntry.Kind.RELEASE, arrive, booked=True),
    "released": lambda arrive: _announcing(try_on_failed, arrive, told=False),
}
"""In the transaction that holds the credit, when the balance is lower and the ledger does not say so; right after it;
when the provider has answered; with half of the picture in its file, and with all of it; in the transaction that
charges, when the run has succeeded and the ledger does not say so, and when it is about to be committed; right after
it; when the end was announced, but that is not written down. And where a run fails: in the transaction that gives its
credit back, when the ledger says so and the balance does not; and right after it.
"""
