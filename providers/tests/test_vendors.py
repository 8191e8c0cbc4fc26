"""Every adapter against its vendor's double: what it makes of each answer, at each step of a run."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
import traceback
from collections.abc import Iterator

import pytest

from providers import rest
from providers.base import AIProvider
from providers.errors import ContentRefused, ImageUnusable, ProviderError, ProviderTimeout, ProviderUnavailable

from .asking import failure_of, run, try_on
from .vendor import Answer, VendorServer, try_on_request
from .vendors import KEY, Double, Trouble
from .vendors.all import DOUBLES
from .vendors.jobs import JobDouble

TROUBLES = [
    pytest.param(double, trouble, id=f"{double.alias}: {trouble.name} at {trouble.step}")
    for double in DOUBLES
    for trouble in double().troubles()
]
STEPS = [pytest.param(double, step, id=f"{double.alias}: {step}") for double in DOUBLES for step in double.steps]
each_double = pytest.mark.parametrize("double", [pytest.param(double, id=double.alias) for double in DOUBLES])
each_step = pytest.mark.parametrize(("double", "step"), STEPS)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is cancelled while its job is submitted waits a moment for the job's id."""
    monkeypatch.setattr(rest.JobProvider, "patience", 0.05)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and everything that debuggers and error reporters find behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@each_double
def test_the_picture_comes_back_byte_for_byte(double: type[Double]) -> None:
    with VendorServer(vendor := double()) as server:
        result = try_on(vendor.provider(server))
    assert result.data == vendor.picture
    assert result.model
    assert vendor.step(server.calls[0]) == vendor.steps[0]


@each_double
def test_nothing_of_a_provider_shows_its_key(double: type[Double]) -> None:
    with VendorServer(vendor := double()) as server:
        provider = vendor.provider(server)
        try_on(provider)
    assert KEY not in repr(provider) + str(provider) + repr(vars(provider))
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(provider)


@pytest.mark.parametrize(("double", "trouble"), TROUBLES)
def test_trouble(double: type[Double], trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    vendor = double()
    vendor.trouble = trouble
    with VendorServer(vendor) as server:
        provider = vendor.provider(server)
        error = failure_of(provider)

    assert type(error) is trouble.expected, str(error)
    assert [vendor.step(call) for call in server.calls].count(trouble.step) == 1, "an adapter never repeats a call"
    assert error.provider == double.alias
    if isinstance(error, ContentRefused):
        assert error.category == trouble.category
    if isinstance(error, ImageUnusable):
        assert str(error).startswith(("Person photo: ", "Garment photo: "))
    if isinstance(vendor, JobDouble) and trouble.step != vendor.steps[0]:  # before there is a job, nobody asks
        assert error.job_is_over == vendor.ends(trouble)
    if trouble.retry_after is not None:
        assert error.retry_after == trouble.retry_after
    demand_no_leak(error, provider, caplog)


def demand_no_leak(error: ProviderError, provider: AIProvider, caplog: pytest.LogCaptureFixture) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 300
    logging.getLogger("test").error("failed", exc_info=error)
    everything = [repr(provider), repr(vars(error)), caplog.text, *traceback.format_exception(error)]
    everything += [f"{link!s} {link!r} {vars(link)!r}" for link in chain(error)]
    for text in (text for link in chain(error) for text in locals_of(link)):
        assert KEY not in text
    for text in everything:
        assert KEY not in text
        assert "Dress the person" not in text.replace("try_on_request", "")


def locals_of(error: BaseException) -> Iterator[str]:
    """What an error reporter shows of the variables of each frame, but for those of the tests."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if "/tests/" not in code.co_filename:
            yield f"{code.co_filename} {code.co_qualname}: {frame.f_locals!r}"


@each_step
@pytest.mark.parametrize(
    "answer",
    [Answer(end="hang"), Answer(body=b"{", missing=10, end="hang"), Answer(body=b"[" * 10_000, drip=0.02)],
    ids=["no answer", "half an answer", "slow drip"],
)  # fmt: skip
def test_a_vendor_that_takes_too_long_is_left(double: type[Double], step: str, answer: Answer) -> None:
    vendor = double()
    vendor.trouble = Trouble("slow", step, answer, ProviderTimeout)
    with VendorServer(vendor) as server:
        provider = vendor.provider(server)
        started = time.monotonic()
        error = failure_of(provider, timeout=0.4)
        assert server.hung_up.wait(10)
    assert type(error) is ProviderTimeout
    for text in (text for link in chain(error) for text in locals_of(link)):
        assert KEY not in text
    assert time.monotonic() - started < 10
    assert [vendor.step(call) for call in server.calls].count(step) == 1


@each_step
def test_cancellation_passes_through_and_closes_the_connection(double: type[Double], step: str) -> None:
    vendor = double()
    vendor.trouble = Trouble("silence", step, Answer(end="hang"), ProviderTimeout)
    with VendorServer(vendor) as server:
        provider = vendor.provider(server)

        async def cancel() -> None:
            task = asyncio.create_task(provider.try_on(try_on_request(), timeout=60))
            async with asyncio.timeout(30):
                while not any(vendor.step(call) == step for call in server.calls):
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # While the client is still open: it is the call's own connection that goes.
            assert await asyncio.to_thread(server.hung_up.wait, 10)

        run(provider, cancel())


@each_double
def test_a_vendor_that_is_not_there(double: type[Double]) -> None:
    vendor = double()
    with VendorServer(vendor) as gone:
        provider = vendor.provider(gone)
    error = failure_of(provider)
    assert type(error) is ProviderUnavailable
    assert not gone.calls


@each_double
def test_an_answer_without_end_is_not_read_to_its_end(double: type[Double], monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = double()
    with VendorServer(vendor) as server:
        provider = vendor.provider(server)
        monkeypatch.setattr(rest, "MAX_ANSWER_BYTES", 10)
        error = failure_of(provider)
    assert error.code == "provider_invalid_response"
