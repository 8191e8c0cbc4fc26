"""Which provider makes the picture, how often it is asked, and who is asked when it cannot.

Retries are here and nowhere else: adapters ask once, SDKs are told not to. A call that may have been carried out and
can be looked up, a job's, is never made a second time; it is asked for by the job's id.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from providers.base import AIProvider, Photo, TryOnRequest, TryOnResult
from providers.errors import (
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    UnsupportedFeature,
)
from providers.registry import ProviderRegistry

from . import circuit, images
from .conf import conf
from .exceptions import DeadlineExceeded, GenerationFailed, Overloaded, let_go_of_locals
from .signals import provider_alert
from .threads import in_thread

logger = logging.getLogger("tryon.dispatch")

LOOK_UPS: Final = 10
"""How often a job that is under way is asked for again, when asking fails. It costs nothing but time."""
LONGEST_PAUSE: Final = 8.0
"""Seconds between two retries, unless the provider asks for more."""
PATIENCE: Final = 10.0
"""Seconds; a provider that asks for a longer pause is left for the next one, where there is one."""
SHORTEST_ATTEMPT: Final = 0.05
"""Seconds; with less than that left nobody is asked."""
SHARE: Final = 2 / 3
"""Of the time that is left, for a provider that has a fallback and no TIMEOUT of its own."""
FAIR_CHANCE: Final = 10.0
"""Seconds, or half the DEADLINE: a provider that had less than that is not blamed for a timeout."""
CANCEL_TIMEOUT: Final = 5.0
"""Seconds a vendor gets to hear that nobody wants its job any more."""
ALERT_EVERY: Final = 300
"""Seconds between two alerts of the same kind about a provider."""

providers = ProviderRegistry(lambda: conf.PROVIDERS)
"""The providers of the settings, by alias."""


def choose_provider(alias: str = "") -> AIProvider:
    """The provider called ``alias``, by default the one of the settings. Raise ``ImproperlyConfigured``."""
    return providers[alias or conf.PROVIDER]


def aliases_in_use() -> list[str]:
    """The provider of the settings, and those that stand in for it."""
    if not isinstance(conf.FALLBACK_PROVIDERS, list | tuple) or not isinstance(conf.PROVIDERS, Mapping):
        return []  # tryon.E001
    return list(dict.fromkeys([conf.PROVIDER, *conf.FALLBACK_PROVIDERS]))


def forget_providers(*, setting: str, **kwargs: Any) -> None:
    """Receiver of ``setting_changed``, so that ``override_settings`` reaches the providers."""
    if setting == "TRYON":
        providers.clear()
        budgets.clear()


async def close_providers() -> None:
    """Close what the providers opened on the running event loop."""
    for provider in providers.created():
        try:
            await provider.aclose()
        except Exception:
            logger.exception("Provider %r could not be closed.", provider.alias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One time that a provider was asked for the picture of a run, or passed over."""

    provider: str
    model: str
    started: datetime
    duration_ms: int = 0
    outcome: str
    """``succeeded``, ``cancelled``, the error's code, or why it was not asked: ``circuit_open``, ``busy``.

    ``asked`` is that of a job whose process died while it waited.
    """
    request_id: str = ""
    """The vendor's own id of the call, or of the job."""
    cost_usd: Decimal | None = None


class RetryBudget:
    """How many retries a provider may get, so that a broken one is not hammered: a tenth of its runs, one a minute.

    After Finagle's RetryBudget: a bucket of tokens, full at first. A retry takes one; a run, and time, bring a part.
    """

    MOST: Final = 10.0
    PER_RUN: Final = 0.1
    PER_SECOND: Final = 1 / 60

    def __init__(self) -> None:
        self._tokens = self.MOST
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """A run asks the provider."""
        with self._lock:
            self._fill(self.PER_RUN)

    def spend(self) -> bool:
        """Whether there is a token for one more retry; if so, it is taken."""
        with self._lock:
            self._fill(0)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _fill(self, more: float) -> None:
        now = time.monotonic()
        self._tokens = min(self.MOST, self._tokens + more + (now - self._filled) * self.PER_SECOND)
        self._filled = now


budgets: dict[str, RetryBudget] = {}
"""By alias, of this process."""

_choosing = threading.Lock()
"""Held while a place at a provider is looked for and taken."""


