"""The fake vendor: two photos to download, and OpenAI's ``POST /v1/images/edits``. A process of its own.

Its first line on stdout is its port. ``POST /behaviour`` with ``{"delay": seconds, "gather": number}`` makes it hold
its answers until so many requests wait, and then for so long.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from typing import Final

from aiohttp import web
from PIL import Image

CHUNK: Final = 128 * 1024
"""Bytes written at a time, so that hundreds of answers are not all in memory."""


def noise(width: int, height: int, file_format: str) -> bytes:
    """A picture that cannot be compressed."""
    image = Image.frombytes("RGB", (width, height), os.urandom(3 * width * height))
    out = io.BytesIO()
    image.save(out, file_format)
    return out.getvalue()


def photo() -> bytes:
    """A JPEG of about 200 KB."""
    return noise(448, 592, "JPEG")


def answer() -> bytes:
    """OpenAI's answer around a PNG of 1.5 MB, which are 2 MB of base64."""
    usage = {
        "input_tokens": 1200,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 1150},
        "output_tokens": 4160,
        "total_tokens": 5360,
    }
    body = {
        "created": 1_790_000_000,
        "background": "opaque",
        "data": [{"b64_json": base64.b64encode(noise(640, 800, "PNG")).decode()}],
        "output_format": "png",
        "quality": "high",
        "size": "640x800",
        "usage": usage,
    }
    return json.dumps(body).encode()


class Vendor:
    """The three things it serves."""

    def __init__(self) -> None:
        self.photo = photo()
        self.answer = answer()
        self.delay = 0.0
        self.gathering = asyncio.Barrier(1)

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=self.photo, content_type="image/jpeg")

    async def behave(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        self.delay = float(wanted["delay"])
        self.gathering = asyncio.Barrier(int(wanted["gather"]))
        return web.Response()

    async def edit(self, request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        await self.gathering.wait()
        await asyncio.sleep(self.delay)
        response = web.StreamResponse(headers={"X-Request-ID": "req_benchmark"})
        response.content_type = "application/json"
        response.content_length = len(self.answer)
        await response.prepare(request)
        for start in range(0, len(self.answer), CHUNK):
            await response.write(memoryview(self.answer)[start : start + CHUNK])
        return response


async def serve() -> None:
    vendor = Vendor()
    app = web.Application()
    app.add_routes(
        [
            web.get("/person.jpg", vendor.download),
            web.get("/garment.jpg", vendor.download),
            web.post("/v1/images/edits", vendor.edit),
            web.post("/behaviour", vendor.behave),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the protocol
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
