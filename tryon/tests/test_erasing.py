"""Erasing runs: their files first, then their rows, whatever happens in between; and all of a user that is deleted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.db.models.signals import pre_delete
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from providers.fake import FakeProvider
from tryon import erasing, runs
from tryon.audit import deleted_runs_adrift, runs_adrift
from tryon.credits import get_credits
from tryon.dispatch import choose_provider
from tryon.erasing import erase
from tryon.exceptions import KeyInUse, UserGone
from tryon.heartbeat import Heartbeat, heartbeat
from tryon.models import CreditAccount, CreditEntry, TryOn, TryOnQuerySet, UsageRecord
from tryon.recovery import recover
from tryon.signals import try_on_failed, try_on_succeeded

from .dead import dead_run, later, leave_file, order_of
from .proxies import Shopper
from .shop import RELEASED, Shop, png
from .uvicorn_process import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def told(shop: Shop, **options: Any) -> TryOn:
    """A run with its picture, whose end was announced a moment ago."""
    run = TryOn.objects.get(pk=shop.post(**options).json()["id"])
    heartbeat.beat()
    return run


def many(user: User | None, count: int, media: Path, **fields: Any) -> list[TryOn]:
    """Ended runs of a user, each with its picture."""
    media.mkdir(parents=True, exist_ok=True)
    now = timezone.now()
    defaults = {"status": "succeeded", "credits": 0, "lease_until": now, "finished_at": now, "announced_at": now}
    made = [TryOn(user=user, **defaults | fields) for _ in range(count)]
    for run in made:
        run.file_stem = runs.file_stem(run)
        run.image = f"{run.file_stem}.png"
        (media / run.image.name).write_bytes(b"picture")
    return TryOn.objects.bulk_create(made)


def files(media: Path) -> list[str]:
    return sorted(path.name for path in media.iterdir()) if media.exists() else []


@pytest.fixture
def broken_storage(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A storage that deletes nothing, until it is repaired."""

    def refuse(self: FileSystemStorage, name: str) -> None:
        raise OSError("the storage is away")

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    return monkeypatch.undo


# Runs


def test_a_flagged_run_loses_its_files_and_its_row_and_keeps_its_lines(
    shop: Shop, media: Path, fake: Callable[..., FakeProvider], tryon: Callable[..., None]
) -> None:
    fake()
    tryon(MAX_PICTURES=3)
    run = told(shop, body=shop.body | {"pictures": 3})
    leave_file(run, media, "mp4", b"a clip")
    (media / "photo.jpg").write_bytes(b"what was sent")
    TryOn.objects.update(inputs=["photo.jpg"])
    assert len(files(media)) == 5

    assert TryOn.objects.flag() == 1
    erased = erase(TryOn.objects.all())

    assert (erased.gone, erased.waiting, erased.failed) == ([run.pk], 0, 0)
    assert files(media) == []
    assert not TryOn.objects.exists()
    assert shop.ledger() == [("grant", 3), ("hold", -3), ("capture", 0)]
    record = UsageRecord.objects.get()
    assert (record.tryon_id, record.status, record.user) == (None, "succeeded", shop.user)
    assert not runs_adrift().exists()
    assert not deleted_runs_adrift().exists()
    call_command("audit_credits")


def test_what_is_not_flagged_stays(shop: Shop, media: Path) -> None:
    told(shop)
    assert erase(TryOn.objects.all()).gone == []
    assert len(files(media)) == 1


