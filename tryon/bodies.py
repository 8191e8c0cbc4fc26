"""What is in a request's body: read within limits, once, and without a second meaning.

A photo in a body, be it a part of a form or a ``data:`` URI (RFC 2397) in JSON, becomes a file on the disk at once,
so that a request that waits takes no memory for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Final, TypeAlias

import pybase64
from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict, UnreadablePostError
from django.utils.datastructures import MultiValueDict
from rest_framework import parsers, renderers
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import get_encoding  # type: ignore[attr-defined]
from rest_framework.request import Request

from . import decoding
from .conf import conf
from .exceptions import BodyTooLarge, ImageTooLarge, Overloaded, let_go_of_locals

Upload: TypeAlias = "UploadedFile[bytes]"

PHOTO_FIELDS: Final[tuple[str, ...]] = ("user_image", "catalog_image")

MAX_TEXT: Final = 64 * 1024
"""Bytes of a body besides its photos. What is parsed takes many times that."""
IN_MEMORY: Final = 64 * 1024
"""Bytes of a photo that is not written to the disk."""
MAX_FORM: Final = 2_500_000
"""Bytes of a urlencoded form, which says a photo's bytes in up to four each."""
PATIENCE: Final = 30.0
"""Seconds that a large body waits for its turn to be parsed."""

QUOTED: Final = 40
"""Characters."""

NO_PHOTO: Final = "Give a file, or a data: URI in base64, as in data:image/jpeg;base64,/9j/4AA…"

BACKSLASH: Final = ord("\\")
ESCAPED: Final = {
    rb"\/": b"/",
    **{rb"\u00" + code: letter for code, letter in ((b"2b", b"+"), (b"2B", b"+"), (b"3d", b"="), (b"3D", b"="))},
    rb"\r": b"",
    rb"\n": b"",
}
"""Letters of base64 that some write in JSON like this: PHP a slash, .NET a plus, Gson an equals sign; and
the line breaks of MIME's base64."""
MOST_ESCAPED: Final = 1.5
"""Times a photo's bytes that a ``data:`` URI has which is escaped like that; a third more without."""
DATA_URI: Final = re.compile(
    rb"data:[\w!#$%&'*+./=^`|~ -]{0,100}(?:;[\w!#$%&'*+./=^`|~ -]{1,100}){0,5};base64,", re.IGNORECASE
)
"""The head of one: ASCII that means the same in JSON as by itself."""
PHOTO_IN_JSON: Final = re.compile(rb'"(user_image|catalog_image)"\s{0,20}:\s{0,20}"(?=[dD][aA][tT][aA]:)')

_one_large = threading.Lock()
"""Held while a large body is parsed: it is in memory then, its photos for the second time."""


def check_size(request: HttpRequest) -> None:
    """Refuse a body before it is parsed: by what the client says it has, or, sent in chunks, by what came.

    Raise ``BodyTooLarge``.
    """
    length = request.META.get("CONTENT_LENGTH", "")
    if not length and "Transfer-Encoding" in request.headers:
        # DRF takes a body without a length for none.
        request.META["CONTENT_LENGTH"] = length = str(_size(request))
    if length.isdecimal() and float(length) > conf.MAX_BODY_BYTES:  # int() refuses 4,301 digits
        raise BodyTooLarge(too_large())


def _size(request: HttpRequest) -> int:
    """Bytes of a body that came in chunks. Under WSGI Django reads none of it."""
    if not isinstance(request, ASGIRequest):
        return 0
    body: Any = request._stream
    body.seek(0, os.SEEK_END)
    size: int = body.tell()
    body.seek(0)
    return size


def too_large() -> str:
    return f"The body has more than {conf.MAX_BODY_BYTES:,} bytes, the limit. Send smaller photos, or their URLs."


def read(request: Request) -> Mapping[str, Any]:
    """Parse the body. Whatever Django and DRF let out over one that cannot be read is the client's error, a 4xx."""
    plain = request._request
    if not hasattr(plain, "_files"):
        plain.upload_handlers = [UnnamedFileUploadHandler(plain)]
    try:
        body = _data(request)
    except Exception as error:
        let_go_of_locals(error)  # the body is in them
        raise
    return body if isinstance(body, Mapping) else {}


def _data(request: Request) -> Any:
    try:
        return request.data
    except RequestDataTooBig:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        raise BodyTooLarge(
            f"The form has more than {limit:,} bytes besides its files. Send photos as files, or as JSON."
        ) from None
    except (SuspiciousOperation, BadRequest, UnreadablePostError, UnicodeError, RecursionError) as error:
        raise ParseError("The body could not be read. Send JSON or a form in UTF-8.") from error


