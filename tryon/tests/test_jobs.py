"""Vendors that make pictures as jobs: written down, and asked for again when the process has died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone

from providers.errors import ProviderUnavailable
from providers.tests.vendor import VendorServer
from tryon import pipeline, recovery, runs
from tryon.credits import get_credits
from tryon.models import TryOn
from tryon.recovery import Recovered, recover

from .dead import dead_run, later, leave_file
from .queue_provider import Queue, QueueProvider
from .shop import Shop, png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.fixture
def queue(tryon: Callable[..., None]) -> Iterator[Queue]:
    """The provider in use makes its pictures as jobs."""
    queue = Queue()
    with VendorServer(queue) as vendor:
        options = {"url": vendor.base_url}
        provider = {"BACKEND": "tryon.tests.queue_provider.QueueProvider", "OPTIONS": options}
        tryon(PROVIDER="queue", PROVIDERS={"queue": provider})
        yield queue


def _dead_run_with_a_job(shop: Shop, job: str) -> TryOn:
    dead = dead_run(shop)
    assert dead.note_job(job)
    return dead


def test_a_job_is_written_down_before_it_is_waited_for(
    shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    resume = QueueProvider.resume

    async def look(self: QueueProvider, job: str) -> Any:
        written.append(await TryOn.objects.aget())
        queue.pictures[job] = png()
        return await resume(self, job)

    monkeypatch.setattr(QueueProvider, "resume", look)
    assert shop.post().status_code == 200
    assert [(run.provider_job, run.status) for run in written] == [("job-1", "running")]
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def test_the_picture_of_a_dead_processs_job_is_fetched_and_charged(shop: Shop, queue: Queue, media: Path) -> None:
    queue.pictures = {"job-1": png()}
    dead = _dead_run_with_a_job(shop, "job-1")
    assert recover() == Recovered(captured=[dead])
    dead.refresh_from_db()
    assert (dead.status, dead.model, dead.provider_request_id) == ("succeeded", "queue-1", "job-1")
    assert [file.read_bytes() for file in media.iterdir()] == [png()]
    assert shop.balance() == 2


def test_the_picture_of_a_job_takes_the_place_of_the_half_that_was_written(
    shop: Shop, queue: Queue, media: Path
) -> None:
    queue.pictures = {"job-1": png()}
    dead = _dead_run_with_a_job(shop, "job-1")
    file = leave_file(dead, media, "png", png()[:500])
    assert recover() == Recovered(captured=[dead])
    dead.refresh_from_db()
    assert dead.image.name == file.name
    assert [file.read_bytes() for file in media.iterdir()] == [png()]


def test_a_process_that_was_taken_for_dead_gives_the_copy_that_recovery_fetched(
    shop: Shop, queue: Queue, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes its own away: nobody would know of it."""
    leave, resume = pipeline._Run.leave, QueueProvider.resume

    def be_slow(self: Any, result: Any) -> Any:
        assert len(recover(later()).captured) == 1
        return leave(self, result)

    async def make(self: QueueProvider, job: str) -> Any:
        queue.pictures[job] = png()
        return await resume(self, job)

    monkeypatch.setattr(pipeline._Run, "leave", be_slow)
    monkeypatch.setattr(QueueProvider, "resume", make)
    response = shop.post()
    run = TryOn.objects.get()
    assert response.status_code == 200
    assert response.json()["image_url"] == f"http://testserver{run.image.url}"
    assert [path.name for path in media.iterdir()] == [run.image.name]
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.parametrize("pictures", [{}, {"job-1": b"<html>no picture</html>"}], ids=["unknown", "unusable"])
def test_a_job_without_a_picture_gives_the_credit_back(shop: Shop, queue: Queue, pictures: dict[str, bytes]) -> None:
    queue.pictures = pictures
    dead = _dead_run_with_a_job(shop, "job-1")
    assert recover() == Recovered(released=[dead])
    assert shop.balance() == 3


def test_a_vendor_that_is_down_is_asked_again_but_not_for_ever(
    shop: Shop, queue: Queue, log: pytest.LogCaptureFixture
) -> None:
    queue.is_down = True
    dead = _dead_run_with_a_job(shop, "job-1")
    assert recover() == Recovered()
    assert shop.balance() == 2, "the picture may be there tomorrow"
    assert "waits for its job job-1" in log.text
    assert recover() == Recovered(), "and not before the lease has run out again"
    assert recover(timezone.now() + recovery.LOOK_UP_FOR) == Recovered(released=[dead])
    assert shop.balance() == 3


