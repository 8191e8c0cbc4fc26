"""The one flow behind every entrance: admit, fetch, generate, store, settle, announce.

Two hops into a thread do all that needs the database: one to enter, one to leave. Between them the event loop
waits for downloads and the provider, and no database connection is held.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import close_old_connections, transaction
from django.dispatch import Signal
from django.utils import timezone
from django.utils.crypto import salted_hmac

from providers.base import AIProvider, Category, Photo, TryOnRequest, TryOnResult
from providers.errors import InvalidProviderResponse, ProviderError, ProviderMisconfigured

from . import images
from .conf import conf
from .credits import get_credits
from .dispatch import choose_provider
from .exceptions import DeadlineExceeded, GenerationFailed, ImageTooLarge, NotAnImage, TryOnError
from .fetching import fetch
from .models import TryOn, database
from .signals import try_on_failed, try_on_started, try_on_succeeded

if TYPE_CHECKING:
    from django.contrib.auth.models import User

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("tryon.pipeline")

NOT_IN_FILE_NAMES: Final = re.compile(r"[^A-Za-z0-9-]+")
DECODING_THREADS: Final = 2
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


async def execute(prepare: Callable[[], Order], present: Callable[[TryOn], T]) -> T:
    """Run one order from beginning to end and return what ``present`` makes of the run.

    ``prepare`` is called in the entering hop and may use the database, as may ``present`` in the leaving one: it sees
    the run with its stored picture, about to succeed, and what it raises keeps it from being charged.
    Raises ``TryOnError`` for every failure a client may hear of; whatever is raised, nothing was charged.
    """
    run = _Run()
    try:
        try:
            await _in_thread(run.enter, prepare)
            result = await run.generate()
            return await _in_thread(run.leave, result, present)
        except Exception as error:
            if run.is_admitted:
                await _in_thread(run.give_up, TryOn.Status.FAILED, *_explain(error))
            raise
    except asyncio.CancelledError:  # at any moment, while a failure is settled as well
        await _uncancelled(run.give_up, TryOn.Status.CANCELLED, "cancelled", "The client went away.")
        raise


class _Whole(ContentFile):  # type: ignore[type-arg]  # it cannot be subscripted at run time
    """A picture that is written at once. Of Django's 64 kB pieces each would wait for its turn among the threads."""

    DEFAULT_CHUNK_SIZE = sys.maxsize


class _Run:
    """One run in this process.

    Its id is chosen before anything is written, and ``enter`` and ``give_up`` agree under a lock on who cleans
    up, so that a request cancelled while its entering thread still works leaves no hold behind.
    """

    def __init__(self) -> None:
        self.id = uuid.uuid4()
        self.started = time.perf_counter()
        self._lock = threading.Lock()
        self._tryon: TryOn | None = None
        self._file = ""
        self._given_up: tuple[TryOn.Status, str, str] | None = None

    @property
    def is_admitted(self) -> bool:
        return self._tryon is not None

    def enter(self, prepare: Callable[[], Order]) -> None:
        self.order = order = prepare()
        self.provider = _choose(order.provider)
        tryon = admit(self.id, order, self.provider)
        with self._lock:
            self._tryon = tryon
            given_up = self._given_up
        if given_up:
            self._fail(*given_up)

    async def generate(self) -> TryOnResult:
        deadline = asyncio.get_running_loop().time() + conf.DEADLINE
        try:
            async with asyncio.timeout_at(deadline):
                person, garment = await _gather(
                    _photo(self.order.person, field="user_image_url"),
                    _photo(self.order.garment, field="catalog_image_url"),
                )
        except TimeoutError as error:
            raise DeadlineExceeded from error
        request = TryOnRequest(
            person=person,
            garment=garment,
            prompt=self.order.prompt or conf.PROMPT,
            category=self.order.category,
            end_user=_pseudonym(self.order.user),
            request_id=self.order.request_id,
        )
        try:
            left = deadline - asyncio.get_running_loop().time()
            return await self.provider.try_on(request, timeout=left)
        except ProviderError as error:
            raise GenerationFailed(error) from error

    def leave(self, result: TryOnResult, present: Callable[[TryOn], T]) -> T:
        tryon = self._tryon
        assert tryon is not None  # noqa: S101 - enter() succeeded
        info = _inspect(result, self.provider)
        self._file = f"{tryon.file_stem}.{images.EXTENSIONS[info.content_type]}"
        try:
            self._file = TryOn.image.field.storage.save(self._file, _Whole(result.data))
            found = _describe(result, info, image=self._file, latency_ms=self._latency_ms())
            tryon.assign(**found)
            answer = present(tryon)  # before the charge: an answer that cannot be given is not paid for
            succeed(tryon, **found)
        except BaseException:
            # Here, because _fail() may run while this thread still writes, for a client that went away.
            if not tryon.is_stored():
                _delete(self._file)
            raise
        return answer

    def give_up(self, status: TryOn.Status, code: str, detail: str) -> None:
        """Settle the run without a picture; when it is still being admitted, leave that to ``enter``."""
        with self._lock:
            self._given_up = (status, code, detail)
            admitted = self._tryon is not None
        if admitted:
            self._fail(status, code, detail)

    def _fail(self, status: TryOn.Status, code: str, detail: str) -> None:
        assert self._tryon is not None  # noqa: S101 - callers looked
        try:
            ended = fail(self._tryon, status, code, detail, latency_ms=self._latency_ms())
            if ended and self._file:
                _delete(self._file)  # for a leave() that could not ask whether it was stored
        except Exception:
            # The error that brought us here matters more to the caller; the lease brings recover() here.
            logger.exception("Could not settle try-on %s; recover_tryons will.", self.id)

    def _latency_ms(self) -> int:
        return round((time.perf_counter() - self.started) * 1000)


