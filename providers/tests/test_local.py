"""The offline provider: real nets, real photos of the openvto package."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
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
from providers.local import LocalProvider, mark, nets, tryon
from providers.local.imaging import Floats, Picture, lab_of
from providers.local.models import POSE, SALIENCY
from providers.tests.marks import COMPOSITE, said

ASSETS = Path(openvto.__file__).parent / "assets"
WOMAN, MAN = ASSETS / "people/2_posture.jpg", ASSETS / "people/3_posture.jpg"
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
    assert (shirt.content_type, shirt.model, shirt.warnings, shirt.cost_usd) == ("image/png", "local-1", (), None)


def test_the_same_photos_give_the_same_bytes(local: LocalProvider, shirt: TryOnResult) -> None:
    assert try_on(local, request(WOMAN, SHIRT)).data == shirt.data


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
    result = try_on(local, request(MAN, TEE, "dresses"))
    assert tryon.LIKE_A_TOP in result.warnings


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
        *(drawn(size) for size in ((1, 1), (600, 800), (2000, 3), (3, 2000))),
        Image.new("RGB", (500, 500), "#fff"),
    ],
)
def test_a_photo_without_a_garment_is_refused_by_name(local: LocalProvider, garment: Path | Image.Image) -> None:
    with pytest.raises(ImageUnusable, match=r"^Garment photo: .* Use a photo"):
        try_on(local, request(MAN, garment))


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


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every picture waits for the event; nothing is drawn."""
    gate = threading.Event()

    def wait(*_: Any) -> tuple[bytes, list[str]]:
        assert gate.wait(30)
        return b"picture", []

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
        assert refusal.value.retry_after == 12
        blocked.set()
        results = await asyncio.gather(*inside)
        return [*results, await provider.try_on(wanted, timeout=30)]

    assert [result.data for result in asyncio.run(run())] == [b"picture"] * 4


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
    read, names = nets._read, []

    def counted(path: Path) -> cv2.dnn.Net:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(nets, "_read", counted)
    providers = [LocalProvider(alias, models_dir=models, workers=2) for alias in "ab"]

    async def run() -> list[TryOnResult]:
        wanted = [request(WOMAN, SHIRT), request(MAN, TEE)]
        return await asyncio.gather(*(one.try_on(each, timeout=120) for one in providers for each in wanted))

    results = asyncio.run(run())
    assert sorted(names) == sorted([POSE.name, SALIENCY.name])
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
    [("models_dir", 7), ("models_dir", ""), ("workers", 0), ("workers", True), ("workers", "2"), ("max_waiting", -1)],
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
