"""The one flow behind every entrance: admit, fetch, generate, store, settle, announce.

Two hops into a thread do all that needs the database: one to enter, one to leave. Between them the event loop
waits for downloads and the provider, and no database connection is held.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import IntegrityError, close_old_connections, transaction
from django.dispatch import Signal
from django.utils import timezone
from django.utils.crypto import salted_hmac

from providers.base import AIProvider, Category, Photo, TryOnRequest, TryOnResult
from providers.errors import InvalidProviderResponse, ProviderError, ProviderMisconfigured

from . import images
from . import request_id as request_ids
from .conf import conf
from .credits import get_credits, price_of
from .dispatch import choose_provider
from .exceptions import (
    DeadlineExceeded,
    GenerationFailed,
    ImageTooLarge,
    KeyInUse,
    KeyReused,
    NotAnImage,
    OutcomeUnknown,
    ShuttingDown,
    TryOnError,
)
from .fetching import fetch
from .heartbeat import expiry, heartbeat
from .models import TryOn, connect, database
from .receivers import record_usage
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

TRIES: Final = 3
"""To get an Idempotency-Key that another request takes and frees again in the meantime."""

GIVEN_UP: Final = "The try-on was given up before it was done. Nothing was charged."

_End: TypeAlias = "tuple[TryOn.Status, str, str]"
"""Status, code and detail of a run without a picture."""


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


async def execute(
    prepare: Callable[[], Order], present: Callable[[TryOn], T], *, replay: Callable[[TryOn], T] | None = None
) -> T:
    """Run one order from beginning to end and return what ``present`` makes of the run.

    ``prepare`` is called in the entering hop and may use the database, as may ``present`` in the leaving one: it sees
    the run with its stored picture, about to succeed, and what it raises keeps it from being charged. Where the
    order's Idempotency-Key has its picture already, nothing is made: ``replay`` (else ``present``) sees that run.
    Raises ``TryOnError`` for every failure a client may hear of; whatever is raised, nothing was charged, except
    for ``OutcomeUnknown``.
    """
    run = _Run(prepare, present, replay or present)
    await _settling(run, _in_thread(run.enter))
    if not run.is_admitted:
        return run.answer
    work = _settling(run, run.work())
    if conf.ON_DISCONNECT == "finish" and run.order.idempotency_key:
        return await _outliving(run, work)
    return await work


async def _settling(run: _Run[Any], step: Coroutine[Any, Any, T]) -> T:
    """Await a step of ``run``. Whatever ends it early gives the credit back."""
    _under_way.add(run)
    try:
        try:
            return await step
        except Exception as error:
            if run.is_admitted:
                await _in_thread(run.give_up, TryOn.Status.FAILED, *_explain(error))
            raise
    except asyncio.CancelledError:  # at any moment, while a failure is settled as well
        await asyncio.shield(
            _detach(_in_thread(run.give_up, TryOn.Status.CANCELLED, "cancelled", "The client went away."))
        )
        raise
    finally:
        _under_way.discard(run)


async def _outliving(run: _Run[T], work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` in a task that goes on without its client once the provider was asked."""
    run.outlives_its_client = True
    task = _detach(work, request_id=run.order.request_id)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_unexpected)
        if not run.is_asked:
            task.cancel()
        raise


def _log_unexpected(task: asyncio.Task[Any]) -> None:
    """Nobody waits for this task, so nobody else would tell of its error. The run itself has failed properly."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, TryOnError):
        logger.error("Unexpected error in a run whose client had gone.", exc_info=error)


_under_way: set[_Run[Any]] = set()
"""Runs of this process that have not ended, whether or not a request waits for them."""

_in_threads: set[_Run[Any]] = set()
"""Those that a thread works on, which goes on when its request is cancelled."""


def is_busy() -> bool:
    """Whether this process makes pictures, or cleans up after some."""
    return bool(_under_way or _in_threads or _detached)


def stop(*, outliving: bool = True) -> None:
    """End the runs that wait for their pictures, as ``ShuttingDown``; or only those that do not outlive a client.

    Called in the event loop. A run that is still entering is not reached: call again while ``is_busy()``.
    """
    for run in list(_under_way):
        if outliving or not run.outlives_its_client:
            run.stop()


class _Whole(ContentFile):  # type: ignore[type-arg]  # it cannot be subscripted at run time
    """A picture that is written at once. Of Django's 64 kB pieces each would wait for its turn among the threads."""

    DEFAULT_CHUNK_SIZE = sys.maxsize


