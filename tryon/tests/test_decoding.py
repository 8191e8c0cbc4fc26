"""Memory of decoding: foreseen from the header, and never more than DECODE_MEMORY, whatever comes at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tryon import images
from tryon.decoding import Budget, budget
from tryon.exceptions import ImageTooLarge, UnusableImage
from tryon.images import decoders, normalise

from .odd_images import encoded, exif, heic, jpeg_of_one_colour

ROOT = Path(__file__).parents[2]

MEASURE = textwrap.dedent(
    """
    import os, sys, threading
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings.test"
    import django
    django.setup()
    from django.conf import settings
    from pathlib import Path
    from tryon import images

    def megabytes(what):
        line = next(line for line in open("/proc/self/status") if line.startswith(what))
        return int(line.split()[1]) / 1024

    small, large, times = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
    settings.TRYON = {**settings.TRYON, "DECODE_MEMORY": 10**9} if times == 1 else settings.TRYON
    images.normalise(small, field="f")  # loads what stays
    need = images._need(images._look(large))
    before = megabytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins here
    done = [images.decoders().submit(images.normalise, large, field="f") for _ in range(times)]
    sizes = {(each.result().width, each.result().height) for each in done}
    print(need / 2**20, megabytes("VmHWM") - before)
    """
)

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux tells how much memory it was"
)


def rough(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Neither flat nor noise, as photos are."""
    return Image.effect_noise((width // 8, height // 8), 80).resize((width, height)).convert(mode)


def see_through(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(rough(3000, 2000), exif=exif(6)),
    "progressive JPEG": lambda: encoded(rough(3000, 2000), exif=exif(6), progressive=True),
    "progressive JPEG of full colours": lambda: encoded(
        rough(3000, 2000), exif=exif(6), progressive=True, subsampling=0
    ),
    "JPEG of 24 megapixels": lambda: encoded(rough(5600, 4200), quality=60),
    "JPEG of twice the size": lambda: encoded(rough(8064, 3000), quality=60),
    "JPEG that has one colour of three": lambda: jpeg_of_one_colour(5600, 2000),
    "CMYK": lambda: encoded(rough(3000, 2000, "CMYK")),
    "PNG": lambda: encoded(rough(5000, 2000), "PNG", compress_level=1),
    "PNG with alpha": lambda: encoded(rough(3000, 2000, "RGBA"), "PNG", compress_level=1),
    "PNG with a palette": lambda: encoded(rough(3000, 2000, "P"), "PNG", compress_level=1),
    "WebP": lambda: encoded(rough(3000, 2000), "WEBP", method=0, exif=exif(6)),
    "WebP with alpha": lambda: encoded(see_through(rough(3000, 2000)), "WEBP", method=0),
    "AVIF": lambda: encoded(rough(3000, 2000), "AVIF", speed=10),
    "AVIF of full colours": lambda: encoded(rough(3000, 2000), "AVIF", speed=10, subsampling="4:4:4"),
    "HEIC": lambda: heic(rough(1600, 1200)),
    "HEIC of tiles": lambda: heic(rough(1600, 1200), tile_size=512),
}


def measure(folder: Path, data: bytes, times: int) -> tuple[float, float]:
    """Megabytes that were foreseen for one, and that all of them took, in a process of their own."""
    (folder / "small").write_bytes(heic(rough(100, 100)) if data[4:8] == b"ftyp" else encoded(rough(100, 100, "CMYK")))
    (folder / "large").write_bytes(data)
    command = [sys.executable, "-c", MEASURE, str(folder / "small"), str(folder / "large"), str(times)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    need, peak = done.stdout.split()
    return float(need), float(peak)


@needs_proc
@pytest.mark.parametrize("name", FILES)
def test_what_decoding_takes_is_foreseen(name: str, tmp_path: Path) -> None:
    need, peak = measure(tmp_path, FILES[name](), 1)
    assert peak < 1.05 * need + 3, "megabytes"
    assert need < 1.6 * peak + 6, "nor is a photo refused without need"


@needs_proc
@pytest.mark.stress
@pytest.mark.parametrize("name", ["JPEG of 24 megapixels", "PNG with alpha"])
def test_ten_at_once_stay_within_the_limit(name: str, tmp_path: Path) -> None:
    _, peak = measure(tmp_path, FILES[name](), 10)
    assert peak < 160 * 1.1 + 10 * 3, "what comes out of each has up to 3 MB"


def test_no_more_is_taken_than_there_is_and_much_is_not_overtaken_by_little(tryon: Callable[..., None]) -> None:
    tryon(DECODE_MEMORY=100)
    place, order, first, held = Budget(), [], threading.Event(), threading.Event()

    def hold(need: int, name: str) -> None:
        with place.hold(need):
            order.append(name)
            if name == "first":
                first.set()
                held.wait(10)
            assert place._taken <= 100

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(hold, 60, "first")]
        assert first.wait(10)
        done.append(pool.submit(hold, 50, "much"))
        while not place._turn.locked():  # until it waits
            pass
        done.append(pool.submit(hold, 1, "little"))
        held.set()
        for each in done:
            each.result(10)
    assert order == ["first", "much", "little"]
    assert place._taken == 0


def test_what_never_fits_is_refused_and_failures_give_their_room_back(tryon: Callable[..., None]) -> None:
    tryon(DECODE_MEMORY=20_000_000)
    with pytest.raises(
        ImageTooLarge, match=r"^f: decoding the image takes 54 MB of memory; the limit is 20 MB\. Send"
    ):
        normalise(encoded(Image.new("RGB", (2000, 3000)), exif=exif(6)), field="f")
    cut_off = encoded(rough(300, 300, "RGBA"), "PNG")
    cut_off = cut_off[:-3000] + cut_off[-12:]
    with pytest.raises(UnusableImage):
        normalise(cut_off, field="f")
    assert budget._taken == 0


def test_a_decode_that_nobody_waits_for_any_more_is_not_begun() -> None:
    begun: list[str] = []
    go_on = threading.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        blocking = [loop.run_in_executor(decoders(), go_on.wait, 10) for _ in range(images.DECODING_THREADS)]
        waiting = loop.run_in_executor(decoders(), begun.append, "late")
        waiting.cancel()
        await asyncio.sleep(0)  # the loop hands it on
        go_on.set()
        await asyncio.gather(*blocking)
        await loop.run_in_executor(decoders(), begun.append, "next")

    asyncio.run(scenario())
    assert begun == ["next"]
