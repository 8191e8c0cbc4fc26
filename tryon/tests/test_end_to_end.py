"""From the door a user comes in by to the picture, with the real providers."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from pytest_httpserver import HTTPServer

from providers.tests.marks import COMPOSITE, said
from providers.tests.models import models
from providers.tests.vendor import Answer, VendorServer, json_answer, openai_answer
from tryon.conf import DEFAULT_PROMPT
from tryon.models import TryOn, UsageRecord
from tryon.samples import sample

from .shop import Shop

__all__ = ["models"]

ROOT = Path(__file__).resolve().parents[2]


def png(width: int = 1024, height: int = 1536) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


# OpenAI's own SDK against a server that speaks its wire format


@pytest.fixture
def openai(tryon: Callable[..., None]) -> Iterator[VendorServer]:
    """The project runs with AI_PROVIDER=openai, and OpenAI is on loopback."""
    with VendorServer(openai_answer(png())) as vendor:
        options = {"api_key": "sk-very-secret", "base_url": vendor.base_url}
        tryon(
            PROVIDER="openai", PROVIDERS={"openai": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": options}}
        )
        yield vendor


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_a_picture_by_openai(shop: Shop, openai: VendorServer, media: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tryon.runs"):
        response = shop.post()

    assert response.status_code == 200, response.content
    answer = response.json()
    assert (answer["provider"], answer["width"], answer["height"]) == ("openai", 1024, 1536)
    assert [path.read_bytes() for path in media.iterdir()] == [png()], "the vendor's picture, byte for byte"
    [call] = openai.calls
    fields = {part.name: part for part in call.parts if not part.filename}
    assert call.path == "/v1/images/edits"
    assert fields["prompt"].data.decode() == DEFAULT_PROMPT
    assert [part.content_type for part in call.parts if part.filename] == ["image/jpeg", "image/jpeg"]
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    record = UsageRecord.objects.get()
    assert (record.provider, record.model, record.status) == ("openai", answer["model"], "succeeded")
    assert "sk-very-secret" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("vendor_says", "status", "code"),
    [
        (json_answer({"error": {"message": "Incorrect API key: sk-very-secret"}}, 401), 502, "provider_misconfigured"),
        (json_answer({"error": {"message": "slow down"}}, 429), 503, "provider_rate_limited"),
        (json_answer({"error": {"code": "moderation_blocked"}}, 400), 422, "content_refused"),
        (openai_answer(b"<html>no picture</html>"), 502, "provider_invalid_response"),
        (openai_answer(png()[:-1]), 502, "provider_invalid_response"),
        (
            Answer(status=200, body=b'{"data": [{"b64_json": "iVBOR', missing=500, end="reset"),
            502,
            "provider_invalid_response",
        ),
    ],
)
def test_a_failure_of_openai_costs_nothing_and_leaves_nothing(
    shop: Shop,
    openai: VendorServer,
    media: Path,
    caplog: pytest.LogCaptureFixture,
    vendor_says: Answer,
    status: int,
    code: str,
) -> None:
    openai.answer = vendor_says
    with caplog.at_level(logging.INFO):
        response = shop.post()

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert shop.balance() == 3
    assert shop.ledger()[-1] == ("release", 1)
    assert not media.exists() or not list(media.iterdir())
    assert TryOn.objects.get().status == TryOn.Status.FAILED
    assert "sk-very-secret" not in caplog.text + response.content.decode()


# The offline provider, in the app


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_a_picture_by_the_offline_provider(
    shop: Shop, photos: HTTPServer, tryon: Callable[..., None], media: Path, models: Path
) -> None:
    local = {"BACKEND": "providers.local.LocalProvider", "OPTIONS": {"models_dir": str(models)}}
    tryon(PROVIDER="local", PROVIDERS={"local": local})
    for name in ("person.jpg", "garment.jpg"):
        photos.expect_request(f"/real/{name}").respond_with_data(sample(name).read_bytes(), content_type="image/jpeg")
    urls = {"user_image_url": "/real/person.jpg", "catalog_image_url": "/real/garment.jpg"}

    response = shop.post(shop.body | {key: photos.url_for(path) for key, path in urls.items()})

    assert response.status_code == 200, response.content
    answer = response.json()
    assert (answer["provider"], answer["model"], answer["warnings"]) == ("local", "local-2", [])
    [path] = media.iterdir()
    with Image.open(path) as picture:
        assert picture.size == (answer["width"], answer["height"]) == (765, 1024)
    assert answer["ai_generated"] is False
    assert said(path.read_bytes()) == COMPOSITE

    refused = shop.post()  # two plain colours
    assert (refused.status_code, refused.json()["code"]) == (422, "image_unusable")
    assert refused.json()["detail"].startswith("Person photo: no person was found.")
    assert shop.balance() == 2


# The newcomer's way


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project as a fresh clone has it."""
    folder = tmp_path / "clone"
    rubbish = shutil.ignore_patterns("__pycache__", "*.png", "tests")
    for name in ("sakura_inference", "tryon", "providers", "settings", "media"):
        shutil.copytree(ROOT / name, folder / name, ignore=rubbish)
    shutil.copy(ROOT / "manage.py", folder)
    return folder


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def quickstart(clone: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "manage.py", "quickstart", *arguments],
        cwd=clone,
        env=keep | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background has them, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


