"""The demo photos: a person and a garment from the ``openvto`` package (MIT)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from ..exceptions import TryOnError

FILES: Final = {"person.jpg": "people/2_posture.jpg", "garment.jpg": "clothes/shirts/1_front.jpg"}
"""Our name of each demo photo, and its path in the package."""


class SamplesMissing(TryOnError):
    """The package with the demo photos is not installed."""

    default_detail = "The demo photos are in the package openvto. Install it: pip install openvto==0.1.7"


def sample(name: str) -> Path:
    """Path of the demo photo ``name``, a key of FILES."""
    try:
        return Path(str(resources.files("openvto.assets").joinpath(FILES[name])))
    except ModuleNotFoundError:
        raise SamplesMissing from None
