"""How a run begins and ends: what was asked for, the moments that touch the database, its file, its announcements.

Each moment is one short transaction. Who calls them when is the pipeline's business, and recovery's after a crash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from django.core.files.base import ContentFile, File
from django.db import IntegrityError, transaction
from django.dispatch import Signal
from django.utils import timezone

from providers.base import AIProvider, Category, OutputFormat, Photo, Size, TryOnResult
from providers.errors import InvalidProviderResponse

from . import images
from .conf import conf
from .credits import get_credits, price_of
from .dispatch import Attempt
from .exceptions import (
    GenerationFailed,
    ImageTooLarge,
    KeyInUse,
    KeyReused,
    NotAnImage,
    NotKept,
    OutcomeUnknown,
    StorageUnavailable,
    UserGone,
)
from .heartbeat import expiry, heartbeat
from .models import TryOn, database, lock_account
from .receivers import record_usage
from .signals import try_on_failed, try_on_started, try_on_succeeded
from .signed_urls import address

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# "tryon.runs" is the log of the runs themselves (receivers.py); what is logged here is about the storage.
logger = logging.getLogger("tryon.storage")

NOT_IN_FILE_NAMES: Final = re.compile(r"[^A-Za-z0-9-]+")
MOST_COUNTED: Final = 10**15
"""Tokens or the like. Beyond it a vendor is wrong, and its number worth nothing."""
MOST_DOLLARS: Final = 10**6


Source: TypeAlias = "str | bytes | File[bytes]"
"""A photo: the URL, to be fetched, the bytes, or a file with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asks for."""

    user: User | None
    """Who pays; None for the operator's own runs, which cost nothing."""
    person: Source
    garment: Source
    catalog_id: str = ""
    prompt: str = ""
    """Empty means the settings' PROMPT."""
    category: Category = "auto"
    seed: int | None = None
    pictures: int = 1
    size: Size = ""
    output_format: OutputFormat = ""
    no_store: bool = False
    """Whether the picture is for the answer alone."""
    warnings: tuple[str, ...] = ()
    """What to tell whoever asks, beside what the provider says."""
    provider: str = ""
    """Alias; empty means the settings' PROVIDER."""
    request_id: str = ""
    idempotency_key: str = ""
    """The user's own name for this order. Under one name no second picture is made."""

    @property
    def fields(self) -> tuple[str, str]:
        """What the photos are called in the request, for refusals."""
        person, garment = (isinstance(source, str) for source in (self.person, self.garment))
        return "user_image_url" if person else "user_image", "catalog_image_url" if garment else "catalog_image"

    def fingerprint(self) -> str:
        """A hash of what is asked for, whoever asks and however often."""
        asked = [self.catalog_id, self.prompt, self.category, self.provider]
        newer = (
            ("seed", self.seed, None),
            ("pictures", self.pictures, 1),
            ("size", self.size, ""),
            ("output_format", self.output_format, ""),
            ("no_store", self.no_store, False),
        )
        # Only where they were asked for: the keys of older versions still fit.
        asked += [f"{name}={value}" for name, value, usual in newer if value != usual]
        parts = [part.encode("utf-8", "surrogatepass") for part in asked]
        digests = [hashlib.sha256(part).digest() for part in parts]
        return hashlib.sha256(b"".join([*digests, _digest(self.person), _digest(self.garment)])).hexdigest()


def _digest(photo: Source) -> bytes:
    if isinstance(photo, File):
        photo.seek(0)
        digest = hashlib.sha256()
        for chunk in photo.chunks():
            digest.update(chunk)
        photo.seek(0)
        return digest.digest()
    return hashlib.sha256(photo if isinstance(photo, bytes) else photo.encode("utf-8", "surrogatepass")).digest()


class Unwanted(Exception):
    """Nobody waits for this run any more."""


def find_earlier(order: Order) -> TryOn | None:
    """The run that answers the order, if its Idempotency-Key has a picture; None if one may be made.

    Raise ``KeyInUse`` while it is being made, ``KeyReused`` if it is of something else, and ``NotKept`` if nobody has
    its picture any more.
    """
    if order.user is None or not order.idempotency_key:
        return None
    under_this_key = TryOn.objects.using(database()).with_key(order.user, order.idempotency_key)
    earlier = under_this_key.first()
    if earlier is None:
        return None
    now = timezone.now()
    forgotten = now - timedelta(seconds=conf.IDEMPOTENCY_TTL)
    if earlier.finished_at and (earlier.to_erase or earlier.created_at < forgotten):
        under_this_key.forget_keys(now if earlier.to_erase else forgotten)
        return None
    if earlier.fingerprint != order.fingerprint():
        raise KeyReused
    if earlier.status in TryOn.UNFINISHED:
        raise KeyInUse
    if earlier.status != TryOn.Status.SUCCEEDED:
        return None
    if earlier.no_store:
        raise NotKept
    return earlier


