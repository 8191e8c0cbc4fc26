"""What a server and the application say to each other when a process begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from providers.fake import FakeProvider
from tryon import lifespan, pipeline
from tryon.dispatch import providers
from tryon.lifespan import Lifespan, is_draining

from .shop import URL


class Application:
    """Notes what it is called with, and answers HTTP."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def __call__(self, *call: Any) -> None:
        self.calls.append(call)
        scope, _, send = call
        assert scope["type"] != "lifespan"
        headers = [(b"content-type", b"text/plain"), (b"Connection", b"keep-alive")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"here"})


class Server:
    """The server's side of ``lifespan``."""

    def __init__(self, application: Lifespan | None = None) -> None:
        self._connection: Any = ApplicationCommunicator(  # type: ignore[no-untyped-call]
            application or Lifespan(Application()), {"type": "lifespan", "asgi": {"version": "3.0"}}
        )

    async def _say(self, phase: str) -> Any:
        await self._connection.send_input({"type": f"lifespan.{phase}"})
        return await self._connection.receive_output(timeout=30)

    async def start(self) -> Any:
        return await self._say("startup")

    async def stop(self) -> Any:
        answer = await self._say("shutdown")
        await self.hear_no_more()
        return answer

    async def hear_no_more(self) -> None:
        await self._connection.wait(timeout=30)
        assert await self._connection.receive_nothing()


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that reached the server's own handler of SIGTERM."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


@contextlib.asynccontextmanager
async def work() -> AsyncIterator[None]:
    """Something is under way that no client waits for."""
    done = asyncio.Event()
    task = pipeline._detach(done.wait())
    yield
    done.set()
    await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_the_server_hears_that_all_went_well() -> None:
    async def main() -> list[Any]:
        server = Server()
        return [await server.start(), await server.stop()]

    assert asyncio.run(main()) == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_a_start_that_fails_is_told(tryon: Callable[..., None]) -> None:
    tryon(DRAIN="soon")

    async def main() -> Any:
        server = Server()
        answer = await server.start()
        await server.hear_no_more()
        return answer

    answer = asyncio.run(main())
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"] == "ValueError: could not convert string to float: 'soon'"


def test_an_end_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise OSError("The pool is stuck.")

    monkeypatch.setattr("tryon.lifespan.close_providers", fail)

    async def main() -> Any:
        server = Server()
        await server.start()
        return await server.stop()

    assert asyncio.run(main()) == {"type": "lifespan.shutdown.failed", "message": "OSError: The pool is stuck."}


