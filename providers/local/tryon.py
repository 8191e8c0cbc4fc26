"""From two photos to a picture: the steps in order."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from ..base import Category
from ..errors import ImageUnusable
from . import garment, mark, person
from .body import Body
from .garment import Kind
from .imaging import Picture, shrunk
from .nets import Nets
from .tops import wear_top
from .trousers import wear_trousers

LONGEST_SIDE: Final = 1024
"""Pixels, of both photos and of the picture; everything was tuned at this size."""
KINDS: Final[dict[Category, Kind]] = {"tops": "upper", "bottoms": "lower", "dresses": "dress"}

LIKE_A_TOP: Final = "A dress is placed like a long top, so its skirt may look wrong."


def run(nets: Nets, person_photo: bytes, garment_photo: bytes, category: Category) -> tuple[bytes, list[str]]:
    """The picture as a marked PNG, and plain sentences on what may look wrong. Raise ``ImageUnusable``."""
    wearer = person.analyse(nets, _read(person_photo))
    piece = garment.analyse(nets, _read(garment_photo))
    kind = KINDS.get(category, piece.kind)
    try:
        picture, doubts = (wear_trousers if kind == "lower" else wear_top)(Body(wearer), piece)
    except np.linalg.LinAlgError as error:  # points of the garment on one line, or all in one place
        raise ImageUnusable(
            "Garment photo: it could not be fitted to the pose. Use a photo of one whole garment, laid flat."
        ) from error
    warnings = [*wearer.warnings, *piece.warnings, *doubts, *([LIKE_A_TOP] if kind == "dress" else [])]
    return mark.png(picture), warnings


def _read(data: bytes) -> Picture:
    """RGB; what is transparent becomes white, as in a catalogue."""
    with Image.open(io.BytesIO(data)) as image:
        opaque: Image.Image = image
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
        return np.ascontiguousarray(shrunk(np.asarray(opaque.convert("RGB")), LONGEST_SIDE))