def admit(run_id: uuid.UUID, order: Order, provider: AIProvider, priced: AIProvider | None = None) -> TryOn:
    """Create the run, which ``provider`` will be asked for, and hold its price, or that of ``priced``.

    Raise ``InsufficientCredits`` or ``UserGone`` and leave no trace.

    Raise ``IntegrityError`` if another run has the order's Idempotency-Key.
    """
    price = order.pictures * price_of(priced or provider, order.size) if order.user is not None else 0
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
        pictures=order.pictures,
        no_store=order.no_store,
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
            ended = tryon.finish(TryOn.Status.SUCCEEDED, has_leftovers=tryon.no_store, **found)
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
    **found: Any,
) -> bool:
    """End the run without a picture, with what was ``found``, and give its hold back; whether this call ended it."""
    with transaction.atomic(using=database()):
        if tryon.user is not None:
            lock_account(tryon.user.pk, database())
        ended = tryon.finish(
            status,
            error_code=code,
            error_detail=detail,
            latency_ms=latency_ms,
            has_leftovers=has_leftovers,
            **found,
        )
        if ended:
            # Where there is no hold, as for the operator's runs, this does nothing; a hold of 0 has an end too.
            get_credits().release(tryon.pk, tryon.user, tryon.credits)
            _announce_on_commit(try_on_failed, tryon)
    return ended


# The picture


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file of a run's result: a picture, or the clip."""

    suffix: str
    """Of its name, after the run's stem: ``.png``, ``-2.png``, ``.mp4``."""
    data: bytes = field(repr=False)


VIDEO: Final = ".mp4"
INPUTS: Final = ("-person", "-garment")
"""Marks in the names of the files of photos that were sent."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the provider sent, looked at: the picture, and all files, of which the picture is the last.

    So whoever finds the picture in the storage finds the others as well, whenever the process died.
    """

    info: images.ImageInfo
    files: tuple[ResultFile, ...]
    inputs: tuple[ResultFile, ...] = ()
    """The photos that were sent, where they are kept. They are written first."""

    @property
    def all_files(self) -> tuple[ResultFile, ...]:
        return (*self.inputs, *self.files)


def inspect(result: TryOnResult, provider: AIProvider, pictures: int = 1, inputs: Sequence[Photo] = ()) -> Looked:
    """Look at what the provider sent; raise ``GenerationFailed`` if it is not as many ``pictures``, or a clip.

    ``inputs`` are the photos of person and garment, if they are to be kept.
    """
    first, *others = [_look_at(data, result, provider) for data in (result.data, *result.more)[:pictures]]
    if 1 + len(others) < pictures:
        raise _invalid(f"{1 + len(others)} pictures instead of {pictures}", result, provider)
    files = [ResultFile(f"-{number}{suffix}", data) for number, (_, suffix, data) in enumerate(others, 2)]
    if result.video:
        if result.video[4:8] != b"ftyp":
            raise _invalid(f"{len(result.video):,} bytes that are no MP4 clip", result, provider)
        files.append(ResultFile(VIDEO, result.video))
    info, suffix, data = first
    kept = [
        ResultFile(f"{mark}.{images.EXTENSIONS[photo.content_type]}", photo.data)
        for mark, photo in zip(INPUTS, inputs, strict=False)
    ]
    return Looked(info, (*files, ResultFile(suffix, data)), tuple(kept))


def _look_at(data: bytes, result: TryOnResult, provider: AIProvider) -> tuple[images.ImageInfo, str, bytes]:
    try:
        info = images.inspect(data)
    except (NotAnImage, ImageTooLarge) as error:
        raise _invalid(f"{len(data):,} bytes that are no usable picture: {error}", result, provider) from error
    return info, f".{images.EXTENSIONS[info.content_type]}", data


def _invalid(what: str, result: TryOnResult, provider: AIProvider) -> GenerationFailed:
    error = InvalidProviderResponse(
        f"{provider.name} sent {what}", provider=provider.alias, request_id=result.provider_id
    )
    failure = GenerationFailed(error)
    failure.__cause__ = error
    return failure


class _Whole(ContentFile):  # type: ignore[type-arg]  # it cannot be subscripted at run time
    """A file that is written at once. Of Django's 64 kB pieces each would wait for its turn among the threads."""

    DEFAULT_CHUNK_SIZE = sys.maxsize


def store(tryon: TryOn, looked: Looked) -> list[str]:
    """Write the files as they came; their names in the storage.

    What was written before an error is deleted. Raise ``StorageUnavailable`` for whatever the storage raises.
    """
    storage, names = TryOn.image.field.storage, []
    try:
        for file in looked.all_files:
            names.append(storage.save(f"{tryon.file_stem}{file.suffix}", _Whole(file.data)))  # noqa: PERF401
    except BaseException as error:
        delete(*names)
        if isinstance(error, Exception):
            logger.exception("Could not store the picture of try-on %s.", tryon.pk)
            raise StorageUnavailable from error
        raise
    return names


