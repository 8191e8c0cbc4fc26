"""How the Vertex AI adapter comes by its tokens: google-auth against a mocked token server, the model on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
import urllib.parse
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import responses
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import _exponential_backoff, jwt

from providers import errors
from providers.base import TryOnResult
from providers.vertex import VertexProvider

from .asking import failure_of, run
from .vendor import Answer, VendorServer, json_answer, try_on_request
from .vendors import KEY
from .vendors.vertex import Vertex

TOKEN_URL = "https://oauth2.googleapis.com/token"
ADDRESS = "shop@my-shop.iam.gserviceaccount.com"


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem() -> str:
    return (
        private_key()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def public_pem() -> bytes:
    return (
        private_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The file of a service account, as Google's console gives it."""
    path = tmp_path / "key.json"
    info = {
        "type": "service_account",
        "project_id": "my-shop",
        "private_key_id": "0123456789abcdef",
        "private_key": pem(),
        "client_email": ADDRESS,
        "client_id": "1234567890",
        "token_uri": TOKEN_URL,
    }
    path.write_text(json.dumps(info))
    return path


@pytest.fixture
def token_server() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def vertex() -> Iterator[VendorServer]:
    with VendorServer(Vertex()) as server:
        yield server


def token(text: str = "token-1", expires_in: int = 3600) -> dict[str, Any]:
    return {"access_token": text, "expires_in": expires_in, "token_type": "Bearer"}


def make(server: VendorServer, credentials: Path | str) -> VertexProvider:
    return VertexProvider("shop", **Vertex().options(server) | {"credentials": str(credentials)})


def pictures_of(provider: VertexProvider, times: int = 1) -> list[TryOnResult]:
    async def main() -> list[TryOnResult]:
        return await asyncio.gather(*(provider.try_on(try_on_request(), timeout=30) for _ in range(times)))

    return run(provider, main())