class UnnamedFileUploadHandler(FileUploadHandler):
    """Has files of a form in files without a name, of which a process that is killed leaves nothing."""

    file: IO[bytes]
    """The one that is being read."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.file = unnamed_file()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.write(raw_data)

    def file_complete(self, file_size: int) -> Upload:
        self.file.seek(0)
        return UploadedFile(self.file, name=self.file_name, size=file_size)


class _UnnamedFile(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
    """Closed at the latest when nobody holds it: Django leaves some behind where a form breaks off."""

    def __del__(self) -> None:
        self.close()


def unnamed_file() -> IO[bytes]:
    """A file for a photo: in memory while it is small, and without a name on the disk."""
    return _UnnamedFile(IN_MEMORY, dir=settings.FILE_UPLOAD_TEMP_DIR)


def close_files(request: Request) -> None:
    """Let go of what the body's photos take on the disk."""
    body = getattr(request, "_full_data", None)
    for value in body.values() if isinstance(body, Mapping) else ():
        if isinstance(value, UploadedFile):
            value.close()


def unknown_fields(body: object, known: Iterable[str]) -> list[str]:
    """A sentence for each field that nobody reads, for the first few of them."""
    names = body if isinstance(body, Mapping) else ()
    unknown = [name for name in names if name not in known and name != "csrfmiddlewaretoken"]
    return [f"The field {_quoted(name)} is not known and was ignored." for name in unknown[:5]]


# DRF hands a parser of its own classes the body in memory, and only if Django's limit for that allows it.


class JSONParser(parsers.BaseParser):
    """JSON in UTF-8 in which no name stands twice, as parsers disagree on which of the two counts."""

    media_type = "application/json"
    renderer_class = renderers.JSONRenderer

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        files: dict[str, Upload] = {}
        with _closing_what_is_left(files), _arrived(stream, parser_context) as whole, _turn(parser_context):
            body = whole.read()
            text = _cut_photos_out(body, files)
            del body
            data = _parsed(text)
            if isinstance(data, dict):
                data |= {
                    name: files.pop(word) for name, word in data.items() if isinstance(word, str) and word in files
                }
            return data


class FormParser(parsers.BaseParser):
    """A urlencoded form; what is said of JSON holds for it as well."""

    media_type = "application/x-www-form-urlencoded"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        if _length(parser_context) > MAX_FORM:
            raise BodyTooLarge(
                f"A urlencoded form may have {MAX_FORM:,} bytes. Send photos as multipart/form-data, or as JSON."
            )
        with _arrived(stream, parser_context) as whole, _turn(parser_context):
            body = whole.read()
            if 3 * body.count(b"%") > MAX_TEXT + len(body) // 4:  # a photo in base64 has a seventh of it in escapes
                raise BodyTooLarge(f"The form has more than {MAX_TEXT:,} bytes of escaped text besides its photos.")
            form = QueryDict(body, encoding=get_encoding(parser_context))
            return _with_files(form, MultiValueDict())


class MultiPartParser(parsers.MultiPartParser):
    """A form with files."""

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        parsed = super().parse(stream, media_type, parser_context)
        return _with_files(parsed.data, parsed.files)


@contextlib.contextmanager
def _closing_what_is_left(files: dict[str, Upload]) -> Iterator[None]:
    """Whoever takes a file out of ``files`` closes it; the others are closed at the end."""
    try:
        yield
    finally:
        for file in files.values():
            file.close()


@contextlib.contextmanager
def _arrived(stream: IO[bytes], parser_context: Any) -> Iterator[IO[bytes]]:
    """The body, all of it here. Under WSGI it is still on its way, and whoever waits for it is to hold up nobody."""
    if isinstance(parser_context["request"]._request, ASGIRequest):
        yield stream
        return
    with unnamed_file() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file


class _turn:  # noqa: N801 - used like a function
    """Wait until no other large body is being parsed, where this one is large."""

    def __init__(self, parser_context: Any) -> None:
        self._is_large = _length(parser_context) > MAX_TEXT

    def __enter__(self) -> None:
        if self._is_large:
            decoding.give_back_memory()
            if not _one_large.acquire(timeout=PATIENCE):
                raise Overloaded

    def __exit__(self, *error: object) -> None:
        if self._is_large:
            _one_large.release()


def _length(parser_context: Any) -> float:
    length = parser_context["request"].META.get("CONTENT_LENGTH", "")
    return float(length) if length.isdecimal() else 0


