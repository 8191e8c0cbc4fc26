"""How a run begins and ends: what was asked for, the moments that touch the database, its file, its announcements.

Each moment is one short transaction. Who calls them when is the pipeline's business, and recovery's after a crash.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction
from django.dispatch import Signal
from django.utils import timezone

from providers.base import AIProvider, Category, TryOnResult
from providers.errors import InvalidProviderResponse

from . import images
from .conf import conf
from .credits import get_credits, price_of
from .exceptions import GenerationFailed, ImageTooLarge, KeyInUse, KeyReused, NotAnImage, OutcomeUnknown, UserGone
from .heartbeat import expiry, heartbeat
from .models import TryOn, database
from .receivers import record_usage
from .signals import try_on_failed, try_on_started, try_on_succeeded

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# "tryon.runs" is the log of the runs themselves (receivers.py); what is logged here is about the storage.
logger = logging.getLogger("tryon.storage")

NOT_IN_FILE_NAMES: Final = re.compile(r"[^A-Za-z0-9-]+")
MOST_COUNTED: Final = 10**15
"""Tokens or the like. Beyond it a vendor is wrong, and its number worth nothing."""
MOST_DOLLARS: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asks for. Photos are URLs, to be fetched, or bytes."""

    user: User | None
    """Who pays; None for the operator's own runs, which cost nothing."""
    person: str | bytes
    garment: str | bytes
    catalog_id: str = ""
    prompt: str = ""
    """Empty means the settings' PROMPT."""
    category: Category = "auto"
    provider: str = ""
    """Alias; empty means the settings' PROVIDER."""
    request_id: str = ""
    idempotency_key: str = ""
    """The user's own name for this order. Under one name no second picture is made."""

    def fingerprint(self) -> str:
        """A hash of what is asked for, whoever asks and however often."""
        asked = (self.catalog_id, self.prompt, self.category, self.provider)
        parts = [part.encode("utf-8", "surrogatepass") for part in asked]
        photos = (self.person, self.garment)
        parts += [photo if isinstance(photo, bytes) else photo.encode("utf-8", "surrogatepass") for photo in photos]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


class Unwanted(Exception):
    """Nobody waits for this run any more."""


def find_earlier(order: Order) -> TryOn | None:
    """The run that answers the order, if its Idempotency-Key has a picture; None if one may be made.

    Raise ``KeyInUse`` while it is being made, and ``KeyReused`` if it is of something else.
    """
    if order.user is None or not order.idempotency_key:
        return None
    under_this_key = TryOn.objects.using(database()).with_key(order.user, order.idempotency_key)
    earlier = under_this_key.first()
    if earlier is None:
        return None
    forgotten = timezone.now() - timedelta(seconds=conf.IDEMPOTENCY_TTL)
    if earlier.created_at < forgotten and earlier.finished_at:
        under_this_key.forget_keys(forgotten)
        return None
    if earlier.fingerprint != order.fingerprint():
        raise KeyReused
    if earlier.status in TryOn.UNFINISHED:
        raise KeyInUse
    return earlier if earlier.status == TryOn.Status.SUCCEEDED else None


def admit(run_id: uuid.UUID, order: Order, provider: AIProvider) -> TryOn:
    """Create the run and hold its price, or raise ``InsufficientCredits`` or ``UserGone`` and leave no trace.

    Raise ``IntegrityError`` if another run has the order's Idempotency-Key.
    """
    price = price_of(provider) if order.user is not None else 0
    now = timezone.now()
    tryon = TryOn(
        id=run_id,
        user=order.user,
        catalog_id=order.catalog_id,
        request_id=order.request_id,
        # This process takes the run at once: it is never seen queued.
        status=TryOn.Status.RUNNING,
        credits=price,
        provider=provider.alias[:50],
        model=provider.model[:100],
        idempotency_key=order.idempotency_key,
        fingerprint=order.fingerprint() if order.idempotency_key else "",
        created_at=now,
        lease_until=expiry(),
    )
    tryon.file_stem = file_stem(tryon)
    try:
        with transaction.atomic(using=database()):
            # The run first: of two requests with one key the second fails here, and not for want of a credit.
            tryon.save(force_insert=True)
            if order.user is not None:
                get_credits().hold(run_id, order.user, price)
            _announce_on_commit(try_on_started, tryon)
    except IntegrityError:
        if order.user is not None and not _exists(order.user):
            raise UserGone from None
        raise
    return tryon


def _exists(user: User) -> bool:
    return type(user)._default_manager.using(database()).filter(pk=user.pk).exists()


def succeed(tryon: TryOn, *, is_wanted: Callable[[], bool] = lambda: True, **found: Any) -> bool:
    """Charge for the stored picture, and write what was ``found`` about it; whether the run had not ended yet.

    ``is_wanted`` is asked right before the commit. Raise ``OutcomeUnknown`` if the database did not say whether it
    committed; for any other error nothing is charged.
    """
    is_committing = False
    try:
        with transaction.atomic(using=database()):
            ended = tryon.finish(TryOn.Status.SUCCEEDED, **found)
            if ended:
                if tryon.user is not None or tryon.credits:
                    get_credits().capture(tryon.pk, tryon.user, tryon.credits)
                _announce_on_commit(try_on_succeeded, tryon)
            if not is_wanted():
                raise Unwanted
            is_committing = True
    except BaseException as error:
        if is_committing:
            raise OutcomeUnknown from error
        raise
    return ended


