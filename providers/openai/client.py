"""The SDK's client as ``OpenAIProvider`` wants it. Importing this imports the SDK, which takes a second of CPU."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import httpx2
import openai

from .. import rest

CONNECT_TIMEOUT: Final = 10.0
"""Seconds."""

NOT_OF_THE_BODY: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that were true of the bytes on the wire, not of those that were read."""

File: TypeAlias = tuple[str, tuple[str, bytes, str]]
"""Name of the form's field; name, bytes and type of the file."""


class TooLong(Exception):
    """An answer of more bytes than any of ours has; ``status`` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"has more than {rest.MAX_ANSWER_BYTES:,} bytes")
        self.status = status


class HTTPClient(openai.DefaultAioHttpClient):
    """Reads every answer whole, as the SDK would, but none without end."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        response = await super().send(request, stream=True, **options)
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        return httpx2.Response(
            response.status_code,
            headers=[item for item in response.headers.multi_items() if item[0] not in NOT_OF_THE_BODY],
            content=body,
            request=response.request,
        )


async def _read(response: httpx2.Response) -> bytes:
    """The decoded body."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > rest.MAX_ANSWER_BYTES:
                raise TooLong(response.status_code)
    except httpx2.RequestError:
        if response.is_success:
            raise
        # Of a failure the status says enough.
    return b"".join(chunks)


def create(
    *,
    api_key: str,
    base_url: str,
    organization: str,
    project: str,
    azure_api_version: str,
    timeout: float,
    verify: ssl.SSLContext,
) -> openai.AsyncOpenAI:
    """A client that takes nothing from the environment but a proxy. ``timeout`` is in seconds of silence."""
    limits = openai.Timeout(timeout, connect=CONNECT_TIMEOUT)
    options: dict[str, Any] = {
        "api_key": api_key,
        "max_retries": 0,  # the caller retries, who knows the deadline and the other providers
        "timeout": limits,
        "http_client": HTTPClient(
            # 0 is aiohttp's "no limit", where None would be its default of 100: a request waits for its picture
            # for a minute, and must not make others wait for a connection.
            limits=httpx2.Limits(max_connections=0),
            timeout=limits,
            follow_redirects=False,  # photos and key go to the configured server, to no other
            verify=verify,
        ),
    }
    client: openai.AsyncOpenAI
    if azure_api_version:
        client = openai.AsyncAzureOpenAI(azure_endpoint=base_url, api_version=azure_api_version, **options)
    else:
        client = openai.AsyncOpenAI(base_url=base_url, **options)
    # Given as None these would be taken from the environment; the headers always are, from OPENAI_CUSTOM_HEADERS.
    client.organization = organization or None
    client.project = project or None
    client._custom_headers = {}
    return client


async def ask(
    client: openai.AsyncOpenAI, path: str, fields: Mapping[str, object] | None = None, files: Sequence[File] = ()
) -> httpx2.Response:
    """Post a form with ``files`` to ``path``, or get what is there; the raw answer if it is a success.

    Not by ``client.images.edit()``: it names a list of files ``image[]``, which not every server knows; and its
    typed answer costs four times the CPU of everything else here. Raise an ``OpenAIError`` or ``TooLong``.
    """
    if not files:
        return await client.get(path, cast_to=httpx2.Response)
    return await client.post(
        path,
        cast_to=httpx2.Response,
        body=fields,
        files=list(files),
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )
