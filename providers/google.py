"""What the adapters of the google-genai SDK share: its client, and what Google's failures mean.

The SDK builds and signs the requests. The answers are read here, where they arrive (``_read()``): the SDK knows no
limit of their size, and its errors keep their whole text.

An error's body is a google.rpc.Status: ``{"error": {"code", "message", "status", "details": [...]}}``. The details are
among others ErrorInfo (``reason``), RetryInfo (``retryDelay``, such as "34.07s") and QuotaFailure, each of whose
``violations`` has a ``quotaId`` such as "GenerateRequestsPerDayPerProjectPerModel-FreeTier" (as seen in issue 8437 of
github.com/google-gemini/gemini-cli).
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from . import rest
from .base import AIProvider, Problem
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
from .rest import Reply
from .utils import PerLoop, bad_option, check_url, one_line, retry_after

if TYPE_CHECKING:
    import ssl

    import httpx2
    from google import genai
    from google.genai.models import AsyncModels

T = TypeVar("T")

API_VERSION: Final = "v1"

CONNECT_TIMEOUT: Final = 10.0
"""Seconds."""
READ_TIMEOUT: Final = 600.0
"""Seconds of silence. Only a net under ``try_on()``, whose timeout is the one that counts."""

MAX_PHOTO_BYTES: Final = 7 * 1024 * 1024
"""Of one photo inside a request."""

PACKAGES: Final = ("google.genai", "httpx2")
INSTALL: Final = "Run `pip install google-genai` (the extra google)."

REFUSALS: Final = (
    *("SAFETY", "PROHIBITED", "BLOCKLIST", "SPII", "RECITATION"),
    *("MODEL_ARMOR", "JAILBREAK", "ESCALATION"),
)
"""Parts of the reasons for which Google's policy stops a picture (``FinishReason`` in google/genai/types.py)."""


class NothingMade(InvalidProviderResponse):
    """The model ended without a picture and not for its content: another try may give one."""

    retryable = True


class _Failed(Exception):
    """An answer that is not a success, on its way through the SDK."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _Connection:
    """The SDK's client of one event loop, and the HTTP client that it leaves to us to close."""

    sdk: genai.Client
    http: httpx2.AsyncClient

    async def aclose(self) -> None:
        await self.http.aclose()