# The moments that touch the database. Each is one short transaction.


def admit(run_id: uuid.UUID, order: Order, provider: AIProvider) -> TryOn:
    """Create the run and hold its price, or raise ``InsufficientCredits`` and leave no trace."""
    price = conf.PRICE if order.user is not None else 0
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
        created_at=now,
        lease_until=now + timedelta(seconds=conf.LEASE),
    )
    tryon.file_stem = file_stem(tryon)
    with transaction.atomic(using=database()):
        if order.user is not None:
            get_credits().hold(run_id, order.user, price)
        tryon.save(force_insert=True)
        _announce_on_commit(try_on_started, tryon)
    return tryon


def succeed(tryon: TryOn, **found: Any) -> None:
    """Charge for the stored picture, and write what was ``found`` about it; or raise and charge nothing."""
    with transaction.atomic(using=database()):
        if not tryon.finish(TryOn.Status.SUCCEEDED, **found):
            raise DeadlineExceeded("The try-on was given up before it was done. Nothing was charged.")
        if tryon.user is not None:
            get_credits().capture(tryon.pk, tryon.user, tryon.credits)
        _announce_on_commit(try_on_succeeded, tryon)


def fail(tryon: TryOn, status: TryOn.Status, code: str, detail: str, *, latency_ms: int | None = None) -> bool:
    """End the run without a picture and give its hold back; whether this call ended it."""
    with transaction.atomic(using=database()):
        ended = tryon.finish(status, error_code=code, error_detail=detail, latency_ms=latency_ms)
        if ended:
            if tryon.user is not None or tryon.credits:  # a hold of 0, where pictures are free, has an end too
                get_credits().release(tryon.pk, tryon.user, tryon.credits)
            _announce_on_commit(try_on_failed, tryon)
    return ended


def recover(now: datetime | None = None) -> list[TryOn]:
    """End the runs whose process died: no picture, no charge, no file. Safe beside living processes."""
    recovered = []
    for tryon in TryOn.objects.dead(now or timezone.now()).select_related("user").order_by("created_at"):
        try:
            ended = fail(tryon, TryOn.Status.FAILED, "abandoned", "The process that worked on it ended.")
        except Exception:
            logger.exception("Could not recover try-on %s; the others are not kept waiting.", tryon.pk)
            continue
        if ended:
            recovered.append(tryon)
            _delete_leftovers(tryon)
    return recovered


def _delete_leftovers(tryon: TryOn) -> None:
    """Delete what a dead process may have stored before it could charge for it."""
    for extension in images.EXTENSIONS.values():
        _delete(f"{tryon.file_stem}.{extension}")


def _delete(name: str) -> None:
    try:
        TryOn.image.field.storage.delete(name)
    except Exception:
        logger.exception("Could not delete %s, which belongs to no run.", name)


