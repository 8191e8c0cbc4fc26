"""The offline provider: real nets, real photos of the openvto package."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvto
import pytest
from django.core.exceptions import ImproperlyConfigured
from PIL import Image, ImageDraw

from providers.base import Category, Photo, TryOnRequest, TryOnResult
from providers.errors import ImageUnusable, ProviderMisconfigured, ProviderUnavailable
from providers.local import SECONDS_EACH, LocalProvider, garment, judging, mark, nets, tryon
from providers.local.imaging import Floats, Picture, lab_of
from providers.local.models import POSE, SALIENCY
from providers.tests.marks import COMPOSITE, said

ASSETS = Path(openvto.__file__).parent / "assets"
WOMAN, MAN = ASSETS / "people/2_posture.jpg", ASSETS / "people/3_posture.jpg"
SELFIE = ASSETS / "people/2_selfie.jpg"
"""A hand with a telephone before the body: a picture can be made, but none that should be shown."""
SHIRT, TROUSERS, TEE = (ASSETS / f"clothes/{name}_front.jpg" for name in ("shirts/1", "pants/2", "shirts/4"))


def photo(source: Path | bytes | Image.Image) -> Photo:
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        source = buffer.getvalue()
    data = source.read_bytes() if isinstance(source, Path) else source
    with Image.open(io.BytesIO(data)) as image:
        assert image.format
        return Photo(
            data=data, content_type=f"image/{image.format.lower()}", width=image.size[0], height=image.size[1]
        )


def request(
    person: Path | Image.Image, garment: Path | Image.Image, category: Category = "auto", **changes: Any
) -> TryOnRequest:
    return TryOnRequest(person=photo(person), garment=photo(garment), prompt="", category=category, **changes)


def try_on(provider: LocalProvider, wanted: TryOnRequest) -> TryOnResult:
    return asyncio.run(provider.try_on(wanted, timeout=120))


def pixels(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def change(before: Picture, after: Picture, region: tuple[slice, slice]) -> float:
    """The share of pixels that look different."""
    distance: Floats = np.abs(lab_of(before[region]) - lab_of(after[region])).max(-1)
    return float((distance > 6).mean())


@pytest.fixture(scope="module")
def local(models: Path) -> LocalProvider:
    return LocalProvider("local", models_dir=models)


@pytest.fixture(scope="module")
def analyses() -> tryon.Analyses:
    return tryon.Analyses(8)


@pytest.fixture(scope="module")
def shirt(local: LocalProvider) -> TryOnResult:
    return try_on(local, request(WOMAN, SHIRT))


# What the picture shows. Regions in pixels of the result: 1024 high, 765 wide.

TORSO = (slice(420, 580), slice(320, 450))
FACE = (slice(250, 320), slice(350, 410))
LEGS = (slice(650, 900), slice(330, 430))


def test_the_person_wears_the_shirt(shirt: TryOnResult) -> None:
    before, after = tryon._read(WOMAN.read_bytes()), pixels(shirt.data)
    assert after.shape == (1024, 765, 3)
    assert change(before, after, TORSO) > 0.95
    cloth = np.median(lab_of(tryon._read(SHIRT.read_bytes()))[400:600, 400:600].reshape(-1, 3), 0)
    worn = np.median(lab_of(after)[TORSO].reshape(-1, 3), 0)
    assert np.abs(worn[1:] - cloth[1:]).max() < 6, "the shirt's colour"


def test_everything_else_stays_as_it_was(shirt: TryOnResult) -> None:
    before, after = tryon._read(WOMAN.read_bytes()), pixels(shirt.data)
    assert change(before, after, FACE) == 0
    assert change(before, after, LEGS) < 0.01
    for corner in (slice(None, 220), slice(930, None)):
        np.testing.assert_array_equal(after[corner], before[corner])


def test_says_what_it_is(shirt: TryOnResult) -> None:
    assert (shirt.content_type, shirt.model, shirt.warnings, shirt.cost_usd) == ("image/png", "local-2", (), None)


def test_the_same_photos_give_the_same_bytes(local: LocalProvider, shirt: TryOnResult) -> None:
    assert try_on(local, request(WOMAN, SHIRT)).data == shirt.data
    afresh = LocalProvider("local", models_dir=local.models_dir, remembered=0)
    assert try_on(afresh, request(WOMAN, SHIRT)).data == shirt.data, "without anything remembered"


@pytest.mark.parametrize("threads", [1, 3])
def test_another_process_gives_the_same_bytes(models: Path, shirt: TryOnResult, threads: int) -> None:
    """However many threads OpenCV takes there, and however its sets are ordered."""
    code = (
        "import hashlib, sys\n"
        "import cv2\n"
        "from pathlib import Path\n"
        "from providers.local import mark, nets, tryon\n"
        "cv2.setNumThreads(int(sys.argv.pop()))\n"
        "folder, *photos = map(Path, sys.argv[1:])\n"
        "outcome = tryon.run(nets.load(folder), *(photo.read_bytes() for photo in photos), 'auto')\n"
        "print(hashlib.sha256(mark.png(outcome.picture)).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, str(models), str(WOMAN), str(SHIRT), str(threads)]
    environment = {**os.environ, "PYTHONHASHSEED": str(threads)}
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert child.stdout.strip() == hashlib.sha256(shirt.data).hexdigest()


@pytest.mark.parametrize("garment", [SHIRT, TEE, TROUSERS])
@pytest.mark.parametrize("person", [WOMAN, MAN])
def test_not_a_bit_is_different_where_nothing_is_worn(
    models: Path, analyses: tryon.Analyses, person: Path, garment: Path
) -> None:
    outcome = tryon.run(nets.load(models), person.read_bytes(), garment.read_bytes(), "auto", analyses)
    before = tryon._read(person.read_bytes())
    assert outcome.picture.dtype == before.dtype
    np.testing.assert_array_equal(outcome.picture[~outcome.changed], before[~outcome.changed])
    assert 0.02 < outcome.changed.mean() < 0.3, "the garment, not the photo"
    different = (outcome.picture != before).any(-1)
    assert different[outcome.changed].mean() > 0.8, "no more is called changed than what is worn"


# How far the picture can be trusted


def test_the_provider_tells_confidence_and_warnings(local: LocalProvider, models: Path, shirt: TryOnResult) -> None:
    outcome = tryon.fit(nets.load(models), WOMAN.read_bytes(), TEE.read_bytes(), "auto")
    result = try_on(local, request(WOMAN, TEE))
    assert (result.confidence, result.warnings) == (outcome.confidence, outcome.warnings)
    assert judging.LEAST <= outcome.confidence <= 1


def test_the_pictures_of_the_demo_are_shown_and_trusted(local: LocalProvider, shirt: TryOnResult) -> None:
    """Well above the threshold, and with no warning but of what had to be painted, or stretched for whoever walks."""
    for result in (shirt, try_on(local, request(MAN, TEE)), try_on(local, request(WOMAN, TROUSERS))):
        assert result.confidence is not None
        assert result.confidence > 1.5 * judging.LEAST
        assert all(" painted" in text or " stretched" in text for text in result.warnings), result.warnings


def test_a_picture_that_nobody_should_see_is_refused(local: LocalProvider, models: Path) -> None:
    outcome = tryon.fit(nets.load(models), SELFIE.read_bytes(), SHIRT.read_bytes(), "auto")
    assert outcome.confidence < judging.LEAST
    assert outcome.refusal.startswith("Person photo: ")
    with pytest.raises(ImageUnusable) as refusal:
        try_on(local, request(SELFIE, SHIRT))
    assert str(refusal.value) == outcome.refusal


# What is remembered of the photos


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nets that were run, by name, since the list was last cleared."""
    names: list[str] = []

    def counted(net: str) -> None:
        method = getattr(nets.Nets, net)

        def run(*args: Any, **kwargs: Any) -> Any:
            names.append(net)
            return method(*args, **kwargs)

        monkeypatch.setattr(nets.Nets, net, run)

    for net in ("_landmarks", "saliency"):
        counted(net)
    return names


