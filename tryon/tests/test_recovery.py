"""What dead processes leave behind, and what becomes of it."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone
from PIL import Image

from tryon import pipeline, recovery, runs
from tryon.credits import LedgerCredits
from tryon.dispatch import choose_provider
from tryon.heartbeat import heartbeat
from tryon.models import CreditAccount, TryOn, UsageRecord
from tryon.recovery import Recovered, recover
from tryon.runs import Order

from .dead import dead_run, later, leave_file, order_of
from .shop import Shop, jpeg, png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def test_recover_ends_dead_runs_once_and_takes_their_files_away(shop: Shop, media: Path) -> None:
    dead = dead_run(shop)
    media.mkdir(parents=True)
    (media / f"{dead.file_stem}.png").write_bytes(b"stored, never charged")
    shop.user.username = "countess"  # files keep the name they were given
    shop.user.save()
    alive = runs.admit(TryOn().pk, order_of(shop), choose_provider())
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
    first, second = dead_run(shop), dead_run(shop)
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
    dead_run(shop)
    shop.user.delete()
    assert len(recover().released) == 1
    assert CreditAccount.objects.get().balance == 3


# Pictures


def picture(file_format: str) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(png(300, 400))) as image:
        image.save(out, file_format)
    return out.getvalue()


@pytest.mark.parametrize(("file_format", "name"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_a_picture_that_was_stored_is_charged_and_kept(shop: Shop, media: Path, file_format: str, name: str) -> None:
    dead = dead_run(shop)
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
    dead = dead_run(shop)
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
    leave_file(dead := dead_run(shop), media, "jpg", data[: len(application) + 1500])
    assert recover() == Recovered(released=[dead])
    assert list(media.iterdir()) == []


def test_a_picture_is_found_however_long_it_lay(shop: Shop, media: Path) -> None:
    dead = dead_run(shop)
    TryOn.objects.update(created_at=timezone.now() - timedelta(days=60))
    leave_file(dead, media, "png", png())
    assert recover() == Recovered(captured=[dead])


def test_of_two_that_find_a_dead_run_one_takes_it(shop: Shop) -> None:
    dead = dead_run(shop)
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
    dead = dead_run(shop)
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
        async_to_sync(pipeline.execute)(lambda: order_of(shop), fail)
    run = TryOn.objects.get()
    assert run.status == "succeeded"
    assert [path.name for path in media.iterdir()] == [run.image.name]
    assert shop.balance() == 2


def test_a_file_that_a_slow_process_writes_after_all_is_deleted_a_lease_later(shop: Shop, media: Path) -> None:
    dead = dead_run(shop)
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


def test_a_process_looks_now_and_then(tryon: Callable[..., None]) -> None:
    schedule = recovery._Schedule()
    assert not schedule.is_due(), "0 leaves it to the command"
    tryon(RECOVER_EVERY=3600)
    assert [schedule.is_due() for _ in range(3)] == [True, False, False]


def test_a_request_sets_the_look_off(shop: Shop, tryon: Callable[..., None]) -> None:
    dead = dead_run(shop)
    tryon(RECOVER_EVERY=3600)
    recovery._schedule.__init__()  # type: ignore[misc]
    assert shop.post().status_code == 200
    for thread in threading.enumerate():
        if thread.name == "tryon-recovery":
            thread.join(30)
    assert TryOn.objects.get(pk=dead.pk).status == "failed"


def test_the_command_says_what_it_found(shop: Shop, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released, captured = dead_run(shop), dead_run(shop)
    leave_file(captured, media, "png", png())
    call_command("recover_tryons")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        str(captured.pk),
        str(released.pk),
        "2 run(s) recovered, 0 announced, 0 erased.",
    ]
    assert [line.split("  ")[-1] for line in lines[:2]] == [
        "the picture was stored, 1 credit(s) charged",
        "1 credit(s) back",
    ]
