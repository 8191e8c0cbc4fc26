"""The flow of one run: whoever goes away, and whenever, nothing is lost and nothing is charged twice."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from providers.fake import FakeProvider
from tryon import pipeline, runs
from tryon.conf import conf
from tryon.credits import LedgerCredits
from tryon.exceptions import (
    GenerationFailed,
    ImageUnreachable,
    InsufficientCredits,
    OutcomeUnknown,
    StorageUnavailable,
)
from tryon.heartbeat import heartbeat
from tryon.models import CreditEntry, TryOn
from tryon.recovery import Recovered, recover
from tryon.runs import Order
from tryon.threads import in_thread

from .shop import Shop, jpeg

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def order(shop: Shop | None, **changes: Any) -> Order:
    return Order(**{"user": shop and shop.user, "person": jpeg(), "garment": jpeg(color="navy"), **changes})


def run(prepare: Callable[[], Order]) -> TryOn:
    return asyncio.run(pipeline.execute(prepare, lambda tryon: tryon))


def test_the_operators_own_run_is_free(shop: Shop) -> None:
    tryon = run(lambda: order(None))
    assert (tryon.status, tryon.credits, tryon.user) == ("succeeded", 0, None)
    assert str(tryon.image.name).startswith("anonymous_none_")


def test_the_prompt_of_the_settings_is_used_word_for_word(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    run(lambda: order(shop))
    run(lambda: order(shop, prompt="in the rain"))
    assert provider.calls[0].prompt == (
        "take the person from the first reference image and the garment and the setting from the second image, "
        "virtual try on should match the model's body. catalogue shoot. 4k. photorealistic. new shot and visual. "
        "three quarter angle shot"
    )
    assert provider.calls[1].prompt == "in the rain"


def test_a_vendor_learns_a_pseudonym_and_no_name(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    run(lambda: order(shop))
    run(lambda: order(shop))
    first, second = (call.end_user for call in provider.calls)
    assert first == second
    assert re.fullmatch("[0-9a-f]{32}", first)


def test_hostile_ids_make_harmless_file_names(shop: Shop, media: Path) -> None:
    tryon = run(lambda: order(shop, catalog_id="../../etc/passwd\n<script>é" + "x" * 100))
    assert [path.name for path in media.rglob("*")] == [tryon.image.name]
    assert str(tryon.image.name).startswith("ada_etc-passwd-script-xxx")
    assert len(str(tryon.image.name)) < 150


async def _cancelled_while(prepare: Callable[[], Order], moment: threading.Event) -> None:
    """Cancel a run as soon as ``moment`` has come, as a client that hangs up does."""
    task = asyncio.create_task(pipeline.execute(prepare, lambda tryon: tryon))
    await asyncio.to_thread(moment.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Under load a clean-up may still be under way in its own task.
    while pipeline._detached:
        await asyncio.sleep(0)


def _assert_nothing_happened(shop: Shop, media: Path) -> None:
    assert shop.balance() == 3
    assert not TryOn.objects.exclude(status="cancelled").exists()
    assert not media.exists() or not list(media.iterdir())


def test_cancelled_while_the_provider_works_costs_nothing(
    shop: Shop, fake: Callable[..., FakeProvider], media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = fake(delay=60)
    asked = threading.Event()
    generate = FakeProvider.generate_image

    async def tell(self: FakeProvider, request: Any) -> Any:
        asked.set()
        return await generate(self, request)

    monkeypatch.setattr(FakeProvider, "generate_image", tell)
    asyncio.run(_cancelled_while(lambda: order(shop), asked))
    assert len(provider.calls) == 1
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert TryOn.objects.get().error_code == "cancelled"
    _assert_nothing_happened(shop, media)


def test_cancelled_during_the_entering_hop_leaves_no_hold(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on and commits after its caller is gone; it must then clean up itself."""
    entering, gone, entered = threading.Event(), threading.Event(), threading.Event()
    give_up, enter = pipeline._Run.give_up, pipeline._Run.enter

    def prepare() -> Order:
        entering.set()
        assert gone.wait(10)
        return order(shop)

    def tell(self: Any, *args: Any) -> None:
        give_up(self, *args)
        gone.set()

    def tell_the_end(self: Any, *args: Any) -> None:
        try:
            enter(self, *args)
        finally:
            entered.set()

    monkeypatch.setattr(pipeline._Run, "give_up", tell)
    monkeypatch.setattr(pipeline._Run, "enter", tell_the_end)
    asyncio.run(_cancelled_while(prepare, entering))
    assert entered.wait(10)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    _assert_nothing_happened(shop, media)


