"""What one server process takes at its peak while 50 people send it the worst photos it allows."""

from __future__ import annotations

import asyncio
import base64
import collections
import functools
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from tryon.conf import Conf
from tryon.credits import get_credits

from .shop import URL, Shop, png
from .uvicorn_process import SECONDS, Server, serve

__all__ = ["serve"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

REQUESTS: Final = 50
MOST: Final = 400
"""Megabytes of resident memory, Django and the vendor's SDK included."""
LARGEST: Final = Conf.MAX_IMAGE_BYTES.default


def noise(width: int, height: int, bands: int = 3) -> Image.Image:
    """What compresses worst; in blocks of 8 pixels, that it takes no minute to make."""
    small = np.random.default_rng(3).integers(0, 255, (height // 8, width // 8, bands), dtype=np.uint8)
    return Image.fromarray(small.repeat(8, axis=0).repeat(8, axis=1))


@functools.cache
def large_as_it_is() -> bytes:
    """A JPEG of 10 MB that leaves as it came."""
    pixels = np.random.default_rng(3).integers(0, 255, (2400, 4096, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=60, subsampling=0)
    assert 0.8 * LARGEST < out.tell() <= LARGEST, out.tell()
    return out.getvalue()


@functools.cache
def turned() -> bytes:
    """A JPEG of 16 million pixels that has to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    noise(4096, 4088).save(out, "JPEG", quality=80, subsampling=0, exif=exif)
    return out.getvalue()


@functools.cache
def huge() -> bytes:
    """A JPEG of nearly as many pixels as are allowed."""
    out = io.BytesIO()
    noise(8000, Conf.MAX_IMAGE_PIXELS.default // 8000 // 8 * 8).save(out, "JPEG", quality=50, subsampling=0)
    return out.getvalue()


@functools.cache
def transparent() -> bytes:
    """A PNG of 24 million pixels with transparency."""
    out = io.BytesIO()
    noise(6000, 4000, bands=4).save(out, "PNG", compress_level=1)
    return out.getvalue()


PHOTOS: Final[dict[str, Callable[[], bytes]]] = {
    "large_as_it_is": large_as_it_is,
    "turned": turned,
    "huge": huge,
    "transparent": transparent,
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[str]:
    """OpenAI's image API on loopback, and the worst photos; its address."""
    ready, ended = threading.Event(), threading.Event()
    address: list[str] = []

    async def photo(request: web.Request) -> web.Response:
        return web.Response(body=PHOTOS[request.match_info["name"]](), content_type="image/jpeg")

    async def edit(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.3)
        picture = base64.b64encode(png()).decode()
        return web.json_response({"created": 1795000000, "data": [{"b64_json": picture}], "output_format": "png"})

    async def serve() -> None:
        app = web.Application(client_max_size=100_000_000)
        app.add_routes([web.get("/photos/{name}", photo), web.post("/v1/images/edits", edit)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1000).start()
        address.append("{}:{}".format(*runner.addresses[0]))
        ready.set()
        await asyncio.to_thread(ended.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(SECONDS)
    yield address[0]
    ended.set()
    thread.join()


@pytest.fixture
def server(vendor: str, shop: Shop, tryon: Callable[..., None], serve: Callable[..., Server]) -> Server:
    get_credits().grant(shop.user, 1000, reason="test")
    options = {"api_key": "sk-test", "base_url": f"http://{vendor}/v1"}
    tryon(
        PROVIDER="openai",
        PROVIDERS={"openai": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": options}},
        FETCH_ALLOWED_HOSTS=[vendor],
        CIRCUIT_FAILURES=0,
    )
    return serve()


def peak(server: Server) -> float:
    """Megabytes."""
    (line,) = [line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) / 1024


def send(server: Server, bodies: list[Callable[[], Any]]) -> list[tuple[int, Any]]:
    async def post(session: aiohttp.ClientSession, body: Callable[[], Any]) -> tuple[int, Any]:
        async with session.post(f"http://127.0.0.1:{server.port}{URL}", **body()) as response:
            return response.status, await response.json()

    async def main() -> list[tuple[int, Any]]:
        timeout = aiohttp.ClientTimeout(10 * SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            return await asyncio.gather(*(post(session, body) for body in bodies))

    return asyncio.run(main())


def by_url(shop: Shop, vendor: str, name: str) -> Callable[[], Any]:
    url = f"http://{vendor}/photos/{name}"
    return lambda: {"json": {**shop.body, "user_image_url": url, "catalog_image_url": url}}


def in_json(shop: Shop, vendor: str, name: str) -> Callable[[], Any]:
    return lambda: {"data": io.BytesIO(_json(shop.key, name)), "headers": {"Content-Type": "application/json"}}


@functools.cache
def _json(key: str, name: str) -> bytes:
    uri = f"data:image/jpeg;base64,{base64.b64encode(PHOTOS[name]()).decode()}"
    body = {"user_id": "ada", "api_key": key, "catalog_id": "x", "user_image": uri, "catalog_image": uri}
    return json.dumps(body).encode()


def as_files(shop: Shop, vendor: str, name: str) -> Callable[[], Any]:
    def form() -> aiohttp.FormData:
        form = aiohttp.FormData({"user_id": "ada", "api_key": shop.key, "catalog_id": "x"})
        for field in ("user_image", "catalog_image"):
            form.add_field(field, io.BytesIO(PHOTOS[name]()), filename="x")
        return form

    return lambda: {"data": form()}


@pytest.mark.stress
@pytest.mark.parametrize("way", [by_url, in_json, as_files])
def test_50_of_the_worst_requests_take_less_than_400_megabytes(
    shop: Shop, vendor: str, server: Server, way: Callable[..., Callable[[], Any]]
) -> None:
    names = list(PHOTOS)
    answers = send(server, [way(shop, vendor, names[number % len(names)]) for number in range(REQUESTS)])
    statuses = collections.Counter(status for status, _ in answers)
    # Decoding them takes long, and who waits too long is told so.
    assert set(statuses) <= {200, 503, 504}, [body for status, body in answers if status not in (200, 503, 504)]
    assert statuses[200] >= 5
    assert peak(server) < MOST, statuses
    assert get_credits().balance(shop.user) == 1003 - statuses[200]
