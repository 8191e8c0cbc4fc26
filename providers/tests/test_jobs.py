"""Vendors that make pictures as jobs: which outlive our process, can be asked for again, and cancelled."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from providers.errors import ProviderRejectedInput, ProviderTimeout, ProviderUnavailable

from .asking import job_of, resume, run, try_on
from .vendor import Answer, Call, VendorServer, try_on_request
from .vendors import Trouble
from .vendors.all import DOUBLES
from .vendors.jobs import JobDouble

JOBS = [double for double in DOUBLES if issubclass(double, JobDouble)]
each_double = pytest.mark.parametrize("double", [pytest.param(double, id=double.alias) for double in JOBS])


@each_double
def test_another_process_gets_the_picture_by_the_job_alone(double: type[JobDouble]) -> None:
    with VendorServer(vendor := double()) as server:
        job = job_of(vendor.provider(server))
        assert len(server.calls) == 1, "noted before it is polled"
        result = resume(vendor.provider(server), job)
    assert result.data == vendor.picture
    assert result.content_type == "image/png"
    assert len(job) <= 200
    assert [vendor.step(call) for call in server.calls].count(vendor.steps[0]) == 1


@each_double
def test_what_is_told_of_a_picture_does_not_depend_on_who_asks(double: type[JobDouble]) -> None:
    with VendorServer(vendor := double()) as server:
        there = try_on(vendor.provider(server))
        later = resume(vendor.provider(server), job_of(vendor.provider(server)))
    assert there == later
    assert there.provider_id


@each_double
def test_a_job_is_polled_until_it_is_done(double: type[JobDouble]) -> None:
    vendor = double()
    vendor.still_working = 4
    with VendorServer(vendor) as server:
        assert try_on(vendor.provider(server)).data == vendor.picture
    assert [vendor.step(call) for call in server.calls].count(vendor.steps[1]) == 5


@each_double
def test_after_transient_trouble_the_same_job_gives_the_picture(double: type[JobDouble]) -> None:
    vendor = double()
    with VendorServer(vendor) as server:
        job = job_of(vendor.provider(server))
        vendor.trouble = Trouble(
            "", vendor.steps[1], Answer(status=503, headers={"retry-after": "3"}), ProviderTimeout
        )
        with pytest.raises(ProviderUnavailable) as caught:
            resume(vendor.provider(server), job)
        vendor.trouble = None
        result = resume(vendor.provider(server), job)
    assert not caught.value.job_is_over
    assert caught.value.retry_after == 3
    assert result.data == vendor.picture


@each_double
def test_cancelling_a_job_reaches_the_vendor_if_it_can_be_told(double: type[JobDouble]) -> None:
    with VendorServer(vendor := double()) as server:
        job = job_of(vendor.provider(server))
        provider = vendor.provider(server)
        run(provider, provider.cancel(job))
    calls = [(call.method, call.path) for call in server.calls[1:]]
    assert calls == ([vendor.cancels] if vendor.cancels[0] else [])
    for call in server.calls[1:]:
        assert call.headers["authorization"] == server.calls[0].headers["authorization"]


@pytest.mark.parametrize("double", [pytest.param(double, id=double.alias) for double in JOBS if double.cancels[0]])
def test_a_job_that_cannot_be_cancelled_any_more_is_an_error(double: type[JobDouble]) -> None:
    vendor = double()
    with VendorServer(vendor) as server:
        job = job_of(vendor.provider(server))
        vendor.trouble = Trouble("done", "cancel", Answer(status=400), ProviderRejectedInput)
        provider = vendor.provider(server)
        with pytest.raises(ProviderRejectedInput):
            run(provider, provider.cancel(job))


@each_double
def test_seed_is_told_if_it_was_sent(double: type[JobDouble]) -> None:
    with VendorServer(vendor := double()) as server:
        provider = vendor.provider(server)
        assert try_on(provider).seed is None
        if provider.supports_seed:
            assert try_on(provider, seed=0).seed == 0


@each_double
def test_a_request_is_asked_for_what_the_provider_claims_to_do(double: type[JobDouble]) -> None:
    """Each claim changes what is sent; what is not claimed changes nothing."""
    with VendorServer(vendor := double()) as server:
        provider = vendor.provider(server)

        def asked(**changes: Any) -> dict[str, Any]:
            run(provider, provider.generate_image(try_on_request(**changes)))
            return vendor.asked

        plain = asked()
        assert (asked(prompt="Roll up the sleeves.") != plain) == provider.supports_prompt
        assert (asked(seed=7) != plain) == provider.supports_seed
        assert (asked(category="dresses") != plain) == provider.supports_category
        assert (asked(pictures=2) != plain) == (provider.max_pictures > 1)
        for output_format in ("png", "jpeg", "webp"):
            sent = output_format in str(asked(output_format=output_format)).replace("image/", "")
            assert sent or output_format not in provider.output_formats
        for size in provider.sizes:
            assert size in str(asked(size=size))


@each_double
def test_a_job_that_is_begun_while_its_run_is_cancelled_is_noted(double: type[JobDouble]) -> None:
    """So that it can be cancelled as well: the vendor does not know that we have gone."""
    vendor = double()
    jobs: list[str] = []

    def late(call: Call) -> Answer:
        return dataclasses.replace(vendor(call), delay=0.2 if vendor.step(call) == vendor.steps[0] else 0.0)

    async def note(job: str) -> None:
        jobs.append(job)

    with VendorServer(late) as server:
        provider = vendor.provider(server)

        async def cancel() -> None:
            task = asyncio.create_task(provider.try_on(try_on_request(note_job=note), timeout=60))
            assert await asyncio.to_thread(server.called.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(provider, cancel())
        assert jobs == [job_of(vendor.provider(server))]
    assert [vendor.step(call) for call in server.calls].count(vendor.steps[1]) == 0