class Dispatch:
    """The way of one run through the providers.

    ``alias`` is of a provider that somebody asks for by name, and no other; empty means those of the settings.
    ``load`` says how many runs of this process are at a provider.
    """

    provider: AIProvider
    """The one that is asked, or was asked last; none before ``begin()``."""
    _fitted: TryOnRequest | None = None
    """The request with the photos as that provider takes them."""

    def __init__(self, alias: str, load: Callable[[str], int]) -> None:
        self._aliases = [alias] if alias else aliases_in_use()
        self._is_named = bool(alias)
        self._load = load
        self._request: TryOnRequest | None = None
        self._is_probe = False
        """Whether this run is to find out how a half-open provider is, and does not know yet."""
        self._has_probed = False
        self._is_over = False
        self._priced: AIProvider | None = None
        self.place = ""
        """Alias of the provider at which the run has a place; empty before ``begin()``."""
        self.job = ""
        """Id of a job at that provider which may still give a picture."""
        self.attempts: list[Attempt] = []
        self._states: dict[str, circuit.State] = {}
        self._deadline = 0.0
        self._started = timezone.now()
        """Of the latest attempt."""
        self._had_a_chance = True
        """Whether that had the time that it takes."""

    # Entering, in a thread

    def begin(self) -> AIProvider:
        """Take a place at the first provider that may be asked, and return the one whose price counts.

        Raise ``GenerationFailed`` if the settings' provider cannot be used or all circuits are open, and
        ``Overloaded`` if all places are taken.
        """
        priced = self._priced = self._create(self._aliases[0])
        if not self._is_named:
            self._states = circuit.states(self._aliases)
        while self._aliases:
            if self._take(self._aliases.pop(0)):
                return priced
        raise self._no_place()

    @staticmethod
    def _create(alias: str) -> AIProvider:
        try:
            return providers[alias]
        except ImproperlyConfigured as error:
            misconfigured = ProviderMisconfigured(str(error), provider=alias)
            alert(misconfigured)
            raise GenerationFailed(misconfigured) from misconfigured

    def _take(self, alias: str) -> bool:
        """Take a place at this provider, if it can be used now and has one; whether it has."""
        try:
            provider = providers[alias]
        except ImproperlyConfigured as error:
            logger.error("The fallback cannot be used: %s", error)
            return False
        if self._states.get(alias, circuit.CLOSED).name == "open":
            self._pass_over(provider, "circuit_open")
            return False
        if self._request is not None and not self._can(provider, self._request):
            return False
        most = conf.PROVIDERS[alias].get("MAX_RUNS")
        with _choosing:
            if most is not None and self._load(alias) >= most:
                self._pass_over(provider, "busy")
                return False
            self.provider, self.place, self._has_probed = provider, alias, False
        return True

    def _pass_over(self, provider: AIProvider, outcome: str) -> None:
        attempt = Attempt(provider=provider.alias, model=provider.model, started=timezone.now(), outcome=outcome)
        self.attempts.append(attempt)

    def _no_place(self) -> GenerationFailed | Overloaded:
        if any(attempt.outcome == "busy" for attempt in self.attempts):
            return Overloaded()
        wait = min((state.wait for state in self._states.values() if state.wait), default=conf.CIRCUIT_PAUSE)
        names = ", ".join(attempt.provider for attempt in self.attempts if attempt.outcome == "circuit_open")
        error = ProviderUnavailable(f"The circuit is open: {names}.", provider=names, retry_after=wait)
        failure = GenerationFailed(error)
        failure.__cause__ = error
        return failure

    # Waiting, in the event loop

    async def generate(
        self,
        request: TryOnRequest,
        *,
        deadline: float,
        note_job: Callable[[AIProvider, str], Awaitable[None]],
        fields: tuple[str, str],
    ) -> TryOnResult:
        """The picture, by ``deadline`` in the event loop's time. Raise the ``ProviderError`` of the last attempt.

        ``note_job`` is awaited with a provider and the id of its job, before the job is waited for. ``fields`` are the
        names of both photos in the order, for refusals.
        """
        self._request, self._deadline, self._note_job, self._fields = request, deadline, note_job, fields
        failure: ProviderError | None = None
        try:
            stands_in = self.provider is not self._priced
            if stands_in and not self._can(self.provider, request) and not await self._fall_back():
                raise self._no_place()
            while True:
                try:
                    return await self._persist()
                except ProviderError as error:
                    failure = error
                if self.job or not isinstance(failure, ProviderUnavailable) or not await self._fall_back():
                    # Out of the except block: what happens there would count as its cause.
                    raise failure
        finally:
            # The photos are large, and whoever holds them in a circle keeps them until the garbage collector comes.
            self._request = self._fitted = None
            del self._note_job, failure

    async def _fall_back(self) -> bool:
        """Go on to the next provider that may be asked for this; whether there is one."""
        while self._aliases and self._left() > SHORTEST_ATTEMPT:
            alias = self._aliases.pop(0)
            if self._take(alias):
                logger.warning("The picture is asked of %r instead.", alias)
                return True
        return False

    def _can(self, provider: AIProvider, request: TryOnRequest) -> bool:
        try:
            provider.demand(request)
        except UnsupportedFeature as error:
            self._pass_over(provider, error.code)
            return False
        return True

    async def _persist(self) -> TryOnResult:
        """Ask the provider, and again as long as that makes sense."""
        provider = self.provider
        was_half_open = self._states.get(provider.alias) == circuit.HALF_OPEN
        if was_half_open and not await in_thread(self._look_again, provider.alias):
            self._pass_over(provider, "circuit_open")
            raise ProviderUnavailable("The circuit is half-open, and another run probes.", provider=provider.alias)
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._fit_photos()
        except TimeoutError as error:
            raise DeadlineExceeded from error
        budget = budgets.setdefault(provider.alias, RetryBudget())
        budget.deposit()
        retry = 0
        while True:
            try:
                return await self._ask(provider)
            except ProviderError as error:
                pause = self._pause(error, retry, budget)
                if pause is None:
                    await self._learn(error)
                    raise
            retry += 1
            await asyncio.sleep(pause)

    def _look_again(self, alias: str) -> bool:
        """Whether a provider may be asked whose circuit was half-open as the run entered. In a thread.

        Another run may have closed it since, or opened it anew.
        """
        is_probe = circuit.claim_probe(alias)
        state = circuit.states([alias])[alias]
        if is_probe and state != circuit.HALF_OPEN:
            is_probe = False
            circuit.give_up_probe(alias)
        self._is_probe = self._has_probed = is_probe
        if self._is_over:  # the client went away before the cache had answered
            self.end()
        return is_probe or state.is_closed

    def _pause(self, error: ProviderError, retry: int, budget: RetryBudget) -> float | None:
        """Seconds until the provider is asked once more; None if it is not."""
        most = LOOK_UPS if self.job else conf.RETRIES
        if retry >= most or not (self.job or (error.retryable and not self._has_probed)):
            return None
        pause = random.uniform(0, min(conf.RETRY_PAUSE * 2**retry, LONGEST_PAUSE))  # noqa: S311 - jitter, no secret
        pause += error.retry_after or 0
        if pause + SHORTEST_ATTEMPT > self._left() or (pause > PATIENCE and self._aliases and not self.job):
            return None
        return pause if self.job or budget.spend() else None

    async def _ask(self, provider: AIProvider) -> TryOnResult:
        """One attempt, written down."""
        self._started, clock = timezone.now(), time.perf_counter()
        outcome, result, request_id = "error", None, self.job
        try:
            result = await self._call(provider)
            outcome = "succeeded"
            request_id = result.provider_id or self.job
        except ProviderError as error:
            outcome, request_id = error.code, error.request_id or self.job
            if error.job_is_over or not (error.retryable or isinstance(error, InvalidProviderResponse)):
                self.job = ""
            let_go_of_locals(error)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.attempts.append(
                Attempt(
                    provider=provider.alias,
                    model=result.model if result else provider.model,
                    started=self._started,
                    duration_ms=round((time.perf_counter() - clock) * 1000),
                    outcome=outcome,
                    request_id=request_id,
                    cost_usd=result.cost_usd if result else None,
                )
            )
        if self._is_probe:
            await in_thread(circuit.note_success, provider.alias)
            self._is_probe = False
        return result

    async def _call(self, provider: AIProvider) -> TryOnResult:
        timeout = self._timeout(provider)
        fair = conf.PROVIDERS[provider.alias].get("TIMEOUT") or FAIR_CHANCE
        self._had_a_chance = timeout >= min(fair, conf.DEADLINE / 2)
        if self.job:
            return await provider.look_up(self.job, timeout=timeout)
        assert self._fitted is not None  # noqa: S101 - of _persist()
        request = dataclasses.replace(self._fitted, note_job=self._note)
        return await provider.try_on(request, timeout=timeout)

    def _timeout(self, provider: AIProvider) -> float:
        """Seconds for one attempt."""
        left = self._left()
        own: float | None = conf.PROVIDERS[provider.alias].get("TIMEOUT")
        if self.job:
            return left  # it takes as long as it takes, and nobody else is asked for it
        if own is not None:
            return min(left, own)
        # One that hangs leaves time for the next; where there is a job, there is no next.
        return left * SHARE if self._aliases and not provider.keeps_jobs else left

    async def _fit_photos(self) -> None:
        """The photos as this provider takes them. Raise ``UnusableImage`` for one that cannot be decoded."""
        assert self._request is not None  # noqa: S101 - of generate()
        person = await self._fit(self._request.person, field=self._fields[0])
        garment = await self._fit(self._request.garment, field=self._fields[1])
        self._fitted = dataclasses.replace(self._request, person=person, garment=garment)

    async def _fit(self, photo: Photo, *, field: str) -> Photo:
        types, most = self.provider.photo_types, self.provider.max_photo_bytes
        if photo.content_type in types and len(photo.data) <= most:
            return photo
        fitting = functools.partial(images.fit, photo, field=field, types=types, max_bytes=most)
        return await asyncio.get_running_loop().run_in_executor(images.decoders(), fitting)

    async def _note(self, job: str) -> None:
        self.job = job
        await self._note_job(self.provider, job)

    async def _learn(self, error: ProviderError) -> None:
        """What it says about the provider that it has failed a run, to the circuit and to the operator.

        Once a run, after its retries: one shopper's trouble is not to keep the provider from all others. A job that
        the vendor took and could not do is about the photos as likely as about the vendor.
        """
        alias = self.provider.alias
        in_passing = isinstance(error, ProviderTimeout) and not self._had_a_chance
        if isinstance(error, UnsupportedFeature) or in_passing:
            return  # it was not asked, or not properly
        if isinstance(error, ProviderMisconfigured):
            await in_thread(alert, error, self.provider.model)
        is_away = isinstance(error, ProviderUnavailable) and not isinstance(error, ProviderRateLimited)
        if is_away and not error.job_is_over:
            if await in_thread(circuit.note_failure, alias, was_probe=self._is_probe):
                await in_thread(alert, error, self.provider.model, code="circuit_open")
        elif self._is_probe:  # it answers, which is what was asked
            await in_thread(circuit.note_success, alias)
        self._is_probe = False

    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    def asked(self) -> list[Attempt]:
        """The attempts so far, and the one that waits for its job."""
        provider, job = self.provider, self.job
        asked = Attempt(
            provider=provider.alias, model=provider.model, started=self._started, outcome="asked", request_id=job
        )
        return [*self.attempts, asked]

    # Leaving

    def refuse(self, code: str) -> None:
        """What the last attempt gave is no picture after all."""
        self.attempts[-1] = dataclasses.replace(self.attempts[-1], outcome=code)

    async def withdraw(self) -> None:
        """Tell the vendor that nobody wants the job any more. What goes wrong with that is logged."""
        job, self.job = self.job, ""
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT):
                await self.provider.cancel(job)
        except (ProviderError, TimeoutError) as error:
            reason = str(error) or "no answer"
            logger.warning("Job %s of %r could not be cancelled: %s", job, self.provider.alias, reason)
        except (Exception, asyncio.CancelledError):  # nobody cancels us: it is the adapter's own
            logger.exception("Job %s of %r could not be cancelled.", job, self.provider.alias)

    def end(self) -> None:
        """The run is over, whatever it has learned. In a thread."""
        self._is_over = True
        if self._is_probe:
            self._is_probe = False
            circuit.give_up_probe(self.provider.alias)


def alert(error: ProviderError, model: str = "", *, code: str = "") -> None:
    """Tell the operator of what needs one: a loud line in the log each time, the signal now and then. In a thread."""
    code = code or error.code
    logger.critical("Provider %r needs its operator (%s): %s", error.provider, code, error)
    key = f"tryon.alert.{error.provider.encode().hex()[:100]}.{code}"
    try:
        is_news = caches[conf.CIRCUIT_CACHE].add(key, 1, ALERT_EVERY)
    except Exception:
        logger.exception("The cache of the circuits cannot be used; the alert is sent all the same.")
        is_news = True
    if is_news:
        provider_alert.send_robust(
            sender=AIProvider,
            provider=error.provider,
            model=model,
            code=code,
            error=str(error),
            status=error.status,
            request_id=error.request_id,
        )