class GoogleProvider(AIProvider):
    """Base of the adapters: a subclass says who asks (``identity()``), asks (``call()``) and reads the answer."""

    max_photo_bytes = MAX_PHOTO_BYTES
    identity_advice: ClassVar[str]
    """What to do when Google does not accept who asks."""

    def __init__(self, alias: str, *, model: str, base_url: str) -> None:
        super().__init__(alias)
        check_model(alias, "model", model)
        check_url(alias, "base_url", base_url)
        self._model = model
        self._base_url = base_url
        self._connections = PerLoop(self._connect)

    @property
    def model(self) -> str:
        return self._model

    def check(self) -> Iterator[Problem]:
        missing = [package for package in PACKAGES if not _is_installed(package)]
        if missing:
            yield Problem(
                f'The provider "{self.alias}" needs packages that are not installed: {", ".join(missing)}.',
                hint=INSTALL,
            )

    async def aclose(self) -> None:
        await self._connections.aclose()

    def identity(self) -> dict[str, Any]:
        """The arguments of the SDK's client that say which API it asks, and in whose name.

        All of them: what is left out, the SDK takes from the environment.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement identity().")

    async def call(self, ask: Callable[[AsyncModels], Awaitable[T]]) -> T:
        """What ``ask`` gets from the SDK. Raise a ``ProviderError`` for every failure."""
        await self.import_packages()
        import httpx2

        connection = await self._connections.get()
        failure: ProviderError
        try:
            return await ask(connection.sdk.aio.models)
        except _Failed as failed:
            failure = self.explain(failed.reply)
        except ProviderError as error:
            failure = error.with_traceback(None)  # of frames of the SDK
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            failure = self._unreachable(error)
        except httpx2.TimeoutException:
            failure = ProviderTimeout(f"{self.name} did not answer in time.")
        except httpx2.HTTPError as error:
            failure = self._unreachable(error)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            # The SDK takes an answer for what it should be, and trips over anything else.
            failure = InvalidProviderResponse(
                f"{self.name}'s answer cannot be read: {type(error).__name__}.", status=200
            )
        # Out here, so that no error of the libraries is its context: they hold the key and parts of the answer.
        raise failure

    async def import_packages(self) -> None:
        try:
            if not _import.cache_info().currsize:
                # Takes a second of CPU, which the event loop does not have.
                await asyncio.to_thread(_import)
        except ImportError as error:
            raise ProviderMisconfigured(
                f"{self.name} cannot be used: {one_line(error.name) or 'a package'} is missing. {INSTALL}"
            ) from error

    def explain(self, reply: Reply) -> ProviderError:
        """Our word for an answer that is not a success.

        Only Google's codes go into the message: its sentences repeat parts of the key and of the request.
        """
        status = reply.status
        error = _error(reply.content)
        details = [detail for detail in as_list(error.get("details")) if isinstance(detail, dict)]
        reason = next((code for detail in details if (code := a_code(detail.get("reason")))), "")
        codes = ", ".join(code for code in (a_code(error.get("status")), reason) if code)
        kind, advice = self._kind(status, a_code(error.get("status")), reason, _is_quota_of_the_day(details))
        said = f"{self.name} answered {status}" + (f" ({codes})." if codes else ".")
        return kind(
            f"{said} {advice}".strip(),
            status=status,
            retry_after=_first(retry_after(reply.headers), _retry_delay(details)),
        )

    def _kind(self, status: int, code: str, reason: str, quota_of_the_day: bool) -> tuple[type[ProviderError], str]:
        if status == 402 or reason == "BILLING_DISABLED" or (status == 429 and quota_of_the_day):
            return ProviderQuotaExceeded, "The project has no quota left, or no billing."
        # A key that is none is a 400 at Google.
        if status in (401, 403) or reason.startswith("API_KEY"):
            return ProviderMisconfigured, self.identity_advice
        if status == 400 and code == "FAILED_PRECONDITION":
            return ProviderMisconfigured, "Check that the API is open to the project, in its region."
        if status in (404, 405, 410):
            return (
                ProviderMisconfigured,
                f"Check that {' and '.join(self.models_in_use)} is not retired, and base_url.",
            )
        if status == 429:
            return ProviderRateLimited, ""
        if status in (408, 409, 425) or status >= 500:
            return ProviderUnavailable, ""
        if status < 300:
            return InvalidProviderResponse, ""
        if status < 400:
            return ProviderMisconfigured, "It redirects; set base_url to where the API is."
        return ProviderRejectedInput, ""

    def _unreachable(self, error: Exception) -> ProviderError:
        return ProviderUnavailable(f"{self.name} could not be reached: {type(error).__name__}.")

    def _connect(self) -> _Connection:
        import httpx2
        from google import genai

        http = httpx2.AsyncClient(
            verify=_tls(),
            # Not compressed, so that the limit of an answer's bytes is one of the bytes we keep.
            headers={"Accept-Encoding": "identity"},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            follow_redirects=False,  # photos and key go to the configured server, to no other
            event_hooks={"request": [_limit_silence], "response": [self._read]},
        )
        options = genai.types.HttpOptions(
            base_url=self._base_url,
            api_version=API_VERSION,
            httpx_async_client=http,  # without it the SDK takes aiohttp where that is installed
            httpx_client=_unused_client(),
            async_client_args={"ssl": _tls()},  # unused too; else the SDK reads the trusted certificates once more
        )
        # Given as None they are not taken from the environment.
        debug = genai.client.DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
        return _Connection(genai.Client(**self.identity(), http_options=options, debug_config=debug), http)

    async def _read(self, response: httpx2.Response) -> None:
        """Read an answer that is a success, whole and within limits. Raise ``_Failed`` if it is none."""
        import httpx2

        status = response.status_code
        source = cast("httpx2.AsyncByteStream", response.stream)
        body = bytearray()
        broken = ""
        try:
            async for chunk in source:
                body += chunk
                if len(body) > rest.MAX_ANSWER_BYTES:
                    broken = f"has more than {rest.MAX_ANSWER_BYTES:,} bytes"
                    break
        except httpx2.TimeoutException:
            raise
        except httpx2.HTTPError as error:
            broken = f"is not complete: {type(error).__name__}"
        if status != 200:
            raise _Failed(Reply(status, response.headers, bytes(body)))
        if response.headers.get("content-encoding", "identity") != "identity":
            broken = "is compressed although we asked for it plain"
        if broken:
            raise InvalidProviderResponse(f"{self.name}'s answer {broken}.", status=status)
        await source.aclose()
        response.stream = httpx2.ByteStream(bytes(body))


def check_model(alias: str, option: str, model: object) -> None:
    """Refuse what cannot be the name of a model, which becomes a part of a URL."""
    if not (isinstance(model, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", model, re.ASCII)):
        raise bad_option(alias, option, model, "Give the name of a model.")


def a_code(value: object) -> str:
    """One of Google's codes, such as IMAGE_SAFETY; empty if it is anything else, such as a sentence."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", value) else ""


def as_dict(value: object) -> dict[str, Any]:
    """The object of a JSON; an empty one if it is anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The list of a JSON; an empty one if it is anything else."""
    return value if isinstance(value, list) else []


def is_refusal(reason: str) -> bool:
    """Whether this reason for having no picture is about its content."""
    return any(part in reason for part in REFUSALS)


def _error(content: Any) -> dict[str, Any]:
    if isinstance(content, list) and len(content) == 1:  # as some of Google's servers have it
        content = content[0]
    return as_dict(as_dict(content).get("error"))


def _is_quota_of_the_day(details: list[dict[str, Any]]) -> bool:
    """Whether a quota is used up that does not come back while anybody waits."""
    violations = (violation for detail in details for violation in as_list(detail.get("violations")))
    return any("PerDay" in str(as_dict(violation).get("quotaId")) for violation in violations)


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    for detail in details:
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", str(detail.get("retryDelay")))
        if match is not None:
            return float(match[1])
    return None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package that it is a part of
        return False


@functools.cache
def _import() -> None:
    """Import what the first call needs, all at once."""
    from google import genai  # noqa: F401

    _tls()


@functools.cache
def _tls() -> ssl.SSLContext:
    """Shared by the clients of all loops: reading the trusted certificates takes as long as ten calls."""
    import httpx2

    return httpx2.create_ssl_context()


@functools.cache
def _unused_client() -> httpx2.Client:
    """For calls without a loop, of which there are none: each client of the SDK would make one of its own."""
    import httpx2

    return httpx2.Client(verify=_tls())


async def _limit_silence(request: httpx2.Request) -> None:
    """The SDK asks for no limit at all, whatever the client's is."""
    limits = {"connect": CONNECT_TIMEOUT, "read": READ_TIMEOUT, "write": READ_TIMEOUT, "pool": None}
    request.extensions = {**request.extensions, "timeout": limits}