def _cut_photos_out(body: bytes, files: dict[str, Upload]) -> bytes:
    """The body with a word in the place of each photo, and the photos by these words in ``files``.

    No JSON parser sees the photos: they would be in memory twice more.
    """
    mark = secrets.token_hex()
    pieces: list[bytes] = []
    position = end = 0
    while found := PHOTO_IN_JSON.search(body, end):
        start, end = found.end(), body.find(b'"', found.end())
        if end < 0:
            break  # the parser will say what it thinks of it
        if body[end - 1] == BACKSLASH:
            continue  # no base64 has a quotation mark; the field will say so
        if len(files) == len(PHOTO_FIELDS):
            raise ParseError(f"The body has more photos than {' and '.join(PHOTO_FIELDS)}. Send these two.")
        word, field = f"{mark}-{len(files)}", found[1].decode()
        files[word] = _file_for(field, _unescaped(body, field, start, end))
        pieces += [body[position:start], word.encode()]
        position = end
    return b"".join([*pieces, body[position:]]) if pieces else body


def _parsed(text: bytes) -> Any:
    if len(text) > MAX_TEXT:
        raise BodyTooLarge(f"The body has {len(text):,} bytes besides its photos; the limit is {MAX_TEXT:,}.")
    try:
        return json.loads(text.decode(), object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except ValueError as error:
        raise ParseError(f"The body is no valid JSON: {error}") from None


def _unescaped(body: bytes, field: str, start: int, end: int) -> memoryview:
    """The text between, which is no base64 if any other letters are escaped in it."""
    if body.find(b"\\", start, end) < 0:
        return memoryview(body)[start:end]
    size = end - start
    if size > MOST_ESCAPED * conf.MAX_IMAGE_BYTES + MAX_TEXT:
        raise ImageTooLarge(image_too_large(field, size * 3 // 4), field=field)
    text = body[start:end]
    for escaped, letter in ESCAPED.items():
        text = text.replace(escaped, letter)
    return memoryview(text)


def _file_for(field: str, uri: bytes | memoryview) -> Upload:
    try:
        return file_of(uri, field=field)
    except ValidationError as error:
        raise ValidationError({field: error.detail}) from None


def file_of(uri: bytes | memoryview, *, field: str) -> Upload:
    """The photo in a ``data:`` URI. Raise ``ValidationError`` or ``ImageTooLarge``."""
    head = DATA_URI.match(uri)
    if head is None:
        raise ValidationError(NO_PHOTO)
    encoded = memoryview(uri)[head.end() :]
    if len(encoded) * 3 // 4 - 2 > conf.MAX_IMAGE_BYTES:
        raise ImageTooLarge(image_too_large(field, len(encoded) * 3 // 4), field=field)
    try:
        data = pybase64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ValidationError(f"The data: URI is no valid base64: {error}.") from None
    file = unnamed_file()
    try:
        file.write(data)  # to the disk, if it is large
    except OSError:
        file.close()
        raise
    file.seek(0)
    return UploadedFile(file, name=field, size=len(data))


def image_too_large(field: str, size: int) -> str:
    return f"{field}: the image has {size:,} bytes; the limit is {conf.MAX_IMAGE_BYTES:,}."


def _with_files(data: QueryDict, files: MultiValueDict[str, Upload]) -> parsers.DataAndFiles[Any, Any]:
    """A form whose ``data:`` URIs are files, and in which no field stands twice."""
    left = {f"{name}-{number}": file for name in files for number, file in enumerate(files.getlist(name))}
    with _closing_what_is_left(left):
        for name in {*data, *files}:
            if len(data.getlist(name)) + len(files.getlist(name)) > 1:
                raise ParseError(f"The field {_quoted(name)} stands twice in the form. Send it once.")
        data, files = data.copy(), files.copy()
        for name in PHOTO_FIELDS:
            text = data.get(name, "")
            if text[:5].lower() == "data:":
                files[name] = left[name] = _file_for(name, re.sub("[\r\n]", "", text).encode())
                del data[name]
        left.clear()
    return parsers.DataAndFiles(data, files)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ParseError(f"The name {_quoted(double)} stands twice in the JSON. Send it once.")
    return found


def _no_constant(name: str) -> None:
    raise ParseError(f"{name} is no JSON. Send a number, or null.")


def cut(text: str) -> str:
    """As much of what a client sent as an answer quotes."""
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def _quoted(name: str) -> str:
    return f"{name[:QUOTED]!a}" if len(name) <= QUOTED else f"{name[:QUOTED]!a}…"
