"""From two photos to a picture: the steps in order."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import numpy as np
from PIL import Image

from ..base import Category
from ..errors import ImageUnusable
from . import garment, judging, person
from .body import Body
from .fitting import fit_bottom, fit_top
from .garment import Garment, Kind
from .imaging import Bools, Picture, shrunk
from .nets import Nets
from .top import Top
from .wearing import Worn
from .wearing_bottom import wear_bottom
from .wearing_top import wear_top

LONGEST_SIDE: Final = 1024
"""Pixels, of both photos and of the picture; everything was tuned at this size."""
KINDS: Final[dict[Category, Kind]] = {"tops": "upper", "bottoms": "lower", "dresses": "dress"}
COULD_NOT_BE_FITTED: Final = (
    "Garment photo: it could not be fitted to the pose. Use a photo of one whole garment, laid flat."
)

Analysis = TypeVar("Analysis")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A picture and what to think of it."""

    picture: Picture
    """``(H, W, 3)`` uint8 RGB, at most ``LONGEST_SIDE`` pixels."""
    changed: Bools
    """``(H, W)``: where it may differ from the person's photo."""
    confidence: float
    """0 to 1."""
    warnings: tuple[str, ...]
    """Plain sentences."""
    refusal: str
    """Why a shopper should not see it; empty where they may."""


class Analyses:
    """The latest analyses of photos, by their content: a second garment on a person costs half. For many threads.

    ``size``: how many people, and how many garments; either takes 4 MB. 0 keeps none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}

    def get(self, what: str, data: bytes, analyse: Callable[[], Analysis], *more: Hashable) -> Analysis:
        """What is known of this photo, or what ``analyse`` finds out now; what it raises is not kept."""
        key = (hashlib.sha256(data).digest(), *more)
        with self._lock:
            kept = self._kept.setdefault(what, OrderedDict())
            if key in kept:
                kept.move_to_end(key)
                return cast("Analysis", kept[key])
        found = analyse()
        with self._lock:
            kept[key] = found
            while len(kept) > self._size:
                kept.popitem(last=False)
        return found


def run(
    nets: Nets, person_photo: bytes, garment_photo: bytes, category: Category, analyses: Analyses | None = None
) -> Outcome:
    """A picture that can be shown. Raise ``ImageUnusable`` where there is none."""
    outcome = fit(nets, person_photo, garment_photo, category, analyses)
    if outcome.refusal:
        raise ImageUnusable(outcome.refusal)
    return outcome


def fit(
    nets: Nets, person_photo: bytes, garment_photo: bytes, category: Category, analyses: Analyses | None = None
) -> Outcome:
    """The picture, however good it is. Raise ``ImageUnusable`` where none can be made at all."""
    analyses = analyses or Analyses(0)
    kind = KINDS.get(category)
    body = analyses.get("person", person_photo, lambda: Body(person.analyse(nets, _read(person_photo))))
    piece = analyses.get("garment", garment_photo, lambda: garment.analyse(nets, _read(garment_photo), kind), kind)
    try:
        worn, findings = wear(body, piece)
    except np.linalg.LinAlgError as error:  # points of the garment on one line, or all in one place
        raise ImageUnusable(COULD_NOT_BE_FITTED) from error
    return Outcome(
        picture=worn.picture,
        changed=worn.changed,
        confidence=judging.confidence(findings),
        warnings=tuple(dict.fromkeys([*judging.warnings(findings), *piece.warnings])),
        refusal=judging.refusal(findings),
    )


def wear(body: Body, piece: Garment) -> tuple[Worn, list[judging.Finding]]:
    """The person in the garment, and what is doubtful about it."""
    if isinstance(piece.shape, Top):
        hung = fit_top(body, piece.shape, body.waist())
        worn = wear_top(body, piece, piece.shape, hung, dress=piece.kind == "dress")
    else:
        hung = fit_bottom(body, piece.shape, body.waist())
        worn = wear_bottom(body, piece, piece.shape, hung)
    return worn, judging.judge(body, piece, hung, worn)


def _read(data: bytes) -> Picture:
    """RGB; what is transparent becomes white, as in a catalogue."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # a large JPEG is read at a fraction of its size
        opaque: Image.Image = image
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
        return np.ascontiguousarray(shrunk(np.asarray(opaque.convert("RGB")), LONGEST_SIDE))
