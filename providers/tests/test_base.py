"""The interface that all vendors share."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable

import pytest

from providers import errors
from providers.base import AIProvider, Secret, TryOnRequest, TryOnResult

from .vendor import try_on_request

Generate = Callable[[TryOnRequest], Awaitable[TryOnResult]]


class Scripted(AIProvider):
    """For the tests: does what it is told."""

    name = "Scripted"

    def __init__(self, alias: str, generate: Generate) -> None:
        super().__init__(alias)
        self._generate = generate

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        return await self._generate(request)


async def picture(request: TryOnRequest) -> TryOnResult:
    return TryOnResult(data=b"picture", content_type="image/png", model="m", provider_id="id-1")


def try_on(generate: Generate, request: TryOnRequest | None = None, timeout: float = 30) -> TryOnResult:
    return asyncio.run(Scripted("shop", generate).try_on(request or try_on_request(), timeout=timeout))


# Secret


def test_secret_is_shown_nowhere() -> None:
    secret = Secret("hunter2")

    assert secret.reveal() == "hunter2"
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{[secret]}"):
        assert "hunter2" not in text
    assert "hunter2" not in repr(copy.copy(secret))
    assert Secret(secret).reveal() == "hunter2"


def test_secret_in_a_traceback_and_a_log(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hunter2")
    error = ValueError(secret)

    logging.getLogger("test").error("failed with %s", secret, exc_info=error)

    assert "Secret('***')" in caplog.text
    assert "hunter2" not in caplog.text
    assert "hunter2" not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("empty", ["", None, Secret(""), Secret(None)])
def test_empty_secret_is_false(empty: str | Secret | None) -> None:
    assert not Secret(empty)
    assert Secret("x")


def test_photos_and_pictures_are_in_no_repr() -> None:
    request = try_on_request()
    result = asyncio.run(picture(request))
    assert "the garment" not in repr(request)
    assert "b'picture'" not in repr(result)


# try_on()


def test_picture() -> None:
    assert try_on(picture).data == b"picture"


def test_timeout() -> None:
    async def never(request: TryOnRequest) -> TryOnResult:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(errors.ProviderTimeout, match=r"Scripted gave no picture within 0\.1 s\.") as caught:
        try_on(never, timeout=0.1)
    assert caught.value.provider == "shop"
    assert caught.value.retryable


def test_empty_picture() -> None:
    async def nothing(request: TryOnRequest) -> TryOnResult:
        return TryOnResult(data=b"", content_type="image/png", model="m", provider_id="id-1")

    with pytest.raises(errors.InvalidProviderResponse, match="without a picture") as caught:
        try_on(nothing)
    assert (caught.value.provider, caught.value.request_id) == ("shop", "id-1")


def test_seed_that_the_provider_cannot_follow() -> None:
    async def unreachable(request: TryOnRequest) -> TryOnResult:
        raise AssertionError

    with pytest.raises(errors.UnsupportedFeature, match="seed=0") as caught:
        try_on(unreachable, try_on_request(seed=0))
    assert caught.value.provider == "shop"


def test_provider_error_gets_the_alias_and_keeps_one_it_has() -> None:
    async def fail(request: TryOnRequest) -> TryOnResult:
        raise errors.ProviderUnavailable("Gone.", provider=request.prompt)

    for given, expected in (("", "shop"), ("inner", "inner")):
        with pytest.raises(errors.ProviderUnavailable) as caught:
            try_on(fail, try_on_request(prompt=given))
        assert caught.value.provider == expected


def test_cancellation_passes_through() -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def wait(request: TryOnRequest) -> TryOnResult:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.create_task(Scripted("shop", wait).try_on(try_on_request(), timeout=30))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_base_class() -> None:
    provider = AIProvider("shop")
    assert repr(provider) == "<AIProvider 'shop'>"
    assert provider.model == ""
    assert list(provider.check()) == []
    asyncio.run(provider.aclose())
    with pytest.raises(NotImplementedError, match="AIProvider must implement generate_image"):
        asyncio.run(provider.generate_image(try_on_request()))


# Errors


def test_codes_are_unique_and_only_the_unavailable_are_retryable() -> None:
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ProviderError)]

    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        assert cls.retryable is issubclass(cls, errors.ProviderUnavailable)


def test_refusal_carries_a_category() -> None:
    error = errors.ContentRefused("No.", category="sexual", status=400)
    assert (str(error), error.category, error.status) == ("No.", "sexual", 400)


def test_a_secret_is_not_pickled_and_its_copy_is_itself() -> None:
    secret = Secret("hunter2")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps({"api_key": secret}, protocol)
    assert copy.copy(secret) is copy.deepcopy({"api_key": secret})["api_key"] is secret
