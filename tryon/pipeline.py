"""The one flow behind every entrance: admit, fetch, generate, store, settle, announce (each of them in runs.py).

Two hops into a thread do all that needs the database: one to enter, one to leave. Between them the event loop
waits for downloads and the provider, and no database connection is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import logging
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from asgiref.sync import ThreadSensitiveContext
from django.core.files.base import ContentFile, File
from django.db import IntegrityError
from django.utils.crypto import salted_hmac

from providers.base import AIProvider, Photo, TryOnRequest, TryOnResult
from providers.errors import ProviderError

from . import bodies, decoding, images, runs
from . import request_id as request_ids
from .conf import conf
from .dispatch import Dispatch
from .exceptions import (
    DeadlineExceeded,
    GenerationFailed,
    ImageTooLarge,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    TryOnError,
    let_go_of_locals,
)
from .fetching import fetch
from .heartbeat import heartbeat
from .models import TryOn, connect
from .room import COPIES, downloads, memory
from .threads import in_thread

if TYPE_CHECKING:
    from django.contrib.auth.models import User

T = TypeVar("T")

logger = logging.getLogger("tryon.pipeline")

TRIES: Final = 3
"""To get an Idempotency-Key that another request takes and frees again in the meantime."""

GIVEN_UP: Final = "The try-on was given up before it was done. Nothing was charged."

_End: TypeAlias = "tuple[TryOn.Status, str, str]"
"""Status, code and detail of a run without a picture."""


async def execute(
    prepare: Callable[[], runs.Order], present: Callable[[TryOn], T], *, replay: Callable[[TryOn], T] | None = None
) -> T:
    """Run one order from beginning to end and return what ``present`` makes of the run.

    ``prepare`` is called in the entering hop and may use the database, as may ``present`` in the leaving one: it sees
    the run with its stored picture, about to succeed, and what it raises keeps it from being charged. Where the
    order's Idempotency-Key has its picture already, nothing is made: ``replay`` (else ``present``) sees that run.
    Raises ``TryOnError`` for every failure a client may hear of; whatever is raised, nothing was charged, except
    for ``OutcomeUnknown``.
    """
    if len(_under_way) >= conf.MAX_RUNS:
        raise Overloaded
    run = _Run(prepare, present, replay or present)
    await _settling(run, in_thread(run.enter))
    if not run.is_admitted:
        return run.answer
    _under_way.add(run)  # its place is not another's until the next step has begun
    work = _settling(run, run.work())
    if conf.ON_DISCONNECT == "finish" and run.order.idempotency_key and not run.order.no_store:
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
                await in_thread(run.give_up, TryOn.Status.FAILED, *_explain(error))
            raise
    except asyncio.CancelledError:  # at any moment, while a failure is settled as well
        await asyncio.shield(
            _detach(in_thread(run.give_up, TryOn.Status.CANCELLED, "cancelled", "The client went away."))
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


def _load(alias: str) -> int:
    """How many runs of this process are at a provider."""
    return sum(run.is_at(alias) for run in {*list(_under_way), *list(_in_threads)})


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


class _Run(Generic[T]):
    """One run in this process.

    A thread that works on it cannot be stopped when its client goes away. Thread and clean-up agree under a lock
    on who gives the credit back: the thread, if there is one, because it alone knows of its file. A run that ends
    without a picture and may leave a file says so in its row, for whatever kills the process before the file is gone.
    """

    answer: T
    """Of an earlier run, where the order's key has its picture already."""

    def __init__(
        self, prepare: Callable[[], runs.Order], present: Callable[[TryOn], T], replay: Callable[[TryOn], T]
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
        self._dispatch: Dispatch | None = None
        self._files: list[str] = []
        """What may have been written to the storage."""
        self._inputs: tuple[Photo, ...] = ()
        """The photos, where they are kept."""

    @property
    def is_admitted(self) -> bool:
        return self._tryon is not None

    def is_at(self, alias: str) -> bool:
        """Whether the run has a place at this provider."""
        return self._dispatch is not None and self._dispatch.place == alias

    def enter(self) -> None:
        """Admit the run; or set ``answer``, where the order's key has its picture already."""
        _in_threads.add(self)
        try:
            self.order = self._prepare()
            earlier = self._admit()
            if earlier is not None:
                self.answer = self._replay(earlier)
            elif self._tryon is not None:
                heartbeat.keep_alive(self.id)
        finally:
            self._leave_the_thread()

    def _admit(self, tries: int = TRIES) -> TryOn | None:
        """Admit the run; or return the one that answers its order."""
        earlier = runs.find_earlier(self.order)
        if earlier is None:
            dispatch = self._dispatch = Dispatch(self.order.provider, _load)
            priced = dispatch.begin()
            try:
                self._tryon = runs.admit(self.id, self.order, dispatch.provider, priced)
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
        return await in_thread(self.leave, result)

    def stop(self) -> None:
        """Wait no longer for the picture. One that is there already takes moments to be stored, and gets them."""
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def generate(self) -> TryOnResult:
        deadline = asyncio.get_running_loop().time() + conf.DEADLINE
        with contextlib.ExitStack() as room:
            try:
                return await self._ask(*await self._photos(room, deadline), deadline)
            except BaseException as error:
                let_go_of_locals(error)
                raise

    async def _photos(self, room: contextlib.ExitStack, deadline: float) -> tuple[Photo, Photo]:
        """Both photos, ready to leave; they take their place until ``room`` is closed."""
        decoding.give_back_memory()
        sources, fields = (self.order.person, self.order.garment), self.order.fields
        try:
            async with asyncio.timeout_at(deadline):
                with await downloads.enter(sum(isinstance(source, str) for source in sources)):
                    person, garment = await _gather(*map(_fetched, sources, fields))
                with contextlib.closing(person), contextlib.closing(garment):
                    # Both together: runs that held memory for one photo could wait for each other's.
                    place = room.enter_context(await memory.enter(COPIES * (person.size + garment.size)))
                    photos = await _gather(*map(_normalised, (person, garment), fields))
        except TimeoutError as error:
            raise DeadlineExceeded from error
        place.shrink(COPIES * sum(len(photo.data) for photo in photos))
        return photos

    async def _ask(self, person: Photo, garment: Photo, deadline: float) -> TryOnResult:
        if conf.KEEP_INPUTS and not self.order.no_store:
            self._inputs = person, garment
        request = TryOnRequest(
            person=person,
            garment=garment,
            prompt=self.order.prompt or conf.PROMPT,
            category=self.order.category,
            seed=self.order.seed,
            pictures=self.order.pictures,
            size=self.order.size,
            output_format=self.order.output_format,
            end_user=_pseudonym(self.order.user),
            request_id=self.order.request_id,
        )
        self.is_asked = True
        dispatch = self._dispatch
        assert dispatch is not None  # noqa: S101 - the run is admitted
        try:
            result = await dispatch.generate(
                request, deadline=deadline, note_job=self._note_job, fields=self.order.fields
            )
            return dataclasses.replace(result, warnings=(*self.order.warnings, *result.warnings))
        except ProviderError as error:
            raise GenerationFailed(error) from error
        finally:
            if dispatch.job and sys.exception() is not None:
                await asyncio.shield(_detach(dispatch.withdraw(), request_id=self.order.request_id))

    async def _note_job(self, provider: AIProvider, job: str) -> None:
        assert self._tryon is not None and self._dispatch is not None  # noqa: PT018, S101 - the provider was asked
        self._has_job = True
        found = {"attempts": runs.describe_attempts(self._dispatch.asked()), **_names(provider)}
        if not await in_thread(self._tryon.note_job, runs.storable(job), **found):
            raise DeadlineExceeded(GIVEN_UP)

    def leave(self, result: TryOnResult) -> T:
        """Store the picture and charge for it."""
        with self._lock:
            if self._given_up:
                raise runs.Unwanted
            self._is_in_a_thread = True
        _in_threads.add(self)
        try:
            answer = self._store(result)
            self._given_up = None  # too late: it was charged
            if self.order.no_store:
                self._forget()
            heartbeat.let_go(self.id)
            return answer
        finally:
            self._leave_the_thread()

    def _forget(self) -> None:
        """Delete what was only for the answer. It is charged, and nothing about it may fail any more."""
        assert self._tryon is not None  # noqa: S101 - it was charged
        try:
            runs.forget(self._tryon, *self._files)
        except Exception:
            logger.exception("The picture of %s is still in the storage; recover_tryons will delete it.", self.id)

    def _store(self, result: TryOnResult) -> T:
        tryon, dispatch = self._tryon, self._dispatch
        assert tryon is not None and dispatch is not None  # noqa: PT018, S101 - enter() succeeded
        connect()  # the picture has been paid for: it is not to fail for a connection that died in the meantime
        try:
            looked = runs.inspect(result, dispatch.provider, tryon.pictures, self._inputs)
        except GenerationFailed as error:
            dispatch.refuse(error.code)
            raise
        self._files = [f"{tryon.file_stem}{file.suffix}" for file in looked.all_files]
        try:
            self._files = runs.store(tryon, looked)
            found = runs.describe(result, looked, self._files, dispatch.provider, latency_ms=self._latency_ms())
            found = found | self._found() | {"model": found["model"]}  # the one that the answer names
            tryon.assign(**found)
            if tryon.no_store:
                tryon.unkept = result.data, *result.more[: tryon.pictures - 1]
                tryon.unkept_video = result.video
            answer = self._present(tryon)  # before the charge: an answer that cannot be given is not paid for
            if not runs.succeed(tryon, is_wanted=lambda: self._given_up is None, **found):
                raise OutcomeUnknown from DeadlineExceeded(GIVEN_UP)  # recovery knows how it ended
        except BaseException as error:  # noqa: BLE001 - raised again, unless the picture was charged in spite of it
            return self._in_spite_of(error)
        return answer

    def _in_spite_of(self, error: BaseException) -> T:
        """The answer, if the picture was charged; else end the run, delete its files, and raise ``error``.

        It may have been charged by a commit whose answer was lost, or by recovery, for a process that seemed dead.
        The run is ended first, which waits for a commit that is still under way, and keeps recovery from charging for
        a file that is about to go.
        """
        tryon = self._tryon
        assert tryon is not None  # noqa: S101 - it has a file
        reason = error.__cause__ or error if isinstance(error, OutcomeUnknown) else error
        try:
            end = self._given_up or (TryOn.Status.FAILED, *_explain(reason))
            found = {"latency_ms": self._latency_ms(), **self._found()}
            ended = runs.fail(tryon, *end, has_leftovers=True, **found)
            image = "" if ended else tryon.stored_image()
        except Exception:  # noqa: BLE001 - give_up() tries to end it once more, and logs
            if isinstance(error, OutcomeUnknown):
                raise error from error.__cause__
            image = ""  # for sure: nothing was committed
        if image not in self._files and runs.delete(*self._files):
            self._files = []
        if not image:
            raise reason from None
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
            has_leftovers = bool(self._files) or self._has_job
            found = {"latency_ms": self._latency_ms(), **self._found()}
            runs.fail(self._tryon, status, code, detail, has_leftovers=has_leftovers, **found)
        except Exception:
            # The error that brought us here matters more to the caller; the lease brings recovery here.
            logger.exception("Could not settle try-on %s; recover_tryons will.", self.id)
        finally:
            heartbeat.let_go(self.id)
            if self._dispatch is not None:
                self._dispatch.end()

    def _found(self) -> dict[str, Any]:
        """What the run's row is told of the providers, however it ends."""
        assert self._dispatch is not None  # noqa: S101 - the run is admitted
        attempts = self._dispatch.attempts
        return {
            "attempts": runs.describe_attempts(attempts),
            "cost_usd": runs.spent(attempts),
            **_names(self._dispatch.provider),
        }

    def _latency_ms(self) -> int:
        return round((time.perf_counter() - self.started) * 1000)


def _names(provider: AIProvider) -> dict[str, str]:
    """The fields of a run that say who was asked."""
    return {"provider": provider.alias[:50], "model": runs.storable(provider.model)[:100]}


def _explain(error: BaseException) -> tuple[str, str]:
    """The stable code of an error, and a text for the operator that fits any database and names no secret."""
    if not isinstance(error, TryOnError):
        # Anything may stand in the text of an error that nobody foresaw. The log has it.
        return TryOnError.code, type(error).__name__
    cause = error.__cause__ or error
    return error.code, runs.storable(f"{type(cause).__name__}: {cause}")[:1000]


def _pseudonym(user: User | None) -> str:
    """A stable id of the user that tells a vendor nothing else."""
    return salted_hmac("tryon.end_user", str(user.pk)).hexdigest()[:32] if user is not None else ""


# The waiting part


async def _fetched(source: runs.Source, field: str) -> File[bytes]:
    """The photo as a file, which the caller closes. It is loaded when there is room for it."""
    if isinstance(source, str):
        return await fetch(source, field=field)
    file = ContentFile(source) if isinstance(source, bytes) else source
    if file.size > conf.MAX_IMAGE_BYTES:
        raise ImageTooLarge(bodies.image_too_large(field, file.size), field=field)
    return file


async def _normalised(file: File[bytes], field: str) -> Photo:
    """The photo, ready to leave."""
    if file.size <= images.QUICK_BYTES:
        data = file.read()
        if images.is_quick(data):
            return images.normalise(data, field=field)
        file.seek(0)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(images.decoders(), _read_and_normalise, file, field)


def _read_and_normalise(file: File[bytes], field: str) -> Photo:
    return images.normalise(file.read(), field=field)


async def _gather(first: Awaitable[T], second: Awaitable[T]) -> tuple[T, T]:
    """Both at once; when one fails, the other is stopped and the first error is raised as it is."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        one, other = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, File):
                result.close()
        raise
    return one, other


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
