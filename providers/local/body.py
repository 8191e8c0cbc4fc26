"""A frame on the person's body, on which clothes are placed. Lengths are in pixels, sides those of the image."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from .imaging import OUTWARD, SIDES, Bools, Mask, Point, Shape, Side, length, thick_line
from .parsing import Part
from .person import ANKLES, ELBOWS, HIPS, INDEX_FINGERS, KNEES, SHOULDERS, WRISTS, Person

TIP: Final = 0.10
"""Of a shoulder: so far outside of the joint, in shoulder widths."""
NECK: Final = 0.23
"""Where the neck meets the shoulder: so far from the middle."""


class Body:
    """Joints by side, directions, and how far the silhouette reaches.

    ``unit`` is the shoulder width; ``up`` points to the head, ``across`` to the image's right, ``down`` from the
    middle of the shoulders to that of the hips.
    """

    def __init__(self, person: Person) -> None:
        def joint(indices: tuple[int, int]) -> dict[Side, Point]:
            return dict(zip(SIDES, person.joints[list(indices)], strict=True))

        self.person = person
        self.unit = person.shoulder_width
        self.up = person.up
        self.across = -person.side if person.side[0] < 0 else person.side
        self.shoulders, self.elbows, self.wrists = joint(SHOULDERS), joint(ELBOWS), joint(WRISTS)
        self.fingers = joint(INDEX_FINGERS)
        self.hips, self.knees, self.ankles = joint(HIPS), joint(KNEES), joint(ANKLES)
        self.shoulder_middle = (self.shoulders["left"] + self.shoulders["right"]) / 2
        self.hip_middle = (self.hips["left"] + self.hips["right"]) / 2
        self.torso_length = length(self.shoulder_middle - self.hip_middle)
        self.down = (self.hip_middle - self.shoulder_middle) / (self.torso_length + 1e-6)
        self.shoulder_tips = {side: self._shoulder_tip(side) for side in SIDES}
        self.neck = {side: self._neck(side) for side in SIDES}

    @property
    def shape(self) -> Shape:
        height, width = self.person.mask.shape
        return height, width

    def outward(self, side: Side) -> Point:
        """Unit vector away from the middle."""
        return self.across * OUTWARD[side]

    def lower_arms(self) -> Mask:
        """Roughly where the arms hang beside the body."""
        mask: Mask = np.zeros(self.shape, np.uint8)
        for side in SIDES:
            elbow, wrist = self.elbows[side], self.wrists[side]
            above = elbow * 0.8 + self.shoulders[side] * 0.2
            width = max(2, int(0.2 * self.unit))
            mask |= thick_line(self.shape, [above, elbow, wrist, self.fingers[side]], width)
        return mask

    def arm_length(self, side: Side) -> float:
        """From the shoulder over the elbow to the wrist."""
        upper = length(self.elbows[side] - self.shoulders[side])
        return upper + length(self.wrists[side] - self.elbows[side])

    def arm_at(self, side: Side, distance: float) -> tuple[Point, Point]:
        """The point so far along the arm from the shoulder, and its normal, away from the body."""
        shoulder, elbow, wrist = self.shoulders[side], self.elbows[side], self.wrists[side]
        palm = wrist + (self.fingers[side] - wrist) * 0.5
        point, direction = along_path([shoulder, elbow, wrist, palm], distance)
        normal = np.array([direction[1], -direction[0]])
        facing = normal @ self.outward(side)
        if (facing < 0 and abs(facing) > 0.15) or (abs(facing) <= 0.15 and normal @ self.up < 0):
            normal = -normal
        return point, normal

    def edge(
        self, point: Point, direction: Point, least: float, most: float, hidden: Mask | Bools | None = None
    ) -> float | None:
        """How far it is to the background, if that is between ``least`` and ``most``.

        None where something ``hidden`` comes first: an arm in front of the body leaves no outline to follow.
        """
        labels = self.person.labels
        height, width = labels.shape
        steps = np.arange(0.0, most, 1.0)
        xs = np.rint(point[0] + direction[0] * steps).astype(int)
        ys = np.rint(point[1] + direction[1] * steps).astype(int)
        outside = (xs < 0) | (xs >= width) | (ys < 0) | (ys >= height)
        xs, ys = xs.clip(0, width - 1), ys.clip(0, height - 1)
        stop = outside if hidden is None else outside | (hidden[ys, xs] > 0)
        reached = np.flatnonzero(stop | (labels[ys, xs] == Part.BACKGROUND))
        if not len(reached) or stop[reached[0]] or steps[reached[0]] < least:
            return None
        return float(steps[reached[0]])

    def _shoulder_tip(self, side: Side) -> Point:
        point = self.shoulders[side] + self.outward(side) * TIP * self.unit
        return point + self.up * self._to_outline(point, 0.05, 0.16)

    def _neck(self, side: Side) -> Point:
        point = self.shoulder_middle + self.outward(side) * NECK * self.unit
        return point + self.up * self._to_outline(point, 0.12, 0.24)

    def _to_outline(self, point: Point, least: float, most: float) -> float:
        """How far the silhouette reaches upwards, between so many shoulder widths."""
        height, width = self.shape
        distance = 0.0
        while distance < most * self.unit:
            x, y = (round(float(value)) for value in point + self.up * distance)
            if not (0 <= y < height and 0 <= x < width and self.person.mask[y, x]):
                break
            distance += 1.0
        return float(np.clip(distance, least * self.unit, most * self.unit))


def along_path(points: list[Point], distance: float) -> tuple[Point, Point]:
    """The point so far along the path, which goes on straight at its end, and the unit direction there."""
    for start, end in itertools.pairwise(points):
        part = length(end - start)
        direction = (end - start) / (part + 1e-6)
        if distance <= part or end is points[-1]:
            break
        distance -= part
    return start + direction * distance, direction
