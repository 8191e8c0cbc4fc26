"""Vendors with an HTTP API of their own and no SDK worth having: what their adapters share."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import orjson

from . import http
from .base import AIProvider, Problem, Secret, TryOnRequest, TryOnResult
from .downloads import Blocked, DownloadFailed, TooLarge, download
from .errors import (
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderTimeout,
    ProviderUnavailable,
)
from .utils import (
    PerLoop,
    check_key,
    check_seconds,
    check_url,
    decode_base64,
    image_type,
    one_line,
    retry_after,
    short,
)

logger = logging.getLogger("providers.rest")

MAX_ANSWER_BYTES: Final = 100 * 1024 * 1024
"""Bytes of one answer, or of one picture behind a URL. What is larger is no picture of ours."""
DOWNLOAD_TIMEOUT: Final = 60.0
"""Seconds for one picture behind a URL."""

SLOWER: Final = 1.3
SLOWEST: Final = 5
"""Times the first pause between two polls: a job that takes long is asked for less often."""


@dataclass(frozen=True)
class Reply:
    """A vendor's answer, whole; ``headers`` ignore case. Its repr does not repeat what may repeat the key."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @cached_property
    def content(self) -> Any:
        """The JSON of the body; None if it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class RestProvider(AIProvider):
    """Base of adapters that speak HTTP themselves.

    A subclass says where the API is and how the key is sent, builds requests, calls ``ask()``, and reads the reply;
    its ``explain()`` and ``code_of()`` know the vendor's ways to fail. Neither anybody else's sentences nor the key
    get into an error.
    """

    default_base_url: ClassVar[str]
    key_variable: ClassVar[str]
    """The environment variable that the settings take the key from, for hints."""
    request_id_header: ClassVar[str] = "x-request-id"
    call_timeout: ClassVar[float] = 600.0
    """Seconds of silence in one call. Only a net under ``try_on()``, whose timeout is the one that counts."""

    def __init__(self, alias: str, *, api_key: str | Secret = "", base_url: str = "") -> None:
        super().__init__(alias)
        self._api_key = check_key(alias, "api_key", api_key)
        check_url(alias, "base_url", base_url)
        self._base_url = (base_url or self.default_base_url).rstrip("/")
        self._clients = PerLoop(lambda: http.vendor_client(timeout=self.call_timeout))

    def check(self) -> Iterator[Problem]:
        if not self._api_key:
            yield Problem(
                f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["api_key"] is empty.',
                hint=f"Set the environment variable {self.key_variable} to a key of your account at {self.name}.",
            )

    async def aclose(self) -> None:
        await self._clients.aclose()

    def authorization(self) -> dict[str, str]:
        """The headers that carry the key."""
        return {"Authorization": f"Bearer {self._api_key.reveal()}"}

    async def ask(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **content: Any) -> Reply:
        """Send one request, to a path of the API or to a URL of the same server; its answer if it is a success.

        ``content`` is httpx's: ``json``, ``data``, ``files``, ``params``. Raise a ``ProviderError`` for all else.
        """
        if not self._api_key:
            raise ProviderMisconfigured(f"{self.name} has no api_key. Set {self.key_variable}.")
        if not url.startswith("/"):
            self._demand_own(url)
        target = self._base_url + url if url.startswith("/") else url
        failure: ProviderError
        try:
            reply = await self._exchange(method, target, headers or {}, content)
        except http.ConnectError as error:  # among them a connection that was not made in time
            failure = self._unreachable(error)
        except http.TimeoutException:
            failure = ProviderTimeout(f"{self.name} did not answer in time.")
        except http.HTTPError as error:
            failure = self._unreachable(error)
        except UnicodeEncodeError:
            failure = ProviderRejectedInput(f"The request has characters that cannot be sent to {self.name}.")
        else:
            if isinstance(reply, Reply) and 200 <= reply.status < 300:
                return reply
            failure = self.explain(reply) if isinstance(reply, Reply) else reply
        # Out here, so that the library's error is not its context: that holds the key.
        raise failure

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: Mapping[str, Any]
    ) -> Reply | ProviderError:
        client = await self._clients.get()
        # Not in a variable, which an error's traceback would show.
        async with client.stream(method, url, headers={**self.authorization(), **headers}, **content) as response:
            body = bytearray()
            try:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return InvalidProviderResponse(
                            f"{self.name}'s answer has more than {MAX_ANSWER_BYTES:,} bytes.",
                            status=response.status_code,
                        )
            except http.TimeoutException:
                raise
            except http.HTTPError as error:
                if response.is_success:
                    return InvalidProviderResponse(
                        f"{self.name}'s answer is not complete or not readable: {type(error).__name__}.",
                        status=response.status_code,
                    )
            return Reply(response.status_code, response.headers, bytes(body))

    def _unreachable(self, error: Exception) -> ProviderError:
        return ProviderUnavailable(f"{self.name} could not be reached: {type(error).__name__}.")

    async def fetch(self, url: object) -> bytes:
        """The picture behind a URL of an answer, or in a ``data:`` URI: ``fetch_picture()``."""
        return await fetch_picture(url, vendor=self.name, base_url=self._base_url)

    def decode(self, text: object) -> bytes:
        """The bytes of base64 or of a ``data:`` URI."""
        return decode_picture(text, vendor=self.name)

    def read(self, reply: Reply) -> dict[str, Any]:
        """The JSON object of a successful answer."""
        if isinstance(reply.content, dict):
            return reply.content
        content_type = one_line(reply.headers.get("content-type")) or "no content type"
        raise self.problem(
            InvalidProviderResponse,
            reply,
            f"{self.name} answered with {len(reply.body)} bytes of {content_type} that are no JSON object.",
        )

    def explain(self, reply: Reply) -> ProviderError:
        """Our word for an answer that is not a success, by its status alone."""
        status = reply.status
        kind: type[ProviderError] = ProviderRejectedInput
        advice = ""
        if status in (401, 403):
            kind, advice = ProviderMisconfigured, "Check the api_key."
        elif status == 402:
            kind, advice = ProviderQuotaExceeded, "The account has no money or quota left."
        elif status in (404, 405, 410):
            kind, advice = ProviderMisconfigured, f"Check base_url, and that the model {self.model} is not retired."
        elif status == 429:
            kind = ProviderRateLimited
        elif status in (408, 409, 425) or status >= 500:
            kind = ProviderUnavailable
        elif status < 400:
            kind, advice = ProviderMisconfigured, "It redirects; set base_url to where the API is."
        return self.problem(kind, reply, f"{self.said(reply)} {advice}".strip())

    def said(self, reply: Reply) -> str:
        code = self.short(self.code_of(reply.content))
        return f"{self.name} answered {reply.status}" + (f" ({code})." if code else ".")

    def code_of(self, content: Any) -> object:
        """The vendor's own name for what went wrong, in the JSON of its answer; never its sentence."""
        return ""

    def problem(self, kind: type[ProviderError], reply: Reply, message: str, **more: Any) -> ProviderError:
        """An error with what the reply tells for the operator."""
        return kind(
            message,
            status=reply.status,
            retry_after=retry_after(reply.headers),
            request_id=self.request_id(reply),
            **more,
        )

    def request_id(self, reply: Reply) -> str:
        return self.short(reply.headers.get(self.request_id_header))

    def short(self, value: object) -> str:
        """A vendor's code on one line; nothing at all if it repeats the key."""
        return short(value, self._api_key)

    def is_own(self, url: str) -> bool:
        """Whether ``url`` is on the server that the operator chose, so that the key may go there."""
        try:
            return _origin(url) == _origin(self._base_url)
        except ValueError:
            return False

    def _demand_own(self, url: str) -> None:
        if not self.is_own(url):
            raise InvalidProviderResponse(f"{self.name} names another server as its own; the key does not go there.")


