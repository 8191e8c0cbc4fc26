"""Several pictures of one run, and a clip: all of them stored, named and paid for, or none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.files.storage import FileSystemStorage

from providers.base import AIProvider, TryOnRequest, TryOnResult
from providers.fake import FakeProvider
from tryon import pipeline, runs
from tryon.dispatch import choose_provider
from tryon.models import TryOn
from tryon.recovery import Recovered, recover
from tryon.runs import Order

from .dead import later, order_of
from .queue_provider import Queue, QueueProvider
from .shop import Shop, jpeg, png
from .test_jobs import queue

__all__ = ["queue"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

FAKE = {"fake": {"BACKEND": "providers.fake.FakeProvider"}}
CLIP = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
"""What every MP4 begins with."""
PICTURES = png(), png(200, 300), png(300, 200), jpeg()


class Studio(AIProvider):
    """Hands out what a test gives it."""

    name: ClassVar[str] = "Studio"
    makes_video = True
    max_pictures = 10
    sizes = ("1k", "2k")

    def __init__(self, alias: str, *, pictures: tuple[bytes, ...] = PICTURES[:1], video: bytes = b"") -> None:
        super().__init__(alias)
        self._pictures, self._video = pictures, video

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        first, *more = self._pictures
        return TryOnResult(
            data=first,
            more=tuple(more),
            video=self._video,
            content_type="image/png",
            model="studio-1",
            provider_id="s",
        )


@pytest.fixture
def studio(tryon: Callable[..., None]) -> Callable[..., None]:
    """Have this made."""

    def configure(*pictures: bytes, video: bytes = b"") -> None:
        options = {"pictures": pictures, "video": video}
        entry = {"BACKEND": f"{__name__}.Studio", "OPTIONS": options}
        tryon(PROVIDER="studio", PROVIDERS={"studio": entry}, MAX_PICTURES=10)

    return configure


def ask(shop: Shop, pictures: int, **more: Any) -> Any:
    return shop.post({**shop.body, "pictures": pictures, **more})


def stored(media: Path) -> dict[str, bytes]:
    """The files' contents, by what follows the run's stem in their names."""
    if not media.exists():
        return {}
    stem = TryOn.objects.latest("created_at").file_stem
    return {path.name.removeprefix(stem): path.read_bytes() for path in media.iterdir()}


def assert_nothing_happened(shop: Shop, media: Path, *, price: int = 3) -> None:
    assert shop.ledger() == [("grant", 3), ("hold", -price), ("release", price)]
    run = TryOn.objects.get()
    assert (run.status, run.image.name, run.video.name, run.more_images) == ("failed", "", "", [])
    assert stored(media) == {}


# The answer, the row and the price


def test_all_pictures_are_stored_answered_and_paid_for(shop: Shop, tryon: Callable[..., None], media: Path) -> None:
    tryon(PROVIDER="fake", PROVIDERS=FAKE, MAX_PICTURES=3)
    response = ask(shop, 3)
    run = TryOn.objects.get()
    assert response.status_code == 200
    answer = response.json()
    names = [run.image.name, *run.more_images]
    assert [Path(name).name.removeprefix(run.file_stem) for name in names] == [".png", "-2.png", "-3.png"]
    assert answer["image_urls"] == [f"http://testserver/media/{name}" for name in names]
    assert (answer["image_url"], answer["video_url"]) == (answer["image_urls"][0], None)
    assert (answer["credits"], run.credits, run.pictures) == (3, 3, 3)
    assert shop.ledger() == [("grant", 3), ("hold", -3), ("capture", 0)]
    assert len(set(stored(media).values())) == 3, "three pictures and not one three times"


def test_the_files_are_what_the_provider_sent_each_by_its_own_type(
    shop: Shop, studio: Callable[..., None], media: Path
) -> None:
    studio(*PICTURES[:2], jpeg())
    assert ask(shop, 3).json()["model"] == TryOn.objects.get().model == "studio-1", "as the answer says"
    assert stored(media) == {".png": PICTURES[0], "-2.png": PICTURES[1], "-3.jpg": jpeg()}


def test_a_clip_is_stored_beside_its_still(shop: Shop, studio: Callable[..., None], media: Path) -> None:
    studio(png(), video=CLIP)
    answer = shop.post().json()
    run = TryOn.objects.get()
    assert answer["video_url"] == f"http://testserver/media/{run.file_stem}.mp4"
    assert answer["image_urls"] == [answer["image_url"]]
    assert stored(media) == {".png": png(), ".mp4": CLIP}
    assert (run.video.name, run.more_images) == (f"{run.file_stem}.mp4", [])
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)], "a clip costs what a picture costs"


def test_pictures_and_a_clip_may_come_together(shop: Shop, studio: Callable[..., None], media: Path) -> None:
    studio(*PICTURES[:2], video=CLIP)
    answer = ask(shop, 2).json()
    assert len(answer["image_urls"]) == 2
    assert answer["video_url"].endswith(".mp4")
    assert sorted(stored(media)) == ["-2.png", ".mp4", ".png"]
    assert shop.balance() == 1


def test_pictures_that_nobody_asked_for_are_neither_stored_nor_paid_for(
    shop: Shop, studio: Callable[..., None], media: Path
) -> None:
    studio(*PICTURES)
    answer = ask(shop, 2).json()
    assert len(answer["image_urls"]) == 2
    assert sorted(stored(media)) == ["-2.png", ".png"]
    assert shop.ledger() == [("grant", 3), ("hold", -2), ("capture", 0)]


def test_the_same_answer_is_given_again_with_all_of_them(shop: Shop, studio: Callable[..., None]) -> None:
    studio(*PICTURES[:2], video=CLIP)
    first, again = (shop.post({**shop.body, "pictures": 2}, headers={"Idempotency-Key": "a"}) for _ in range(2))
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert shop.balance() == 1


@pytest.mark.parametrize(
    ("size", "price"), [("", 1), ("1k", 1), ("2k", 2)], ids=["any size", "a size at the common price", "a dear size"]
)
def test_each_picture_costs_the_price_of_its_size(
    shop: Shop, studio: Callable[..., None], tryon: Callable[..., None], size: str, price: int
) -> None:
    studio(*PICTURES[:2])
    tryon(SIZES=["1k", "2k"], PRICES={"studio//2k": 2})
    response = ask(shop, 2, **({"size": size} if size else {}))
    if price == 2:
        assert response.json()["code"] == "insufficient_credits"
        assert shop.ledger() == [("grant", 3)]
        assert not TryOn.objects.exists()
    else:
        assert response.json()["credits"] == 2
        assert shop.ledger() == [("grant", 3), ("hold", -2), ("capture", 0)]


# Not all of them


@pytest.mark.parametrize(
    ("pictures", "video"),
    [
        (PICTURES[:2], b""),
        (PICTURES[:1], CLIP),
        ((*PICTURES[:2], b"<html>no picture</html>"), b""),
        ((*PICTURES[:2], b""), b""),
        (PICTURES[:3], b"<html>no clip</html>"),
        (PICTURES[:3], b"ftyp"),
    ],
    ids=["one too few", "a clip is no picture", "the last is none", "the last is empty", "no clip", "half a clip"],
)
def test_what_is_not_whole_is_not_paid_for(
    shop: Shop, studio: Callable[..., None], media: Path, pictures: tuple[bytes, ...], video: bytes
) -> None:
    studio(*pictures, video=video)
    response = ask(shop, 3)
    assert (response.status_code, response.json()["code"]) == (502, "provider_invalid_response")
    [attempt] = TryOn.objects.get().attempts
    assert attempt["outcome"] == "provider_invalid_response"
    assert_nothing_happened(shop, media)


class FullDisk(FileSystemStorage):
    """Takes one file, and of the next a part."""

    saved: ClassVar[list[str]] = []

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        name = super().save(name, content, max_length)
        self.saved.append(name)
        if len(self.saved) == 2:
            with open(self.path(name), "r+b") as file:
                file.truncate(100)
            raise OSError(28, "No space left on device")
        return name


@pytest.mark.parametrize("makes", ["pictures", "clip"])
def test_a_storage_that_fails_at_the_second_file_keeps_none(
    shop: Shop, studio: Callable[..., None], media: Path, settings: Any, makes: str
) -> None:
    FullDisk.saved.clear()
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.FullDisk"}}
    studio(*PICTURES[: 3 if makes == "pictures" else 1], video=CLIP if makes == "clip" else b"")
    response = ask(shop, 3 if makes == "pictures" else 1)
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert len(FullDisk.saved) == 2
    assert_nothing_happened(shop, media, price=3 if makes == "pictures" else 1)


def test_a_charge_that_fails_takes_all_files_away_again(
    shop: Shop, studio: Callable[..., None], media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio(*PICTURES[:3], video=CLIP)
    seen = list[str]()

    def refuse(*args: Any, **kwargs: Any) -> None:
        seen.extend(stored(media))
        raise RuntimeError("no charge today")

    monkeypatch.setattr(runs, "succeed", refuse)
    assert ask(shop, 3).status_code == 500
    assert sorted(seen) == ["-2.png", "-3.png", ".mp4", ".png"]
    assert_nothing_happened(shop, media)


# Killed


def killed_after(files: int, shop: Shop, *, half: bool = False) -> TryOn:
    """What a process leaves that is killed when so many of its run's files are stored; and ``half`` of the next."""
    tryon = runs.admit(TryOn().pk, _three(shop), choose_provider())
    result = TryOnResult(data=PICTURES[0], more=PICTURES[1:3], video=CLIP, content_type="image/png", model="studio-1")
    looked = runs.inspect(result, choose_provider(), 3)
    names = [f"{tryon.file_stem}{file.suffix}" for file in looked.files]
    assert [name.removeprefix(tryon.file_stem) for name in names] == ["-2.png", "-3.png", ".mp4", ".png"]
    storage = TryOn.image.field.storage
    for name, file in list(zip(names, looked.files, strict=True))[:files]:
        storage.save(name, runs._Whole(file.data))
    if half:
        storage.save(names[files], runs._Whole(looked.files[files].data[: len(looked.files[files].data) // 2]))
    return tryon


def _three(shop: Shop) -> Order:
    return Order(user=shop.user, person=jpeg(), garment=jpeg(color="navy"), pictures=3)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("files", [0, 1, 2, 3])
def test_killed_between_the_files_all_of_them_go_and_the_credits_come_back(
    shop: Shop, studio: Callable[..., None], media: Path, files: int, half: bool
) -> None:
    studio()
    dead = killed_after(files, shop, half=half)
    assert len(stored(media)) == files + half
    assert recover(later()) == Recovered(released=[dead])
    assert_nothing_happened(shop, media)


def test_killed_after_the_last_file_it_is_charged_with_all_of_them(
    shop: Shop, studio: Callable[..., None], media: Path
) -> None:
    studio()
    dead = killed_after(4, shop)
    assert recover(later()) == Recovered(captured=[dead])
    dead.refresh_from_db()
    stem = dead.file_stem
    assert dead.status == "succeeded"
    assert (dead.image.name, dead.more_images, dead.video.name) == (
        f"{stem}.png",
        [f"{stem}-2.png", f"{stem}-3.png"],
        f"{stem}.mp4",
    )
    assert (dead.content_type, dead.width, dead.height) == ("image/png", 1024, 1536)
    assert shop.ledger() == [("grant", 3), ("hold", -3), ("capture", 0)]
    assert len(stored(media)) == 4


def test_the_real_order_of_writing_is_the_one_that_recovery_relies_on(
    shop: Shop, studio: Callable[..., None], media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture comes last: who finds it finds the others."""
    written = []
    save = FileSystemStorage.save

    def look(self: FileSystemStorage, name: str, content: Any, **more: Any) -> str:
        written.append(name)
        return save(self, name, content, **more)

    monkeypatch.setattr(FileSystemStorage, "save", look)
    studio(*PICTURES[:3], video=CLIP)
    assert ask(shop, 3).status_code == 200
    stem = TryOn.objects.get().file_stem
    assert [name.removeprefix(stem) for name in written] == ["-2.png", "-3.png", ".mp4", ".png"]
    assert shop.balance() == 0


def test_the_pictures_of_a_dead_processs_job_are_fetched_all_of_them(
    shop: Shop, queue: Queue, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of those that it had begun to write."""

    async def resume(self: QueueProvider, job: str) -> TryOnResult:
        return TryOnResult(data=PICTURES[0], more=PICTURES[1:3], content_type="image/png", model="queue-1")

    monkeypatch.setattr(QueueProvider, "resume", resume)
    dead = killed_after(1, shop, half=True)
    dead.note_job("job-1")
    assert recover(later()) == Recovered(captured=[dead])
    dead.refresh_from_db()
    assert [Path(name).name.removeprefix(dead.file_stem) for name in dead.more_images] == ["-2.png", "-3.png"]
    assert stored(media) == {".png": PICTURES[0], "-2.png": PICTURES[1], "-3.png": PICTURES[2]}
    assert shop.ledger() == [("grant", 3), ("hold", -3), ("capture", 0)]


def test_a_job_with_fewer_pictures_than_asked_for_gives_the_credits_back(
    shop: Shop, queue: Queue, media: Path
) -> None:
    queue.pictures = {"job-1": png()}
    dead = runs.admit(TryOn().pk, _three(shop), choose_provider())
    dead.note_job("job-1")
    assert recover(later()) == Recovered(released=[dead])
    assert_nothing_happened(shop, media)


def test_fetched_files_of_a_run_that_ended_meanwhile_are_deleted_all_of_them(
    shop: Shop, queue: Queue, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resume(self: QueueProvider, job: str) -> TryOnResult:
        await asyncio.to_thread(runs.fail, dead, TryOn.Status.FAILED, "cancelled", "")
        return TryOnResult(data=PICTURES[0], more=PICTURES[1:3], video=CLIP, content_type="image/png", model="queue-1")

    monkeypatch.setattr(QueueProvider, "resume", resume)
    dead = runs.admit(TryOn().pk, _three(shop), choose_provider())
    dead.note_job("job-1")
    assert recover(later()) == Recovered()
    assert_nothing_happened(shop, media)


# What may be asked for


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"pictures": 4}, "pictures", "4 pictures cannot be made at once. Ask for 1 to 3."),
        ({"pictures": 10**30}, "pictures", f"{10**30} pictures cannot be made at once. Ask for 1 to 3."),
        ({"pictures": 0}, "pictures", "0 pictures cannot be made at once. Ask for 1 to 3."),
        ({"pictures": -1}, "pictures", "-1 pictures cannot be made at once. Ask for 1 to 3."),
        ({"pictures": "several"}, "pictures", "A valid integer is required."),
        ({"size": "4k"}, "size", "This server does not offer 4k. Ask for one of: 1k, 2k."),
        ({"size": "8k"}, "size", '"8k" is none of: 1k, 2k, 4k.'),
        ({"size": ["2k"]}, "size", None),
        ({"size": {}}, "size", None),
    ],
)
def test_what_the_settings_do_not_offer_is_refused_by_name(
    shop: Shop, tryon: Callable[..., None], body: dict[str, Any], field: str, sentence: str | None
) -> None:
    tryon(MAX_PICTURES=3, SIZES=["1k", "2k"])
    response = shop.post({**shop.body, **body})
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    [(name, [said])] = response.json()["errors"].items()
    assert name == field
    assert sentence is None or said == sentence
    assert f"{field}: {said}" in response.json()["detail"]
    assert shop.ledger() == [("grant", 3)]
    assert not TryOn.objects.exists()


def test_a_server_that_offers_no_sizes_says_to_leave_it_out(shop: Shop) -> None:
    said = shop.post({**shop.body, "size": "2k"}).json()["errors"]["size"]
    assert said == ["This server does not offer 2k. Leave size out."]
    assert shop.ledger() == [("grant", 3)]


def test_by_default_there_is_one_picture(shop: Shop) -> None:
    assert ask(shop, 2).json()["errors"]["pictures"] == ["2 pictures cannot be made at once. Ask for 1."]
    assert ask(shop, 1).status_code == 200
    assert shop.balance() == 2


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"pictures": 5}, "pictures=5: Fake makes 1 to 4 at a time. Ask for that many."),
        ({"size": "2k"}, "size=2k: Fake cannot be told this size. Leave size out."),
    ],
)
def test_what_the_provider_cannot_make_is_refused_by_name(
    shop: Shop, tryon: Callable[..., None], body: dict[str, Any], sentence: str
) -> None:
    tryon(PROVIDER="fake", PROVIDERS=FAKE, MAX_PICTURES=5, SIZES=["2k"], PRICE=0)
    response = shop.post({**shop.body, **body})
    assert (response.status_code, response.json()["code"]) == (400, "unsupported_feature")
    assert response.json()["errors"] == {next(iter(body)): [sentence]}
    assert shop.ledger() == [("grant", 3), ("hold", 0), ("release", 0)]