class _Unwanted(Exception):
    """Nobody waits for this run any more."""


class _Run(Generic[T]):
    """One run in this process.

    A thread that works on it cannot be stopped when its client goes away. Thread and clean-up agree under a lock
    on who gives the credit back: the thread, if there is one, because it alone knows of its file. A run that ends
    without a picture and may leave a file says so in its row, for whatever kills the process before the file is gone.
    """

    answer: T
    """Of an earlier run, where the order's key has its picture already."""

    def __init__(
        self, prepare: Callable[[], Order], present: Callable[[TryOn], T], replay: Callable[[TryOn], T]
    ) -> None:
        self.id = uuid.uuid4()
        self.started = time.perf_counter()
        self.is_asked = False
        """Whether the provider has been asked, which may cost money."""
        self.outlives_its_client = False
        self._waiting: asyncio.Timeout | None = None
        self._prepare, self._present, self._replay = prepare, present, replay
        self._lock = threading.Lock()
        self._is_in_a_thread = True
        self._given_up: _End | None = None
        self._has_job = False
        """Whether recovery might have stored a picture as well: the vendor's own, by the job's id."""
        self._tryon: TryOn | None = None
        self._file = ""

    @property
    def is_admitted(self) -> bool:
        return self._tryon is not None

    def enter(self) -> None:
        """Admit the run; or set ``answer``, where the order's key has its picture already."""
        _in_threads.add(self)
        try:
            self.order = self._prepare()
            self.provider = _choose(self.order.provider)
            earlier = self._admit()
            if earlier is not None:
                self.answer = self._replay(earlier)
            elif self._tryon is not None:
                heartbeat.keep_alive(self.id)
        finally:
            self._leave_the_thread()

    def _admit(self, tries: int = TRIES) -> TryOn | None:
        """Admit the run; or return the one that answers its order."""
        earlier = find_earlier(self.order)
        if earlier is None:
            try:
                self._tryon = admit(self.id, self.order, self.provider)
            except IntegrityError:
                if tries == 1 or not self.order.idempotency_key:
                    raise
                # Another process was a moment faster with the same key. It may have failed since, which frees the key.
                return self._admit(tries - 1)
        return earlier

    async def work(self) -> T:
        try:
            async with asyncio.timeout(None) as self._waiting:
                result = await self.generate()
        except TimeoutError:  # of stop(); generate() calls its own deadline by another name
            raise ShuttingDown from None
        finally:
            self._waiting = None
        return await _in_thread(self.leave, result)

    def stop(self) -> None:
        """Wait no longer for the picture. One that is there already takes moments to be stored, and gets them."""
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

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
            note_job=self._note_job,
        )
        self.is_asked = True
        try:
            left = deadline - asyncio.get_running_loop().time()
            return await self.provider.try_on(request, timeout=left)
        except ProviderError as error:
            raise GenerationFailed(error) from error

    async def _note_job(self, job: str) -> None:
        assert self._tryon is not None  # noqa: S101 - the provider was asked
        self._has_job = True
        if not await _in_thread(self._tryon.note_job, _storable(job)):
            raise DeadlineExceeded(GIVEN_UP)

    def leave(self, result: TryOnResult) -> T:
        """Store the picture and charge for it."""
        with self._lock:
            if self._given_up:
                raise _Unwanted
            self._is_in_a_thread = True
        _in_threads.add(self)
        try:
            answer = self._store(result)
            self._given_up = None  # too late: it was charged
            heartbeat.let_go(self.id)
            return answer
        finally:
            self._leave_the_thread()

    def _store(self, result: TryOnResult) -> T:
        tryon = self._tryon
        assert tryon is not None  # noqa: S101 - enter() succeeded
        connect()  # the picture has been paid for: it is not to fail for a connection that died in the meantime
        info = inspect(result, self.provider)
        self._file = file_name(tryon, info)
        try:
            self._file = store(tryon, result, info)
            found = describe(result, info, image=self._file, latency_ms=self._latency_ms())
            tryon.assign(**found)
            answer = self._present(tryon)  # before the charge: an answer that cannot be given is not paid for
            if not succeed(tryon, is_wanted=lambda: self._given_up is None, **found):
                raise OutcomeUnknown from DeadlineExceeded(GIVEN_UP)  # recovery knows how it ended
        except BaseException as error:  # noqa: BLE001 - raised again, unless the picture was charged in spite of it
            return self._in_spite_of(error)
        return answer

    def _in_spite_of(self, error: BaseException) -> T:
        """The answer, if the picture was charged; else end the run, delete its file, and raise ``error``.

        It may have been charged by a commit whose answer was lost, or by recovery, for a process that seemed dead.
        The run is ended first, which waits for a commit that is still under way, and keeps recovery from charging for
        a file that is about to go.
        """
        tryon = self._tryon
        assert tryon is not None  # noqa: S101 - it has a file
        try:
            end = self._given_up or (TryOn.Status.FAILED, *_explain(error))
            ended = fail(tryon, *end, latency_ms=self._latency_ms(), has_leftovers=True)
            image = "" if ended else tryon.stored_image()
        except Exception:  # noqa: BLE001 - give_up() tries to end it once more, and logs
            if isinstance(error, OutcomeUnknown):
                raise error from error.__cause__
            image = ""  # for sure: nothing was committed
        if image != self._file and delete(self._file):
            self._file = ""
        if not image:
            raise (error.__cause__ or error if isinstance(error, OutcomeUnknown) else error) from None
        tryon.assign(image=image)  # recovery may have stored the vendor's own copy
        return self._present(tryon)

    def _leave_the_thread(self) -> None:
        """Let go of the run; or end it, if its client went away in the meantime."""
        with self._lock:
            self._is_in_a_thread = False
            given_up = self._given_up
        if given_up and self.is_admitted:
            self._fail(*given_up)
        _in_threads.discard(self)

    def give_up(self, status: TryOn.Status, code: str, detail: str) -> None:
        """End the run without a picture; when a thread works on it, leave that to the thread."""
        with self._lock:
            self._given_up = (status, code, detail)
            if self._is_in_a_thread:
                return
        if self.is_admitted:
            self._fail(status, code, detail)

    def _fail(self, status: TryOn.Status, code: str, detail: str) -> None:
        assert self._tryon is not None  # noqa: S101 - callers looked
        try:
            connect()
            has_leftovers = bool(self._file) or self._has_job
            fail(self._tryon, status, code, detail, latency_ms=self._latency_ms(), has_leftovers=has_leftovers)
        except Exception:
            # The error that brought us here matters more to the caller; the lease brings recovery here.
            logger.exception("Could not settle try-on %s; recover_tryons will.", self.id)
        finally:
            heartbeat.let_go(self.id)

    def _latency_ms(self) -> int:
        return round((time.perf_counter() - self.started) * 1000)


