"""The videos API: what only its adapter has. The rest is in test_vendors.py."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import openai
import pytest
from django.core.exceptions import ImproperlyConfigured
from PIL import Image

from providers import sora as adapter
from providers.errors import ImageUnusable, InvalidProviderResponse, ProviderMisconfigured, ProviderRejectedInput
from providers.sora import MAY_SHOW_THE_SHEET, SoraProvider

from .asking import failure_of, run, try_on
from .vendor import Answer, Call, VendorServer, photo, small_picture, try_on_request
from .vendors import KEY, Trouble, picture
from .vendors.sora import JOB, MP4, Sora, job

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def double() -> Sora:
    return Sora()


@pytest.fixture
def server(double: Sora) -> Iterator[VendorServer]:
    with VendorServer(double) as server:
        yield server


def make(server: VendorServer, **options: Any) -> SoraProvider:
    provider = Sora().provider(server, **options)
    assert isinstance(provider, SoraProvider)
    return provider


def sheet(server: VendorServer) -> Image.Image:
    """The reference picture that was sent."""
    (part,) = [part for part in server.calls[0].parts if part.filename]
    return Image.open(io.BytesIO(part.data))


def color(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """The full colour that is nearest to that of a point, given in parts of the width and the height."""
    pixel = image.getpixel((int(x * image.width), int(y * image.height)))
    assert isinstance(pixel, tuple)
    return tuple(255 if value > 127 else 0 for value in pixel)


def test_a_run_on_the_wire(server: VendorServer) -> None:
    try_on(make(server, seconds=8), category="tops")

    create, *polls, video, thumbnail = server.calls
    assert (create.method, create.path) == ("POST", "/v1/videos")
    fields = {part.name: part.data.decode() for part in create.parts if not part.filename}
    prompt = fields.pop("prompt")
    assert fields == {"model": "acme-video-3", "seconds": "8", "size": "72x128"}
    assert prompt.endswith("\n\nDress the person.\n\nThe garment is worn on the upper body.")
    (reference,) = [part for part in create.parts if part.filename]
    assert (reference.name, reference.filename, reference.content_type) == (
        "input_reference",
        "reference.jpeg",
        "image/jpeg",
    )
    assert [(call.method, call.path) for call in polls] == [("GET", f"/v1/videos/{JOB}")] * 2
    assert (video.method, video.path) == ("GET", f"/v1/videos/{JOB}/content?variant=video")
    assert (thumbnail.method, thumbnail.path) == ("GET", f"/v1/videos/{JOB}/content?variant=thumbnail")
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
def test_openais_own_sdk_sends_the_same(server: VendorServer) -> None:
    try_on(make(server))
    ours = [wire(call) for call in server.calls]
    server.calls.clear()

    with openai.OpenAI(api_key=KEY, base_url=server.base_url, max_retries=0) as client:
        reference = ("reference.jpeg", b"picture", "image/jpeg")
        video = client.videos.create(prompt="p", model="m", seconds="4", size="720x1280", input_reference=reference)
        assert client.videos.retrieve(video.id).status == "completed"
        assert client.videos.download_content(video.id, variant="video").content == MP4
        client.videos.download_content(video.id, variant="thumbnail")

    assert [wire(call) for call in server.calls] == [ours[0], *ours[2:]]  # one poll less


def wire(call: Call) -> tuple[str, str, str, list[tuple[str, str | None, str]]]:
    """What is the same for all photos and prompts."""
    parts = [(part.name, part.filename, part.content_type) for part in call.parts] if call.body else []
    return call.method, call.path, call.headers["authorization"], parts


def test_the_result_is_the_clip_and_its_still(double: Sora, server: VendorServer) -> None:
    result = try_on(make(server))

    assert (result.video, result.data) == (MP4, double.picture)
    assert (result.content_type, result.model, result.provider_id) == ("image/webp", "acme-video-3", JOB)
    assert result.warnings == (MAY_SHOW_THE_SHEET,)


@pytest.mark.parametrize(("image_format", "content_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_the_type_of_the_still_is_told_by_its_bytes(
    double: Sora, server: VendorServer, image_format: str, content_type: str
) -> None:
    double.picture = picture(image_format)
    assert try_on(make(server)).content_type == content_type


# The reference picture


@pytest.mark.parametrize("size", ["720x1280", "1024x1792", "72x128", "100x100"])
def test_the_person_is_above_and_the_garment_below(server: VendorServer, size: str) -> None:
    try_on(make(server, size=size))

    image = sheet(server)
    assert (image.format, f"{image.width}x{image.height}") == ("JPEG", size)
    assert (color(image, 0.5, 0.33), color(image, 0.5, 0.83)) == (RED, BLUE)
    assert "The first one, above, is the person. The second one, below, is the garment." in prompt_of(server)


@pytest.mark.parametrize("size", ["1280x720", "1792x1024"])
def test_on_a_wide_one_the_person_is_on_the_left_and_the_garment_on_the_right(server: VendorServer, size: str) -> None:
    try_on(make(server, size=size))

    image = sheet(server)
    assert f"{image.width}x{image.height}" == size
    assert (color(image, 0.33, 0.5), color(image, 0.83, 0.5)) == (RED, BLUE)
    assert "The first one, on the left, is the person." in prompt_of(server)


def prompt_of(server: VendorServer) -> str:
    return next(part.data.decode() for part in server.calls[0].parts if part.name == "prompt")


@pytest.mark.parametrize(
    ("dimensions", "corner", "edge"),
    [((400, 100), (0.01, 0.01), (0.01, 1 / 3)), ((100, 400), (0.01, 0.01), (0.5, 0.01))],
    ids=["wide photo", "tall photo"],
)
def test_photos_are_whole_and_undistorted_on_white(
    server: VendorServer, dimensions: tuple[int, int], corner: tuple[float, float], edge: tuple[float, float]
) -> None:
    file = io.BytesIO()
    Image.new("RGB", dimensions, RED).save(file, "PNG")
    try_on(make(server, size="720x1280"), person=photo(file.getvalue(), "image/png"))

    image = sheet(server)
    assert color(image, *corner) == WHITE
    assert color(image, *edge) == RED


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK"])
def test_photos_of_every_mode_are_placed(server: VendorServer, mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (30, 40)).save(file, "JPEG" if mode == "CMYK" else "PNG")
    try_on(make(server), garment=photo(file.getvalue(), "image/png"))
    # What is transparent shows the white ground; the empty CMYK is white, too, and all others are black.
    assert color(sheet(server), 0.5, 0.83) == (WHITE if mode in ("RGBA", "LA", "CMYK") else (0, 0, 0))


@pytest.mark.parametrize(("field", "name"), [("person", "Person photo"), ("garment", "Garment photo")])
@pytest.mark.parametrize(
    "data", [b"", b"text", small_picture("PNG", "#ff0000")[:60], small_picture("JPEG", "#f00")[:300]]
)
def test_a_photo_that_cannot_be_read_is_not_sent(server: VendorServer, field: str, name: str, data: bytes) -> None:
    changes: dict[str, Any] = {field: photo(data)}
    failure = failure_of(make(server), **changes)
    assert type(failure) is ImageUnusable
    assert str(failure) == f"{name}: it cannot be read. Use another one."
    assert not server.calls


def test_making_the_reference_picture_does_not_stop_the_event_loop() -> None:
    provider = SoraProvider("shop", api_key=KEY, model="m", base_url="http://127.0.0.1:1/v1")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        with pytest.raises(ImageUnusable):  # nothing is sent, so there is nothing else to wait for
            await provider.try_on(try_on_request(garment=photo(b"")), timeout=30)
        ticking.cancel()

    run(provider, main())
    assert ticks


# Jobs


def test_the_job_is_noted_before_the_wait_and_found_again_by_another_process(server: VendorServer) -> None:
    noted: list[tuple[str, int]] = []

    async def note(job: str) -> None:
        noted.append((job, len(server.calls)))

    first = try_on(make(server), note_job=note)
    other = make(server)
    second = run(other, other.look_up(JOB, timeout=30))

    assert noted == [(JOB, 1)]
    assert second == first


def test_a_job_that_the_server_does_not_know(double: Sora, server: VendorServer) -> None:
    double.trouble = Trouble("404", "status", Answer(status=404), ProviderRejectedInput)
    provider = make(server)
    with pytest.raises(ProviderRejectedInput, match="does not know the job"):
        run(provider, provider.look_up("video/../unknown", timeout=30))
    assert server.calls[0].path == "/v1/videos/video%2F..%2Funknown"


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("status", job("failed", error={"code": "moderation_blocked"})),
        ("status", job("failed", error={"code": "rate_limit_exceeded"})),
        ("status", job("failed")),
        ("video", Answer(status=404)),
        ("thumbnail", Answer(status=400)),
    ],
)
def test_a_job_that_ended_is_over(double: Sora, server: VendorServer, step: str, answer: Answer) -> None:
    double.trouble = Trouble("the end", step, answer, InvalidProviderResponse)
    assert failure_of(make(server)).job_is_over


@pytest.mark.parametrize("step", ["create", "status", "video", "thumbnail"])
def test_a_job_that_could_not_be_asked_for_is_not_over(double: Sora, server: VendorServer, step: str) -> None:
    double.trouble = Trouble("busy", step, Answer(status=503), InvalidProviderResponse)
    failure = failure_of(make(server))
    assert failure.retryable
    assert not failure.job_is_over


def test_a_server_without_thumbnails_is_told(double: Sora, server: VendorServer) -> None:
    double.trouble = Trouble("none", "thumbnail", Answer(status=400), InvalidProviderResponse)
    failure = failure_of(make(server))
    assert str(failure) == "Sora made a video, but has no thumbnail to give (it answered 400)."
    assert failure.request_id == JOB


def test_cancel_deletes_the_job(server: VendorServer) -> None:
    provider = make(server)
    run(provider, provider.cancel(JOB))
    assert [(call.method, call.path) for call in server.calls] == [("DELETE", f"/v1/videos/{JOB}")]


def test_the_server_says_when_to_ask_again(double: Sora, server: VendorServer) -> None:
    double.poll_after = {"openai_poll_after_ms": "300"}
    started = time.monotonic()
    try_on(make(server))
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("hint", ["999999999999999", "9" * 400, "-1", "soon", "", "1"])
def test_no_hint_of_the_server_stops_us(
    double: Sora, server: VendorServer, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LONGEST_PAUSE", 0.02)
    double.poll_after = {"openai_poll_after_ms": hint}
    assert try_on(make(server)).video == MP4


# Settings


def test_without_a_server_nothing_is_sent() -> None:
    provider = SoraProvider("shop", api_key=KEY, model="sora-2")
    (problem,) = provider.check()
    assert problem.fatal
    assert problem.message == 'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["base_url"] is empty.'
    failure = failure_of(provider)
    assert type(failure) is ProviderMisconfigured
    assert str(failure) == f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.openai.com/v1",
        "https://API.OpenAI.com./v1/",
        "http://api.openai.com:8080",
        "https://eu.api.openai.com/v1",
    ],
)
def test_openais_own_server_is_refused_by_name(base_url: str) -> None:
    provider = SoraProvider("shop", api_key=KEY, model="sora-2", base_url=base_url)
    (problem,) = provider.check()
    assert problem.fatal
    assert "2026-09-24" in problem.message
    assert "api.openai.com" in problem.message
    assert "Set base_url" in problem.hint
    assert type(failure_of(provider)) is ProviderMisconfigured


def test_another_server_and_a_key_are_all_it_needs() -> None:
    assert not list(SoraProvider("shop", api_key=KEY, model="m", base_url="https://api.openai.com.example/v1").check())
    (problem,) = SoraProvider("shop", model="m", base_url="https://example.com/v1").check()
    assert "SORA_API_KEY" in problem.hint


def test_no_model_is_assumed() -> None:
    (problem,) = SoraProvider("sora", api_key=KEY, base_url="https://video.example.com/v1").check()
    assert problem.fatal
    assert problem.message.endswith('["model"] is empty.')
    assert failure_of(SoraProvider("sora", api_key=KEY, base_url="https://video.example.com/v1")).code == (
        "provider_misconfigured"
    )


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("model", None, "Give the name of a video model of the server at base_url."),
        ("seconds", 0, "Give a whole number from 1 to 60."),
        ("seconds", 61, "Give a whole number from 1 to 60."),
        ("seconds", "8", "Give a whole number from 1 to 60."),
        ("seconds", True, "Give a whole number from 1 to 60."),
        ("size", "large", "Use WIDTHxHEIGHT in pixels"),
        ("size", "720x5000", "each of 10 to 4096"),
        ("size", "720x1280\n", "Use WIDTHxHEIGHT in pixels"),
        ("size", (720, 1280), "Use WIDTHxHEIGHT in pixels"),
        ("poll_every", 0, "Give seconds, more than 0."),
    ],
)
def test_a_bad_option_is_refused_at_once(option: str, value: Any, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        SoraProvider("shop", **{"model": "m"} | {option: value})
    message = str(caught.value)
    assert message.startswith(f'TRYON["PROVIDERS"]["shop"]["OPTIONS"]["{option}"] is {value!r}. ')
    assert advice in message


def test_openais_models_are_known_to_be_gone() -> None:
    gone = {model.name: model.shutdown for model in SoraProvider.models}
    assert gone == dict.fromkeys(("sora-2", "sora-2-pro"), date(2026, 9, 24))