def fail(
    tryon: TryOn,
    status: TryOn.Status,
    code: str,
    detail: str,
    *,
    latency_ms: int | None = None,
    has_leftovers: bool = False,
) -> bool:
    """End the run without a picture and give its hold back; whether this call ended it."""
    with transaction.atomic(using=database()):
        ended = tryon.finish(
            status, error_code=code, error_detail=detail, latency_ms=latency_ms, has_leftovers=has_leftovers
        )
        if ended:
            # Where there is no hold, as for the operator's runs, this does nothing; a hold of 0 has an end too.
            get_credits().release(tryon.pk, tryon.user, tryon.credits)
            _announce_on_commit(try_on_failed, tryon)
    return ended


# The picture


def inspect(result: TryOnResult, provider: AIProvider) -> images.ImageInfo:
    """Look at what the provider sent; raise ``GenerationFailed`` if it is no picture."""
    try:
        return images.inspect(result.data)
    except (NotAnImage, ImageTooLarge) as error:
        invalid = InvalidProviderResponse(
            f"{provider.name} sent {len(result.data):,} bytes that are no usable picture: {error}",
            provider=provider.alias,
            request_id=result.provider_id,
        )
        raise GenerationFailed(invalid) from invalid


class _Whole(ContentFile):  # type: ignore[type-arg]  # it cannot be subscripted at run time
    """A picture that is written at once. Of Django's 64 kB pieces each would wait for its turn among the threads."""

    DEFAULT_CHUNK_SIZE = sys.maxsize


def store(tryon: TryOn, result: TryOnResult, info: images.ImageInfo) -> str:
    """Write the picture as it came; its name in the storage."""
    name: str = TryOn.image.field.storage.save(file_name(tryon, info), _Whole(result.data))
    return name


def delete(name: str) -> bool:
    """Delete a file that is nobody's picture; whether it is gone."""
    try:
        TryOn.image.field.storage.delete(name)
    except Exception:
        logger.exception("Could not delete %s, which belongs to no run; recover_tryons will.", name)
        return False
    return True


def describe(result: TryOnResult, info: images.ImageInfo, *, image: str, latency_ms: int) -> dict[str, Any]:
    """The fields of a run that its picture fills; of what a provider says, only what any database takes."""
    cost = result.cost_usd
    return {
        "image": image,
        "content_type": info.content_type,
        "width": info.width,
        "height": info.height,
        "model": storable(result.model)[:100],
        "provider_request_id": storable(result.provider_id)[:200],
        "warnings": [storable(warning) for warning in result.warnings],
        "usage": {storable(name): count for name, count in result.usage.items() if 0 <= count <= MOST_COUNTED},
        "cost_usd": cost if cost is not None and 0 <= cost < MOST_DOLLARS else None,
        "latency_ms": latency_ms,
    }


# Announcements


def _announce_on_commit(signal: Signal, tryon: TryOn) -> None:
    def announcement() -> None:  # a partial has no name, by which Django logs what fails after a commit
        announce(signal, tryon)

    transaction.on_commit(announcement, using=database(), robust=True)


def announce(signal: Signal, tryon: TryOn, *, repeated: bool = False) -> None:
    """Tell the world, and write down that an end was told. Receivers' errors are logged by Django, with their names.

    Where it was the usage record that failed, nothing is written down, so that recovery tells it again.
    """
    succeeded = tryon.status == TryOn.Status.SUCCEEDED
    told = signal.send_robust(
        sender=TryOn,
        tryon_id=tryon.pk,
        user_id=tryon.user_id,
        user=client_name(tryon.user),
        catalog_id=tryon.catalog_id,
        request_id=tryon.request_id,
        status=str(tryon.status),
        provider=tryon.provider,
        model=tryon.model,
        credits=tryon.credits if succeeded else 0,
        latency_ms=tryon.latency_ms,
        image=tryon.image.name if succeeded else "",
        image_url=_image_url(tryon) if succeeded else "",
        error_code=tryon.error_code,
        error=tryon.error_detail,
        cost_usd=tryon.cost_usd,
        repeated=repeated,
    )
    is_recorded = not any(receiver is record_usage and isinstance(error, Exception) for receiver, error in told)
    if tryon.finished_at and is_recorded:
        heartbeat.tell(tryon.pk)


def _image_url(tryon: TryOn) -> str:
    try:
        return str(tryon.image.url)
    except Exception:
        # Receivers must hear of a run whatever its storage says.
        logger.exception("The storage gives no address for %s.", tryon.image.name)
        return ""


# Names


def storable(text: str) -> str:
    """Text without what a database refuses: NUL, and what UTF-8 cannot say."""
    return text.encode(errors="replace").decode().replace("\0", "")


def client_name(user: User | None) -> str:
    """What clients send as ``user_id`` for this user."""
    if user is None:
        return ""
    return str(getattr(user, conf.USER_ID_FIELD or user.USERNAME_FIELD))


def file_stem(tryon: TryOn) -> str:
    """``{user}_{catalog}_{unix time}_{random}``: harmless, and not to be guessed (122 random bits)."""
    user = NOT_IN_FILE_NAMES.sub("-", client_name(tryon.user)).strip("-")[:40] or "anonymous"
    catalog = NOT_IN_FILE_NAMES.sub("-", tryon.catalog_id).strip("-")[:40] or "none"
    return f"{user}_{catalog}_{int(tryon.created_at.timestamp())}_{tryon.pk.hex}"


def file_name(tryon: TryOn, info: images.ImageInfo) -> str:
    return f"{tryon.file_stem}.{images.EXTENSIONS[info.content_type]}"
