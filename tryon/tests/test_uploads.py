"""Photos in the request itself: files of a form, and data: URIs."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import textwrap
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, Client
from PIL import Image
from pytest_django import Settings

from providers.fake import FakeProvider
from tryon import bodies
from tryon.models import TryOn

from .shop import CHARGED, RELEASED, URL, Shop, jpeg
from .uvicorn_process import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

PERSON, GARMENT = jpeg(color="peru"), jpeg(320, 320, color="navy")


def uri(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def noise(width: int, height: int) -> bytes:
    """A PNG that no compression makes smaller."""
    out = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG", compress_level=0)
    return out.getvalue()


def order(shop: Shop, **photos: Any) -> dict[str, Any]:
    """The shop's request with these photos in place of its URLs."""
    return {"user_id": "ada", "api_key": shop.key, "catalog_id": "dress-7", **photos}


def files(shop: Shop, **photos: Any) -> dict[str, Any]:
    return order(
        shop,
        **{name: SimpleUploadedFile("x", data) if isinstance(data, bytes) else data for name, data in photos.items()},
    )


def test_photos_may_come_as_files_of_a_form(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    response = Client().post(URL, files(shop, user_image=PERSON, catalog_image=GARMENT))
    assert response.status_code == 200, response.json()
    (asked,) = provider.calls
    assert (asked.person.width, asked.garment.width) == (300, 320)
    assert shop.ledger()[1:] == CHARGED


def test_the_photos_that_the_schema_shows_work(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    schema = Client().get("/api/schema").json()
    shown = schema["components"]["schemas"]["CreateImage"]["properties"]
    response = shop.post(order(shop, **{name: shown[name]["example"] for name in ("user_image", "catalog_image")}))
    assert response.status_code == 200, response.json()
    (asked,) = provider.calls
    assert (asked.person.width, asked.person.height) == (64, 64)


def test_photos_may_come_as_data_uris_in_json(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    response = shop.post(order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT, "application/octet-stream")))
    assert response.status_code == 200, response.json()
    (asked,) = provider.calls
    assert (asked.person.width, asked.garment.width) == (300, 320)


def test_a_photo_and_a_url_may_be_mixed(shop: Shop) -> None:
    body = {name: value for name, value in shop.body.items() if name != "user_image_url"}
    assert shop.post({**body, "user_image": uri(PERSON)}).status_code == 200


@pytest.mark.parametrize("kind", ["multipart", "urlencoded"])
def test_data_uris_work_in_forms_as_well(shop: Shop, kind: str) -> None:
    body = order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT))
    if kind == "multipart":
        response = Client().post(URL, body)
    else:
        response = Client().post(URL, urlencode(body), content_type="application/x-www-form-urlencoded")
    assert response.status_code == 200, response.json()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda text: text.replace("/", "\\/"), id="PHP"),
        pytest.param(lambda text: text.replace("+", "\\u002B"), id=".NET"),
        pytest.param(lambda text: text.replace("=", "\\u003d"), id="Gson"),
        pytest.param(lambda text: "\\r\\n".join(textwrap.wrap(text, 76)), id="MIME"),
    ],
)
def test_json_may_escape_what_base64_is_made_of(shop: Shop, write: Callable[[str], str]) -> None:
    body = json.dumps(order(shop, user_image="X", catalog_image=uri(GARMENT)))
    response = shop.post(body.replace('"X"', f'"{write(uri(PERSON))}"'))
    assert response.status_code == 200, response.json()


def test_a_base64_photo_larger_than_djangos_own_limit_works(shop: Shop, settings: Settings) -> None:
    photo = noise(1200, 1100)
    body = order(shop, user_image=uri(photo), catalog_image=uri(photo))
    assert len(json.dumps(body)) > 3 * settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert shop.post(body).status_code == 200


def test_two_photos_of_the_largest_size_fit_into_one_body(shop: Shop, tryon: Callable[..., None]) -> None:
    largest = jpeg() + b"\0" * (10 * 1024 * 1024 - len(jpeg()))
    response = shop.post(order(shop, user_image=uri(largest), catalog_image=uri(largest)))
    assert response.status_code == 200, response.json()


def test_a_larger_photo_is_413_with_its_name(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(MAX_IMAGE_BYTES=len(PERSON) - 1)
    for body, post in (
        (order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT)), shop.post),
        (files(shop, user_image=PERSON, catalog_image=GARMENT), lambda body: Client().post(URL, body)),
    ):
        response = post(body)
        assert (response.status_code, response.json()["code"]) == (413, "image_too_large")
        assert "user_image: the image has" in response.json()["detail"]
        assert list(response.json()["errors"]) == ["user_image"]
    assert shop.ledger()[1:] == []


def test_a_body_over_our_own_cap_is_413_in_json(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(MAX_BODY_BYTES=1000)
    for body, post in (
        (order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT)), shop.post),
        (files(shop, user_image=PERSON, catalog_image=GARMENT), lambda body: Client().post(URL, body)),
    ):
        response = post(body)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        assert "1,000 bytes" in response.json()["detail"]