def test_a_service_account_gets_a_token_for_the_model(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    token_server.post(TOKEN_URL, json=token())

    pictures_of(make(vertex, key_file))

    (asked,) = token_server.calls
    body = urllib.parse.parse_qs(_text(asked.request.body))
    assert body["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    claims: Any = jwt.decode(body["assertion"][0], certs=public_pem())  # type: ignore[no-untyped-call]
    assert (claims["iss"], claims["aud"]) == (ADDRESS, TOKEN_URL)
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    (call,) = vertex.calls
    assert call.headers["authorization"] == "Bearer token-1"


def _text(body: bytes | str | None) -> str:
    return body.decode() if isinstance(body, bytes) else body or ""


def test_the_file_is_read_and_google_asked_at_the_first_picture_only(
    key_file: Path, tmp_path: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    """At creation there need not even be a file."""
    token_server.post(TOKEN_URL, json=token())
    provider = make(vertex, tmp_path / "later.json")
    list(provider.check())
    assert not token_server.calls

    key_file.rename(tmp_path / "later.json")

    assert pictures_of(provider)
    assert len(token_server.calls) == 1


def test_one_token_serves_all_pictures_of_all_loops(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    token_server.post(TOKEN_URL, json=token())
    provider = make(vertex, key_file)

    pictures_of(provider, times=4)
    pictures_of(provider, times=2)

    assert len(token_server.calls) == 1
    assert {call.headers["authorization"] for call in vertex.calls} == {"Bearer token-1"}
    assert len(vertex.calls) == 6


def test_an_expired_token_is_refreshed_once(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    token_server.post(TOKEN_URL, json=token())
    token_server.post(TOKEN_URL, json=token("token-2"))
    provider = make(vertex, key_file)
    pictures_of(provider)
    credentials: Any = provider._credentials
    credentials.expiry = datetime(2020, 1, 1) + timedelta(hours=1)  # google-auth's times have no zone

    pictures_of(provider, times=3)

    assert len(token_server.calls) == 2
    assert [call.headers["authorization"] for call in vertex.calls] == ["Bearer token-1"] + ["Bearer token-2"] * 3


def test_a_refused_refresh_is_the_operators_and_leaks_nothing(
    key_file: Path,
    token_server: responses.RequestsMock,
    vertex: VendorServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    refused = {"error": "invalid_grant", "error_description": f"Invalid JWT Signature. {KEY}"}
    token_server.post(TOKEN_URL, json=refused, status=400)
    provider = make(vertex, key_file)

    error = failure_of(provider)

    assert type(error) is errors.ProviderMisconfigured
    assert str(error).startswith("Vertex AI gave no token: RefreshError. ")
    assert error.__context__ is None
    assert len(token_server.calls) == 1
    assert not vertex.calls
    logging.getLogger("test").error("failed", exc_info=error)
    secrets = [KEY, ADDRESS, "invalid_grant", *pem().split("\n")[1:3]]
    for text in (repr(provider), repr(vars(error)), caplog.text, *traceback.format_exception(error)):
        assert not [secret for secret in secrets if secret in text]


def test_a_refused_refresh_is_tried_again_at_the_next_picture(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    token_server.post(TOKEN_URL, json={"error": "invalid_grant"}, status=400)
    token_server.post(TOKEN_URL, json=token())
    provider = make(vertex, key_file)
    failure_of(provider)
    assert pictures_of(provider)


@pytest.mark.parametrize(
    "failure",
    [requests.exceptions.ConnectionError(KEY), requests.exceptions.ReadTimeout(KEY)],
    ids=["no connection", "no answer"],
)
def test_a_token_server_that_cannot_be_reached(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer, failure: Exception
) -> None:
    token_server.post(TOKEN_URL, body=failure)
    error = failure_of(make(vertex, key_file))
    assert type(error) is errors.ProviderUnavailable
    assert error.__context__ is None
    assert not vertex.calls


def test_a_token_server_that_is_overloaded(
    key_file: Path,
    token_server: responses.RequestsMock,
    vertex: VendorServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """google-auth asks three times, with pauses; a token costs nothing."""
    monkeypatch.setattr(_exponential_backoff, "time", SimpleNamespace(sleep=lambda seconds: None))
    token_server.post(TOKEN_URL, json={"error": "unavailable"}, status=503)
    error = failure_of(make(vertex, key_file))
    assert type(error) is errors.ProviderUnavailable
    assert not vertex.calls


@pytest.mark.parametrize("body", ["<html>", "{}", "[]"])
def test_a_token_server_that_gives_no_token(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer, body: str
) -> None:
    token_server.post(TOKEN_URL, body=body)
    error = failure_of(make(vertex, key_file))
    assert isinstance(error, errors.ProviderMisconfigured | errors.InvalidProviderResponse)
    assert not vertex.calls


def test_a_token_that_the_model_does_not_accept(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    token_server.post(TOKEN_URL, json=token())
    vertex.answer = json_answer({"error": {"code": 401, "message": "token-1", "status": "UNAUTHENTICATED"}}, 401)
    error = failure_of(make(vertex, key_file))
    assert type(error) is errors.ProviderMisconfigured
    assert "token-1" not in str(error)
    assert len(vertex.calls) == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "a file which is not there"),
        ("<html>", "a file which is not JSON"),
        ("[]", "a file which is not the key of a service account"),
        ('{"type": "service_account"}', "a file which has no usable key"),
        ({"private_key": f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"}, "no usable key"),
        ({"private_key": 5}, "a file which has no usable key"),
        ({"client_email": None}, "a file which has no usable key"),
    ],
    ids=["missing", "html", "list", "nothing in it", "broken key", "odd key", "no address"],
)
def test_a_file_that_is_no_service_account(
    key_file: Path, vertex: VendorServer, content: str | dict[str, Any] | None, what: str
) -> None:
    if content is None:
        key_file.unlink()
    elif isinstance(content, dict):
        info = {**json.loads(key_file.read_text()), **content}
        key_file.write_text(json.dumps({name: value for name, value in info.items() if value is not None}))
    else:
        key_file.write_text(content)

    error = failure_of(make(vertex, key_file))

    assert type(error) is errors.ProviderMisconfigured
    assert what in str(error)
    assert error.__context__ is None
    assert KEY not in "".join(traceback.format_exception(error))
    assert not vertex.calls


def test_default_credentials_are_those_of_the_machine(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-the-environment")
    token_server.post(TOKEN_URL, json=token())

    pictures_of(make(vertex, ""))

    (call,) = vertex.calls
    assert call.headers["authorization"] == "Bearer token-1"
    assert "/projects/my-shop/" in call.path


def test_a_file_of_ones_own_comes_before_the_machines(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    token_server.post(TOKEN_URL, json=token())
    assert pictures_of(make(vertex, key_file))


def test_a_machine_without_default_credentials(vertex: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    error = failure_of(make(vertex, ""))
    assert type(error) is errors.ProviderMisconfigured
    assert "DefaultCredentialsError" in str(error)
    assert error.__context__ is None
    assert not vertex.calls


def test_cancelling_while_a_token_is_fetched(
    key_file: Path, token_server: responses.RequestsMock, vertex: VendorServer
) -> None:
    provider = make(vertex, key_file)

    async def cancel() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
            loop.call_soon_threadsafe(asked.set)
            return 200, {}, json.dumps(token())

        token_server.add_callback(responses.POST, TOKEN_URL, callback=answer)
        vertex.answer = Answer(end="hang")
        task = asyncio.create_task(provider.try_on(try_on_request(), timeout=60))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await provider.aclose()

    asyncio.run(cancel())