# The moments that touch the database. Each is one short transaction.


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
    """Create the run and hold its price, or raise ``InsufficientCredits`` and leave no trace.

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
    with transaction.atomic(using=database()):
        # The run first: of two requests with one key the second fails here, and not for want of a credit.
        tryon.save(force_insert=True)
        if order.user is not None:
            get_credits().hold(run_id, order.user, price)
        _announce_on_commit(try_on_started, tryon)
    return tryon


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
                raise _Unwanted
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


def _explain(error: BaseException) -> tuple[str, str]:
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


def file_name(tryon: TryOn, info: images.ImageInfo) -> str:
    return f"{tryon.file_stem}.{images.EXTENSIONS[info.content_type]}"


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


def describe(result: TryOnResult, info: images.ImageInfo, *, image: str, latency_ms: int) -> dict[str, Any]:
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


_detached: set[asyncio.Task[Any]] = set()
"""Tasks of this process that no request waits for; the event loop itself holds them only weakly."""


def _detach(work: Coroutine[Any, Any, T], *, request_id: str = "") -> asyncio.Task[T]:
    """A task that a cancelled request cannot take along.

    It has a context and a thread of its own: those of the request may end before it does.
    """

    async def in_a_thread_of_its_own() -> T:
        request_ids.current.set(request_id)
        async with ThreadSensitiveContext():
            return await work

    task = asyncio.create_task(in_a_thread_of_its_own(), context=contextvars.Context())
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    return task