def _announce_on_commit(signal: Signal, tryon: TryOn) -> None:
    def announcement() -> None:  # a partial has no name, by which Django logs what fails after a commit
        announce(signal, tryon)

    transaction.on_commit(announcement, using=database(), robust=True)


def announce(signal: Signal, tryon: TryOn) -> None:
    """Tell the world. Receivers' errors are logged by Django, with the receiver's name."""
    succeeded = tryon.status == TryOn.Status.SUCCEEDED
    signal.send_robust(
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
    )


def _image_url(tryon: TryOn) -> str:
    try:
        return str(tryon.image.url)
    except Exception:
        # Receivers must hear of a run whatever its storage says.
        logger.exception("The storage gives no address for %s.", tryon.image.name)
        return ""


# Names


def _explain(error: Exception) -> tuple[str, str]:
    """The stable code of an error, and a text for the operator that fits any database and names no secret."""
    if not isinstance(error, TryOnError):
        # Anything may stand in the text of an error that nobody foresaw. The log has it.
        return TryOnError.code, type(error).__name__
    cause = error.__cause__ or error
    return error.code, _storable(f"{type(cause).__name__}: {cause}")[:1000]


def _storable(text: str) -> str:
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


def _pseudonym(user: User | None) -> str:
    """A stable id of the user that tells a vendor nothing else."""
    return salted_hmac("tryon.end_user", str(user.pk)).hexdigest()[:32] if user is not None else ""


def _choose(alias: str) -> AIProvider:
    try:
        return choose_provider(alias)
    except ImproperlyConfigured as error:
        logger.error("There is no provider to ask: %s", error)
        misconfigured = ProviderMisconfigured(str(error), provider=alias)
        raise GenerationFailed(misconfigured) from misconfigured


# The waiting part


async def _photo(source: str | bytes, *, field: str) -> Photo:
    data = await fetch(source, field=field) if isinstance(source, str) else source
    if len(data) > conf.MAX_IMAGE_BYTES:
        raise ImageTooLarge(
            f"{field}: the image has {len(data):,} bytes; the limit is {conf.MAX_IMAGE_BYTES:,}.", field=field
        )
    if images.is_quick(data):
        return images.normalise(data, field=field)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_decoders(), partial(images.normalise, data, field=field))


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="tryon-decode")


def _describe(result: TryOnResult, info: images.ImageInfo, *, image: str, latency_ms: int) -> dict[str, Any]:
    """The fields of a run that its picture fills; of what a provider says, only what any database takes."""
    cost = result.cost_usd
    return {
        "image": image,
        "content_type": info.content_type,
        "width": info.width,
        "height": info.height,
        "model": _storable(result.model)[:100],
        "provider_request_id": _storable(result.provider_id)[:200],
        "warnings": [_storable(warning) for warning in result.warnings],
        "usage": {_storable(name): count for name, count in result.usage.items() if 0 <= count <= MOST_COUNTED},
        "cost_usd": cost if cost is not None and 0 <= cost < MOST_DOLLARS else None,
        "latency_ms": latency_ms,
    }


def _inspect(result: TryOnResult, provider: AIProvider) -> images.ImageInfo:
    try:
        return images.inspect(result.data)
    except (NotAnImage, ImageTooLarge) as error:
        invalid = InvalidProviderResponse(
            f"{provider.name} sent {len(result.data):,} bytes that are no usable picture: {error}",
            provider=provider.alias,
            request_id=result.provider_id,
        )
        raise GenerationFailed(invalid) from invalid


async def _gather(first: Any, second: Any) -> tuple[Photo, Photo]:
    """Both at once; when one fails, the other is stopped and the first error is raised as it is."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        person, garment = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return person, garment


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in the request's thread, and give its database connection back."""

    def hop() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(hop)()


_detached: set[asyncio.Task[None]] = set()


async def _uncancelled(function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call ``function`` in a thread, in a task that a cancelled request cannot take along.

    The task has a context and a thread of its own: those of the request may end before it does.
    """

    async def work() -> None:
        async with ThreadSensitiveContext():
            await _in_thread(function, *args, **kwargs)

    task = asyncio.create_task(work(), context=contextvars.Context())
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    await asyncio.shield(task)
