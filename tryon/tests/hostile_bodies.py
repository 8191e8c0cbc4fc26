"""Requests that nobody means well with, and what each is answered.

The table holds what reaches the application; what a server lets through is in the test of the wire.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from .shop import URL, jpeg

PERSON: Final = jpeg(64, 64, color="peru")
GARMENT: Final = jpeg(64, 64, color="navy")

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data; boundary=edge"

Headers = tuple[tuple[str, bytes], ...]


def uri(photo: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}"


ORDER: Final = {"catalog_id": "dress-7", "user_image": uri(PERSON), "catalog_image": uri(GARMENT)}
"""A body that works, with a key in a header."""


def order(**change: Any) -> bytes:
    return json.dumps(ORDER | change).encode()


def written(field: str, value: str) -> bytes:
    """The order with a field whose JSON is written just so."""
    body: dict[str, str] = {
        name: text for name, text in ORDER.items() if name not in (field, field.removesuffix("_url"))
    }
    return f'{json.dumps(body)[:-1]}, "{field}": {value}}}'.encode()


def and_more(text: str) -> bytes:
    """The order with this after its last field."""
    return order()[:-1] + text.encode() + b"}"


def form(**change: str) -> bytes:
    return urlencode(ORDER | change).encode()


def part(name: str, value: bytes | str, *, file: str | None = None, headers: str = "") -> bytes:
    """One part of a form; a file, if it has a name."""
    filename = "" if file is None else f'; filename="{file}"'
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n{headers}\r\n'
    return head.encode() + (value.encode() if isinstance(value, str) else value) + b"\r\n"


END: Final = b"--edge--\r\n"
CATALOG_ID: Final = part("catalog_id", "dress-7")
PHOTOS: Final = part("user_image", PERSON, file="a.jpg") + part("catalog_image", GARMENT, file="b.jpg")


def multipart(*parts: bytes) -> bytes:
    return b"".join((CATALOG_ID, PHOTOS, *parts, END))


def photo_called(name: str) -> bytes:
    return b"".join(
        (CATALOG_ID, part("user_image", PERSON, file=name), part("catalog_image", GARMENT, file=name), END)
    )


@dataclass(frozen=True)
class Hostile:
    """A request, its status, and its code where it is refused."""

    name: str
    status: int
    code: str = ""
    body: bytes = order()
    content_type: str = JSON
    headers: Headers = ()
    """In place of those of the same name, which an ordinary request has, and beside them."""
    method: str = "POST"
    path: str = URL
    query: bytes = b""
    says: str = ""
    """What is in the answer's sentences, or in its warnings."""


# Values of the wrong type, of every field

VALUES: Final = {
    "list": "[1]",
    "object": '{"a": 1}',
    "number": "7",
    "fraction": "1.5",
    "true": "true",
    "false": "false",
    "null": "null",
    "minus zero": "-0",
    "beyond a float": "1e999",
    "4,000 digits": "9" * 4000,
    "5,000 digits": "9" * 5000,
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "nothing": '""',
    "NUL": '"a\\u0000b"',
    "lone surrogate": '"\\ud800"',
    "10,000 characters": f'"{"x" * 10_000}"',
    "800 deep": "[" * 800 + "]" * 800,
    "10,000 deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
}
NO_JSON: Final = ("5,000 digits", "NaN", "Infinity", "-Infinity", "10,000 deep")
FIELDS: Final = {
    "user_id": ("authentication_failed", "nothing"),
    "api_key": ("authentication_failed", "nothing", "minus zero"),
    "catalog_id": ("invalid", "number", "fraction", "minus zero", "beyond a float"),
    "user_image_url": ("invalid",),
    "catalog_image_url": ("invalid",),
    "user_image": ("invalid",),
    "catalog_image": ("invalid",),
    "category": ("invalid",),
    "seed": ("invalid", "number", "null", "minus zero"),
    "pictures": ("invalid",),
    "size": ("invalid", "nothing"),
    "output_format": ("invalid", "nothing"),
    "no_store": ("invalid", "true", "false", "minus zero"),
}
"""What a field says to such values, and which of them it takes."""


def code_of(field: str, value: str) -> str:
    """The code of the refusal; empty if there is none."""
    code, *taken = FIELDS[field]
    if value in NO_JSON:
        return "parse_error"
    if value in taken:
        return ""
    if code == "authentication_failed" and value in ("null", "false") and (field, value) != ("user_id", "false"):
        return "invalid"  # no key and no user, but no text either
    return code