def test_a_job_that_is_not_done_is_asked_for_again(shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_UP_TIMEOUT", timedelta(seconds=0.05))
    queue.pictures = {"job-1": b""}
    dead = _dead_run_with_a_job(shop, "job-1")
    assert recover() == Recovered()
    queue.pictures = {"job-1": png()}
    assert recover(later()) == Recovered(captured=[dead])


@pytest.mark.parametrize("provider", ["one that keeps no jobs", "one with a bug"])
def test_a_job_that_cannot_be_asked_for_holds_no_credit_for_ever(
    shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    async def break_off(self: QueueProvider, job: str) -> None:
        raise KeyError("picture")

    dead = _dead_run_with_a_job(shop, "job-1")
    if provider == "one with a bug":
        monkeypatch.setattr(QueueProvider, "resume", break_off)
        assert recover() == Recovered(), "it may be mended"
    else:
        monkeypatch.setattr(QueueProvider, "keeps_jobs", False)
    assert recover(timezone.now() + recovery.LOOK_UP_FOR) == Recovered(released=[dead])
    assert shop.balance() == 3


def test_a_run_that_was_given_up_is_not_waited_for_at_its_vendor(
    shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, polled = TryOn.note_job, queue.polled

    def give_up_first(self: TryOn, job: str, **whose: str) -> bool:
        runs.fail(TryOn.objects.get(pk=self.pk), TryOn.Status.FAILED, "abandoned", "")
        return note(self, job, **whose)

    monkeypatch.setattr(TryOn, "note_job", give_up_first)
    assert shop.post().json()["code"] == "deadline_exceeded"
    assert not polled.is_set()


def test_a_provider_that_is_no_longer_in_the_settings_gives_the_credit_back(
    shop: Shop, queue: Queue, tryon: Callable[..., None]
) -> None:
    dead = _dead_run_with_a_job(shop, "job-1")
    tryon(PROVIDER="fake", PROVIDERS={"fake": {"BACKEND": "providers.fake.FakeProvider"}})
    assert recover() == Recovered(released=[dead])


def _meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Have this happen while recovery waits for the vendor."""
    resume = QueueProvider.resume

    async def wait(self: QueueProvider, job: str) -> Any:
        await sync_to_async(happens)()
        return await resume(self, job)

    monkeypatch.setattr(QueueProvider, "resume", wait)


def test_a_fetched_picture_of_a_run_that_ended_meanwhile_is_deleted(
    shop: Shop, queue: Queue, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.pictures = {"job-1": png()}
    dead = _dead_run_with_a_job(shop, "job-1")
    _meanwhile(monkeypatch, lambda: assert_true(runs.fail(dead, TryOn.Status.CANCELLED, "cancelled", "")))
    assert recover() == Recovered()
    assert list(media.iterdir()) == []
    assert shop.balance() == 3


def test_a_picture_that_a_slow_process_charged_for_meanwhile_is_not_deleted(
    shop: Shop, queue: Queue, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.pictures = {"job-1": png()}
    dead = _dead_run_with_a_job(shop, "job-1")

    def charge() -> None:
        name = leave_file(dead, media, "png", png(200, 300)).name
        assert runs.succeed(dead, image=name, content_type="image/png")

    _meanwhile(monkeypatch, charge)
    assert recover() == Recovered()
    [file] = media.iterdir()
    assert file.name == TryOn.objects.get().image.name
    assert file.read_bytes() == png(200, 300)
    assert shop.balance() == 2


def test_nobody_else_looks_at_a_run_while_its_vendor_is_asked(
    shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch, tryon: Callable[..., None]
) -> None:
    """However short a lease is."""
    queue.pictures = {"job-1": png()}
    dead = _dead_run_with_a_job(shop, "job-1")
    tryon(**settings.TRYON, LEASE=0)
    almost = recovery.LOOK_UP_TIMEOUT - timedelta(seconds=1)
    _meanwhile(monkeypatch, lambda: assert_true(not TryOn.objects.dead(timezone.now() + almost).exists()))
    assert recover().captured == [dead]


def test_a_run_that_fails_with_a_job_is_looked_through_for_files(
    shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery may have begun to store the vendor's own copy of its picture."""

    async def break_off(self: QueueProvider, job: str) -> None:
        raise ProviderUnavailable("gone")

    monkeypatch.setattr(QueueProvider, "resume", break_off)
    assert shop.post().status_code == 503
    assert TryOn.objects.with_leftovers().count() == 1


def assert_true(happened: bool) -> None:
    assert happened


def test_no_credit_waits_for_another_runs_vendor(shop: Shop, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the dead runs those without a job are ended first, whichever come first out of the database."""
    get_credits().grant(shop.user, 5, reason="test")
    for job in ("job-1", "", "", "job-2", "", ""):
        dead = dead_run(shop)
        assert not job or dead.note_job(job)
    left: list[int] = []
    look_up = recovery._look_up

    def count(*args: Any) -> Any:
        left.append(TryOn.objects.filter(status="running", provider_job="").count())
        return look_up(*args)

    monkeypatch.setattr(recovery, "_look_up", count)
    recover()
    assert left == [0, 0]