class JobProvider(RestProvider):
    """Base of adapters whose vendor takes a job, and is then asked for its picture until there is one.

    A subclass implements ``submit()`` and ``poll()``, and ``cancel()`` where the vendor can be told to stop.
    """

    keeps_jobs = True
    call_timeout: ClassVar[float] = 30.0
    patience: ClassVar[float] = 3.0
    """Seconds that a cancelled run waits for the id of the job that it has just asked for."""

    def __init__(self, alias: str, *, api_key: str | Secret = "", base_url: str = "", poll_every: float = 1.0) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url)
        self._poll_every = check_seconds(alias, "poll_every", poll_every)

    async def submit(self, request: TryOnRequest) -> str:
        """Have the vendor begin, and return the job's id: at most 200 characters by which ``poll()`` finds it."""
        raise NotImplementedError(f"{type(self).__name__} must implement submit().")

    async def poll(self, job: str) -> TryOnResult | None:
        """The job's picture; None while it is made. An error that ends the job has ``job_is_over``."""
        raise NotImplementedError(f"{type(self).__name__} must implement poll().")

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        job = await self._submit(request)
        await request.note_job(job)
        result = await self.resume(job)
        return result if request.seed is None else dataclasses.replace(result, seed=request.seed)

    async def _submit(self, request: TryOnRequest) -> str:
        """Submit; a job that was begun while its run is cancelled is noted first, so that it can be cancelled, too."""
        submission = asyncio.ensure_future(self.submit(request))
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            await asyncio.wait([submission], timeout=self.patience)
            if submission.done() and not submission.cancelled() and not submission.exception():
                await self._note_in_passing(request, submission.result())
            raise
        finally:
            submission.cancel()

    async def _note_in_passing(self, request: TryOnRequest, job: str) -> None:
        try:
            await request.note_job(job)
        except Exception:  # the cancellation is what counts
            logger.exception("Job %s of %r could not be noted.", job, self.alias)

    async def resume(self, job: str) -> TryOnResult:
        pause = self._poll_every
        while (result := await self.poll(job)) is None:
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER, self._poll_every * SLOWEST)
        return result

    async def ask_about(self, path: str) -> Reply:
        """GET what the vendor has to say of a job. It took the job at this address, so 404 is about the job."""
        try:
            return await self.ask("GET", path)
        except ProviderError as error:
            if error.status != 404:
                raise
        raise ProviderRejectedInput(f"{self.name} does not know the job.", status=404, job_is_over=True)

    async def pictures(self, links: object) -> list[bytes]:
        """The pictures of a job that ended well, given as URLs or ``data:`` URIs.

        What is none now will not be one later: an ``InvalidProviderResponse`` of this is the end of the job. A
        download that failed is not.
        """
        try:
            if not (isinstance(links, list) and links):
                raise InvalidProviderResponse(f"{self.name} answered without a picture.", status=200)
            pictures = [await self.fetch(link) for link in links[: self.max_pictures]]  # whatever it says it made
            if not all(image_type(picture) for picture in pictures):
                raise InvalidProviderResponse(f"{self.name} answered with bytes that are no picture.", status=200)
        except InvalidProviderResponse as error:
            error.job_is_over = True
            raise
        return pictures

    def job_id(self, reply: Reply, job: object) -> str:
        """``job`` as it was found in the reply to a submission, if it is an id that can be kept."""
        # One that repeats the key would stand in the database.
        if not isinstance(job, str) or not re.fullmatch(r"[\x21-\x7e]{1,200}", job) or not self.short(job):
            raise self.problem(InvalidProviderResponse, reply, f"{self.name} took the job without giving it an id.")
        return job