ENCODINGS: Final = [
    Hostile("UTF-16", 400, "parse_error", order().decode().encode("utf-16")),
    Hostile("UTF-16, told", 400, "parse_error", order().decode().encode("utf-16"), f"{JSON}; charset=utf-16"),
    Hostile("UTF-7", 400, "invalid", order().decode().encode("utf-7"), f"{JSON}; charset=utf-7"),
    Hostile("a BOM", 400, "parse_error", b"\xef\xbb\xbf" + order()),
    Hostile("latin-1", 400, "parse_error", written("catalog_id", '"X"').replace(b'"X"', b'"\xe9"'), JSON),
    Hostile("invalid UTF-8", 400, "parse_error", written("catalog_id", '"X"').replace(b'"X"', b'"\xff\xfe"')),
    Hostile(
        "a surrogate in UTF-8", 400, "parse_error", written("catalog_id", '"X"').replace(b'"X"', b'"\xed\xa0\x80"')
    ),
    Hostile("JSON in the charset bz2", 200, content_type=f"{JSON}; charset=bz2"),
    Hostile(
        "a charset that nobody knows",
        400,
        "parse_error",
        content_type=f"{JSON}; charset*=bogus''x",
        says="Content-Type",
    ),
    Hostile("JSON in no charset", 200, content_type=f"{JSON}; charset=nonsense"),
    *[
        Hostile(f"a form in {charset}", 400, "parse_error", form(), f"{FORM}; charset={charset}")
        for charset in ("bz2", "hex", "rot13", "zlib", "undefined", "idna", "punycode")
    ],
    Hostile("a form in UTF-16", 400, "invalid", form(), f"{FORM}; charset=utf-16"),
    Hostile("a form of escapes", 413, "body_too_large", b"a=" + b"%F0%9F%98%80" * 10_000, FORM, says="escaped text"),
    Hostile("a form in no charset", 200, body=form(), content_type=f"{FORM}; charset=nonsense"),
    Hostile("a form in latin-1", 200, body=form(catalog_id="\xe9"), content_type=f"{FORM}; charset=latin-1"),
    Hostile("a form with invalid UTF-8", 200, body=form() + b"&%ff%fe=%ff&\xff=\xfe", content_type=FORM),
    Hostile("a form with a NUL", 400, "invalid", form(catalog_id="a\0b"), FORM),
    Hostile("multipart in bz2", 400, "parse_error", multipart(), f"{MULTIPART}; charset=bz2"),
    Hostile("multipart in idna", 400, "parse_error", multipart(), f"{MULTIPART}; charset=idna"),
]

SYNTAX: Final = [
    Hostile("nothing", 400, "invalid", b""),
    Hostile("a text behind it", 400, "parse_error", order() + b"x"),
    Hostile("two bodies", 400, "parse_error", order() + order()),
    Hostile("a comment", 400, "parse_error", b"/* */" + order()),
    Hostile("single quotes", 400, "parse_error", order().replace(b'"', b"'")),
    Hostile("a line break in a string", 400, "parse_error", order().replace(b"dress-7", b"dress\n7")),
    Hostile("cut off in a photo", 400, "parse_error", order()[:-40]),
    Hostile("a list", 400, "invalid", b"[" + order() + b"]"),
    Hostile("a text", 400, "invalid", json.dumps(order().decode()).encode()),
    Hostile("10,000 lists", 400, "parse_error", b"[" * 10_000),
    Hostile("5,000 digits", 400, "parse_error", b"9" * 5000, says="no valid JSON"),
    Hostile("64 KiB besides the photos", 413, "body_too_large", order(x="x" * 65_536)),
    Hostile("a photo in a list", 400, "invalid", order(user_image=[uri(PERSON)])),
    Hostile("a photo in an object", 400, "invalid", order(user_image={"user_image": uri(PERSON)})),
    Hostile("a third photo, in an unknown object", 400, "parse_error", order(x={"user_image": uri(PERSON)})),
    Hostile("a photo that is no base64", 400, "invalid", order(user_image="data:image/jpeg;base64,!")),
    Hostile("a photo with a quotation mark", 400, "invalid", order(user_image='data:image/jpeg;base64,"')),
    Hostile("a photo with a bad escape", 400, "invalid", written("user_image", r'"data:;base64,\u00"')),
    Hostile("a photo of a surrogate", 400, "invalid", written("user_image", r'"data:;base64,\ud800"')),
    Hostile("a photo of 100 parameters", 400, "invalid", order(user_image=f"data:{';a' * 100};base64,AAAA")),
    Hostile("two names", 400, "parse_error", and_more(', "catalog_id": "b"'), says="'catalog_id' stands twice"),
    Hostile("two names, one escaped", 400, "parse_error", and_more(r', "catalog\u005fid": "b"')),
    Hostile("two names within", 400, "parse_error", and_more(', "x": [{"a": 1, "a": 1}]'), says="'a' stands twice"),
    Hostile(
        "two keys", 400, "parse_error", and_more(', "api_key": "a", "api_key": "b"'), says="'api_key' stands twice"
    ),
    Hostile("two photos of a name", 400, "parse_error", and_more(f', "user_image": "{uri(GARMENT)}"')),
    Hostile("two long names", 400, "parse_error", and_more(f', "{"k" * 10_000}": 1' * 2)),
    Hostile("a form with two ids", 400, "parse_error", form() + b"&catalog_id=b", FORM, says="stands twice"),
    Hostile("a form of 1,001 fields", 400, "parse_error", b"a=&" * 1001, FORM),
]

