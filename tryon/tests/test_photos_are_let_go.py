"""Photos are large: when a run has ended, nothing holds them until the garbage collector comes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from providers.base import Photo
from providers.tests.vendor import Answer, VendorServer, openai_error
from tryon import pipeline
from tryon.exceptions import GenerationFailed, TryOnError
from tryon.models import TryOn
from tryon.runs import Order

from .shop import jpeg
from .vendors_in_use import PICTURE, openai_at, then

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database", "media"),
    pytest.mark.one_database,
]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    others.extend(photos_alive())
    yield
    others.clear()
    gc.enable()


others: list[Photo] = []
"""Those that other tests have left in providers."""


def photos_alive() -> list[Photo]:
    known = {id(photo) for photo in others}
    # Not isinstance(), which wakes lazy objects of others.
    return [thing for thing in gc.get_objects() if type(thing) is Photo and id(thing) not in known]


def order(**changes: Any) -> Order:
    return Order(**{"user": None, "person": jpeg(), "garment": jpeg(color="navy"), "catalog_id": "x", **changes})


def make(**changes: Any) -> TryOn:
    return async_to_sync(pipeline.execute)(lambda: order(**changes), lambda tryon: tryon)


DAMAGED = jpeg()[:-200] + b"\0" * 200

CASES: dict[str, tuple[Callable[[Any], Answer] | Answer, dict[str, Any]]] = {
    "success": (PICTURE, {}),
    "refused": (openai_error(400, "moderation_blocked"), {}),
    "misconfigured": (openai_error(401, "invalid_api_key"), {}),
    "once more": (then(openai_error(500)), {}),
    "unavailable": (openai_error(503), {}),
    "no picture": (Answer(body=b"nonsense"), {}),
    "not an image": (PICTURE, {"garment": b"GIF89a"}),
    "damaged": (PICTURE, {"garment": DAMAGED}),
}


@pytest.mark.parametrize("case", CASES)
def test_photos_are_gone_when_the_run_has_ended(tryon: Callable[..., None], no_collector: None, case: str) -> None:
    answer, changes = CASES[case]
    with VendorServer(answer) as vendor:
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(vendor.base_url)}, RETRIES=1)
        for _ in range(2):
            try:
                make(**changes)
            except TryOnError as error:
                failure = error.code
                del error
    assert (case in ("success", "once more")) is ("failure" not in locals())
    assert photos_alive() == []


def test_photos_are_gone_when_the_client_has_gone(tryon: Callable[..., None], no_collector: None) -> None:
    async def main() -> None:
        run = asyncio.create_task(pipeline.execute(order, lambda tryon: tryon))
        while not photos_alive() or not vendor.calls:
            await asyncio.sleep(0.01)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()

    with VendorServer(Answer(end="hang")) as vendor:
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(vendor.base_url)})
        async_to_sync(main)()
    assert photos_alive() == []


def test_photos_are_gone_after_the_last_fallback_failed(tryon: Callable[..., None], no_collector: None) -> None:
    with VendorServer(openai_error(503)) as vendor:
        entries = {"openai": openai_at(vendor.base_url), "other": openai_at(vendor.base_url)}
        tryon(PROVIDER="openai", PROVIDERS=entries, FALLBACK_PROVIDERS=["other"], RETRIES=1)
        with pytest.raises(GenerationFailed):
            make()
    assert photos_alive() == []
