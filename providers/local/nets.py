"""The two neural nets, run by OpenCV's own DNN module: what stands out, and where the joints are.

* u2netp, the small U^2-Net of Qin et al. (2020), tells the foreground from the background.
* The landmark net of BlazePose (Bazarevsky et al. 2020, MediaPipe's "full") finds 33 joints and the person's outline.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np

from ..errors import ProviderMisconfigured
from .imaging import Floats, Picture, Point
from .models import POSE, SALIENCY, missing_message

SALIENCY_SIDE: Final = 320
"""Pixels, the input of u2netp."""
IMAGENET_MEAN: Final = np.float32([0.485, 0.456, 0.406])  # type: ignore[arg-type]
IMAGENET_STD: Final = np.float32([0.229, 0.224, 0.225])  # type: ignore[arg-type]

POSE_SIDE: Final = 256
"""Pixels, the input of the landmark net."""
HIP_CENTRE, BODY_CIRCLE = 33, 34
"""The net's two alignment points: the middle of the hips, and a point on the circle around the body."""
CROP_MARGIN: Final = 1.25
"""The crop's side over the body circle's diameter, as in MediaPipe's pose graph."""
ROUND_PHOTO: Final = 1.4
"""Of the longer side: into somebody whom the photo cuts off at the thighs the net would squeeze a whole body."""
FOLLOWED: Final = 0.9
"""Score from which a later crop counts for better than the one it was found by."""
NO_POSE, GOOD_POSE = 0.3, 0.8
"""Scores below which a crop is not followed further, and above which no other crop is tried."""


@dataclass(frozen=True, slots=True)
class Pose:
    """What the landmark net saw."""

    joints: Floats
    """``(39, 2)`` float64, pixels; the 33 of BlazePose come first."""
    visibility: Floats
    """``(39,)`` float32, 0 to 1."""
    score: float
    """How sure the net is of a person, 0 to 1."""
    mask: Floats
    """``(H, W)`` float32, the person's outline, 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Crop:
    """The landmark net's answer for one square crop, in pixels of the photo, but the mask in those of the crop."""

    joints: Floats
    visibility: Floats
    score: float
    mask: Floats
    to_photo: Floats