TEXTS: Final = {
    "a way up": "../../etc/passwd",
    "a way up in Windows": "..\\..\\x",
    "a path": "/etc/passwd",
    "a drive": "C:\\x",
    "a forged line": '\n{"level": "ERROR", "logger": "tryon", "message": "forged"}',
    "an escape sequence": "\r\x1b[31mred\x1b[0m\x07\b",
    "odd line breaks": "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g",
    "right to left": "\u202egnp.exe",
    "an emoji": "👩‍🚀",
    "a prototype": "__proto__",
    "a constructor": "constructor",
    "markup": '"><script>alert(1)</script>',
    "a template": "{{ settings.SECRET_KEY }}{% debug %}%(x)s{0.__class__}",
}
WORDS: Final = [
    case
    for name, text in TEXTS.items()
    for case in (
        Hostile(f"{name} as the id", 200, body=order(catalog_id=text)),
        Hostile(f"{name} as a field", 200, body=order(**{text: 1}), says="is not known and was ignored"),
        Hostile(f"{name} as the category", 400, "invalid", order(category=text)),
        Hostile(f"{name} as a URL", 400, "invalid", written("user_image_url", json.dumps(text))),
        Hostile(
            f"{name} as a file's name",
            200,
            body=photo_called("a" + text.translate(str.maketrans("", "", '"\r\n'))),
            content_type=MULTIPART,
        ),
    )
]
FIELD_NAMES: Final = [
    Hostile("a surrogate as a field", 200, body=order(**{"\ud800": 1}), says=r"'\\ud800'"),
    Hostile("10,000 characters as a field", 200, body=order(**{"x" * 10_000: 1}), says=f"'{'x' * 40}'…"),
    Hostile("nothing as a field", 200, body=order(**{"": 1}), says="''"),
    Hostile("100 unknown fields", 200, body=order(**{f"x{n}": 1 for n in range(100)}), says="'x4'"),
]