def forget(tryon: TryOn, *names: str) -> None:
    """Delete the files of a picture that is not kept, once it is charged and in the answer.

    It was stored for the moment of the charge alone. Until ``note_delivery()`` its row says that it has leftovers:
    recovery deletes them, and pays back what nobody can ask for again.
    """
    tryon.has_leftovers = not delete(*names)


def note_delivery(tryon: TryOn) -> None:
    """Write down that the answer with a picture that is not kept was sent; after it was."""
    if tryon.no_store and not tryon.has_leftovers:
        TryOn.objects.using(database()).filter(pk=tryon.pk).update(has_leftovers=False)


def delete(*names: str) -> bool:
    """Delete files that are nobody's picture; whether they are gone."""
    are_gone = True
    for name in names:
        try:
            TryOn.image.field.storage.delete(name)
        except Exception:
            logger.exception("Could not delete %s, which belongs to no run; recover_tryons will.", name)
            are_gone = False
    return are_gone


def describe(
    result: TryOnResult, looked: Looked, names: list[str], provider: AIProvider, *, latency_ms: int
) -> dict[str, Any]:
    """The fields of a run that its picture fills; of what a provider says, only what any database takes."""
    return {
        **describe_files(names[len(looked.inputs) :]),
        "inputs": names[: len(looked.inputs)],
        "content_type": looked.info.content_type,
        "width": looked.info.width,
        "height": looked.info.height,
        "model": storable(result.model)[:100],
        "provider_request_id": storable(result.provider_id)[:200],
        "warnings": [storable(warning) for warning in result.warnings],
        "confidence": _share(result.confidence),
        "usage": {storable(name): count for name, count in result.usage.items() if _is_count(count)},
        "cost_usd": _dollars(result.cost_usd),
        "seed": result.seed if _is_count(result.seed) else None,
        "ai_generated": provider.ai_generated,
        "latency_ms": latency_ms,
    }


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_COUNTED


def _dollars(cost: Decimal | None) -> Decimal | None:
    return cost if isinstance(cost, Decimal) and cost.is_finite() and 0 <= cost < MOST_DOLLARS else None


def _share(value: float | None) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    return None


def spent(attempts: list[Attempt]) -> Decimal | None:
    """US dollars that all attempts cost, as far as they told; what was thrown away was paid for as well."""
    costs = [cost for attempt in attempts if (cost := _dollars(attempt.cost_usd)) is not None]
    return _dollars(sum(costs, Decimal(0))) if costs else None


def describe_attempts(attempts: list[Attempt]) -> list[dict[str, Any]]:
    """The attempts for the run's row; whatever an adapter calls an id, it keeps no run from ending."""
    return [
        dataclasses.asdict(attempt)
        | {
            "model": storable(str(attempt.model))[:100],
            "started": attempt.started.isoformat(),
            "request_id": storable(str(attempt.request_id))[:200],
            "cost_usd": None if (cost := _dollars(attempt.cost_usd)) is None else str(cost),
        }
        for attempt in attempts
    ]


def describe_files(names: list[str]) -> dict[str, Any]:
    """The fields of a run that name its files, of which the picture is the last."""
    *others, image = names
    video = next((name for name in others if name.endswith(VIDEO)), "")
    return {"image": image, "video": video, "more_images": [name for name in others if name != video]}


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
    is_kept = succeeded and not tryon.no_store
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
        image=tryon.image.name if is_kept else "",
        image_url=_image_url(tryon) if is_kept else "",
        error_code=tryon.error_code,
        error=tryon.error_detail,
        cost_usd=tryon.cost_usd,
        ai_generated=tryon.ai_generated,
        confidence=tryon.confidence if succeeded else None,
        repeated=repeated,
    )
    is_recorded = not any(receiver is record_usage and isinstance(error, Exception) for receiver, error in told)
    if tryon.finished_at and is_recorded:
        heartbeat.tell(tryon.pk)


def _image_url(tryon: TryOn) -> str:
    try:
        return address(tryon, str(tryon.image.name))
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


def possible_names(tryon: TryOn) -> list[list[str]]:
    """The names that each of a run's pictures may have, by its type, from the first on."""
    marks = ["", *(f"-{number}" for number in range(2, tryon.pictures + 1))]
    return [[f"{tryon.file_stem}{mark}.{extension}" for extension in images.EXTENSIONS.values()] for mark in marks]


def possible_inputs(tryon: TryOn) -> list[str]:
    """The names that the photos that were sent may have, where they are kept."""
    return [f"{tryon.file_stem}{mark}.{extension}" for mark in INPUTS for extension in images.EXTENSIONS.values()]


def video_name(tryon: TryOn) -> str:
    return f"{tryon.file_stem}{VIDEO}"