STOPPED = "CommandError: Stopped. Run it again to go on."


def interrupt(run: subprocess.Popen[str], after: str) -> str:
    """Send Ctrl-C once the command has printed this line; the rest of what it prints."""
    assert run.stderr
    for line in run.stderr:
        if line.rstrip() == after:
            break
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    return out + err


@pytest.mark.stress
def test_quickstart_from_nothing_to_a_picture_and_a_server(clone: Path, port: int, models: Path) -> None:
    interrupted = quickstart(clone, "--no-serve", LOCAL_MODELS_DIR=str(models))
    assert interrupt(interrupted, after="… First try-on").splitlines() == [STOPPED]
    assert interrupted.returncode == 130

    first = quickstart(clone, "--no-serve", LOCAL_MODELS_DIR=str(models))
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert "as printed" not in out, "the password: the interrupted run did not print it"
    path = re.search(r"The picture: (.+)", out)
    assert path
    with Image.open(path[1]) as picture:
        assert picture.size == (765, 1024)
    assert [path.name for path in (clone / "media").glob("*.png")] == [Path(path[1]).name]

    again = quickstart(clone, PORT=str(port), LOCAL_MODELS_DIR=str(models))
    try:
        assert again.stdout
        lines = []
        for line in again.stdout:
            lines.append(line)
            if line.startswith("Serving on"):
                break
        text = "".join(lines)
        curl = re.search(r"""^curl -X POST "(\S+)" -H "Content-Type: application/json" -d '(.+)'$""", text, re.M)
        assert curl, text
        wait_for_port(port)
        check_server(curl[1], json.loads(curl[2]))
    finally:
        again.send_signal(signal.SIGINT)
        _, err = again.communicate(timeout=30)
    assert "Traceback" not in err


def wait_for_port(port: int) -> None:
    """The server says that it serves just before it does."""
    session = requests.Session()
    retries = requests.adapters.Retry(connect=10, backoff_factor=0.1)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries))
    assert session.get(f"http://localhost:{port}/health", timeout=10).status_code == 200


def check_server(url: str, data: dict[str, Any]) -> None:
    response = requests.post(url, json=data, timeout=60)
    assert response.status_code == 200, response.text
    picture = requests.get(response.json()["image_url"], timeout=10)
    assert picture.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == (765, 1024)
    base = url.removesuffix("/api/v1/create-image")
    browser = {"Accept": "text/html"}
    for path in ("/health", "/health/ready", "/docs", "/redoc", "/api/schema", "/admin/login/"):
        assert requests.get(base + path, timeout=10).status_code == 200, path
    assert "</form>" in requests.get(url, headers=browser, timeout=10).text, "the browsable API's form"
    docs = requests.get(base + "/docs", timeout=10).text
    for asset in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', docs):
        assert requests.get(base + asset, timeout=10).status_code == 200, asset


def without_models(clone: Path, tmp_path: Path, port: int) -> subprocess.Popen[str]:
    """quickstart that has to fetch the models from an index on this port."""
    pip = {
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_RETRIES": "1",
        "PIP_DEFAULT_TIMEOUT": "300",  # it does not give up by itself
        "PIP_CONFIG_FILE": os.devnull,
    }
    return quickstart(clone, "--no-serve", LOCAL_MODELS_DIR=str(tmp_path / "models"), **pip)


def assert_nothing_was_made(clone: Path, tmp_path: Path) -> None:
    assert list((tmp_path / "models").iterdir()) == []
    assert not list((clone / "media").glob("*.png"))
    assert not list(clone.glob("db.sqlite3*"))


def test_quickstart_without_models_and_network_says_what_to_do(clone: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        run = without_models(clone, tmp_path, closed.getsockname()[1])
        out, err = run.communicate(timeout=120)
    assert run.returncode == 1
    assert out == ""
    assert err.splitlines() == [
        "… Models of the offline provider",
        "CommandError: pose_landmark_full.tflite could not be fetched: pip could not download mediapipe==0.10.21: No "
        "matching distribution found for mediapipe==0.10.21. The connection failed: Connection refused. Check the "
        "network and pip's settings, and retry; or copy the file from a machine that has it to "
        f"{tmp_path / 'models'}.",
    ]
    assert_nothing_was_made(clone, tmp_path)


def test_ctrl_c_while_quickstart_fetches_models_leaves_no_pip_and_no_file(clone: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        run = without_models(clone, tmp_path, silent.getsockname()[1])
        connection, _ = silent.accept()
        with connection:
            assert interrupt(run, after="… Models of the offline provider").splitlines() == [STOPPED]
            connection.settimeout(10)
            while connection.recv(4096):  # until pip is gone
                pass
    assert run.returncode == 130
    assert_nothing_was_made(clone, tmp_path)
