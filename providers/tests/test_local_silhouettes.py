"""Silhouettes of what is no garment: found or refused, never an error of our own. No nets."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from providers.errors import ImageUnusable
from providers.local.imaging import Floats
from providers.local.keypoints import Top, Trousers, find_trousers

from .test_local_keypoints import top_of


def blank() -> Floats:
    return np.zeros((200, 160), np.float32)


def one_pixel() -> Floats:
    alpha = blank()
    alpha[100, 80] = 1
    return alpha


def vertical_line() -> Floats:
    alpha = blank()
    alpha[10:190, 80] = 1
    return alpha


def horizontal_line() -> Floats:
    alpha = blank()
    alpha[100, 10:150] = 1
    return alpha


def diagonal_line() -> Floats:
    return np.eye(200, 160, dtype=np.float32)


def circle() -> Floats:
    alpha = blank()
    cv2.circle(alpha, (80, 100), 60, (1.0,), -1)
    return alpha


def ring() -> Floats:
    alpha = blank()
    cv2.circle(alpha, (80, 100), 60, (1.0,), 3)
    return alpha


def cross() -> Floats:
    alpha = blank()
    alpha[10:190, 78:82] = alpha[98:102, 10:150] = 1
    return alpha


def letter_t() -> Floats:
    alpha = blank()
    alpha[10:20, 10:150] = alpha[10:190, 78:82] = 1
    return alpha


def hook() -> Floats:
    """Below its top there is nothing but a long way to the side."""
    alpha = blank()
    alpha[10:20, 70:90] = alpha[15:20, 70:150] = alpha[15:190, 145:150] = 1
    return alpha


def full_frame() -> Floats:
    return np.ones((200, 160), np.float32)


def no_pixels() -> Floats:
    return np.zeros((1, 1), np.float32)


SHAPES = (
    blank,
    one_pixel,
    vertical_line,
    horizontal_line,
    diagonal_line,
    circle,
    ring,
    cross,
    letter_t,
    hook,
    full_frame,
    no_pixels,
)


def assert_sound_top(top: Top) -> None:
    assert top.shoulder_width > 0
    assert top.length > 0
    assert 0 <= top.symmetry <= 1
    for half in top.halves.values():
        points = [half.shoulder, half.armpit, half.gap, half.hem]
        if half.sleeve is not None:
            assert half.sleeve.sections.shape == (8, 2, 2)
            points.extend(half.sleeve.sections.reshape(-1, 2))
        assert np.isfinite(points).all()
    assert top.hem.shape == (5, 2)
    assert np.isfinite(top.hem).all()
    if top.neckline is not None:
        assert np.isfinite(top.neckline.y).all()


def assert_sound_trousers(trousers: Trousers) -> None:
    assert trousers.bottom > trousers.crotch[1] >= trousers.top
    assert np.isfinite(trousers.rows).all()
    assert trousers.rows[2, 1, 0] > trousers.rows[2, 0, 0]
    assert all(np.isfinite(leg).all() for leg in trousers.legs.values())


def outcome_of_top(alpha: Floats) -> str:
    """Works or refuses, nothing else; warnings are errors."""
    try:
        assert_sound_top(top_of(alpha))
    except ImageUnusable as error:
        return str(error)
    return ""


def outcome_of_trousers(alpha: Floats) -> str:
    try:
        assert_sound_trousers(find_trousers(alpha))
    except ImageUnusable as error:
        return str(error)
    return ""


@pytest.mark.parametrize("shape", SHAPES)
def test_degenerate_silhouettes_work_or_are_refused(shape: Callable[[], Floats]) -> None:
    for outcome in (outcome_of_top(shape()), outcome_of_trousers(shape())):
        assert not outcome or (outcome.startswith("Garment photo: ") and " was not found. Use a photo of" in outcome)


@pytest.mark.parametrize("shape", [blank, one_pixel, vertical_line, horizontal_line, no_pixels])
def test_what_has_no_size_is_refused(shape: Callable[[], Floats]) -> None:
    assert "large enough" in outcome_of_top(shape())
    assert "large enough" in outcome_of_trousers(shape())


def test_full_frame_has_no_collar() -> None:
    assert "a collar at the top was not found" in outcome_of_top(full_frame())


@pytest.mark.parametrize("seed", range(8))
def test_random_blobs_work_or_are_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(15):
        height, width = (int(size) for size in rng.integers(2, 220, 2))
        noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), rng.uniform(0.5, 15))
        blobs = (noise > np.quantile(noise, rng.uniform(0, 0.9))).astype(np.float32)
        shards = np.zeros((height, width), np.float32)
        for _ in range(int(rng.integers(1, 6))):
            corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 7)), 2)) * (width, height)
            cv2.fillPoly(shards, [corners.astype(np.int32).reshape(-1, 1, 2)], (float(rng.integers(4) > 0),))
        for alpha in (blobs, shards):
            refused += bool(outcome_of_top(alpha)) + bool(outcome_of_trousers(alpha))
    assert 0 < refused < 60
