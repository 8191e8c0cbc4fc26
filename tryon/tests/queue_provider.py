"""A provider whose vendor makes pictures as jobs, over real HTTP; and that vendor."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any, ClassVar

from providers.base import AIProvider, TryOnRequest, TryOnResult
from providers.errors import ProviderRejectedInput, ProviderUnavailable
from providers.http import HTTPError, PerLoop, vendor_client
from providers.tests.vendor import Answer, Call, json_answer


class QueueProvider(AIProvider):
    """Submits a job, notes its id and polls."""

    name: ClassVar[str] = "Queue"
    keeps_jobs = True

    def __init__(self, alias: str, *, url: str) -> None:
        super().__init__(alias)
        self._url = url
        self._clients = PerLoop(vendor_client)

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        job = (await self._call("POST", "/jobs"))["job"]
        await request.note_job(job)
        return await self.resume(job)

    async def resume(self, job: str) -> TryOnResult:
        while not (picture := (await self._call("GET", f"/jobs/{job}"))["picture"]):
            await asyncio.sleep(0.001)
        return TryOnResult(data=base64.b64decode(picture), content_type="image/png", model="queue-1", provider_id=job)

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _call(self, method: str, path: str) -> Any:
        try:
            response = await (await self._clients.get()).request(method, self._url + path)
        except HTTPError as error:
            raise ProviderUnavailable("The queue was not reached.") from error
        if response.status_code == 404:
            raise ProviderRejectedInput("The queue does not know this job.")
        if response.status_code != 200:
            raise ProviderUnavailable(f"The queue answered {response.status_code}.")
        return response.json()


class Queue:
    """What the vendor knows. An instance is the ``answer`` of a ``VendorServer``."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        """By job; empty while the picture is made."""
        self.polled = threading.Event()
        self.is_down = False

    def __call__(self, call: Call) -> Answer:
        if self.is_down:
            return Answer(status=500)
        if call.method == "POST":
            job = f"job-{len(self.pictures) + 1}"
            self.pictures[job] = b""
            return json_answer({"job": job})
        job = call.path.rpartition("/")[2]
        self.polled.set()
        if job not in self.pictures:
            return Answer(status=404)
        return json_answer({"picture": base64.b64encode(self.pictures[job]).decode()})
