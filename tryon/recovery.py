"""What dead processes left behind: runs without an end, ends without an announcement, files without a picture.

And what anybody left flagged, to be erased.

Safe at any time, beside living servers and beside itself: each move is a conditional update, and a run that a
living process ends first is left as it is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage
from django.db import close_old_connections, connections, transaction
from django.utils import timezone

from providers.base import AIProvider, TryOnResult
from providers.errors import ProviderError, ProviderUnavailable

from . import erasing, images, runs
from .conf import conf
from .credits import get_credits
from .dispatch import choose_provider, close_providers
from .exceptions import GenerationFailed, TryOnError
from .heartbeat import expiry
from .models import TryOn, TryOnQuerySet, database, outlives_us
from .signals import try_on_failed, try_on_succeeded

logger = logging.getLogger("tryon.recovery")

LOOK_UP_TIMEOUT: Final = timedelta(seconds=15)
"""How long a vendor gets to hand over the picture of a job."""
LOOK_UP_FOR: Final = timedelta(hours=1)
"""For how long a vendor that does not answer is asked again. Then the credit goes back."""
LONGEST_LATENCY_MS: Final = 2**31 - 1
"""What the column takes: 25 days, after which a run may still be found."""
AT_ONCE: Final = 1000
"""Runs of each kind that one look takes on."""


@dataclass
class Recovered:
    """What one look found and mended."""

    captured: list[TryOn] = field(default_factory=list)
    """Runs whose picture was stored; charged."""
    released: list[TryOn] = field(default_factory=list)
    """Runs without a picture; their credit went back."""
    announced: list[TryOn] = field(default_factory=list)
    """Runs whose end had not been announced."""
    erased: list[UUID] = field(default_factory=list)
    """Runs that were to be erased, and are no more."""


def recover(now: datetime | None = None) -> Recovered:
    """Look once. What cannot be mended now is logged, keeps nothing else waiting, and is tried again the next time."""
    now = now or timezone.now()
    recovered = Recovered()
    # Announcements first: ends of this very look are announced as they are made.
    for tryon in _each(TryOn.objects.unannounced(now)):
        with _going_on(f"recover try-on {tryon.pk}"):
            if not tryon.take_over(expiry()):
                continue
            signal = try_on_succeeded if tryon.status == TryOn.Status.SUCCEEDED else try_on_failed
            runs.announce(signal, tryon, repeated=True)
            recovered.announced.append(tryon)
    # Those whose vendor has to be asked last: nobody's credit waits for a vendor that does not answer.
    for tryon in sorted(_each(TryOn.objects.dead(now)), key=lambda tryon: bool(tryon.provider_job)):
        with _going_on(f"recover try-on {tryon.pk}"):
            _end(tryon, now, recovered)
    for tryon in _each(TryOn.objects.with_leftovers()):
        with _going_on(f"recover try-on {tryon.pk}"):
            _delete_leftovers(tryon, now)
    with _going_on("erase what is flagged"):
        recovered.erased = _erase(now)
    return recovered


def _pay_back(tryon: TryOn) -> None:
    """A picture that is not kept was charged, and nobody wrote down that the answer was sent.

    Nobody can ask for it again, so it costs nothing, be it that the answer did arrive.
    """
    with transaction.atomic(using=database()):
        if tryon.credits and get_credits().refund(tryon.pk, tryon.user, tryon.credits, reason="Its answer was lost"):
            logger.warning("Try-on %s was paid back: its process died before it had answered.", tryon.pk)


def _erase(now: datetime) -> list[UUID]:
    """Erase what is flagged, in any order: what cannot be erased is not to keep the rest from it."""
    gone: list[UUID] = []
    while True:
        erased = erasing.erase(TryOn.objects.order_by("?"), now=now)
        gone += erased.gone
        if erased.is_cut_short or not erased.gone:
            return gone


def _end(tryon: TryOn, now: datetime, recovered: Recovered) -> None:
    """End a dead run: with its picture if it was stored or can be had and is still wanted, else without."""
    if not tryon.take_over(expiry() + LOOK_UP_TIMEOUT):
        return
    # A picture that is not kept was for an answer that nobody waits for any more.
    is_wanted = not (tryon.to_erase or tryon.no_store)
    found = _stored(tryon, now) if is_wanted else None
    if found is None and tryon.provider_job and is_wanted:
        try:
            found = _look_up(tryon, now)
        except Exception as error:
            if now < tryon.created_at + LOOK_UP_FOR:
                logger.warning("Try-on %s waits for its job %s: %s", tryon.pk, tryon.provider_job, error)
                return
            logger.exception("Try-on %s is given up, and with it its job %s.", tryon.pk, tryon.provider_job)
    if found is None:
        detail = "The process that worked on it ended."
        if runs.fail(tryon, TryOn.Status.FAILED, "abandoned", detail, has_leftovers=True):
            recovered.released.append(tryon)
    elif runs.succeed(tryon, **found):
        recovered.captured.append(tryon)
    elif tryon.stored_image() != found["image"]:
        runs.delete(found["image"], *found["more_images"], *filter(None, [found["video"]]))


def _stored(tryon: TryOn, now: datetime) -> dict[str, Any] | None:
    """What can be told of the files that the dead process stored; None if there are none, or not the whole of them."""
    found = [_whole(names) for names in runs.possible_names(tryon)]
    if None in found:
        return None  # it died as it wrote
    (image, info), *others = [pair for pair in found if pair is not None]
    video = runs.video_name(tryon)
    clip = [video] if _storage().exists(video) else []
    return {
        **runs.describe_files([*(name for name, _ in others), *clip, image]),
        "inputs": [name for name in runs.possible_inputs(tryon) if _storage().exists(name)],
        "content_type": info.content_type,
        "width": info.width,
        "height": info.height,
        "ai_generated": _is_generated(tryon),
        "latency_ms": _latency_ms(tryon, now),
    }


def _is_generated(tryon: TryOn) -> bool | None:
    """Whether a model made the stored picture; None if that depends on who of them did: the dead process knew."""
    try:
        asked = {choose_provider(alias).ai_generated for alias in (tryon.provider, *conf.FALLBACK_PROVIDERS)}
    except ImproperlyConfigured:
        return None
    return asked.pop() if len(asked) == 1 else None


def _whole(names: list[str]) -> tuple[str, images.ImageInfo] | None:
    """The one of these names under which a whole picture is stored."""
    for name in names:
        if not _storage().exists(name):
            continue
        with _storage().open(name) as file:
            data = file.read()
        with contextlib.suppress(TryOnError):
            info = images.inspect(data)
            images.decode(data)
            return name, info
    return None


def _look_up(tryon: TryOn, now: datetime) -> dict[str, Any] | None:
    """Ask the vendor for the job's picture and store it; None if there is none to be had.

    Raise ``ProviderUnavailable`` if the vendor cannot say yet.
    """
    try:
        provider = choose_provider(tryon.provider)
        if not provider.keeps_jobs:
            raise ImproperlyConfigured(f"The provider {tryon.provider!r} keeps no jobs.")
        close_old_connections()  # none is held while the vendor is waited for
        result = async_to_sync(_resume)(provider, tryon.provider_job)
        looked = runs.inspect(result, provider, tryon.pictures)
    except (ProviderError, GenerationFailed, ImproperlyConfigured) as error:
        if isinstance(error, ProviderUnavailable) and not error.job_is_over:
            raise
        logger.warning("Try-on %s has no picture at its provider: %s", tryon.pk, error)
        return None
    if not tryon.stored_image():
        runs.delete(*erasing.names(tryon))  # what the dead process had begun to write; nobody would know of it
    names = runs.store(tryon, looked)
    return runs.describe(result, looked, names, provider, latency_ms=_latency_ms(tryon, now))


async def _resume(provider: AIProvider, job: str) -> TryOnResult:
    try:
        return await provider.look_up(job, timeout=LOOK_UP_TIMEOUT.total_seconds())
    finally:
        await close_providers()  # this event loop ends with the call


def _latency_ms(tryon: TryOn, now: datetime) -> int:
    return min(round((now - tryon.created_at) / timedelta(milliseconds=1)), LONGEST_LATENCY_MS)


def _delete_leftovers(tryon: TryOn, now: datetime) -> None:
    """Delete what may have been stored; and once more a lease later, for a process that was only very slow."""
    is_old = bool(tryon.finished_at and tryon.finished_at < now - timedelta(seconds=conf.LEASE))
    if tryon.status == TryOn.Status.SUCCEEDED:
        if not is_old:
            return  # its answer may be about to be sent
        _pay_back(tryon)
    if runs.delete(*erasing.names(tryon)) and is_old:
        TryOn.objects.filter(pk=tryon.pk).update(has_leftovers=False)


def _storage() -> Storage:
    storage: Storage = TryOn.image.field.storage
    return storage


def _each(runs: TryOnQuerySet) -> list[TryOn]:
    """Any of them: those that cannot be mended are not to keep the others from being looked at."""
    return list(runs.using(database()).select_related("user").order_by("?")[:AT_ONCE])


@contextlib.contextmanager
def _going_on(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("Could not %s; the others are not kept waiting.", what)


class _Schedule:
    """When this process looks next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether it is time to look; if so, the next time is set."""
        now = time.monotonic()
        with self._lock:
            if now < self._next or not conf.RECOVER_EVERY:
                return False
            self._next = now + max(1, conf.RECOVER_EVERY)
            return True


_schedule = _Schedule()
_looking = threading.Lock()
"""Held while this process looks: a look that takes long is not joined by others."""


def now_and_then() -> None:
    """Look in a thread of its own, at first and then every ``RECOVER_EVERY`` seconds. Costs nothing in between."""
    if _schedule.is_due() and outlives_us():
        threading.Thread(target=_look, name="tryon-recovery", daemon=True).start()


def _look() -> None:
    if not _looking.acquire(blocking=False):
        return
    try:
        recover()
    except Exception:
        logger.exception("Could not look for what dead processes left; the next look may.")
    finally:
        _looking.release()
        connections.close_all()
