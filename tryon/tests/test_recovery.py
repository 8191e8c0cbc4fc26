"""What dead processes leave behind, and what becomes of it."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone
from PIL import Image

from providers.tests.vendor import VendorServer
from tryon import fetching, pipeline, recovery, runs, signals
from tryon.conf import conf
from tryon.credits import LedgerCredits
from tryon.dispatch import choose_provider
from tryon.heartbeat import Heartbeat, heartbeat
from tryon.models import CreditAccount, TryOn, UsageRecord
from tryon.recovery import Recovered, recover
from tryon.runs import Order

from .queue_provider import Queue, QueueProvider
from .shop import Shop, jpeg, png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

LEASE = timedelta(seconds=conf.LEASE)


def later(leases: float = 1.5) -> Any:
    """When so many leases that are taken now have run out."""
    return timezone.now() + leases * LEASE


def order(shop: Shop) -> Order:
    return Order(user=shop.user, person=jpeg(), garment=jpeg(color="navy"))


def _dead_run(shop: Shop) -> TryOn:
    """What a process leaves behind that is killed while it waits for the provider."""
    tryon = runs.admit(TryOn().pk, order(shop), choose_provider())
    TryOn.objects.filter(pk=tryon.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    return tryon


def test_recover_ends_dead_runs_once_and_takes_their_files_away(shop: Shop, media: Path) -> None:
    dead = _dead_run(shop)
    media.mkdir(parents=True)
    (media / f"{dead.file_stem}.png").write_bytes(b"stored, never charged")
    shop.user.username = "countess"  # files keep the name they were given
    shop.user.save()
    alive = runs.admit(TryOn().pk, order(shop), choose_provider())
    assert shop.balance() == 1

    assert [tryon.pk for tryon in recover().released] == [dead.pk]
    assert recover() == Recovered()

    assert shop.balance() == 2
    dead.refresh_from_db()
    alive.refresh_from_db()
    assert (dead.status, dead.error_code, alive.status) == ("failed", "abandoned", "running")
    assert list(media.iterdir()) == []


def test_recover_goes_on_after_a_run_it_cannot_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    first, second = _dead_run(shop), _dead_run(shop)
    release = LedgerCredits.release

    def refuse_the_first(self: LedgerCredits, key: Any, *args: Any) -> bool:
        if key == first.pk:
            raise DatabaseError("not this one")
        return release(self, key, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerCredits, "release", refuse_the_first)
        assert [tryon.pk for tryon in recover().released] == [second.pk]
    assert recover() == Recovered(), "whoever took it over has a lease of its own"
    assert [tryon.pk for tryon in recover(later()).released] == [first.pk]
    assert shop.balance() == 3


def test_recover_keeps_the_ledger_of_a_user_who_is_gone(shop: Shop) -> None:
    _dead_run(shop)
    shop.user.delete()
    assert len(recover().released) == 1
    assert CreditAccount.objects.get().balance == 3


# Pictures


def picture(file_format: str) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(png(300, 400))) as image:
        image.save(out, file_format)
    return out.getvalue()


def leave_file(tryon: TryOn, media: Path, name: str, data: bytes) -> Path:
    media.mkdir(parents=True, exist_ok=True)
    file = media / f"{tryon.file_stem}.{name}"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(("file_format", "name"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_a_picture_that_was_stored_is_charged_and_kept(shop: Shop, media: Path, file_format: str, name: str) -> None:
    dead = _dead_run(shop)
    file = leave_file(dead, media, name, picture(file_format))

    assert recover() == Recovered(captured=[dead])
    heartbeat.beat()
    assert recover(later()) == Recovered()

    dead.refresh_from_db()
    assert (dead.status, dead.image.name, dead.width, dead.height) == ("succeeded", file.name, 300, 400)
    assert dead.content_type == f"image/{file_format.lower()}"
    assert dead.latency_ms is not None
    assert file.read_bytes() == picture(file_format)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert UsageRecord.objects.get().status == "succeeded"


@pytest.mark.parametrize(("file_format", "name"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_picture_that_was_being_written_is_not_one(
    shop: Shop, media: Path, file_format: str, name: str, kept: float
) -> None:
    dead = _dead_run(shop)
    data = picture(file_format)
    leave_file(dead, media, name, data[: min(int(len(data) * kept), len(data) - 1)])
    assert recover() == Recovered(released=[dead])
    assert list(media.iterdir()) == []
    assert shop.balance() == 3


def test_a_jpeg_that_was_cut_off_behind_its_thumbnail_is_not_one(shop: Shop, media: Path) -> None:
    """The thumbnail has an end of its own, which looks like the picture's."""
    whole, thumbnail = jpeg(1200, 1600), jpeg(64, 64)
    application = b"\xff\xeb" + (2 + len(thumbnail)).to_bytes(2) + thumbnail
    data = whole[:2] + application + whole[2:]
    leave_file(dead := _dead_run(shop), media, "jpg", data[: len(application) + 1500])
    assert recover() == Recovered(released=[dead])
    assert list(media.iterdir()) == []


