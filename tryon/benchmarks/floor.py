"""The floor: the same I/O as one try-on by a bare asyncio client, with no server, database, check or log around it.

A process of its own. Each line on stdin asks for ``{"images": number, "concurrency": number}``, each line on stdout
answers with the seconds every picture took.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import orjson
import pybase64

from .load import repeat


class Floor:
    """Makes pictures and leaves them in ``folder``."""

    def __init__(self, session: aiohttp.ClientSession, vendor: str, folder: Path) -> None:
        self.session = session
        self.vendor = vendor
        self.folder = folder
        self.made = 0

    async def make(self) -> None:
        """Two downloads side by side, one call of the provider, one file."""
        person, garment = await asyncio.gather(self.download("person.jpg"), self.download("garment.jpg"))
        form = aiohttp.FormData({"model": "gpt-image-2.6-sunburst", "prompt": "Put the garment on the person."})
        form.add_field("image[]", person, filename="person.jpeg", content_type="image/jpeg")
        form.add_field("image[]", garment, filename="garment.jpeg", content_type="image/jpeg")
        async with self.session.post(f"{self.vendor}/v1/images/edits", data=form) as response:
            answer = orjson.loads(await response.read())
        picture = pybase64.b64decode(answer["data"][0]["b64_json"], validate=True)
        self.made += 1
        (self.folder / f"{self.made}.png").write_bytes(picture)

    async def download(self, name: str) -> bytes:
        async with self.session.get(f"{self.vendor}/{name}") as response:
            return await response.read()


async def main(vendor: str, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        floor = Floor(session, vendor, folder)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            wanted = json.loads(line)
            seconds = await repeat(floor.make, wanted["images"], concurrency=wanted["concurrency"])
            print(json.dumps(seconds), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