# The fingerprint


def before_there_were_more_fields(order: Order) -> str:
    """The formula by which the stored fingerprints of older versions were made."""
    texts = [order.catalog_id, order.prompt, order.category, order.provider]
    parts = [text.encode() for text in texts]
    parts += [photo if isinstance(photo, bytes) else str(photo).encode() for photo in (order.person, order.garment)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def test_an_order_without_the_newer_fields_has_the_fingerprint_it_always_had(shop: Shop) -> None:
    """Or the keys of the requests that are under way during an update were taken for reused."""
    for order in (
        order_of(shop),
        Order(user=None, person="http://a.example/é", garment=jpeg(), catalog_id="dress-7", category="tops"),
        Order(user=None, person=jpeg(), garment=jpeg(), prompt="in the rain", provider="fake", idempotency_key="a"),
    ):
        assert order.fingerprint() == before_there_were_more_fields(order)


def test_each_newer_field_is_part_of_the_fingerprint() -> None:
    photos: dict[str, Any] = {"user": None, "person": jpeg(), "garment": jpeg()}
    others: list[dict[str, Any]] = [
        {},
        {"seed": 0},
        {"seed": 1},
        {"pictures": 2},
        {"size": "1k"},
        {"size": "2k"},
        {"output_format": "png"},
        {"pictures": 2, "seed": 2},
        {"catalog_id": "pictures=2"},
    ]
    assert len({Order(**photos, **other).fingerprint() for other in others}) == len(others)


def test_a_key_of_one_picture_does_not_answer_for_two(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(MAX_PICTURES=2)
    key = {"Idempotency-Key": "a"}
    assert shop.post(headers=key).status_code == 200
    again = shop.post({**shop.body, "pictures": 2}, headers=key)
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
    assert shop.post({**shop.body, "pictures": 1, "size": "", "seed": None}, headers=key).status_code == 200
    assert shop.balance() == 2


def test_the_operators_own_pictures_are_free_however_many(shop: Shop, media: Path) -> None:
    order = Order(user=None, person=jpeg(), garment=jpeg(color="navy"), pictures=4)
    run = asyncio.run(pipeline.execute(lambda: order, lambda tryon: tryon))
    assert (run.credits, len(run.more_images)) == (0, 3)
    assert len(stored(media)) == 4
    assert shop.ledger() == [("grant", 3)]
    assert isinstance(choose_provider(), FakeProvider)


def test_the_seed_of_a_picture_is_kept_and_told(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PROVIDER="fake", PROVIDERS=FAKE)
    assert shop.post({**shop.body, "seed": 7}).json()["seed"] == 7
    assert TryOn.objects.get().seed == 7
    assert shop.post().json()["seed"] is None