FORMS: Final = [
    Hostile("no boundary", 400, "parse_error", multipart(), "multipart/form-data"),
    Hostile("an empty boundary", 400, "parse_error", multipart(), "multipart/form-data; boundary="),
    Hostile("another boundary", 400, "invalid", multipart(), "multipart/form-data; boundary=other"),
    Hostile("a boundary of 60,000", 415, "unsupported_media_type", multipart(), f"{MULTIPART}{'e' * 60_000}"),
    Hostile("a boundary in latin-1", 400, "parse_error", multipart(), "multipart/form-data; boundary=\xe9"),
    Hostile("multipart, empty", 400, "invalid", b"", MULTIPART),
    Hostile("multipart, cut off in a photo", 400, "invalid", multipart()[:-400], MULTIPART),
    Hostile("multipart, cut off in a header", 400, "invalid", multipart()[:30], MULTIPART),
    Hostile("1,001 fields", 400, "parse_error", multipart(*[part(f"x{n}", "") for n in range(1001)]), MULTIPART),
    Hostile("101 files", 400, "parse_error", multipart(*[part(f"x{n}", "", file="x") for n in range(101)]), MULTIPART),
    Hostile("a field of 3 MB", 413, "body_too_large", multipart(part("x", "x" * 3_000_000)), MULTIPART),
    Hostile(
        "a header of 100 kB",
        400,
        "parse_error",
        multipart(part("x", "", headers=f"X: {'x' * 100_000}\r\n")),
        MULTIPART,
    ),
    Hostile(
        "multipart in multipart",
        200,
        body=multipart(part("x", multipart().replace(b"--edge", b"--in"), headers=f"Content-Type: {MULTIPART}x\r\n")),
        content_type=MULTIPART,
    ),
    Hostile("multipart/mixed", 415, "unsupported_media_type", multipart(), "multipart/mixed; boundary=edge"),
    Hostile(
        "a file and a text", 400, "parse_error", multipart(part("user_image", "x")), MULTIPART, says="stands twice"
    ),
    Hostile("two files of a name", 400, "parse_error", multipart(part("user_image", PERSON, file="x")), MULTIPART),
    Hostile("two texts of a name", 400, "parse_error", multipart(CATALOG_ID), MULTIPART, says="stands twice"),
    Hostile(
        "no name",
        200,
        body=multipart(b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n"),
        content_type=MULTIPART,
    ),
    Hostile("an empty name", 200, body=multipart(part("", "x")), content_type=MULTIPART, says="''"),
    Hostile("a NUL in a name", 200, body=multipart(part("a\0b", "x")), content_type=MULTIPART, says=r"'a\\x00b'"),
    Hostile("a NUL in a text", 400, "invalid", multipart(part("category", "a\0b")), MULTIPART),
    Hostile("invalid UTF-8 in a text", 200, body=multipart(part("x", b"\xff\xfe")), content_type=MULTIPART),
    Hostile(
        "a part that is no base64",
        400,
        "parse_error",
        multipart(part("x", "x!", file="x", headers="Content-Transfer-Encoding: base64\r\n")),
        MULTIPART,
    ),
    Hostile(
        "a part in bz2",
        200,
        body=multipart(
            part("x", "x!", headers="Content-Transfer-Encoding: bz2\r\nContent-Type: text/plain; charset=bz2\r\n")
        ),
        content_type=MULTIPART,
    ),
    Hostile("a file's name in bz2", 200, body=photo_called("x\"; filename*=bz2''%ff; y=\""), content_type=MULTIPART),
    Hostile("a file called ..", 400, "invalid", photo_called(".."), MULTIPART, says="This field is required"),
    Hostile("a file's name of 10,000", 400, "parse_error", photo_called("x" * 10_000), MULTIPART),
    *[
        Hostile(f"a file as {field}", 401 if code == "authentication_failed" else 400, code, body, MULTIPART)
        for field, (code, *_) in FIELDS.items()
        for body in [multipart(part(field, "x", file="x"))]
        if field not in ("user_image", "catalog_image", "catalog_id")
    ],
    Hostile("a file as catalog_id", 400, "invalid", PHOTOS + part("catalog_id", "x", file="x") + END, MULTIPART),
    Hostile(
        "a file as an unknown field",
        200,
        body=multipart(part("x", "x", file="x")),
        content_type=MULTIPART,
        says="'x' is not",
    ),
]

KINDS: Final = [
    Hostile(f"the type {kind[:30]!a}", 415, "unsupported_media_type", content_type=kind)
    for kind in (
        "",
        "nonsense",
        "text/plain",
        "application/xml",
        "application/problem+json",
        "application/json, text/html",
        "application/\xff\xfe",
        f"a/b; x={'x' * 50_000}",
        "\u0080",
    )
]
HEADERS: Final = [
    Hostile("a key that is no ASCII", 401, "authentication_failed", headers=(("x-api-key", b"\xff\xfe"),)),
    Hostile(
        "a bearer that is no ASCII", 401, "authentication_failed", headers=(("authorization", b"Bearer \xc3\xa9"),)
    ),
    Hostile(
        "a bearer of 100 kB", 401, "authentication_failed", headers=(("authorization", b"Bearer " + b"x" * 100_000),)
    ),
    Hostile("two keys in headers", 401, "authentication_failed", headers=(("authorization", b"Bearer tryon_x"),)),
    Hostile("a basic that is no base64", 200, headers=(("authorization", b"Basic \xff"),)),
    Hostile("a request id with line breaks", 200, headers=(("x-request-id", b'a\r\n{"level": "ERROR"}'),)),
    Hostile("an idempotency key in UTF-8", 400, "invalid", headers=(("idempotency-key", b"\xc3\xa9"),)),
    Hostile("an idempotency key of 100 kB", 400, "invalid", headers=(("idempotency-key", b"x" * 100_000),)),
    Hostile("another host", 400, "parse_error", headers=(("host", b"evil.example"),)),
    Hostile("a host with a line break", 400, "parse_error", headers=(("host", b"testserver\r\nX: y"),)),
    Hostile("a host of 10,000", 400, "parse_error", headers=(("host", b"x" * 10_000),)),
    Hostile("no host", 400, "parse_error", headers=(("host", b""),)),
    Hostile("a forwarded host", 200, headers=(("x-forwarded-host", b"evil.example"), ("forwarded", b"host=evil"))),
    Hostile("a forwarded address", 200, headers=(("x-forwarded-for", b"\xff\n" * 1000),)),
    Hostile("a forwarded scheme", 200, headers=(("x-forwarded-proto", b"gopher"),)),
    Hostile("accepts nonsense", 406, "not_acceptable", headers=(("accept", b"nonsense"),)),
    Hostile("accepts bytes", 406, "not_acceptable", headers=(("accept", b"\xff\xfe"),)),
    Hostile("accepts 10,000 kinds", 406, "not_acceptable", headers=(("accept", b"a/b, " * 10_000 + b"*/*"),)),
    Hostile("accepts a wide indent", 200, headers=(("accept", b"application/json; indent=99999999999"),)),
    Hostile("accepts UTF-16", 200, headers=(("accept", b"application/json; charset=utf-16"),)),
    Hostile("a cookie of bytes", 200, headers=(("cookie", b"sessionid=\xff; csrftoken=\0; \xfe"),)),
    Hostile("another method in a header", 200, headers=(("x-http-method-override", b"DELETE"),)),
    Hostile("gzip that is none", 200, headers=(("content-encoding", b"gzip"),)),
    Hostile(
        "a gzip bomb", 400, "parse_error", gzip.compress(b" " * 5_000_000), headers=(("content-encoding", b"gzip"),)
    ),
    Hostile("a length below zero", 200, headers=(("content-length", b"-1"),)),
    Hostile("a length of no number", 400, "invalid", headers=(("content-length", b"\xb2"),)),
    Hostile("a length of 5,000 digits", 413, "body_too_large", headers=(("content-length", b"9" * 5000),)),
    Hostile("a length of 5,000 zeros", 400, "invalid", headers=(("content-length", b"0" * 5000),)),
]
ADDRESSES: Final = [
    *[
        Hostile(f"{method[:10]} for POST", 405, "method_not_allowed", method=method)
        for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "X" * 1000)
    ],
    *[
        Hostile(f"the path {path[:30]!a}", 404, "not_found", path=path)
        for path in (
            f"/{URL}",
            f"{URL}/",
            f"{URL}\0",
            f"{URL}\n",
            "/api/v1/../v1/create-image",
            "/api//v1/create-image",
            URL.upper(),
            "/\udcff",
            "/media/../../etc/passwd",
            "/api/v1/create-image/../../../admin",
            "*",
            "http://evil.example/",
            "/x" * 30_000,
        )
    ],
    Hostile("a query in no UTF-8", 400, "parse_error", query=b"\xff", says="no UTF-8"),
    Hostile("a query in no UTF-8, escaped", 200, query=b"a=%ff&%fe"),
    Hostile("a query with a NUL", 200, query=b"a=\0"),
    Hostile("a query of 60,000", 200, query=b"x=" * 30_000),
    Hostile("another method in the query", 200, query=b"_method=DELETE"),
    Hostile("another format in the query", 404, "not_found", query=b"format=xml"),
]

SECTIONS: Final = {
    "encodings": ENCODINGS,
    "syntax": SYNTAX,
    "words": WORDS,
    "names": FIELD_NAMES,
    "forms": FORMS,
    "types": KINDS,
    "headers": HEADERS,
    "addresses": ADDRESSES,
}
