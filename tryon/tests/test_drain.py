"""A real server that is told to end: nothing under way is lost, nothing new begins."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from providers.fake import FakeProvider
from providers.tests.vendor import VendorServer, openai_answer
from tryon import pipeline, runs
from tryon.dispatch import choose_provider
from tryon.models import TryOn
from tryon.runs import Order

from .shop import Shop, jpeg, png
from .test_lifespan import Server as LifespanServer
from .uvicorn_process import SECONDS, Client, Server, serve, wait_until

__all__ = ["serve"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.fixture
def vendor(tryon: Callable[..., None]) -> Iterator[VendorServer]:
    """OpenAI on loopback, which holds its answer until the test, too, asks it for something."""
    with VendorServer(openai_answer(png()), together=2) as vendor:
        options = {"api_key": "sk-test", "base_url": vendor.base_url}
        tryon(
            PROVIDER="openai", PROVIDERS={"openai": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": options}}
        )
        yield vendor


def let_answer(vendor: VendorServer) -> None:
    requests.get(vendor.base_url, timeout=30)


def begin(server: Server, shop: Shop, vendor: VendorServer, **headers: str) -> Client:
    """Order a picture; its run is under way when this returns."""
    client = server.order(shop, **headers)
    wait_until(vendor.called.is_set)
    return client


def refused(client: Client, shop: Shop) -> None:
    client.order(shop)
    answer = client.answer()
    assert (answer.status, answer.json["code"]) == (503, "shutting_down")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["X-Request-ID"]
    assert answer.headers["Connection"] == "close"


def goes_on_refusing(server: Server, shop: Shop) -> None:
    """For longer than uvicorn takes to act on a signal; then it would not listen any more."""
    for _ in range(50):
        refused(server.connect(), shop)


def was_told_and_paid(shop: Shop, media: Path) -> None:
    """One run, with its picture, its price and its announcement."""
    tryon = TryOn.objects.get()
    assert tryon.status == TryOn.Status.SUCCEEDED
    assert tryon.announced_at, "or it would be announced again"
    assert (media / str(tryon.image.name)).read_bytes() == png()
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def cost_nothing(shop: Shop, media: Path, code: str) -> None:
    tryon = TryOn.objects.get()
    assert (tryon.status, tryon.error_code) == (TryOn.Status.FAILED, code)
    assert tryon.announced_at, "or it would be announced again"
    assert not media.exists() or not list(media.iterdir())
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]


def test_sigterm_lets_runs_end_and_refuses_new_ones(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path
) -> None:
    server = serve()
    kept, client = server.connect(), begin(server, shop, vendor)
    assert kept.get("/health").status == 200

    server.terminate()
    goes_on_refusing(server, shop)
    refused(kept, shop)
    assert server.get("/health").status == 200
    ready = server.get("/health/ready")
    assert (ready.status, ready.json["status"], ready.json["checks"]["process"]["ok"]) == (503, "not ready", False)
    let_answer(vendor)

    answer = client.answer()
    assert (answer.status, answer.json["status"]) == (200, "success")
    assert server.wait() == -signal.SIGTERM
    assert "Traceback" not in server.output
    was_told_and_paid(shop, media)


@pytest.mark.one_database
def test_sigterm_ends_an_idle_server_at_once(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.connect().get("/health").status == 200  # and the connection stays open

    server.process.send_signal(signal.SIGTERM)

    assert server.wait() == -signal.SIGTERM, "long before the 130 seconds of DRAIN"
    assert "Traceback" not in server.output


def test_a_run_that_takes_longer_than_drain_fails_and_costs_nothing(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path, tryon: Callable[..., None]
) -> None:
    tryon(DRAIN=1)
    server = serve()
    client = begin(server, shop, vendor)

    server.process.send_signal(signal.SIGTERM)

    answer = client.answer()
    assert (answer.status, answer.json["code"]) == (503, "shutting_down")
    assert answer.headers["Retry-After"]
    assert server.wait() == -signal.SIGTERM
    assert "Traceback" not in server.output
    cost_nothing(shop, media, "shutting_down")


def test_after_a_second_sigterm_the_server_may_cancel_runs_which_then_cost_nothing(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path
) -> None:
    server = serve("--timeout-graceful-shutdown", "1")
    begin(server, shop, vendor)
    server.terminate()

    def stops_listening() -> bool:
        server.process.send_signal(signal.SIGTERM)
        return not server.is_listening()

    wait_until(stops_listening)
    assert server.wait() == -signal.SIGTERM
    assert "timeout graceful shutdown exceeded" in server.output
    cost_nothing(shop, media, "shutting_down")


@pytest.mark.one_database
def test_ctrl_c_goes_to_the_server_and_what_it_cancels_costs_nothing(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path
) -> None:
    server = serve("--timeout-graceful-shutdown", "1")
    begin(server, shop, vendor)

    server.process.send_signal(signal.SIGINT)

    wait_until(lambda: "Waiting for application shutdown" in server.output)
    let_answer(vendor)  # too late: its request has been given up
    server.wait()
    assert "Told to end" not in server.output
    assert "timeout graceful shutdown exceeded" in server.output
    cost_nothing(shop, media, "shutting_down")


@pytest.mark.one_database
@pytest.mark.parametrize("everybody", [False, True], ids=["the parent is told", "everybody is told"])
def test_each_worker_lets_its_runs_end(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], everybody: bool
) -> None:
    """systemd tells every process, and then the parent tells its workers once more: that is no second SIGTERM."""
    vendor.together = 3
    options = ("--workers", "2", "--timeout-graceful-shutdown", "1")
    server = serve(*options, application="application_with_pid:application")
    clients: dict[int, Client] = {}

    def know_both_workers() -> bool:
        client = server.connect()
        clients.setdefault(client.get("/health").pid, client)
        return len(clients) == 2

    wait_until(know_both_workers)
    for client in clients.values():
        client.order(shop)
    wait_until(lambda: len(vendor.calls) == 2)

    (os.killpg if everybody else os.kill)(server.process.pid, signal.SIGTERM)

    wait_until(lambda: server.output.count("Told to end") == 2)
    wait_until(lambda: server.output.count("Terminated child process") == 2)
    goes_on_refusing(server, shop)
    let_answer(vendor)
    assert [client.answer().status for client in clients.values()] == [200, 200]
    server.wait()
    assert "Traceback" not in server.output
    assert shop.ledger().count(("capture", 0)) == 2
    assert not TryOn.objects.filter(announced_at=None).exists()


def test_a_picture_whose_client_left_is_made_before_the_end(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path, tryon: Callable[..., None]
) -> None:
    tryon(ON_DISCONNECT="finish")
    server = serve()
    begin(server, shop, vendor, Idempotency_Key="one").hang_up()

    server.terminate()
    goes_on_refusing(server, shop)
    let_answer(vendor)

    assert server.wait() == -signal.SIGTERM
    was_told_and_paid(shop, media)


@pytest.mark.one_database
def test_a_picture_whose_client_left_is_not_waited_for_longer_than_drain(
    shop: Shop, vendor: VendorServer, serve: Callable[..., Server], media: Path, tryon: Callable[..., None]
) -> None:
    tryon(ON_DISCONNECT="finish", DRAIN=1)
    server = serve()
    begin(server, shop, vendor, Idempotency_Key="one").hang_up()

    server.process.send_signal(signal.SIGTERM)

    assert server.wait() == -signal.SIGTERM
    cost_nothing(shop, media, "shutting_down")


@pytest.mark.one_database
def test_a_picture_that_is_there_at_the_deadline_is_stored_and_paid(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on, save = threading.Event(), threading.Event(), FileSystemStorage.save

    def wait_and_save(self: FileSystemStorage, *args: Any, **kwargs: Any) -> str:
        storing.set()
        assert go_on.wait(SECONDS)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(FileSystemStorage, "save", wait_and_save)
    order = Order(user=shop.user, person=jpeg(), garment=jpeg())

    async def main() -> TryOn:
        task = asyncio.create_task(pipeline.execute(lambda: order, lambda tryon: tryon))
        await asyncio.to_thread(storing.wait, SECONDS)
        assert pipeline.is_busy()
        pipeline.stop()
        go_on.set()
        tryon = await task
        assert not pipeline.is_busy()
        return tryon

    tryon = asyncio.run(main())
    assert tryon.status == TryOn.Status.SUCCEEDED
    assert (media / str(tryon.image.name)).exists()
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.one_database
@pytest.mark.parametrize("key", ["", "one"], ids=["given up", "outlives its client"])
def test_under_a_server_that_cannot_be_held_back_only_what_can_still_be_fetched_is_finished(
    shop: Shop, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """It has cancelled its requests, which Django goes on with, by the time it says that it ends."""
    tryon(ON_DISCONNECT="finish")
    generate = FakeProvider.generate_image
    order = Order(user=shop.user, person=jpeg(), garment=jpeg(), idempotency_key=key)

    async def main() -> str:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def wait_and_generate(self: FakeProvider, request: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await generate(self, request)

        monkeypatch.setattr(FakeProvider, "generate_image", wait_and_generate)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        server = LifespanServer()
        await server.start()
        run = asyncio.create_task(pipeline.execute(lambda: order, lambda tryon: tryon))
        await asyncio.wait_for(asked.wait(), SECONDS)
        signal.raise_signal(signal.SIGTERM)
        end = asyncio.create_task(server.stop())
        await asyncio.wait([run], timeout=0 if key else SECONDS)
        go_on.set()
        await end
        assert not pipeline.is_busy()
        await asyncio.wait([run])
        return type(run.exception()).__name__

    assert asyncio.run(main()) == ("NoneType" if key else "ShuttingDown")
    assert shop.ledger()[-1] == (("capture", 0) if key else ("release", 1))


@pytest.mark.one_database
def test_a_server_that_nobody_asks_recovers_what_dead_processes_left(
    shop: Shop, serve: Callable[..., Server], tryon: Callable[..., None]
) -> None:
    tryon(RECOVER_EVERY=0.1)
    serve()
    order = Order(user=shop.user, person=b"", garment=b"")
    dead = runs.admit(TryOn().pk, order, choose_provider())
    TryOn.objects.filter(pk=dead.pk).update(lease_until=timezone.now() - timedelta(seconds=1))

    wait_until(lambda: TryOn.objects.get().status == TryOn.Status.FAILED)
    assert shop.balance() == 3
