"""Odd and hostile images: each is made a photo that may leave, or is refused for a reason."""

from __future__ import annotations

import contextlib
import io
import time
import warnings

import numpy as np
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer

from tryon.exceptions import STATUS, TryOnError
from tryon.images import is_quick, normalise

from .odd_images import ODD, SECRET, Accepted, encoded, picture
from .shop import CHARGED, RELEASED, Shop

SECONDS = 10
"""That any of them may take on a slow machine; they take hundredths, and the largest ones 2."""


def test_there_are_enough_of_them() -> None:
    assert len(ODD) >= 90


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_becomes_a_photo_or_is_refused(name: str) -> None:
    data, expected = ODD[name]()
    is_quick(data)
    started = time.perf_counter()
    if isinstance(expected, str):
        with pytest.raises(TryOnError, match=r"^user_image_url: .") as caught:
            normalise(data, field="user_image_url")
        assert (caught.value.code, caught.value.field) == (expected, "user_image_url")
    else:
        _check(normalise(data, field="f").data, data, expected)
    assert time.perf_counter() - started < SECONDS


def _check(sent: bytes, data: bytes, expected: Accepted) -> None:
    image = Image.open(io.BytesIO(sent))
    image.load()
    assert Image.MIME[str(image.format)] == expected.content_type
    assert image.mode in ("RGB", "L")
    assert SECRET not in sent
    assert not {"exif", "xmp", "comment", "icc_profile", "Comment", "photoshop", "mp"} & image.info.keys()
    assert getattr(image, "n_frames", 1) == 1
    if expected.lossless:
        options = {"lossless": True} if image.format == "WEBP" else {}
        before = _decoded(data) or _decoded(encoded(picture(), str(image.format), **options))
        assert before is not None
        assert image.size == before.size
        assert image.tobytes() == before.convert(image.mode).tobytes()
    if expected.looks is not None:
        assert image.size == expected.looks.size
        one, other = (np.asarray(each.convert("RGB"), dtype=int) for each in (image, expected.looks))
        assert np.abs(one - other).mean() < 4


def _decoded(data: bytes) -> Image.Image | None:
    """None for what Pillow stumbles over; such a file holds the same picture as all others."""
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(Exception):
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    return None


@pytest.mark.one_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_over_http_they_are_refused_with_their_code_and_cost_nothing(shop: Shop, photos: HTTPServer) -> None:
    refused = {name: made for name, make in ODD.items() if isinstance((made := make())[1], str)}
    assert len(refused) >= 60
    for number, (name, (data, code)) in enumerate(refused.items()):
        photos.expect_request(f"/odd-{number}").respond_with_data(data, content_type="image/jpeg")
        response = shop.post({**shop.body, "user_image_url": photos.url_for(f"/odd-{number}")})
        assert (response.status_code, response.json()["code"]) == (STATUS[str(code)], code), name
    assert shop.balance() == 3
    assert shop.ledger()[1:] == RELEASED * len(refused)


@pytest.mark.one_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", ["HEIC of tiles", "AVIF with alpha", "JPEG before an MP4"])
def test_over_http_a_photo_of_an_odd_kind_is_as_good_as_any(shop: Shop, photos: HTTPServer, name: str) -> None:
    data, _ = ODD[name]()
    photos.expect_request("/odd").respond_with_data(data, content_type="text/html")
    response = shop.post({**shop.body, "user_image_url": photos.url_for("/odd")})
    assert (response.status_code, response.json()["status"]) == (200, "success")
    assert shop.ledger()[1:] == CHARGED
