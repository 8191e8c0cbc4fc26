"""A vendor on the loopback interface that can misbehave in every way a real one does."""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
import functools
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from PIL import Image

from providers.base import Photo, TryOnRequest


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a multipart form."""

    name: str
    data: bytes
    filename: str | None
    content_type: str


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came over the wire; the names of the headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def parts(self) -> list[Part]:
        message: Any = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            b"content-type: " + self.headers["content-type"].encode() + b"\r\n\r\n" + self.body
        )
        return [
            Part(
                name=part.get_param("name", header="content-disposition"),
                data=part.get_payload(decode=True),
                filename=part.get_filename(),
                content_type=part.get_content_type(),
            )
            for part in message.iter_parts()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the vendor sends back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent in place of all of the above."""
    missing: int = 0
    """Bytes that content-length promises and that never come."""
    end: str = "keep"
    """Then ``keep`` the connection, ``close`` it, ``reset`` it, or ``hang`` until the client gives up."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""
    delay: float = 0.0
    """Seconds before the answer."""


def json_answer(content: Any, status: int = 200, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status=status,
        body=json.dumps(content).encode(),
        headers={"content-type": "application/json", "x-request-id": "req_123"} | names,
    )


def openai_answer(picture: bytes, **more: Any) -> Answer:
    """A successful answer of POST /v1/images/edits."""
    usage = {
        "input_tokens": 1100,
        "input_tokens_details": {"image_tokens": 1000, "text_tokens": 100},
        "output_tokens": 2000,
        "total_tokens": 3100,
    }
    content = {
        "created": 1795000000,
        "data": [{"b64_json": base64.b64encode(picture).decode()}],
        "output_format": "png",
        "usage": usage,
    }
    return json_answer(content | more)


def openai_error(status: int, code: str | None = None, **more: Any) -> Answer:
    headers = more.pop("headers", {})
    error = {"message": "Something.", "type": "some_error", "param": None, "code": code} | more
    return json_answer({"error": error}, status, **headers)


class VendorServer:
    """Serves ``answer``, or what it returns for a call, from a thread of its own.

    ``calls`` are the requests so far. ``together``: answer only once that many calls are waiting at the same
    time. ``hung_up`` is set when a client closes its connection before it has its answer.
    """

    def __init__(self, answer: Answer | Callable[[Call], Answer], *, together: int = 1) -> None:
        self.answer = answer
        self.together = together
        self.calls: list[Call] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self.called = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._all_here = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1000)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one_call(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def _one_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False  # closed between two calls
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines[1:]) if colon
        }
        self.calls.append(Call(method, path, headers, await self._body(reader, headers)))
        self.called.set()
        answer = self.answer(self.calls[-1]) if callable(self.answer) else self.answer
        if len(self.calls) >= self.together:
            self._all_here.set()
        await self._all_here.wait()
        await asyncio.sleep(answer.delay)
        return await self._send(answer, reader, writer)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", 0)))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if answer.raw is not None:
            writer.write(answer.raw)
        elif answer.end != "hang" or answer.body:
            fields = {"content-length": str(len(answer.body) + answer.missing)} | dict(answer.headers)
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"HTTP/1.1 {answer.status} Whatever\r\n{head}\r\n".encode())
            if answer.drip:
                for index in range(len(answer.body)):
                    writer.write(answer.body[index : index + 1])
                    await writer.drain()
                    await asyncio.sleep(answer.drip)
            else:
                writer.write(answer.body)
        await writer.drain()
        if answer.end == "hang":
            await reader.readexactly(1)
        if answer.end == "reset":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return answer.end == "keep"


def photo(data: bytes, content_type: str = "image/jpeg") -> Photo:
    return Photo(data=data, content_type=content_type, width=768, height=1024)


@functools.cache
def small_picture(image_format: str, color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 64), color).save(file, image_format)
    return file.getvalue()


def try_on_request(**changes: Any) -> TryOnRequest:
    """A request with two small stand-ins for photos: a person in red, a garment in blue."""
    fields: dict[str, Any] = {
        "person": photo(small_picture("JPEG", "#ff0000")),
        "garment": photo(small_picture("PNG", "#0000ff"), "image/png"),
        "prompt": "Dress the person.",
    }
    return TryOnRequest(**fields | changes)