def _cancelled_at(owner: Any, moment: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel a run as its leaving thread is about to call this function, which then goes on."""
    reached, gone = threading.Event(), threading.Event()
    function, give_up = getattr(owner, moment), pipeline._Run.give_up

    def wait(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        assert gone.wait(10)
        return function(*args, **kwargs)

    def tell(self: Any, *args: Any) -> None:
        give_up(self, *args)
        gone.set()

    monkeypatch.setattr(owner, moment, wait)
    monkeypatch.setattr(pipeline._Run, "give_up", tell)
    left = _watch_leaving(monkeypatch)
    asyncio.run(_cancelled_while(lambda: order(shop), reached))
    assert left.wait(10)


@pytest.mark.parametrize(("owner", "moment"), [(runs, "describe"), (runs, "succeed"), (LedgerCredits, "capture")])
def test_cancelled_before_the_commit_costs_nothing_and_leaves_no_file(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, moment: str
) -> None:
    _cancelled_at(owner, moment, shop, monkeypatch)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    _assert_nothing_happened(shop, media)


def test_cancelled_after_the_commit_is_charged_with_its_picture(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cancelled_at(heartbeat, "tell", shop, monkeypatch)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert [path.name for path in media.iterdir()] == [TryOn.objects.get(status="succeeded").image.name]


def _watch_leaving(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the leaving thread is done, which may be after its caller is gone."""
    left = threading.Event()
    leave = pipeline._Run.leave

    def tell_the_end(self: Any, *args: Any) -> Any:
        try:
            return leave(self, *args)
        finally:
            left.set()

    monkeypatch.setattr(pipeline._Run, "leave", tell_the_end)
    return left


def test_cancelled_while_the_file_is_written_leaves_no_file(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has ended as cancelled before there is a file to delete."""
    saving, gone = threading.Event(), threading.Event()
    save, give_up = FileSystemStorage.save, pipeline._Run.give_up

    def wait(self: FileSystemStorage, *args: Any) -> str:
        saving.set()
        assert gone.wait(10)
        return save(self, *args)

    def tell(self: Any, *args: Any) -> None:
        give_up(self, *args)
        gone.set()

    monkeypatch.setattr(FileSystemStorage, "save", wait)
    monkeypatch.setattr(pipeline._Run, "give_up", tell)
    left = _watch_leaving(monkeypatch)
    asyncio.run(_cancelled_while(lambda: order(shop), saving))
    assert left.wait(10)
    _assert_nothing_happened(shop, media)


def test_cancelled_while_a_failure_is_settled_costs_nothing(
    shop: Shop, media: Path, fake: Callable[..., FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(error="provider_unavailable")
    settling = threading.Event()

    async def never(function: Any, *args: Any) -> Any:
        if args and args[0] == TryOn.Status.FAILED:
            settling.set()
            await asyncio.Event().wait()
        return await in_thread(function, *args)

    monkeypatch.setattr(pipeline, "in_thread", never)
    asyncio.run(_cancelled_while(lambda: order(shop), settling))
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    _assert_nothing_happened(shop, media)


def test_a_charge_that_fails_takes_the_file_away_again(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise DatabaseError("no charge today")

    monkeypatch.setattr(LedgerCredits, "capture", refuse)
    with pytest.raises(DatabaseError):
        run(lambda: order(shop))
    assert TryOn.objects.get().status == "failed"
    assert shop.balance() == 3
    assert list(media.iterdir()) == []


@pytest.fixture
def broken_commit() -> Iterator[Callable[[bool], None]]:
    """Let the connection break at the commit of the charge, after it or before."""
    patch = pytest.MonkeyPatch()

    def break_it(after: bool) -> None:
        finish, commit = TryOn.finish, BaseDatabaseWrapper.commit
        charging = threading.local()

        def tell(self: TryOn, *args: Any, **kwargs: Any) -> bool:
            charging.now = True
            return finish(self, *args, **kwargs)

        def fail(self: BaseDatabaseWrapper) -> None:
            charges = vars(charging).pop("now", False)
            if after or not charges:
                commit(self)
            if charges:
                patch.undo()
                raise DatabaseError("the connection broke at the commit")

        patch.setattr(TryOn, "finish", tell)
        patch.setattr(BaseDatabaseWrapper, "commit", fail)

    yield break_it
    patch.undo()


def test_a_commit_whose_answer_is_lost_is_looked_up(
    shop: Shop, media: Path, broken_commit: Callable[[bool], None]
) -> None:
    broken_commit(True)
    assert run(lambda: order(shop)).status == "succeeded"
    tryon = TryOn.objects.get()
    assert (tryon.status, shop.balance()) == ("succeeded", 2)
    assert [path.name for path in media.iterdir()] == [tryon.image.name]
    assert tryon.announced_at is None
    [announced] = recover(timezone.now() + timedelta(seconds=conf.LEASE + 1)).announced
    assert announced == tryon


def test_a_commit_that_was_not_made_costs_nothing(
    shop: Shop, media: Path, broken_commit: Callable[[bool], None]
) -> None:
    broken_commit(False)
    with pytest.raises(DatabaseError, match="the connection broke"):
        run(lambda: order(shop))
    _assert_nothing_charged(shop, media)


def test_a_commit_that_cannot_be_looked_up_keeps_the_file_for_recovery(
    shop: Shop, media: Path, broken_commit: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process cannot know what the database knows. Recovery can, whichever it is."""

    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("still away")

    broken_commit(False)
    with monkeypatch.context() as patch:
        patch.setattr(TryOn, "stored_image", away)
        patch.setattr(runs, "fail", away)
        with pytest.raises(OutcomeUnknown):
            run(lambda: order(shop))
    [file] = media.iterdir()
    [captured] = recover(timezone.now() + timedelta(seconds=conf.LEASE + 1)).captured
    captured.refresh_from_db()
    assert (captured.status, captured.image.name, shop.balance()) == ("succeeded", file.name, 2)


@pytest.fixture
def slow_commit() -> Iterator[None]:
    """The charge's commit takes PostgreSQL a second, and the connection breaks in the middle of it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.status = 'succeeded' THEN PERFORM pg_sleep(1); END IF; RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON tryon_tryon DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION wait()"
        )
    patch = pytest.MonkeyPatch()
    commit = BaseDatabaseWrapper.commit
    line: socket.socket

    def cut(self: Any) -> None:
        nonlocal line
        with self.connection.cursor() as cursor:
            charges = cursor.execute("SELECT 1 FROM tryon_tryon WHERE status = 'succeeded'").fetchone()
        if charges:
            patch.undo()
            line = socket.socket(fileno=os.dup(self.connection.fileno()))
            threading.Timer(0.2, line.shutdown, [socket.SHUT_RDWR]).start()
        commit(self)

    patch.setattr(BaseDatabaseWrapper, "commit", cut)
    yield
    line.close()
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER wait ON tryon_tryon; DROP FUNCTION wait()")


@pytest.mark.one_database("postgresql")
@pytest.mark.usefixtures("slow_commit")
def test_a_commit_that_is_still_under_way_when_its_connection_breaks_is_waited_for(shop: Shop, media: Path) -> None:
    """The row as it was before would say that there is no picture, whose file must not be deleted now."""
    assert run(lambda: order(shop)).status == "succeeded"
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert [path.name for path in media.iterdir()] == [TryOn.objects.get(status="succeeded").image.name]


def test_recovery_does_not_charge_for_a_file_that_is_about_to_go(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over, for a process that was only slow, just as that gives up."""
    delete, recovered = runs.delete, list[Recovered]()

    def recover_first(*names: str) -> bool:
        if not recovered:
            recovered.append(recover(timezone.now() + timedelta(hours=1)))
        return delete(*names)

    def present(tryon: TryOn) -> None:
        raise RuntimeError("cannot be shown")

    monkeypatch.setattr(runs, "delete", recover_first)
    with pytest.raises(RuntimeError, match="cannot be shown"):
        asyncio.run(pipeline.execute(lambda: order(shop), present))
    assert recovered[0].captured == []
    _assert_nothing_charged(shop, media)


def test_a_database_that_blips_as_the_picture_is_stored_leaves_no_file(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away for a moment")

    monkeypatch.setattr(runs, "succeed", away)
    monkeypatch.setattr(TryOn, "stored_image", away)
    with pytest.raises(DatabaseError):
        run(lambda: order(shop))
    _assert_nothing_charged(shop, media)


def test_an_announcement_that_fails_does_not_fail_the_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("nobody is told")

    monkeypatch.setattr(runs, "announce", fail)
    assert run(lambda: order(shop)).status == "succeeded"


def _assert_nothing_charged(shop: Shop, media: Path) -> None:
    assert shop.balance() == 3
    assert TryOn.objects.get().status == "failed"
    assert list(media.iterdir()) == []


def test_a_storage_that_fails_costs_nothing(shop: Shop, media: Path) -> None:
    media.parent.mkdir(exist_ok=True)
    media.write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        run(lambda: order(shop))
    assert shop.balance() == 3
    failed = TryOn.objects.get()
    assert (failed.status, failed.error_code) == ("failed", "storage_unavailable")
    assert failed.error_detail.startswith("FileExistsError: ")


def test_a_free_picture_has_a_hold_and_an_end_as_any_other(
    shop: Shop, tryon: Callable[..., None], fake: Callable[..., FakeProvider]
) -> None:
    tryon(PRICE=0)
    run(lambda: order(shop))
    fake(error="provider_unavailable")
    with pytest.raises(GenerationFailed):
        run(lambda: order(shop))
    assert shop.ledger() == [("grant", 3), ("hold", 0), ("capture", 0), ("hold", 0), ("release", 0)]


def test_a_free_picture_is_for_somebody_who_never_had_a_credit_too(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PRICE=0)
    newcomer = get_user_model().objects.create_user("newcomer")
    assert run(lambda: order(shop, user=newcomer)).status == "succeeded"
    assert list(CreditEntry.objects.filter(account__user=newcomer).values_list("kind", "amount")) == [
        ("capture", 0),
        ("hold", 0),
    ]


def test_a_refused_hold_leaves_no_run(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PRICE=4)
    with pytest.raises(InsufficientCredits):
        run(lambda: order(shop))
    assert not TryOn.objects.exists()
    assert shop.ledger() == [("grant", 3)]


def test_both_photos_are_fetched_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    both = asyncio.Barrier(2)

    async def fetch(url: str, *, field: str) -> File[bytes]:
        await asyncio.wait_for(both.wait(), 10)
        return ContentFile(jpeg())

    monkeypatch.setattr(pipeline, "fetch", fetch)
    assert run(lambda: order(shop, person="http://a/", garment="http://b/")).status == "succeeded"


def test_a_run_that_cannot_be_written_holds_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("no rows today")

    monkeypatch.setattr(TryOn, "save", refuse)
    with pytest.raises(DatabaseError):
        run(lambda: order(shop))
    assert shop.ledger() == [("grant", 3)]


def test_a_photo_that_fails_stops_the_other_ones_download(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []

    async def fetch(url: str, *, field: str) -> File[bytes]:
        if field == "user_image_url":
            raise ImageUnreachable("gone", field=field)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(field)
            raise
        return ContentFile(b"")

    async def main() -> None:
        with pytest.raises(ImageUnreachable):
            await pipeline.execute(lambda: order(shop, person="http://a/", garment="http://b/"), lambda tryon: tryon)
        assert stopped == ["catalog_image_url"], "now, and not when the loop ends"

    monkeypatch.setattr(pipeline, "fetch", fetch)
    asyncio.run(main())