def test_of_two_that_find_a_dead_run_one_takes_it(shop: Shop) -> None:
    dead = _dead_run(shop)
    one, other = TryOn.objects.get(pk=dead.pk), TryOn.objects.get(pk=dead.pk)
    assert [run.take_over(later()) for run in (one, other)] == [True, False]
    assert recover() == Recovered(), "whoever has it is at it"


def test_a_stored_picture_is_the_answer_to_its_key(shop: Shop, media: Path) -> None:
    """The whole way: the process dies before the charge, the client asks again."""
    key = {"Idempotency-Key": "order-7"}
    asked = Order(
        user=shop.user,
        person=shop.body["user_image_url"],
        garment=shop.body["catalog_image_url"],
        catalog_id="dress-7",
        idempotency_key="order-7",
    )
    dead = runs.admit(uuid.uuid4(), asked, choose_provider())
    file = leave_file(dead, media, "png", png())
    assert shop.post(headers=key).status_code == 409
    recover(later())
    again = shop.post(headers=key)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["image_url"].endswith(file.name)


def test_recovery_loses_against_a_process_that_was_only_slow(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It charges for its picture while recovery looks for one."""
    dead = _dead_run(shop)
    look = recovery._stored

    def find_nothing_yet(tryon: TryOn, now: Any) -> None:
        assert look(tryon, now) is None
        leave_file(tryon, media, "png", png())
        slow = TryOn.objects.get(pk=tryon.pk)
        assert runs.succeed(slow, image=f"{slow.file_stem}.png", content_type="image/png")

    monkeypatch.setattr(recovery, "_stored", find_nothing_yet)
    assert recover() == Recovered()
    assert TryOn.objects.get(pk=dead.pk).status == "succeeded"
    assert len(list(media.iterdir())) == 1
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.parametrize("asked", [True, False], ids=["answered", "away"])
def test_a_process_that_was_taken_for_dead_gives_the_picture_that_recovery_charged_for(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Or says that it does not know, and deletes nothing."""
    describe = runs.describe

    def be_slow(*args: Any, **kwargs: Any) -> dict[str, Any]:
        if not TryOn.objects.exclude(status="running").exists():
            assert len(recover(later()).captured) == 1
        return describe(*args, **kwargs)

    def away(self: TryOn) -> bool:
        raise DatabaseError("away")

    monkeypatch.setattr(runs, "describe", be_slow)
    if not asked:
        monkeypatch.setattr(TryOn, "stored_image", away)
    response = shop.post()
    run = TryOn.objects.get()
    if asked:
        assert (response.status_code, response.json()["id"]) == (200, str(run.pk))
    else:
        assert (response.status_code, response.json()["code"]) == (503, "outcome_unknown")
    assert run.status == "succeeded"
    assert [path.name for path in media.iterdir()] == [run.image.name]
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def test_a_process_that_was_taken_for_dead_deletes_no_picture_that_recovery_charged_for(
    shop: Shop, media: Path
) -> None:
    """Even if it fails then, or its client has gone."""

    def fail(tryon: TryOn) -> None:
        if TryOn.objects.unfinished().exists():
            assert len(recover(later()).captured) == 1
        raise RuntimeError("cannot be shown")

    with pytest.raises(RuntimeError):
        async_to_sync(pipeline.execute)(lambda: order(shop), fail)
    run = TryOn.objects.get()
    assert run.status == "succeeded"
    assert [path.name for path in media.iterdir()] == [run.image.name]
    assert shop.balance() == 2


def test_a_file_that_a_slow_process_writes_after_all_is_deleted_a_lease_later(shop: Shop, media: Path) -> None:
    dead = _dead_run(shop)
    recover()
    leave_file(dead, media, "png", png())
    recover(later())
    assert list(media.iterdir()) == []
    assert not TryOn.objects.with_leftovers().exists()


def test_a_file_that_cannot_be_deleted_is_deleted_later(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """The credit does not wait for it."""

    def refuse(self: FileSystemStorage, name: str) -> None:
        raise OSError("the storage is away")

    def forget(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("not charged")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", refuse)
        patch.setattr(LedgerCredits, "capture", forget)
        assert shop.post().status_code == 500
        assert shop.balance() == 3
        assert len(list(media.iterdir())) == 1
        recover()
        assert TryOn.objects.with_leftovers().exists()
    assert "the storage is away" in log.text
    recover(later())
    assert list(media.iterdir()) == []
    assert not TryOn.objects.with_leftovers().exists()


# Jobs at the vendor


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
    dead = _dead_run(shop)
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

    def give_up_first(self: TryOn, job: str) -> bool:
        runs.fail(TryOn.objects.get(pk=self.pk), TryOn.Status.FAILED, "abandoned", "")
        return note(self, job)

    monkeypatch.setattr(TryOn, "note_job", give_up_first)
    assert shop.post().json()["code"] == "deadline_exceeded"
    assert not polled.is_set()


def test_a_provider_that_is_no_longer_in_the_settings_gives_the_credit_back(
    shop: Shop, queue: Queue, tryon: Callable[..., None]
) -> None:
    dead = _dead_run_with_a_job(shop, "job-1")
    tryon(PROVIDER="fake", PROVIDERS={"fake": {"BACKEND": "providers.fake.FakeProvider"}})
    assert recover() == Recovered(released=[dead])


# Announcements


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What a host's receivers hear of ends."""
    heard: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        heard.append(kwargs)

    for signal in (signals.try_on_succeeded, signals.try_on_failed):
        signal.connect(listen)
    yield heard
    for signal in (signals.try_on_succeeded, signals.try_on_failed):
        signal.disconnect(listen)


def test_an_end_is_announced_once_where_nothing_dies(shop: Shop, heard: list[dict[str, Any]]) -> None:
    shop.post()
    heartbeat.beat()
    assert recover(later()) == Recovered()
    assert [(call["status"], call["repeated"]) for call in heard] == [("succeeded", False)]


def test_an_end_that_nobody_was_told_of_is_announced(
    shop: Shop, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died between the commit and the signal."""
    with monkeypatch.context() as patch:
        patch.setattr(runs, "announce", lambda *args, **kwargs: None)
        assert shop.post().status_code == 200
    [run] = TryOn.objects.all()
    assert (heard, UsageRecord.objects.count()) == ([], 0)

    assert recover() == Recovered(), "for as long as a process may still be at it, it is left to that"
    assert recover(later()) == Recovered(announced=[run])

    [call] = heard
    assert (call["tryon_id"], call["status"], call["repeated"]) == (run.pk, "succeeded", True)
    assert call["image_url"].endswith(run.image.name)
    assert UsageRecord.objects.get().tryon_id == run.pk
    heartbeat.beat()
    assert recover(later()) == Recovered()


def test_of_many_that_find_an_end_unannounced_one_tells(shop: Shop, heard: list[dict[str, Any]]) -> None:
    shop.post()
    heard.clear()
    long_ago = timezone.now() - 2 * LEASE
    TryOn.objects.update(finished_at=long_ago, lease_until=long_ago)
    assert recover() == Recovered(announced=[TryOn.objects.get()])
    assert recover() == Recovered(), "somebody is telling it"
    assert len(heard) == 1


def test_an_end_whose_announcement_was_not_written_down_is_announced_again_and_can_be_told(
    shop: Shop, heard: list[dict[str, Any]]
) -> None:
    """The process died after the signal. The usage is still one row."""
    shop.post()
    recover(later())
    assert len({call["tryon_id"] for call in heard}) == 1
    assert [call["repeated"] for call in heard] == [False, True]
    assert UsageRecord.objects.count() == 1


def test_usage_that_could_not_be_recorded_is_recorded_later(
    shop: Shop, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(UsageRecord, "save", refuse)
        assert shop.post().status_code == 200
    heartbeat.beat()
    assert not UsageRecord.objects.exists()
    recover(later())
    heartbeat.beat()
    assert UsageRecord.objects.get().status == "succeeded"
    assert recover(later()) == Recovered()


def test_a_hosts_receiver_that_fails_is_not_asked_for_ever(shop: Shop) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a bug of the host's")

    signals.try_on_succeeded.connect(fail)
    try:
        shop.post()
    finally:
        signals.try_on_succeeded.disconnect(fail)
    heartbeat.beat()
    assert recover(later()) == Recovered()


# Leases


def test_a_beat_renews_the_leases_of_the_living_and_of_nobody_else(shop: Shop) -> None:
    alive, dead = _dead_run(shop), _dead_run(shop)
    heartbeat.keep_alive(alive.pk)
    heartbeat.beat()
    assert recover() == Recovered(released=[dead])
    heartbeat.let_go(alive.pk)
    heartbeat.beat()
    assert recover(later()) == Recovered(released=[alive])


def test_a_run_is_kept_alive_from_its_admission_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    fetch = fetching.fetch

    async def look(url: str, *, field: str) -> bytes:
        alive.append(len(heartbeat._alive))
        return await fetch(url, field=field)

    monkeypatch.setattr(pipeline, "fetch", look)
    assert shop.post().status_code == 200
    assert shop.post(shop.body | {"user_image_url": shop.body["user_image_url"] + ".gone"}).status_code == 422
    assert set(alive) == {1}
    assert heartbeat._alive == {}


def test_a_run_that_hangs_is_not_kept_alive_for_ever(shop: Shop, tryon: Callable[..., None]) -> None:
    """Whatever became of its thread."""
    tryon(DEADLINE=0, LEASE=0)
    dead = _dead_run(shop)
    heartbeat.keep_alive(dead.pk)
    heartbeat.beat()
    assert heartbeat._alive == {}
    assert recover().released == [dead]


def test_a_process_that_ends_writes_what_it_told_and_renews_nothing(shop: Shop) -> None:
    shop.post()
    dead = _dead_run(shop)
    heartbeat.keep_alive(dead.pk)
    assert heartbeat.stop()
    assert TryOn.objects.get(status="succeeded").announced_at is not None
    assert recover().released == [dead]


def test_what_was_written_is_not_written_again(shop: Shop, django_assert_num_queries: Any) -> None:
    shop.post()
    heartbeat.beat()
    with django_assert_num_queries(0):
        heartbeat.beat()


def test_a_heart_that_could_not_start_starts_with_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    heart = Heartbeat()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            heart.keep_alive(uuid.uuid4())
    assert not heart._is_beating


def test_a_beat_without_a_database_is_logged_and_made_up_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    shop.post()

    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.models.query.QuerySet.update", away)
        heartbeat.beat()
    assert "note 1 announcement(s): away" in log.text
    assert TryOn.objects.get().announced_at is None
    heartbeat.beat()
    assert TryOn.objects.get().announced_at is not None


def test_a_missed_beat_is_made_up_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease might run out before the next."""
    heart = Heartbeat()
    heart._alive[uuid.uuid4()] = float("inf")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            heart._alive.clear()

    monkeypatch.setattr("tryon.heartbeat.time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(heart, "beat", iter([False, True]).__next__)
    heart._beat_on()
    assert pauses == [conf.LEASE / 3, conf.LEASE / 30, conf.LEASE / 3]


def test_the_heart_stops_when_there_is_nothing_to_say(shop: Shop, tryon: Callable[..., None]) -> None:
    """In its own thread, as in a server."""
    tryon(LEASE=0.03)
    heart = Heartbeat()
    _dead_run(shop)
    lease = TryOn.objects.get().lease_until
    heart.keep_alive(TryOn.objects.get().pk)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "tryon-heartbeat"]
    while TryOn.objects.get().lease_until == lease:
        assert thread.is_alive()
    heart.let_go(TryOn.objects.get().pk)
    thread.join(30)
    assert not thread.is_alive()


def test_a_process_looks_now_and_then(tryon: Callable[..., None]) -> None:
    schedule = recovery._Schedule()
    assert not schedule.is_due(), "0 leaves it to the command"
    tryon(RECOVER_EVERY=3600)
    assert [schedule.is_due() for _ in range(3)] == [True, False, False]


def test_a_request_sets_the_look_off(shop: Shop, tryon: Callable[..., None]) -> None:
    dead = _dead_run(shop)
    tryon(RECOVER_EVERY=3600)
    recovery._schedule.__init__()  # type: ignore[misc]
    assert shop.post().status_code == 200
    for thread in threading.enumerate():
        if thread.name == "tryon-recovery":
            thread.join(30)
    assert TryOn.objects.get(pk=dead.pk).status == "failed"


def test_the_command_says_what_it_found(shop: Shop, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released, captured = _dead_run(shop), _dead_run(shop)
    leave_file(captured, media, "png", png())
    call_command("recover_tryons")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        str(captured.pk),
        str(released.pk),
        "2 run(s) recovered, 0 announced.",
    ]
    assert [line.split("  ")[-1] for line in lines[:2]] == [
        "the picture was stored, 1 credit(s) charged",
        "1 credit(s) back",
    ]
