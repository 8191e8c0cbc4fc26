"""What the app itself does with its announcements: one usage record and one log line a run."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from django.db import IntegrityError

from .models import TryOn, UsageRecord, database
from .signals import try_on_failed, try_on_succeeded

logger = logging.getLogger("tryon.runs")


def record_usage(
    *,
    tryon_id: UUID,
    user_id: Any,
    catalog_id: str,
    status: str,
    provider: str,
    model: str,
    credits: int,  # noqa: A002
    cost_usd: Any,
    latency_ms: int | None,
    error_code: str,
    **kwargs: Any,
) -> None:
    """One row for a run that ended, however often its end is announced."""
    record = UsageRecord(
        tryon_id=tryon_id,
        user_id=user_id,
        catalog_id=catalog_id,
        status=status,
        provider=provider,
        model=model,
        credits=credits,
        cost_usd=cost_usd,
        latency_ms=latency_ms,
        error_code=error_code,
    )
    try:
        record.save(force_insert=True)
    except IntegrityError:
        if UsageRecord.objects.using(database()).filter(tryon_id=tryon_id).exists():
            return
        record.user_id = None  # the user was deleted while the run was under way
        record.save(force_insert=True)


def log_run(*, tryon_id: UUID, status: str, **payload: Any) -> None:
    """The line of ``logs/inference.log``."""
    level = logging.WARNING if status == TryOn.Status.FAILED else logging.INFO
    fields = ("request_id", "user", "catalog_id", "latency_ms", "provider", "model", "credits", "image")
    extra = {name: payload[name] for name in fields}
    extra |= {"tryon_id": str(tryon_id), "status": str(status)}
    if payload["error_code"]:
        extra |= {"error_code": payload["error_code"], "error": payload["error"]}
    logger.log(level, "try-on %s", status, extra=extra)


def connect() -> None:
    """Called when the app is ready."""
    for signal in (try_on_succeeded, try_on_failed):
        signal.connect(record_usage, dispatch_uid="tryon.receivers.record_usage")
        signal.connect(log_run, dispatch_uid="tryon.receivers.log_run")
