"""Erasing runs: first flagged, and seen by nobody any more; then their files are deleted, and at last their rows.

In this order no kill -9 leaves a photo that nobody knows of: a row goes when its files have gone, and recovery goes
on with whatever is flagged. A run that is being made is only flagged, and erased when it has ended. The ledger keeps
its lines, and usage its records, without the run.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.models import Model, ProtectedError, RestrictedError
from django.db.models.signals import pre_delete
from django.utils import timezone

from . import runs
from .conf import conf
from .models import TryOn, TryOnQuerySet, database, lock_account

logger = logging.getLogger("tryon.erasing")

AT_ONCE: Final = 500
"""Runs of one batch."""
QUICK: Final = 2.0
"""Seconds for which somebody waits who wants something else. Recovery does the rest."""
MOST_FAILURES: Final = 3
"""Runs in a row whose files cannot be deleted, after which the storage is taken to be away."""


@dataclass
class Erased:
    """What became of a batch."""

    gone: list[UUID] = field(default_factory=list)
    """Runs that are no more."""
    waiting: int = 0
    """Runs without files that stay until their end was announced, or until no slow process can write any more."""
    failed: int = 0
    """Runs with a file that cannot be deleted, or that something of the host's protects."""
    is_cut_short: bool = False
    """Whether time ran out, or the storage seems to be away."""


def erase(flagged: TryOnQuerySet, *, now: datetime | None = None, seconds: float = math.inf) -> Erased:
    """Erase a batch of these runs, those of them that are flagged and have ended, for some ``seconds``.

    Safe beside itself. What cannot be deleted is logged, and stays flagged for the next time.
    """
    now, until = now or timezone.now(), time.monotonic() + seconds
    erased, settled, failures = Erased(), [], 0
    for tryon in flagged.using(database()).erasable().defer("attempts", "usage", "warnings")[:AT_ONCE]:
        if failures == MOST_FAILURES or time.monotonic() > until:
            erased.is_cut_short = True
            break
        if not _delete_files(tryon):
            erased.failed += 1
            failures += 1
            continue
        failures = 0
        if _is_settled(tryon, now):
            settled.append(tryon.pk)
        else:
            erased.waiting += 1
    erased.gone = _delete_rows(settled)
    erased.failed += len(settled) - len(erased.gone)
    return erased


def erase_quickly(flagged: TryOnQuerySet) -> None:
    """Erase what can be erased at once. Whoever asked for it need not hear of what recovery has to finish."""
    try:
        erase(flagged, seconds=QUICK)
    except Exception:
        logger.exception("Could not erase runs at once; recovery will.")


def names(tryon: TryOn) -> set[str]:
    """Of all files that a run has, or may have left, in the storage."""
    known = {tryon.image.name, tryon.video.name, *tryon.more_images, *tryon.inputs}
    if tryon.file_stem:
        known |= {runs.video_name(tryon), *runs.possible_inputs(tryon)}
        known |= {name for each in runs.possible_names(tryon) for name in each}
    return {name for name in known if name}


def _delete_files(tryon: TryOn) -> bool:
    """Whether they are gone."""
    storage = TryOn.image.field.storage
    for name in names(tryon):
        try:
            storage.delete(name)
        except Exception:
            logger.exception("Could not delete %s of try-on %s, which is to be erased.", name, tryon.pk)
            return False
    return True


def _is_settled(tryon: TryOn, now: datetime) -> bool:
    """Whether nobody needs the row any more."""
    assert tryon.finished_at is not None  # noqa: S101 - erasable() saw to it
    may_be_written = tryon.has_leftovers and tryon.finished_at >= now - timedelta(seconds=conf.LEASE)
    return tryon.announced_at is not None and not may_be_written


def _delete_rows(ids: list[UUID]) -> list[UUID]:
    """Delete the rows of runs, but for those that a model of the host's protects; which ones are gone."""
    tryons = TryOn.objects.using(database()).erasable()
    try:
        if ids:
            with transaction.atomic(using=database()):
                tryons.filter(pk__in=ids).locked().delete()
    except (ProtectedError, RestrictedError) as error:
        if len(ids) > 1:
            return [gone for each in ids for gone in _delete_rows([each])]
        logger.error("Could not erase try-on %s: %s", ids[0], error.args[0])
        return []
    return ids


# Users that are deleted


def connect() -> None:
    """Called when the app is ready. A proxy of the user model sends signals of its own."""
    users = get_user_model()._meta.concrete_model
    for model in apps.get_models():
        if model._meta.concrete_model is users:
            pre_delete.connect(
                erase_runs_of, sender=model, dispatch_uid=f"tryon.erasing.erase_runs_of.{model._meta.label}"
            )


def erase_runs_of(*, instance: Model, using: str, **kwargs: Any) -> None:
    """Receiver of ``pre_delete``: flag the runs of a user in the transaction that deletes it, erase them after it."""
    # With account and user locked no run begins in between, before Django takes the user out of all of them. In this
    # order a run that is beginning takes them, too: first its credits, and with its commit the user.
    lock_account(instance.pk, using)
    list(type(instance)._base_manager.using(using).filter(pk=instance.pk).select_for_update().values_list("pk"))
    TryOn.objects.using(using).filter(user_id=instance.pk).flag()
    hooks: list[Any] = connections[using].run_on_commit
    if not any(hook[1] is _erase_some for hook in hooks):  # of many users that are deleted together
        transaction.on_commit(_erase_some, using=using, robust=True)


def _erase_some() -> None:
    erase_quickly(TryOn.objects.order_by("?"))