def test_a_run_that_is_being_made_fails_and_is_erased(
    shop: Shop, media: Path, fake: Callable[..., FakeProvider]
) -> None:
    provider = fake()
    ask = provider.generate_image

    async def flag_meanwhile(*args: Any, **kwargs: Any) -> Any:
        from asgiref.sync import sync_to_async

        await sync_to_async(TryOn.objects.flag)()
        assert (await sync_to_async(erase)(TryOn.objects.all())).gone == []
        return await ask(*args, **kwargs)

    provider.generate_image = flag_meanwhile  # type: ignore[method-assign]
    answer = shop.post()
    assert answer.status_code == 504
    assert "given up" in answer.json()["detail"]
    assert files(media) == [], "nobody sees it, be it for a moment"
    assert shop.ledger()[1:] == RELEASED
    heartbeat.beat()
    TryOn.objects.update(finished_at=timezone.now() - timedelta(hours=1))
    assert len(recover().erased) == 1
    assert not TryOn.objects.exists()


def test_a_dead_run_that_is_flagged_costs_nothing_and_its_picture_goes(shop: Shop, media: Path) -> None:
    dead = dead_run(shop)
    leave_file(dead, media, "png", png())
    TryOn.objects.flag()
    assert recover().released == [dead]
    assert files(media) == []
    assert shop.ledger()[1:] == RELEASED
    leave_file(dead, media, "png", png())  # by a process that was only slow: until then the row has to stay
    heartbeat.beat()
    assert recover().erased == []
    assert recover(later()).erased == [dead.pk]
    assert files(media) == []


def test_a_flagged_run_with_a_job_is_not_asked_for_at_the_vendor(
    shop: Shop, fake: Callable[..., FakeProvider]
) -> None:
    dead = dead_run(shop)
    TryOn.objects.update(provider_job="job-1", provider="gone")
    TryOn.objects.flag()
    assert recover().released == [dead]


def test_an_end_is_announced_before_its_row_goes(shop: Shop, media: Path) -> None:
    shop.post()
    run = TryOn.objects.get()
    UsageRecord.objects.all().delete()  # as if the process had died before it told anybody
    heartbeat._told.clear()
    TryOn.objects.flag()

    erased = erase(TryOn.objects.all())
    assert (erased.gone, erased.waiting) == ([], 1)
    assert files(media) == [], "the photos need not wait"
    heard: list[Any] = []

    def listen(*, tryon_id: Any, **payload: Any) -> None:
        heard.append(tryon_id)

    try_on_succeeded.connect(listen)
    try:
        assert recover(later()).erased == []
        heartbeat.beat()
        assert recover(later()).erased == [run.pk]
    finally:
        try_on_succeeded.disconnect(listen)
    assert heard == [run.pk]
    assert UsageRecord.objects.get().status == "succeeded"


def test_a_storage_that_fails_keeps_the_row_for_the_next_time(
    shop: Shop, media: Path, broken_storage: Callable[[], None], log: pytest.LogCaptureFixture
) -> None:
    run = told(shop)
    TryOn.objects.flag()
    erased = erase(TryOn.objects.all())
    assert (erased.gone, erased.failed) == ([], 1)
    assert f"of try-on {run.pk}, which is to be erased" in log.text
    assert recover().erased == []
    broken_storage()
    assert recover().erased == [run.pk]
    assert files(media) == []


@pytest.mark.one_database
def test_a_storage_that_is_away_is_not_asked_for_each_run(
    shop: Shop, media: Path, broken_storage: Callable[[], None], log: pytest.LogCaptureFixture
) -> None:
    many(shop.user, 20, media)
    TryOn.objects.flag()
    erased = erase(TryOn.objects.all())
    assert (erased.failed, erased.is_cut_short) == (3, True)
    assert log.text.count("Could not delete") == 3