def test_a_urlencoded_form_too_large_for_one_is_told_what_to_send(shop: Shop) -> None:
    body = urlencode(order(shop, user_image=uri(noise(900, 800)), catalog_image=uri(GARMENT)))
    response = Client().post(URL, body, content_type="application/x-www-form-urlencoded")
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "multipart/form-data" in response.json()["detail"]


def test_much_text_beside_the_photos_is_413(shop: Shop) -> None:
    """What a parser makes of a body takes many times its bytes."""
    body = order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT), note=["x"] * 20_000)
    response = shop.post(body)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "besides its photos" in response.json()["detail"]


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        ("", "Give a file, or a data: URI"),
        ("nonsense", "Give a file, or a data: URI"),
        (base64.b64encode(PERSON).decode(), "Give a file, or a data: URI"),
        ("data:image/jpeg,%FF%D8%FF", "Give a file, or a data: URI"),
        ("data:image/jpeg;base64", "Give a file, or a data: URI"),
        ("data:image/jpeg;base64,", "The file is empty"),
        ("data:image/jpeg;base64,####", "no valid base64"),
        (uri(PERSON)[:-1], "no valid base64"),
        (uri(PERSON).replace("/", "_") + "=", "no valid base64"),
        (uri(PERSON) + '\\"', "Give a file, or a data: URI"),
        ("DATA:" + "a" * 500 + ";base64,AAAA", "Give a file, or a data: URI"),
        (7, "Give a file"),
        (None, "may not be null"),
        (["data:image/jpeg;base64,AAAA"], "Give a file"),
        ({"file": 1}, "Give a file"),
        ("https://shop.example/person.jpg", "Give a file, or a data: URI"),
    ],
)
def test_what_is_no_photo_is_400_with_its_name(shop: Shop, photo: Any, says: str) -> None:
    response = shop.post(order(shop, user_image=photo, catalog_image=uri(GARMENT)))
    assert response.status_code == 400, response.json()
    assert list(response.json()["errors"]) == ["user_image"]
    assert says in response.json()["errors"]["user_image"][0]
    assert shop.ledger()[1:] == []


def test_an_empty_file_is_400(shop: Shop) -> None:
    response = Client().post(URL, files(shop, user_image=b"", catalog_image=GARMENT))
    assert response.status_code == 400
    assert response.json()["errors"] == {"user_image": ["The file is empty. Send a JPEG, PNG or WebP."]}


@pytest.mark.parametrize("photo", ["data:;base64,", uri(PERSON)])
def test_more_photos_than_a_request_has_are_not_even_looked_at(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, photo: str
) -> None:
    """A body of 30 MB has room for a million empty ones, each of which would be a file."""
    looked: list[object] = []
    make = bodies.file_of

    def look(*args: Any, **named: Any) -> Any:
        looked.append(args)
        return make(*args, **named)

    monkeypatch.setattr(bodies, "file_of", look)
    response = shop.post(json.dumps([{"user_image": photo}] * 1000))
    assert (response.status_code, response.json()["code"]) == (400, "parse_error")
    assert len(looked) == 2