def test_a_provider_that_fails_to_close_is_logged_and_the_others_are_closed(
    tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def close(self: FakeProvider) -> None:
        closed.append(self.alias)
        if self.alias == "a":
            raise OSError("The pool is stuck.")

    entry = {"BACKEND": "providers.fake.FakeProvider"}
    tryon(PROVIDER="a", PROVIDERS={"a": entry, "b": entry})
    assert [providers[alias].alias for alias in ("a", "b")] == ["a", "b"]
    monkeypatch.setattr(FakeProvider, "aclose", close)

    async def main() -> Any:
        server = Server()
        await server.start()
        return await server.stop()

    assert asyncio.run(main()) == {"type": "lifespan.shutdown.complete"}
    assert closed == ["a", "b"]
    assert "Provider 'a' could not be closed." in log.text


def test_everything_else_passes_unchanged() -> None:
    application = Application()

    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    calls = [({"type": kind, "http_version": "1.1"}, receive, send) for kind in ("http", "websocket")]
    for call in calls:
        asyncio.run(Lifespan(application)(*call))
    assert all(
        ours is theirs
        for call, through in zip(calls, application.calls, strict=True)
        for ours, theirs in zip(call, through, strict=True)
    )


@pytest.mark.parametrize("after", ["one after another", "side by side"])
def test_two_lives_in_one_process(told: list[int], after: str) -> None:
    """Tests and tools begin an application anew, or serve it twice."""
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        application = Lifespan(Application())
        first, second = Server(application), Server(application)
        assert (await first.start())["type"] == "lifespan.startup.complete"
        if after == "one after another":
            await first.stop()
        assert (await second.start())["type"] == "lifespan.startup.complete"

        signal.raise_signal(signal.SIGTERM)
        await until(lambda: told)
        assert is_draining()
        await second.stop()
        if after == "side by side":
            await first.stop()

    asyncio.run(main())
    assert told == [signal.SIGTERM]
    assert not is_draining()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sigterm_goes_to_the_server_unless_it_is_the_first_once_more(
    told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        server = Server()
        await server.start()
        async with work():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            signal.raise_signal(signal.SIGTERM)
            assert told == [], "systemd, and then the parent, mean the same"
            monkeypatch.setattr(lifespan, "TOLD_TWICE", 0.0)
            signal.raise_signal(signal.SIGTERM)
            assert told == [signal.SIGTERM]
        await server.stop()

    asyncio.run(main())
    assert told == [signal.SIGTERM], "and not once more when the work is done"


def test_a_server_whose_event_loop_has_the_signal_ends_at_once_and_refuses_meanwhile() -> None:
    async def main() -> None:
        shutdown = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shutdown.set)
        server = Server()
        await server.start()
        async with work():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(shutdown.wait(), 30)
            assert is_draining()
        await server.stop()
        assert not is_draining()

    asyncio.run(main())


def test_outside_the_main_thread_nothing_listens(told: list[int]) -> None:
    def live() -> None:
        async def main() -> None:
            server = Server()
            await server.start()
            assert signal.getsignal(signal.SIGTERM) is before
            answers.append(await server.stop())

        asyncio.run(main())

    before = signal.getsignal(signal.SIGTERM)
    answers: list[Any] = []
    thread = threading.Thread(target=live)
    thread.start()
    thread.join(60)
    assert answers == [{"type": "lifespan.shutdown.complete"}]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_that_is_the_systems_stays_so(told: list[int], handler: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, handler)

    async def main() -> None:
        server = Server()
        await server.start()
        assert signal.getsignal(signal.SIGTERM) == handler
        await server.stop()

    asyncio.run(main())


async def ask(application: Any, method: str, path: str, http_version: str = "1.1", **headers: str) -> tuple[Any, str]:
    """The beginning of the response, its headers a dictionary, and its body."""
    body = json.dumps({"user_id": "ada", "api_key": "tryon_x"}).encode()
    headers = {"host": "testserver", "content-type": "application/json", "content-length": str(len(body))} | headers
    scope = {
        "type": "http",
        "http_version": http_version,
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    connection: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
    await connection.send_input({"type": "http.request", "body": body})
    start, answer = [await connection.receive_output(timeout=30) for _ in range(2)]
    await connection.wait(timeout=30)
    start["headers"] = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start, answer["body"].decode()


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_while_draining_a_try_on_is_refused_before_anybody_asks_who_sent_it(accept: str) -> None:
    """This test has no database that could be asked."""

    async def main() -> tuple[Any, str]:
        application = Lifespan(get_asgi_application())
        server = Server(application)
        await server.start()
        async with work():
            signal.raise_signal(signal.SIGTERM)
            answer = await ask(application, "POST", URL, accept=accept)
        await server.stop()
        return answer

    start, body = asyncio.run(main())
    assert start["status"] == 503, body
    assert json.loads(body)["code"] == "shutting_down"
    assert start["headers"]["retry-after"] == "5"


@pytest.mark.usefixtures("told")
def test_while_draining_connections_are_closed_where_http_has_a_header_for_it() -> None:
    async def main() -> list[Any]:
        application = Lifespan(Application())
        server = Server(application)
        await server.start()
        async with work():
            answers = [await ask(application, "GET", "/")]
            signal.raise_signal(signal.SIGTERM)
            answers += [await ask(application, "GET", "/", version) for version in ("1.0", "1.1", "2")]
        await server.stop()
        return [start["headers"]["connection"] for start, body in answers]

    assert asyncio.run(main()) == ["keep-alive", "close", "close", "keep-alive"]