class Nets:
    """Both nets. A net cannot run twice at once, so each run holds the lock.

    A picture takes most memory while the saliency net runs. The pose net's 40 MB are given back for that time: OpenCV
    does not free what a net has laid out for a run, but reads the net again in 0.06 s, mostly once a picture.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._saliency = cv2.dnn.readNet(str(directory / SALIENCY.name))
        self._pose_file = np.fromfile(directory / POSE.name, np.uint8)
        self._pose: cv2.dnn.Net | None = None

    def saliency(self, rgb: Picture) -> Floats:
        """How much each pixel belongs to the foreground: ``(H, W)`` float32, 0 to 1."""
        height, width = rgb.shape[:2]
        small = cv2.resize(rgb, (SALIENCY_SIDE, SALIENCY_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        small /= max(small.max(), 1e-6)
        with self._lock:
            self._pose = None
            _trim()
            found = _run(self._saliency, (small - IMAGENET_MEAN) / IMAGENET_STD, outputs=1)[0][0, 0].copy()
            # OpenCV keeps a net's memory for its next run, 160 MB here; a run on next to nothing gives it back.
            _run(self._saliency, np.zeros((32, 32, 3), np.float32), outputs=1)
        found = (found - found.min()) / (found.max() - found.min() + 1e-6)
        return cast("Floats", cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR))

    def pose(self, rgb: Picture, foreground: Floats, *, passes: int = 4) -> Pose:
        """The joints of the one person in the photo, whoever that is; look at ``score`` first.

        MediaPipe finds the crop with a detector net, which OpenCV cannot run. Here it starts at the foreground,
        else at the whole photo, and follows the landmark net's own alignment points for some passes.
        """
        crops: list[_Crop] = []
        for centre, side in _first_crops(foreground):
            crops.append(self._follow(rgb, centre, side, passes))
            if crops[-1].score > GOOD_POSE:
                break
        best = max(crops, key=lambda crop: crop.score)
        size = (rgb.shape[1], rgb.shape[0])
        mask = cast("Floats", cv2.warpAffine(best.mask, best.to_photo, size, flags=cv2.INTER_LINEAR))
        return Pose(best.joints, best.visibility, best.score, mask)

    def _follow(self, rgb: Picture, centre: Point, side: float, passes: int) -> _Crop:
        angle, best = 0.0, None
        for _ in range(passes):
            crop = self._landmarks(rgb, _crop_to_photo(centre, side, angle))
            # Where a body leaves the photo, following it may lose it again.
            if best is None or crop.score >= min(best.score, FOLLOWED):
                best = crop
            if crop.score < NO_POSE:
                break
            centre = crop.joints[HIP_CENTRE]
            reach = crop.joints[BODY_CIRCLE] - centre
            angle = np.arctan2(reach[0], -reach[1])
            side = 2 * np.hypot(*reach) * CROP_MARGIN
        assert best is not None  # noqa: S101 - there is a first pass
        return best

    def _landmarks(self, rgb: Picture, to_photo: Floats) -> _Crop:
        crop = cv2.warpAffine(
            rgb, to_photo, (POSE_SIDE, POSE_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ).astype(np.float32)
        with self._lock:
            if self._pose is None:
                self._pose = cv2.dnn.readNetFromTFLite(self._pose_file)
            outputs = _run(self._pose, crop / 255)
        # The outputs come without telling names, but each has a size of its own.
        answers = {output.size: output for output in outputs}
        landmarks = answers[39 * 5].reshape(39, 5)  # x, y, z, visibility, presence
        return _Crop(
            joints=landmarks[:, :2] @ to_photo[:, :2].T + to_photo[:, 2],
            visibility=_sigmoid(landmarks[:, 3]),
            score=float(answers[1].ravel()[0]),
            mask=_sigmoid(answers[POSE_SIDE * POSE_SIDE][0, 0]),
            to_photo=to_photo,
        )


_loaded: dict[Path, Nets] = {}
_loading = threading.Lock()
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def load(directory: Path) -> Nets:
    """The nets of this folder, read once per process. Raise ``ProviderMisconfigured``."""
    with _loading:
        if directory not in _loaded:
            for model in (SALIENCY, POSE):
                if not model.is_intact(directory):
                    raise ProviderMisconfigured(missing_message(directory, [model.name]))
            _loaded[directory] = Nets(directory)
        return _loaded[directory]


def _run(net: cv2.dnn.Net, crop: Floats, outputs: int | None = None) -> Sequence[Floats]:
    """The net's outputs, or the first ones; ``crop`` is ``(side, side, 3)`` float32."""
    net.setInput(crop.transpose(2, 0, 1)[None])
    return cast("Sequence[Floats]", net.forward(net.getUnconnectedOutLayersNames()[:outputs]))


def _trim() -> None:
    """Give free memory back to the system, where the C library can (malloc_trim(3), glibc).

    The steps of a picture leave up to 100 MB free, in pieces too small for a net's layers, which would come on top.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _sigmoid(values: Floats) -> Floats:
    return cast("Floats", 1.0 / (1.0 + np.exp(-np.clip(values, -30, 30))))


def _first_crops(foreground: Floats) -> list[tuple[Point, float]]:
    """Where to look for the person first: centre and side, in pixels."""
    height, width = foreground.shape
    crops = []
    if (foreground > 0.5).sum() > 0.005 * height * width:
        ys, xs = np.where(foreground > 0.5)
        left, right = np.percentile(xs, [1, 99])
        top, bottom = np.percentile(ys, [0.5, 99.5])
        centre = np.array([(left + right) / 2, (top + bottom) / 2])
        crops.append((centre, max(right - left, bottom - top) * CROP_MARGIN))
    crops.append((np.array([width / 2, height / 2]), max(height, width) * ROUND_PHOTO))
    return crops


def _crop_to_photo(centre: Point, side: float, angle: float) -> Floats:
    """``(2, 3)`` float64: from pixels of the crop to those of the photo."""
    scale, half = side / POSE_SIDE, POSE_SIDE / 2
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array(
        [
            [cos * scale, -sin * scale, centre[0] - half * scale * cos + half * scale * sin],
            [sin * scale, cos * scale, centre[1] - half * scale * sin - half * scale * cos],
        ]
    )
