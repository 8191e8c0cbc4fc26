"""Pictures that are only in the answer, and photos that are kept."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from providers.fake import FakeProvider
from tryon import pipeline, recovery, runs
from tryon.audit import runs_adrift
from tryon.credits import get_credits
from tryon.models import TryOn, UsageRecord
from tryon.signals import try_on_succeeded

from .shop import CHARGED, RELEASED, Shop, content, jpeg

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def stored(media: Path) -> list[str]:
    return sorted(path.name for path in media.rglob("*") if path.is_file()) if media.exists() else []


def unstored(shop: Shop, **options: Any) -> Any:
    return shop.post({**shop.body, "no_store": True}, **options)


def age(**changes: Any) -> None:
    """Let a lease, and more, have passed."""
    past = timezone.now() - timedelta(hours=2)
    TryOn.objects.update(**{"created_at": past, "lease_until": past, **changes})


def test_the_picture_is_in_the_answer_and_nowhere_else(
    shop: Shop, media: Path, fake: Callable[..., FakeProvider]
) -> None:
    fake()
    usual = shop.post().json()
    (name,) = stored(media)
    response = unstored(shop)
    answer = response.json()
    assert response.status_code == 200
    assert base64.b64decode(answer["image_base64"]) == (media / name).read_bytes(), "the same photos, the same picture"
    assert answer["images_base64"] == [answer["image_base64"]]
    assert (answer["image_url"], answer["image_urls"], answer["video_url"]) == (None, [], None)
    assert answer["content_type"] == "image/png"
    assert (usual["image_base64"], usual["images_base64"], usual["video_base64"]) == (None, [], None)
    assert stored(media) == [name]
    run = TryOn.objects.get(pk=answer["id"])
    assert (run.status, run.no_store, run.has_leftovers) == ("succeeded", True, False)
    assert shop.ledger()[1:] == 2 * CHARGED
    assert not runs_adrift()


def test_several_pictures_are_all_in_the_answer(shop: Shop, media: Path, tryon: Callable[..., None]) -> None:
    tryon(MAX_PICTURES=2)
    answer = shop.post({**shop.body, "no_store": True, "pictures": 2}).json()
    first, second = answer["images_base64"]
    assert first == answer["image_base64"] != second
    assert stored(media) == []


def test_it_is_stored_when_it_is_charged(shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    succeed = runs.succeed

    def look(*args: Any, **kwargs: Any) -> bool:
        seen.append(stored(media))
        return succeed(*args, **kwargs)

    monkeypatch.setattr(runs, "succeed", look)
    assert unstored(shop).status_code == 200
    assert [len(files) for files in seen] == [1]
    assert stored(media) == []


def test_receivers_hear_of_the_run_and_not_of_a_file(shop: Shop) -> None:
    heard: list[dict[str, Any]] = []

    def hear(**payload: Any) -> None:
        heard.append(payload)

    try_on_succeeded.connect(hear)
    try:
        unstored(shop)
    finally:
        try_on_succeeded.disconnect(hear)
    assert [(payload["image"], payload["image_url"], payload["credits"]) for payload in heard] == [("", "", 1)]
    assert UsageRecord.objects.get().status == "succeeded"


def test_the_admin_shows_no_picture_that_is_gone(shop: Shop, operator: Client, tryon: Callable[..., None]) -> None:
    tryon(MAX_PICTURES=2)
    run = shop.post({**shop.body, "no_store": True, "pictures": 2}).json()["id"]
    thumbnail = reverse("admin:tryon_tryon_thumbnail", args=[run])
    assert thumbnail not in content(operator, reverse("admin:tryon_tryon_changelist"))
    assert operator.get(thumbnail).status_code == 404
    assert "/media/" not in content(operator, reverse("admin:tryon_tryon_change", args=[run]))


def test_its_idempotency_key_answers_410_and_charges_nothing(shop: Shop) -> None:
    assert unstored(shop, headers={"Idempotency-Key": "k"}).status_code == 200
    again = unstored(shop, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["code"]) == (410, "not_kept")
    assert shop.ledger()[1:] == CHARGED
    assert TryOn.objects.count() == 1
    other = shop.post(headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_storage_that_does_not_delete_costs_nobody_the_answer_and_recovery_deletes(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", lambda self, name: 1 / 0)
        assert unstored(shop).status_code == 200
    assert len(stored(media)) == 1
    assert TryOn.objects.get().has_leftovers
    age(finished_at=timezone.now() - timedelta(hours=1), announced_at=timezone.now())
    recovery.recover()
    assert stored(media) == []
    assert not TryOn.objects.get().has_leftovers
    assert shop.ledger()[1:] == [*CHARGED, ("refund", 1)], "nobody knows whether its client has the picture"


@pytest.mark.parametrize("is_announced", [False, True])
@pytest.mark.parametrize("crash", ["before the file is deleted", "after it"])
def test_a_process_that_dies_between_charge_and_answer_costs_nothing(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch, crash: str, is_announced: bool
) -> None:
    forget = runs.forget

    def die(*args: Any) -> None:
        if crash == "after it":
            forget(*args)
        raise KeyboardInterrupt  # what nothing here catches

    monkeypatch.setattr(runs, "forget", die)
    with pytest.raises(KeyboardInterrupt):
        unstored(shop)
    run = TryOn.objects.get()
    assert run.status == "succeeded"
    recovery.recover()
    assert shop.ledger()[1:] == CHARGED, "its answer may be about to be sent"
    age(finished_at=timezone.now() - timedelta(hours=1), announced_at=timezone.now() if is_announced else None)
    recovery.recover()
    recovery.recover()
    assert stored(media) == []
    assert shop.ledger()[1:] == [*CHARGED, ("refund", 1)]
    assert not runs_adrift()


def test_an_answer_that_was_not_sent_costs_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "note_delivery", lambda tryon: None)  # as if the server had been killed before
    assert unstored(shop).status_code == 200
    age(finished_at=timezone.now() - timedelta(hours=1), announced_at=timezone.now())
    recovery.recover()
    assert shop.ledger()[1:] == [*CHARGED, ("refund", 1)]


def test_an_answer_that_was_sent_is_paid_for(shop: Shop) -> None:
    assert unstored(shop).status_code == 200
    age(finished_at=timezone.now() - timedelta(hours=1))
    recovery.recover()
    assert shop.ledger()[1:] == CHARGED


def test_a_process_that_dies_before_the_charge_costs_nothing_and_leaves_no_file(shop: Shop, media: Path) -> None:
    assert unstored(shop).status_code == 200
    run = TryOn.objects.get()
    # As it was a moment before the charge, with the file written.
    media.joinpath(f"{run.file_stem}.png").write_bytes(jpeg())
    other = TryOn.objects.create(
        user=shop.user, status="running", credits=1, no_store=True, file_stem=run.file_stem, lease_until=timezone.now()
    )
    get_credits().hold(other.pk, shop.user, 1)
    past = timezone.now() - timedelta(hours=2)
    TryOn.objects.filter(pk=other.pk).update(lease_until=past, created_at=past)
    assert [found.pk for found in recovery.recover().released] == [other.pk]
    assert stored(media) == []
    assert shop.ledger()[1:] == [*CHARGED, *RELEASED]


def test_on_disconnect_finish_does_not_hold_for_what_nobody_could_fetch(
    shop: Shop, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outliving: list[object] = []
    monkeypatch.setattr(pipeline, "_outliving", lambda *args: outliving.append(args))
    tryon(ON_DISCONNECT="finish")
    assert unstored(shop, headers={"Idempotency-Key": "k"}).status_code == 200
    assert outliving == []


def test_the_command_keeps_the_picture_in_its_output_alone(
    shop: Shop, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg())
    photos = ["--user-image", str(photo), "--catalog-image", str(photo)]
    with pytest.raises(CommandError, match="--no-store needs --output FILE"):
        call_command("generate_tryon", *photos, "--no-store")
    with pytest.raises(CommandError, match="Leave --pictures out"):
        call_command("generate_tryon", *photos, "--no-store", "--output", str(tmp_path / "o.png"), "--pictures", "2")
    output = tmp_path / "out.png"
    call_command("generate_tryon", *photos, "--no-store", "--output", str(output))
    assert not TryOn.objects.get().has_leftovers
    assert output.read_bytes().startswith(b"\x89PNG")
    assert str(output) in capsys.readouterr().out
    assert stored(media) == []


# Inputs


def test_inputs_are_not_kept(shop: Shop, media: Path) -> None:
    assert shop.post().status_code == 200
    assert TryOn.objects.get().inputs == []
    assert len(stored(media)) == 1


def test_inputs_are_kept_where_the_settings_say_so_without_their_metadata(
    shop: Shop, media: Path, tryon: Callable[..., None], photos: Any
) -> None:
    tryon(KEEP_INPUTS=True)
    exif = Image.Exif()
    exif[0x010E] = "at home, 52.5 N 13.4 E"
    photos.expect_request("/located.jpg").respond_with_data(jpeg(color="peru", exif=exif))
    body = {**shop.body, "user_image_url": photos.url_for("/located.jpg")}
    assert shop.post(body).status_code == 200
    run = TryOn.objects.get()
    assert run.inputs == [f"{run.file_stem}-person.jpg", f"{run.file_stem}-garment.jpg"]
    assert stored(media) == sorted([*run.inputs, str(run.image.name)])
    kept = media.joinpath(run.inputs[0]).read_bytes()
    assert Image.open(io.BytesIO(kept)).size == (300, 400)
    assert b"at home" not in kept


def test_no_store_keeps_no_inputs_either(shop: Shop, media: Path, tryon: Callable[..., None]) -> None:
    tryon(KEEP_INPUTS=True)
    assert unstored(shop).status_code == 200
    assert stored(media) == []
    assert TryOn.objects.get().inputs == []


def test_inputs_of_a_run_that_fails_to_be_charged_are_deleted(
    shop: Shop, media: Path, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tryon(KEEP_INPUTS=True)
    monkeypatch.setattr(runs, "succeed", lambda *args, **kwargs: 1 / 0)
    assert shop.post().status_code == 500
    assert stored(media) == []
    assert shop.ledger()[1:] == RELEASED


def test_recovery_finds_the_inputs_of_a_stored_picture_and_deletes_those_without_one(
    shop: Shop, media: Path, tryon: Callable[..., None]
) -> None:
    tryon(KEEP_INPUTS=True)
    assert shop.post().status_code == 200
    done = TryOn.objects.get()
    past = timezone.now() - timedelta(hours=2)
    for stem, has_picture in (("whole", True), ("half", False)):
        media.joinpath(f"{stem}-person.jpg").write_bytes(jpeg())
        if has_picture:
            media.joinpath(f"{stem}.png").write_bytes(media.joinpath(str(done.image.name)).read_bytes())
        run = TryOn.objects.create(
            user=shop.user, status="running", credits=1, file_stem=stem, lease_until=past, created_at=past
        )
        get_credits().hold(run.pk, shop.user, 1)
    recovery.recover()
    assert TryOn.objects.get(file_stem="whole").inputs == ["whole-person.jpg"]
    assert TryOn.objects.get(file_stem="half").status == "failed"
    assert [name for name in stored(media) if name.startswith(("whole", "half"))] == ["whole-person.jpg", "whole.png"]