@pytest.mark.parametrize("photo", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a" + bytes(50), b"%PDF-1.7"])
def test_the_content_decides_what_a_file_is(shop: Shop, photo: bytes) -> None:
    upload = SimpleUploadedFile("person.jpg", photo, content_type="image/jpeg")
    response = Client().post(URL, files(shop, user_image=upload, catalog_image=GARMENT))
    assert (response.status_code, response.json()["code"]) == (415, "not_an_image")
    assert list(response.json()["errors"]) == ["user_image"]
    assert shop.ledger()[1:] == RELEASED


def test_a_photo_and_its_url_exclude_each_other(shop: Shop) -> None:
    response = shop.post({**shop.body, "user_image": uri(PERSON)})
    assert response.status_code == 400
    assert response.json()["errors"] == {"user_image": ["Send user_image or user_image_url, not both."]}


def test_one_of_both_is_needed(shop: Shop) -> None:
    response = shop.post(order(shop, user_image=uri(PERSON)))
    assert response.status_code == 400
    assert response.json()["errors"] == {
        "catalog_image_url": ["This field is required, or catalog_image, the photo itself."]
    }


def test_a_file_is_found_again_by_its_content_under_an_idempotency_key(shop: Shop) -> None:
    def post(person: bytes) -> Any:
        return Client(headers={"Idempotency-Key": "k"}).post(
            URL, files(shop, user_image=person, catalog_image=GARMENT)
        )

    first, again, other = post(PERSON), post(PERSON), post(jpeg(color="pink"))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert TryOn.objects.count() == 1


def test_an_uploaded_file_does_not_outlive_its_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Any
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(folder)
    opened: list[Any] = []
    make = bodies.file_of

    def noted(*args: Any, **kwargs: Any) -> Any:
        opened.append(make(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(bodies, "file_of", noted)
    assert shop.post(order(shop, user_image=uri(noise(400, 400)), catalog_image=uri(GARMENT))).status_code == 200
    assert shop.post(order(shop, user_image=uri(PERSON), catalog_image=7)).status_code == 400
    assert len(opened) == 3
    assert all(file.closed for file in opened)
    assert Client().post(URL, files(shop, user_image=PERSON, catalog_image=GARMENT)).status_code == 200
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("way", ["form", "JSON"])
def test_a_photo_on_the_disk_has_no_name_that_could_outlive_its_process(
    shop: Shop, fake: Callable[..., FakeProvider], settings: Settings, tmp_path: Any, way: str
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(folder)
    provider = fake()
    generate, seen = provider.generate_image, []

    async def look(request: Any) -> Any:
        seen.append(list(folder.iterdir()))
        return await generate(request)

    provider.generate_image = look  # type: ignore[method-assign]
    photo = noise(300, 300)
    if way == "form":
        response = Client().post(URL, files(shop, user_image=photo, catalog_image=photo))
    else:
        response = shop.post(order(shop, user_image=uri(photo), catalog_image=uri(photo)))
    assert response.status_code == 200
    assert seen == [[]]


def test_large_bodies_are_parsed_one_after_the_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.01)
    large = order(shop, user_image=uri(noise(300, 300)), catalog_image=uri(GARMENT))
    with bodies._one_large:
        response = shop.post(large)
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["Retry-After"]
        assert shop.post().status_code == 200, "a small one waits for nobody"
    assert shop.post(large).status_code == 200


def test_under_wsgi_who_sends_slowly_holds_up_nobody(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.01)
    large = json.dumps(order(shop, user_image=uri(noise(300, 300)), catalog_image=uri(GARMENT)))

    class Slow(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            if not answers:
                answers.append(shop.post(large))
            return super().read(*args)

    answers: list[Any] = []
    slow: dict[str, Any] = {"wsgi.input": Slow(large.encode()), "CONTENT_LENGTH": str(len(large))}
    answers.append(Client().generic("POST", URL, **slow, CONTENT_TYPE="application/json"))
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("application/json", b" " * 5_000_000, id="no JSON"),
        pytest.param("application/json", b'{"a": "%s"}' % (b"a" * 5_000_000), id="a long text"),
        pytest.param(
            "application/json",
            b'{"user_image": "data:;base64,%s", "user_image": 1}' % (b"AAAA" * 1_000_000),
            id="twice",
        ),
        pytest.param("application/json", b'{"user_image": "data:;base64,%s%%"}' % (b"A" * 5_000_000), id="no base64"),
        pytest.param("application/x-www-form-urlencoded", b"a=1&a=" + b"a" * 2_400_000, id="a form"),
    ],
)
def test_a_body_that_is_refused_is_gone_at_once(kind: str, body: bytes) -> None:
    async def refuse() -> int:
        return (await AsyncClient().generic("POST", URL, body, content_type=kind)).status_code

    async def main() -> int:
        assert await refuse() in (400, 413)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            await refuse()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()

    assert async_to_sync(main)() < 1.5 * len(body), "what the test's own client sends is still there"


def test_a_client_that_goes_while_its_photos_are_read_leaves_no_file_open(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, opened = bodies.file_of, []
    is_reading, has_gone = threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        opened.append(make(*args, **kwargs))
        is_reading.set()
        has_gone.wait(60)
        return opened[-1]

    async def main() -> None:
        body = json.dumps(order(shop, user_image=uri(PERSON), catalog_image=uri(GARMENT)))
        request = asyncio.create_task(AsyncClient().post(URL, body, content_type="application/json"))
        await asyncio.to_thread(is_reading.wait, 60)
        request.cancel()
        asyncio.get_running_loop().call_later(0.1, has_gone.set)
        await asyncio.wait([request])
        await asyncio.to_thread(wait_until, lambda: len(opened) == 2 and all(file.closed for file in opened))

    monkeypatch.setattr(bodies, "file_of", slow)
    async_to_sync(main)()


def test_the_form_of_the_browsable_api_takes_files(shop: Shop) -> None:
    html = {"Accept": "text/html"}
    page = Client(headers=html).get(URL).content.decode()
    for name in ("user_image", "catalog_image"):
        assert f'<input name="{name}" type="file"' in " ".join(page.split())
    response = Client(headers=html).post(URL, files(shop, user_image=PERSON, catalog_image=GARMENT))
    assert response.status_code == 200
    assert str(TryOn.objects.get().image.name) in response.content.decode()


def test_an_empty_file_field_of_a_form_counts_as_left_out(shop: Shop) -> None:
    """So browsers send a file field in which nothing was chosen, and an empty text field."""
    body = files(shop, user_image=PERSON, catalog_image=GARMENT) | {"user_image_url": "", "catalog_image_url": ""}
    assert Client().post(URL, body).status_code == 200