def times_asked(asked: list[str], provider: LocalProvider, wanted: TryOnRequest) -> tuple[int, int]:
    """How often the pose net and the saliency net were run for one picture."""
    asked.clear()
    try_on(provider, wanted)
    return asked.count("_landmarks"), asked.count("saliency")


def test_a_second_garment_on_a_person_asks_the_nets_less(models: Path, asked: list[str]) -> None:
    provider = LocalProvider("local", models_dir=models)
    first = times_asked(asked, provider, request(WOMAN, SHIRT))
    other_garment = times_asked(asked, provider, request(WOMAN, TEE))
    other_person = times_asked(asked, provider, request(MAN, TEE))
    assert first[1] == 1
    assert other_garment == (0, 0), "nobody's skin is seen on it, and colour alone tells it from its ground"
    assert 0 < other_person[0] <= first[0], "only for the person"
    assert times_asked(asked, provider, request(MAN, SHIRT)) == (0, 0)


def test_the_category_of_a_garment_is_remembered_with_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a garment is may depend on what the client calls it."""
    analyse, told = garment.analyse, []

    def counted(found: nets.Nets, rgb: Picture, kind: garment.Kind | None = None) -> garment.Garment:
        told.append(kind)
        return analyse(found, rgb, kind)

    monkeypatch.setattr(garment, "analyse", counted)
    provider = LocalProvider("local", models_dir=models)
    for category in ("auto", "tops", "tops", "auto"):
        try_on(provider, request(WOMAN, SHIRT, category))
    assert told == [None, "upper"]


def test_nothing_is_remembered_if_told_so(models: Path, asked: list[str]) -> None:
    provider = LocalProvider("local", models_dir=models, remembered=0)
    first = times_asked(asked, provider, request(WOMAN, SHIRT))
    assert times_asked(asked, provider, request(WOMAN, SHIRT)) == first


def test_a_photo_that_was_refused_is_looked_at_again(models: Path, asked: list[str]) -> None:
    provider = LocalProvider("local", models_dir=models)
    for _ in range(2):
        asked.clear()
        with pytest.raises(ImageUnusable, match=r"^Person photo: no person"):
            try_on(provider, request(drawn((600, 800)), SHIRT))
        assert asked


def test_the_least_recently_used_analysis_is_forgotten() -> None:
    analyses, made = tryon.Analyses(2), list[bytes]()
    for photo in (b"a", b"b", b"a", b"c", b"a", b"b"):
        analyses.get("person", photo, functools.partial(made.append, photo))
    assert made == [b"a", b"b", b"c", b"b"]


def test_people_and_garments_are_counted_apart() -> None:
    analyses = tryon.Analyses(1)
    assert analyses.get("person", b"the same photo", lambda: "a person") == "a person"
    assert analyses.get("garment", b"the same photo", lambda: "a garment") == "a garment"
    assert analyses.get("person", b"the same photo", lambda: "another person") == "a person"


def test_photos_that_begin_or_end_alike_are_told_apart() -> None:
    analyses, alike = tryon.Analyses(3), bytes(100_000)
    photos = (alike + b"a" + alike, alike + b"b" + alike, alike + b"a" + alike[1:])
    found = [analyses.get("person", photo, functools.partial(int, index)) for index, photo in enumerate(photos)]
    assert found == [0, 1, 2]


def test_an_analysis_that_failed_is_not_kept() -> None:
    analyses = tryon.Analyses(2)

    def fail() -> str:
        raise ImageUnusable("Person photo: …")

    with pytest.raises(ImageUnusable):
        analyses.get("person", b"photo", fail)
    assert analyses.get("person", b"photo", lambda: "found") == "found"
    assert analyses.get("person", b"photo", fail) == "found"


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads that take turns a thousand times as often: what is not guarded goes wrong."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_many_threads_share_what_is_remembered(often_switched: None, size: int) -> None:
    photos = [bytes([number]) for number in range(8)]
    analyses = tryon.Analyses(size)
    start = threading.Barrier(8, timeout=30)

    def ask(seed: int) -> bool:
        start.wait()
        order = [photos[index] for index in np.random.default_rng(seed).integers(0, len(photos), 10_000)]
        return all(analyses.get("person", photo, functools.partial(bytes, photo)) == photo for photo in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert len(analyses._kept["person"]) == size


# What the file says of itself


def test_the_picture_says_that_it_is_a_composite_and_no_models_work(local: LocalProvider, shirt: TryOnResult) -> None:
    assert said(shirt.data) == COMPOSITE
    assert not local.ai_generated


def test_the_mark_changes_no_pixel_and_weighs_less_than_a_kilobyte(shirt: TryOnResult) -> None:
    picture = pixels(shirt.data)
    bare = io.BytesIO()
    Image.fromarray(picture).save(bare, "PNG", compress_level=1)
    marked = mark.png(picture)
    assert marked == shirt.data
    np.testing.assert_array_equal(pixels(marked), picture)
    assert 0 < len(marked) - len(bare.getvalue()) < 1000


def test_the_mark_stands_before_the_pixels_as_it_is(shirt: TryOnResult) -> None:
    """Uncompressed and early, so that it is found by who reads but the beginning."""
    assert shirt.data.index(b"iTXtXML:com.adobe.xmp\0\0\0\0\0<?xpacket begin=") < shirt.data.index(b"IDAT")


def test_trousers_go_on_the_legs(local: LocalProvider) -> None:
    before, after = tryon._read(WOMAN.read_bytes()), pixels(try_on(local, request(WOMAN, TROUSERS)).data)
    assert change(before, after, LEGS) > 0.8
    assert change(before, after, FACE) == 0
    np.testing.assert_array_equal(after[:300], before[:300])


def test_the_category_decides_over_the_silhouette(local: LocalProvider) -> None:
    with pytest.raises(ImageUnusable, match=r"^Garment photo: .*waistband"):
        try_on(local, request(MAN, TEE, "bottoms"))
    as_a_dress = try_on(local, request(MAN, TEE, "dresses"))
    as_a_top = try_on(local, request(MAN, TEE, "tops"))
    assert as_a_dress.data != as_a_top.data, "a dress hides what is worn below the waist as well"
    assert as_a_top.data == try_on(local, request(MAN, TEE)).data


def test_a_cut_out_garment_is_seen_on_white(local: LocalProvider) -> None:
    """Shops send PNG whose invisible pixels may hold anything."""
    rgb = tryon._read(SHIRT.read_bytes())
    alpha = np.where(rgb.min(-1) > 236, 0, 255).astype(np.uint8)
    rubbish = np.where(alpha[..., None] == 0, np.uint8([255, 0, 200]), rgb)  # type: ignore[arg-type]
    garment = Image.fromarray(np.dstack([rubbish, alpha]))
    after = pixels(try_on(local, request(MAN, garment)).data)
    pink = (after[..., 0] > 230) & (after[..., 1] < 40)
    assert pink.sum() == 0


def test_a_large_photo_is_made_smaller(local: LocalProvider) -> None:
    with Image.open(MAN) as image:
        large = image.resize((image.width * 2, image.height * 2))
    assert max(pixels(try_on(local, request(large, TEE)).data).shape) == tryon.LONGEST_SIDE


def drawn(size: tuple[int, int], color: str = "#888") -> Image.Image:
    image = Image.new("RGB", size, color)
    ImageDraw.Draw(image).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="#a33")
    return image


@pytest.mark.parametrize("person", [SHIRT, drawn((1, 1)), drawn((600, 800)), drawn((2000, 3)), drawn((3, 2000))])
def test_a_photo_without_a_person_is_refused_by_name(local: LocalProvider, person: Path | Image.Image) -> None:
    with pytest.raises(ImageUnusable, match=r"^Person photo: .* Use a photo"):
        try_on(local, request(person, SHIRT))


@pytest.mark.parametrize(
    "garment",
    [
        WOMAN,
        *(drawn(size) for size in ((600, 800), (1, 1), (2000, 3), (3, 2000))),
        Image.new("RGB", (500, 500), "#fff"),
    ],
)
def test_a_photo_without_a_garment_is_refused_by_name(local: LocalProvider, garment: Path | Image.Image) -> None:
    with pytest.raises(ImageUnusable, match=r"^Garment photo: .* Use a photo"):
        try_on(local, request(MAN, garment))


def test_trousers_are_no_top_whatever_the_client_says(models: Path, analyses: tryon.Analyses) -> None:
    with pytest.raises(ImageUnusable, match=r"^Garment photo: "):
        tryon.run(nets.load(models), WOMAN.read_bytes(), TROUSERS.read_bytes(), "tops", analyses)


# How it runs: a bounded pool beside the event loop, one copy of the nets


def test_the_event_loop_stays_free(local: LocalProvider) -> None:
    async def count_while(work: asyncio.Task[Any]) -> int:
        ticks = 0
        while not work.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks

    async def both() -> int:
        work = asyncio.create_task(local.try_on(request(MAN, TEE), timeout=120))
        ticks = await count_while(work)
        await work
        return ticks

    assert asyncio.run(both()) > 30


DRAWN = tryon.Outcome(
    picture=np.zeros((2, 2, 3), np.uint8), changed=np.ones((2, 2), bool), confidence=1.0, warnings=(), refusal=""
)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every picture waits for the event; nothing is drawn."""
    gate = threading.Event()

    def wait(*_: Any) -> tryon.Outcome:
        assert gate.wait(30)
        return DRAWN

    monkeypatch.setattr(tryon, "run", wait)
    monkeypatch.setattr(nets, "load", lambda folder: None)
    yield gate
    gate.set()