@pytest.mark.one_database
def test_one_file_that_cannot_be_deleted_keeps_no_other_run(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, *others = many(shop.user, 20, media)
    delete = FileSystemStorage.delete

    def refuse_one(self: FileSystemStorage, name: str) -> None:
        if name == stuck.image.name:
            raise OSError("not this one")
        delete(self, name)

    monkeypatch.setattr(FileSystemStorage, "delete", refuse_one)
    TryOn.objects.flag()
    assert set(recover().erased) == {run.pk for run in others}
    assert [TryOn.objects.get().pk] == [stuck.pk]


@pytest.mark.one_database
def test_what_takes_long_is_left_to_recovery(shop: Shop, media: Path) -> None:
    many(shop.user, 3, media)
    TryOn.objects.flag()
    erased = erase(TryOn.objects.all(), seconds=-1)
    assert (erased.gone, erased.is_cut_short) == ([], True)


@pytest.mark.one_database
def test_recovery_erases_any_number_of_runs_in_batches(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AT_ONCE", 7)
    many(shop.user, 20, media)
    TryOn.objects.flag()
    assert len(recover().erased) == 20
    assert files(media) == []


KILLED = """
import os, signal
import django
django.setup()
from django.core.files.storage import FileSystemStorage
from django.db import connections
from tryon.erasing import erase
from tryon.models import TryOn

delete, calls = FileSystemStorage.delete, []

def die(self, name):
    calls.append(name)
    delete(self, name)
    if len(calls) == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)

FileSystemStorage.delete = die
connections.settings["default"]["NAME"] = {name!r}
from django.conf import settings
settings.MEDIA_ROOT = {media!r}
TryOn.objects.flag()
erase(TryOn.objects.all())
"""


@pytest.mark.one_database
@pytest.mark.parametrize("calls", [1, 4, 7])
def test_a_process_that_is_killed_as_it_erases_leaves_no_photo_behind(shop: Shop, media: Path, calls: int) -> None:
    many(shop.user, 3, media)
    code = KILLED.format(calls=calls, name=connection.settings_dict["NAME"], media=str(media))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    left = {str(run.image.name) for run in TryOn.objects.all()}
    assert TryOn.objects.count() == 3
    assert set(files(media)) <= left, "every file has a row that knows of it"
    assert len(recover().erased) == 3
    assert files(media) == []


def test_the_key_of_an_erased_run_makes_a_new_picture(shop: Shop) -> None:
    key = {"Idempotency-Key": "order-7"}
    first = told(shop, headers=key)
    TryOn.objects.flag()
    second = shop.post(headers=key)
    assert second.status_code == 200
    assert "Idempotent-Replayed" not in second.headers
    assert second.json()["id"] != str(first.pk)
    assert shop.post(headers=key).headers["Idempotent-Replayed"] == "true"


def test_while_a_flagged_run_is_being_made_its_key_is_in_use(shop: Shop) -> None:
    order = order_of(shop, idempotency_key="order-7")
    runs.admit(TryOn().pk, order, choose_provider())
    TryOn.objects.flag()
    with pytest.raises(KeyInUse):
        runs.find_earlier(order)


def test_a_free_run_that_is_flagged_before_its_end_leaves_the_books_in_order(
    shop: Shop, tryon: Callable[..., None], media: Path
) -> None:
    tryon(PRICE=0)
    dead = dead_run(shop)
    leave_file(dead, media, "png", png())
    shop.user.delete()
    assert recover().released == [dead]
    heartbeat.beat()
    assert recover(later()).erased == [dead.pk]
    call_command("audit_credits")


# Users


def test_deleting_a_user_deletes_their_pictures_and_runs_and_nobody_elses(shop: Shop, media: Path) -> None:
    told(shop)
    bob = get_user_model().objects.create_user("bob")
    [his] = many(bob, 1, media)
    shop.user.delete()
    assert [run.pk for run in TryOn.objects.all()] == [his.pk]
    assert files(media) == [his.image.name]
    account, record = CreditAccount.objects.get(user=None), UsageRecord.objects.get()
    assert (account.balance, record.user, record.tryon) == (2, None, None)
    assert CreditEntry.objects.filter(account=account).count() == 3
    his.delete()  # it was never paid for
    call_command("audit_credits")


def delete_and_roll_back(user: User) -> None:
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        user.delete()
        raise ZeroDivisionError


def test_a_deletion_that_is_rolled_back_erases_nothing(shop: Shop, media: Path) -> None:
    run = told(shop)
    delete_and_roll_back(shop.user)
    run.refresh_from_db()
    assert (run.to_erase, run.user) == (False, User.objects.get(username="ada"))
    assert recover().erased == []
    assert len(files(media)) == 1


def test_a_deletion_in_a_savepoint_that_is_rolled_back_takes_only_itself_back(shop: Shop, media: Path) -> None:
    told(shop)
    bob = get_user_model().objects.create_user("bob")
    [his] = many(bob, 1, media)
    ada = shop.user
    with transaction.atomic():
        delete_and_roll_back(bob)
        ada.delete()
        assert len(files(media)) == 2, "not before the commit"
    assert files(media) == [his.image.name]
    his.refresh_from_db()
    assert not his.to_erase


@pytest.mark.parametrize("how", ["instance", "queryset", "proxy", "admin"])
def test_however_a_user_is_deleted(shop: Shop, media: Path, how: str, operator: Client) -> None:
    told(shop)
    ada = User.objects.filter(username="ada")
    if how == "instance":
        ada.get().delete()
    elif how == "queryset":
        ada.delete()
    elif how == "proxy":
        erasing.connect()  # as if the proxy had been there when the app became ready
        Shopper.objects.get(username="ada").delete()
    else:
        page = operator.post(f"/admin/auth/user/{ada.get().pk}/delete/", {"post": "yes"})
        assert page.status_code == 302
    assert not ada.exists()
    assert not TryOn.objects.exists()
    assert files(media) == []


def test_many_users_are_deleted_with_a_few_queries_each_and_one_look(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [get_user_model().objects.create(username=f"shopper-{n}") for n in range(60)]
    for user in users:
        many(user, 1, media)
    looks: list[Any] = []
    look = erasing.erase

    def count(*args: Any, **kwargs: Any) -> erasing.Erased:
        looks.append(args)
        return look(*args, **kwargs)

    monkeypatch.setattr(erasing, "erase", count)
    with CaptureQueriesContext(connection) as queries:
        get_user_model().objects.filter(username__startswith="shopper-").delete()
    assert len(looks) == 1
    assert len(queries) < 4 * 60 + 60
    assert not TryOn.objects.exists()


def test_a_user_with_more_runs_than_can_be_erased_at_once_is_deleted_at_once(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AT_ONCE", 5)
    many(shop.user, 20, media)
    shop.user.delete()
    assert TryOn.objects.count() == 15
    assert not TryOn.objects.filter(to_erase=False).exists()
    recover()
    assert not TryOn.objects.exists()


def test_a_users_deletion_succeeds_while_the_storage_is_away(
    shop: Shop, media: Path, broken_storage: Callable[[], None], log: pytest.LogCaptureFixture
) -> None:
    run = told(shop)
    shop.user.delete()
    run.refresh_from_db()
    assert (run.user, run.to_erase) == (None, True)
    broken_storage()
    assert recover().erased == [run.pk]


def test_a_run_of_a_user_that_is_deleted_meanwhile_is_erased_when_it_ends(shop: Shop, media: Path) -> None:
    dead = dead_run(shop)
    leave_file(dead, media, "png", png())
    shop.user.delete()
    dead.refresh_from_db()
    assert (dead.user, dead.to_erase, dead.status) == (None, True, "running")
    assert recover().released == [dead]
    assert CreditAccount.objects.get().balance == 3
    heartbeat.beat()
    assert recover(later()).erased == [dead.pk]
    assert files(media) == []


@pytest.mark.one_database("postgresql")
@pytest.mark.parametrize("has_account", [True, False])
def test_no_run_begins_between_the_flag_and_the_end_of_its_user(
    shop: Shop, tryon: Callable[..., None], has_account: bool
) -> None:
    outcome: list[Any] = []
    if not has_account:
        tryon(PRICE=0)
        CreditAccount.objects.update(user=None)
        shop.user = User.objects.get(username="ada")
    order = order_of(shop)

    def begin() -> None:
        try:
            outcome.append(runs.admit(TryOn().pk, order, choose_provider()))
        except UserGone as error:
            outcome.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=begin)

    def begin_now(**kwargs: Any) -> None:
        thread.start()
        thread.join(1)  # it may not get through: it waits for this very transaction

    pre_delete.connect(begin_now, sender=get_user_model())
    try:
        User.objects.get(username="ada").delete()
    finally:
        pre_delete.disconnect(begin_now, sender=get_user_model())
    thread.join(30)
    assert [type(found) for found in outcome] == [UserGone]
    assert not TryOn.objects.exists()


def somebody_waits() -> bool:
    """For a lock of PostgreSQL's."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def delete_ada(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Any], *, when: Literal["before", "after"]
) -> list[Any]:
    """Delete the user; right before or after her runs are flagged, do something in a thread; what came of it."""
    outcome: list[Any] = []

    def do_it() -> None:
        try:
            outcome.append(meanwhile())
        except BaseException as error:  # noqa: BLE001 - told by the caller
            outcome.append(error)
        finally:
            connections.close_all()

    def begin() -> None:
        thread.start()
        wait_until(lambda: outcome or somebody_waits())

    thread = threading.Thread(target=do_it)
    flag = TryOnQuerySet.flag

    def flag_and_begin(self: TryOnQuerySet) -> int:
        if when == "before":
            begin()
        flagged = flag(self)
        if when == "after":
            begin()
        return flagged

    with monkeypatch.context() as patch:
        patch.setattr(TryOnQuerySet, "flag", flag_and_begin)
        User.objects.get(username="ada").delete()
        thread.join(30)
    return outcome


@pytest.mark.one_database("postgresql")
@pytest.mark.parametrize(
    "end", [lambda run: runs.succeed(run, image="x.png"), lambda run: runs.fail(run, TryOn.Status.FAILED, "x", "y")]
)
def test_a_run_may_end_while_its_user_is_deleted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, end: Callable[[TryOn], bool]
) -> None:
    run = runs.admit(TryOn().pk, order_of(shop), choose_provider())
    assert delete_ada(monkeypatch, lambda: end(run), when="before") == [True]
    assert (TryOn.objects.get().user, CreditEntry.objects.count()) == (None, 3)


@pytest.mark.one_database("postgresql")
def test_leases_may_be_renewed_while_their_user_is_deleted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    flagged, other = (runs.admit(uuid.uuid4(), order_of(shop), choose_provider()) for _ in range(2))
    TryOn.objects.filter(pk=flagged.pk).flag()
    TryOn.objects.filter(pk=other.pk).update(lease_until=timezone.now())  # PostgreSQL has it behind the other now
    renew = Heartbeat()._write
    assert delete_ada(monkeypatch, lambda: renew([flagged.pk, other.pk], []), when="after") == [True]
    assert TryOn.objects.filter(user=None).count() == 2


def test_the_end_of_a_failed_run_is_announced_before_it_is_erased(
    shop: Shop, fake: Callable[..., FakeProvider]
) -> None:
    heard: list[Any] = []

    def listen(*, tryon_id: Any, **payload: Any) -> None:
        heard.append(tryon_id)

    dead = dead_run(shop)
    try_on_failed.connect(listen)
    try:
        shop.user.delete()
        recover()
        heartbeat.beat()
        recover(later())
    finally:
        try_on_failed.disconnect(listen)
    assert heard == [dead.pk]
    assert not TryOn.objects.exists()
    assert UsageRecord.objects.get().status == "failed"


# The command


def purge(*arguments: str) -> str:
    out = StringIO()
    call_command("purge_tryons", *arguments, stdout=out)
    return out.getvalue().strip()


OLD = {"created_at": timezone.now() - timedelta(days=31)}


def test_purge_erases_what_is_older(shop: Shop, media: Path) -> None:
    many(shop.user, 3, media, **OLD)
    many(None, 2, media, **OLD)
    young = told(shop)
    assert purge("--older-than", "30d", "--dry-run") == "5 run(s) would be erased."
    assert TryOn.objects.count() == 6
    assert purge("--older-than", "30d") == "5 run(s) erased."
    assert files(media) == [young.image.name]
    assert purge("--older-than", "30d") == "0 run(s) erased."


def test_purge_leaves_runs_alone_that_have_not_ended(shop: Shop) -> None:
    dead = dead_run(shop)
    TryOn.objects.update(**OLD)
    assert purge("--older-than", "30d") == "0 run(s) erased."
    dead.refresh_from_db()
    assert not dead.to_erase


def test_purge_of_a_user_takes_all_and_flags_what_is_being_made(shop: Shop, media: Path) -> None:
    told(shop)
    alive = runs.admit(TryOn().pk, order_of(shop), choose_provider())
    [others] = many(None, 1, media)
    later_ = "as soon as they have ended and were announced"
    assert purge("--user", "ada", "--dry-run") == f"1 run(s) would be erased, 1 {later_}."
    assert purge("--user", "ada") == f"1 run(s) erased, 1 {later_}."
    alive.refresh_from_db()
    assert (alive.to_erase, alive.status) == (True, "running")
    assert files(media) == [others.image.name]


def test_purge_of_a_users_old_runs(shop: Shop, media: Path) -> None:
    many(shop.user, 2, media, **OLD)
    many(None, 1, media, **OLD)
    many(shop.user, 1, media)
    assert purge("--user", "ada", "--older-than", "4w") == "2 run(s) erased."
    assert TryOn.objects.count() == 2


@pytest.mark.one_database
def test_purge_fails_where_files_cannot_be_deleted(
    shop: Shop, media: Path, broken_storage: Callable[[], None], log: pytest.LogCaptureFixture
) -> None:
    many(shop.user, 10, media, **OLD)
    with pytest.raises(CommandError, match=r"0 run\(s\) erased. 3 could not be, .* rest was not tried") as caught:
        purge("--older-than", "30d")
    assert caught.value.returncode == 1
    broken_storage()
    assert purge("--older-than", "30d") == "10 run(s) erased."


@pytest.mark.one_database
@pytest.mark.parametrize("age", ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "30y", "٣d", "1000000w", "30d\n"])
def test_purge_refuses_an_age_that_makes_no_sense(age: str) -> None:
    with pytest.raises(CommandError, match="is no age"):
        purge(f"--older-than={age}")


@pytest.mark.one_database
def test_purge_wants_to_know_what(shop: Shop) -> None:
    with pytest.raises(CommandError, match="Say what to erase"):
        purge()
    with pytest.raises(CommandError, match="There is no user with username 'eve'"):
        purge("--user", "eve")
    with pytest.raises(CommandError, match="The user is empty"):
        purge("--user", "")


@pytest.mark.one_database
@pytest.mark.parametrize("age", ["1m", "99999m", "99999h", "99999d", "99999w"])
def test_purge_knows_minutes_hours_days_and_weeks(shop: Shop, age: str) -> None:
    assert purge("--older-than", age) == "0 run(s) erased."


def test_the_queries_of_a_purge_grow_with_its_batches_and_not_with_its_runs(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AT_ONCE", 100)

    def queries(count: int) -> int:
        many(shop.user, count, media, **OLD)
        with CaptureQueriesContext(connection) as captured:
            assert purge("--older-than", "30d") == f"{count} run(s) erased."
        return len(captured)

    assert queries(2) == queries(99)
    assert queries(300) <= 3 * queries(100)


def test_two_purges_at_once_erase_each_run(shop: Shop, media: Path) -> None:
    many(shop.user, 300, media, **OLD)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            purge("--older-than", "30d")
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert not TryOn.objects.exists()
    assert files(media) == []
    assert get_credits().balance(shop.user) == 3
