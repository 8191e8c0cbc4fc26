"""The offline try-on: free, private, repeatable, on this machine's CPU; a quick preview rather than a photo shoot.

It bends the garment onto the body that a small neural net finds. It knows nothing about size and fit, draws no new
folds, and wants a person seen from the front and a garment laid flat, or on an invisible mannequin, on a plain ground.
Every picture comes with a confidence; what a shopper would call broken is refused.

``tryon`` has the steps in order. Of the person: ``person`` (found by ``nets``), ``figure``, ``parsing`` and ``waist``
(which pixels are skin, hair and clothes), ``body`` (widths of trunk and limbs). Of the garment: ``garment``,
``cutout``, then its landmarks (``silhouette``, ``top``, ``sleeve``, ``neckline``, ``bottom``). Of both: ``fitting``
(which point goes where), ``mesh`` (the cloth between), ``wearing_top`` and ``wearing_bottom`` (the picture),
``repair`` and ``light``, and ``judging``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from ..base import AIProvider, Problem, TryOnRequest, TryOnResult
from ..errors import ProviderMisconfigured, ProviderUnavailable
from ..utils import bad_option
from .models import FETCH_COMMAND, default_models_dir, missing_message, missing_models

if TYPE_CHECKING:
    from .tryon import Analyses

PACKAGES: Final = {"cv2": "opencv-python-headless", "numpy": "numpy"}
INSTALL: Final = "Run `pip install opencv-python-headless numpy` (the extra local)."
SECONDS_EACH: Final = 3.0
"""CPU time of a picture, roughly; tells a client that found the queue full when to come back."""


class LocalProvider(AIProvider):
    """Makes pictures in a pool of threads.

    ``models_dir``: folder of the two model files; None for the user's cache. ``workers``: pictures made at once; two
    take twice the memory and, with OpenCV already on every core, hardly less time. ``max_waiting``: pictures that may
    wait for a worker; one more is refused as unavailable. ``remembered``: people, and garments, whose analyses stay in
    memory, 4 MB each, so that another garment on the same person costs half; 0 keeps nothing of any photo.
    """

    name: ClassVar[str] = "Local"
    supports_category = True
    supports_prompt = False
    ai_generated = False  # nets find body and garment; every pixel is warped, shaded or filled in from the two photos

    def __init__(
        self,
        alias: str,
        *,
        models_dir: str | Path | None = None,
        workers: int = 1,
        max_waiting: int = 8,
        remembered: int = 6,
    ) -> None:
        super().__init__(alias)
        if not (models_dir is None or (isinstance(models_dir, str | Path) and str(models_dir))):
            raise bad_option(alias, "models_dir", models_dir, "Give a folder's path, or leave it out.")
        for option, value, least in (
            ("workers", workers, 1),
            ("max_waiting", max_waiting, 0),
            ("remembered", remembered, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise bad_option(alias, option, value, f"Give a whole number, {least} or more.")
        self.models_dir = Path(models_dir) if models_dir else default_models_dir()
        self._workers = workers
        self._places = workers + max_waiting
        self._taken = 0
        self._remembered = remembered
        self._analyses: Analyses | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tryon-local")

    @property
    def model(self) -> str:
        return "local-2"

    def check(self) -> Iterator[Problem]:
        for module in _missing_packages():
            yield Problem(f"The package {PACKAGES[module]} is not installed.", INSTALL)
        if names := missing_models(self.models_dir):
            hint = f"Run `{FETCH_COMMAND}`, or set the option models_dir."
            yield Problem(missing_message(self.models_dir, names), hint, of_settings=False)

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        """Wait for a worker. A caller that gives up while it waits gives its place back."""
        return await asyncio.wrap_future(self._submit(request))

    def _submit(self, request: TryOnRequest) -> Future[TryOnResult]:
        with self._lock:
            if self._taken >= self._places:
                raise ProviderUnavailable(
                    f"{self._taken} pictures are being made or wait for a worker already.",
                    retry_after=SECONDS_EACH * self._taken / self._workers,
                )
            self._taken += 1
        future = self._pool.submit(self._make, request)
        future.add_done_callback(self._give_back)
        return future

    def _give_back(self, _future: Future[TryOnResult]) -> None:
        with self._lock:
            self._taken -= 1

    def _make(self, request: TryOnRequest) -> TryOnResult:
        if missing := _missing_packages():
            names = ", ".join(PACKAGES[module] for module in missing)
            raise ProviderMisconfigured(f"The offline provider needs {names}. {INSTALL}")
        from . import (
            mark,
            nets,
            tryon,
        )  # OpenCV takes 0.2 s and 60 MB, which a process with another provider need not pay

        with self._lock:
            if self._analyses is None:
                self._analyses = tryon.Analyses(self._remembered)
        outcome = tryon.run(
            nets.load(self.models_dir), request.person.data, request.garment.data, request.category, self._analyses
        )
        return TryOnResult(
            data=mark.png(outcome.picture),
            content_type="image/png",
            model=self.model,
            warnings=outcome.warnings,
            confidence=outcome.confidence,
        )


def _missing_packages() -> list[str]:
    return [module for module in PACKAGES if find_spec(module) is None]