def test_a_full_queue_refuses_and_says_when_to_come_back(blocked: threading.Event) -> None:
    provider = LocalProvider("local", workers=1, max_waiting=2)
    wanted = request(WOMAN, SHIRT)

    async def run() -> list[TryOnResult]:
        inside = [asyncio.create_task(provider.try_on(wanted, timeout=30)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ProviderUnavailable, match="3 pictures") as refusal:
            await provider.try_on(wanted, timeout=30)
        assert refusal.value.retry_after == 3 * SECONDS_EACH
        blocked.set()
        results = await asyncio.gather(*inside)
        return [*results, await provider.try_on(wanted, timeout=30)]

    assert [result.data for result in asyncio.run(run())] == [mark.png(DRAWN.picture)] * 4


def test_who_gives_up_while_waiting_gives_the_place_back(blocked: threading.Event) -> None:
    provider = LocalProvider("local", workers=1, max_waiting=1)
    wanted = request(WOMAN, SHIRT)

    async def run() -> list[TryOnResult]:
        running = asyncio.create_task(provider.try_on(wanted, timeout=30))
        await asyncio.sleep(0)
        for _ in range(3):
            waiting = asyncio.create_task(provider.try_on(wanted, timeout=30))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        last = asyncio.create_task(provider.try_on(wanted, timeout=30))
        await asyncio.sleep(0)
        blocked.set()
        return list(await asyncio.gather(running, last))

    assert len(asyncio.run(run())) == 2


def test_one_process_reads_the_nets_once(models: Path, monkeypatch: pytest.MonkeyPatch, shirt: TryOnResult) -> None:
    monkeypatch.setattr(nets, "_loaded", {})
    read, folders = nets.Nets, []

    def counted(directory: Path) -> nets.Nets:
        folders.append(directory)
        return read(directory)

    monkeypatch.setattr(nets, "Nets", counted)
    providers = [LocalProvider(alias, models_dir=models, workers=2) for alias in "ab"]

    async def run() -> list[TryOnResult]:
        wanted = [request(WOMAN, SHIRT), request(MAN, TEE)]
        return await asyncio.gather(*(one.try_on(each, timeout=120) for one in providers for each in wanted))

    results = asyncio.run(run())
    assert folders == [models]
    assert results[0].data == results[2].data == shirt.data, "side by side they do not disturb each other"


# What the operator is told


def test_missing_models_are_named(tmp_path: Path) -> None:
    provider = LocalProvider("local", models_dir=tmp_path)
    [problem] = provider.check()
    for name in (POSE.name, SALIENCY.name):
        assert str(tmp_path / name) in problem.message
    assert "fetch_local_models" in problem.hint
    with pytest.raises(ProviderMisconfigured, match="fetch_local_models"):
        try_on(provider, request(WOMAN, SHIRT))


def test_damaged_models_are_refused(tmp_path: Path, models: Path) -> None:
    for model in (POSE, SALIENCY):
        (tmp_path / model.name).write_bytes((models / model.name).read_bytes())
    with (tmp_path / POSE.name).open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    with pytest.raises(ProviderMisconfigured, match=POSE.name):
        try_on(LocalProvider("local", models_dir=tmp_path), request(WOMAN, SHIRT))


def test_present_models_are_no_problem(models: Path) -> None:
    assert list(LocalProvider("local", models_dir=models).check()) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    import providers.local as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    provider = LocalProvider("local", models_dir=models)
    assert [problem.message for problem in provider.check()] == [
        "The package opencv-python-headless is not installed.",
        "The package numpy is not installed.",
    ]
    with pytest.raises(ProviderMisconfigured, match="`pip install opencv-python-headless numpy`"):
        try_on(provider, request(WOMAN, SHIRT))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("models_dir", 7),
        ("models_dir", ""),
        ("workers", 0),
        ("workers", True),
        ("workers", "2"),
        ("max_waiting", -1),
        ("remembered", -1),
        ("remembered", 2.0),
        ("remembered", False),
    ],
)
def test_bad_option(option: str, value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{option}"):
        LocalProvider("local", **{option: value})  # type: ignore[arg-type]


def test_opencv_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, providers.local as p; p.LocalProvider('x'); sys.exit('cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_opencv_runs_both_nets(models: Path) -> None:
    """Version 5 of OpenCV gives one output of the landmark net's five."""
    assert int(cv2.__version__.split(".")[0]) == 4
    found = nets.load(models).pose(tryon._read(WOMAN.read_bytes()), np.zeros((1024, 765), np.float32))
    assert found.score > 0.9
    assert found.joints.shape == (39, 2)
