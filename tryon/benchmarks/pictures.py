"""What pictures of the offline provider cost, measured on one core in a process of its own.

``python -m tryon.benchmarks.pictures bare``, ``memory FOLDER`` or ``cpu FOLDER RUNS``; the folder has the photos. The
one line on stdout is JSON. What is heavy is imported where it is needed: it would count as Django's.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest import mock

import django

REST: Final = "the rest"
FIRST: Final = "person", "garment"
MORE: Final = (("other", "second"), ("third", "trousers"), ("fourth", "shirt"), ("fifth", "jacket"))
"""Who wears what, by the names of the photos. Nobody and nothing comes twice, so that everything is analysed."""


class Stopwatch:
    """CPU seconds by stage. A stage inside another one is counted once, as itself."""

    def __init__(self) -> None:
        self._seconds = {REST: 0.0}
        self._stages = [REST]
        self._since = time.process_time()

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, counted as this stage."""
        self._seconds[stage] = 0.0

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._count()
            self._stages.append(stage)
            try:
                return work(*args, **kwargs)
            finally:
                self._count()
                self._stages.pop()

        return timed

    def take(self) -> dict[str, float]:
        """What was counted since it was last taken."""
        self._count()
        taken, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        return taken

    def _count(self) -> None:
        now = time.process_time()
        self._seconds[self._stages[-1]] += now - self._since
        self._since = now


def bare() -> dict[str, Any]:
    """The peak of a process that only sets Django up, bytes."""
    django.setup()
    return {"peak": peak()}


def memory(folder: str) -> dict[str, Any]:
    """The peak of a process that also makes a picture, and then some more, bytes."""
    django.setup()
    from providers.base import TryOnRequest
    from providers.local import LocalProvider
    from tryon import images

    provider = LocalProvider("local")

    async def make(person: str, garment: str) -> None:
        shown, worn = (
            images.normalise(Path(folder, f"{name}.jpg").read_bytes(), field=name) for name in (person, garment)
        )
        await provider.try_on(TryOnRequest(person=shown, garment=worn, prompt=""), timeout=60)

    async def make_all() -> dict[str, int]:
        await make(*FIRST)
        first = peak()
        for pair in MORE:
            await make(*pair)
        return {"one picture": first, f"{len(MORE)} more": peak()}

    import cv2

    cv2.setNumThreads(1)
    return {"peaks": asyncio.run(make_all())}


def peak() -> int:
    """The most resident bytes of this process so far; ``ru_maxrss`` would know its parent's as well."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise LookupError("The kernel does not tell VmHWM.")
    return int(match[1]) * 1024


def cpu(folder: str, runs: str) -> dict[str, Any]:
    """Seconds of each stage in each run: a first garment on a person, then a second one."""
    started = time.process_time()
    import cv2

    from providers.local import garment, judging, mark, nets, person, tryon
    from providers.local.models import default_models_dir

    cv2.setNumThreads(1)
    both = nets.load(default_models_dir())
    loading = time.process_time() - started
    stages = (
        ("reading the photos", tryon, "_read"),
        ("pose net", nets.Nets, "pose"),
        ("saliency net", nets.Nets, "saliency"),
        ("outline of the person", person, "analyse"),
        ("parsing", person, "parse"),
        ("body", tryon, "Body"),
        ("cut-out of the garment", garment, "analyse"),
        ("landmarks", garment, "find_top"),
        ("fitting", tryon, "fit_top"),
        ("wearing", tryon, "wear_top"),
        ("judging", judging, "judge"),
        ("PNG", mark, "png"),
    )
    wearer, first, second = (Path(folder, f"{name}.jpg").read_bytes() for name in (*FIRST, "second"))
    watch = Stopwatch()
    costs: list[list[dict[str, float]]] = []
    with ExitStack() as stack:
        for stage, owner, name in stages:
            stack.enter_context(mock.patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        for _ in range(int(runs) + 1):
            analyses = tryon.Analyses(1)
            costs.append([])
            for photo in (first, second):
                watch.take()
                mark.png(tryon.run(both, wearer, photo, "auto", analyses).picture)
                costs[-1].append(watch.take())
    # In its first run a net lays out its memory.
    return {"opencv": cv2.__version__, "loading": loading, "runs": costs[1:]}


def main(command: str, *arguments: str) -> None:
    commands: dict[str, Callable[..., dict[str, Any]]] = {"bare": bare, "memory": memory, "cpu": cpu}
    print(json.dumps(commands[command](*arguments)), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main(*sys.argv[1:])
