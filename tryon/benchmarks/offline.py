"""The command: ``python -m tryon.benchmarks.offline``. What one picture of the offline provider costs on one core.

CPU of each stage, for a first garment on a person and for a second one, when that person is known already; and how
much more memory than Django alone a process takes at its peak. The photos are those of the package openvto, of the
people at 768x1024 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import openvto
from PIL import Image, ImageOps

from providers.local.models import default_models_dir, missing_message, missing_models

from .__main__ import PHASE, say
from .creates import positive
from .processes import ROOT

SIZE: Final = (768, 1024)
ASSETS: Final = Path(openvto.__file__).parent / "assets"
PEOPLE: Final = {
    "person": "people/2_posture.jpg",
    "other": "people/1_posture.jpg",
    "third": "people/3_posture.jpg",
    "fourth": "people/4_posture.jpg",
    "fifth": "avatars/1.png",
}
GARMENTS: Final = {
    "garment": "clothes/shirts/1_front.jpg",
    "second": "clothes/shirts/4_front.jpg",
    "trousers": "clothes/pants/2_front.jpg",
    "shirt": "clothes/shirts/2_front.jpg",
    "jacket": "clothes/jackets/1_front.jpg",
}
"""Of 1024x1024 pixels. ``pictures.py`` knows the names."""
ONE_CORE: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For NumPy; OpenCV is told by a call."""
BARS: Final = {"cpu": 3.0, "second": 0.5, "memory": 450.0}
"""What is aimed at: seconds of CPU, the second garment beside the first, and MB above Django alone."""


def main() -> None:
    options = parse()
    if sys.platform != "linux":
        sys.exit("The benchmark reads /proc and needs Linux.")
    if names := missing_models(default_models_dir()):
        sys.exit(missing_message(default_models_dir(), names))
    with tempfile.TemporaryDirectory(prefix="tryon-benchmark-") as folder:
        write_photos(Path(folder))
        cpu = measured("cpu", folder, str(options.runs))
        bare, taken = measured("bare"), measured("memory", folder)
    say(f"Python {sys.version.split()[0]}, OpenCV {cpu['opencv']}, one core (load {os.getloadavg()[0]:.1f})\n")
    say(cpu_table(cpu["runs"]))
    say(f"\nOnce per process: {1000 * cpu['loading']:.0f} ms to load OpenCV and the nets.\n")
    say(memory_table(bare["peak"], taken["peaks"]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tryon.benchmarks.offline",
        description="Measure the CPU time and the memory of one picture of the offline provider.",
    )
    parser.add_argument("--runs", type=positive, default=7, help="runs, of which the medians are told (%(default)s)")
    return parser.parse_args()


def write_photos(folder: Path) -> None:
    """The people at ``SIZE``, the garments as they are."""
    for name, path in GARMENTS.items():
        (folder / f"{name}.jpg").write_bytes((ASSETS / path).read_bytes())
    for name, path in PEOPLE.items():
        with Image.open(ASSETS / path) as image:
            ImageOps.fit(image.convert("RGB"), SIZE).save(folder / f"{name}.jpg", quality=92)


def measured(*arguments: str) -> dict[str, Any]:
    """What a new process of ``pictures.py`` says."""
    command = [sys.executable, "-m", "tryon.benchmarks.pictures", *arguments]
    environment = {"DJANGO_SETTINGS_MODULE": "settings.development", **os.environ, **ONE_CORE}
    child = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=PHASE, check=True
    )
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


def cpu_table(runs: list[list[dict[str, float]]]) -> str:
    """The medians of all stages as a Markdown table. The second garment is compared with the first of its own run."""
    firsts, seconds = zip(*runs, strict=True)
    lines = ["| CPU, ms | first garment | second garment |", "| --- | ---: | ---: |"]
    for stage in firsts[0]:
        first, second = (milliseconds(run[stage] for run in column) for column in (firsts, seconds))
        lines.append(f"| {stage} | {first} | {second} |")
    totals = [[sum(run.values()) for run in column] for column in (firsts, seconds)]
    first, second = (milliseconds(column) for column in totals)
    share = statistics.median(again / once for once, again in zip(*totals, strict=True))
    return "\n".join(
        [
            *lines,
            f"| all of it | {first} | {second} |",
            f"| beside the first | | {share:.2f} times |",
            f"| aim | {1000 * BARS['cpu']:.0f} | {BARS['second']:.2f} times |",
        ]
    )


def milliseconds(seconds: Iterable[float]) -> str:
    """Their median."""
    return f"{1000 * statistics.median(seconds):.0f}"


def memory_table(bare: int, peaks: dict[str, int]) -> str:
    """Peaks as a Markdown table."""
    lines = ["| peak memory, MB | process | above Django alone |", "| --- | ---: | ---: |"]
    lines.append(f"| Django alone | {bare / 1e6:.0f} | |")
    lines += [f"| {what} | {peak / 1e6:.0f} | {(peak - bare) / 1e6:.0f} |" for what, peak in peaks.items()]
    lines.append(f"| aim | | {BARS['memory']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