async def fetch_picture(url: object, *, vendor: str, base_url: str) -> bytes:
    """The picture behind a URL of an answer, or in a ``data:`` URI.

    The URL is a stranger's: only public addresses are dialled, and the server at ``base_url``, which the operator
    chose. Raise ``InvalidProviderResponse`` or ``ProviderUnavailable``.
    """
    if not isinstance(url, str) or not url:
        raise InvalidProviderResponse(f"{vendor} answered without a picture.", status=200)
    if url.startswith("data:"):
        return decode_picture(url, vendor=vendor)
    try:
        return await download(
            url,
            max_bytes=MAX_ANSWER_BYTES,
            timeout=DOWNLOAD_TIMEOUT,
            allowed_hosts=[_host_and_port(base_url)],
        )
    except (Blocked, TooLarge) as error:
        problem = f"{vendor} answered with a link that is not followed: {type(error).__name__}."
        failure: ProviderError = InvalidProviderResponse(problem, status=200)
    except DownloadFailed:
        failure = ProviderUnavailable(f"{vendor} made a picture that could not be downloaded.")
    raise failure  # out here, so that the link, which may be a secret, is not part of it


def decode_picture(text: object, *, vendor: str) -> bytes:
    """The bytes of base64 or of a ``data:`` URI. Raise ``InvalidProviderResponse``."""
    try:
        return decode_base64(text)
    except ValueError:
        said = "a picture that is not base64" if text else "no picture"
        raise InvalidProviderResponse(f"{vendor} answered with {said}.", status=200) from None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    if parts.username is not None:
        raise ValueError("the URL carries a user name")
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _host_and_port(url: str) -> str:
    _, host, port = _origin(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
