"""Whatever is sent as a body: the parsers agree with json.loads, and the view answers as it says it does.

The examples follow from the strategies alone, so that every run tries the same.
"""

from __future__ import annotations

import base64
import gc
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.core.files.uploadedfile import UploadedFile
from django.test import Client, RequestFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from providers.fake import FakeProvider
from tryon import bodies
from tryon.credits import get_credits
from tryon.exceptions import STATUS, TryOnError
from tryon.models import CreditEntry

from .hostile_bodies import END, FORM, JSON, MULTIPART, ORDER, PHOTOS, order, part, uri
from .shop import URL, Shop

FIELDS: Final = (
    "user_id", "api_key", "catalog_id", "user_image_url", "catalog_image_url", "user_image", "catalog_image",
    "category", "seed", "pictures", "size", "output_format", "no_store",
)  # fmt: skip

ON_PARSERS: Final = settings(max_examples=1000, derandomize=True, database=None, deadline=None)
ON_THE_VIEW: Final = settings(
    ON_PARSERS, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# What is sent


def nested_in(field: str, depth: int, kind: str) -> str:
    """An order with lists in lists, or objects in objects."""
    opening = '{"a":' if kind == "{}" else "["
    order = {name: value for name, value in ORDER.items() if name != field}
    return f'{json.dumps(order)[:-1]}, "{field}": {opening * depth}1{kind[1] * depth}}}'


texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "a\0b", "../..", "auto", "1k", "png", "http://127.0.0.1/", "\u2028", "\ud800", "DATA:;base64,"]
    ),
    st.binary(max_size=60).map(uri),
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, 1e308, float("nan"), -float("inf")]))
names = st.one_of(st.sampled_from(FIELDS), texts)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
deep = st.builds(
    lambda name, photo, wrap: wrap({name: uri(photo)}),
    st.sampled_from(bodies.PHOTO_FIELDS),
    st.binary(max_size=9),
    st.sampled_from([lambda inner: [inner], lambda inner: inner, lambda inner: {"x": inner}]),
)
values = st.one_of(plain, plain, plain, deep)
changed = st.dictionaries(names, values, max_size=4).map(lambda change: ORDER | change)
valid = st.builds(
    lambda body, ascii_, gap: json.dumps(body, ensure_ascii=ascii_, separators=(f",{gap}", f"{gap}:{gap}")),
    st.one_of(changed, values),
    st.booleans(),
    st.sampled_from(["", " ", "\n\t"]),
)
escaped = st.tuples(valid, st.sampled_from([("/", "\\/"), ("+", "\\u002B"), ("A", "\\u0041"), ("a", "\\u0061")])).map(
    lambda both: both[0].replace(*both[1])
)
doubled = st.tuples(changed, st.sampled_from(list(ORDER)), plain).map(
    lambda three: f"{json.dumps(three[0])[:-1]}, {json.dumps(three[1])}: {json.dumps(three[2])}}}"
)


def nested(depths: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return st.builds(nested_in, st.sampled_from(FIELDS), depths, st.sampled_from(["[]", "{}"]))


written = st.one_of(valid, valid, escaped, doubled, nested(st.sampled_from([100, 3000]))).map(
    lambda text: text.encode(errors="surrogatepass")
)
PIECES: Final = [
    b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\0", b"\xff", b'"user_image": "data:;base64,AAAA"', b"1" * 4301,
    b"NaN",
    b"\\ud800", b"\\u00", b'"a":1,"a":2', b"data:", b"null", b"[" * 1000, b"--edge", b"\r\n", b"%ff", b"&catalog_id=x",
]  # fmt: skip


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A body of which something is cut, doubled, flipped or put in."""
    body = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 40)))
        put_in = st.one_of(st.sampled_from(PIECES), st.just(body[start:end] * 2), st.binary(max_size=3))
        body = body[:start] + draw(put_in) + body[end:]
    return body


json_bodies = st.one_of(written, broken(written), st.binary(max_size=100), broken(st.just(order())))


def sendable(text: str) -> str:
    return text.encode(errors="replace").decode()


headers = st.sampled_from(
    [
        "",
        "Content-Type: image/jpeg; charset=bz2\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "X: \xff\0\r\n",
        "\r\n",
        ": x\r\n",
    ]
)
file_names = st.one_of(st.none(), st.sampled_from(["", "a.jpg", "../../x", "..\\x", "a\0b", "%0d%0a", "x" * 300]))
parts = st.builds(
    lambda name, value, file, headers: part(sendable(name).replace('"', ""), value, file=file, headers=headers),
    names,
    st.one_of(st.binary(max_size=40), st.text(max_size=20), st.sampled_from([b"\r\n--edge--\r\n", *ORDER.values()])),
    file_names,
    headers,
)
forms = st.lists(parts, max_size=5).map(lambda some: b"".join([PHOTOS, part("catalog_id", "x"), *some, END]))
multipart_bodies = st.one_of(forms, broken(forms), broken(st.just(PHOTOS + part("catalog_id", "x") + END)))
form_bodies = st.one_of(
    st.lists(st.tuples(names, texts), max_size=5).map(
        lambda pairs: "&".join(f"{name}={text}" for name, text in pairs).encode(errors="replace")
    ),
    broken(st.just(b"catalog_id=x&user_image=data:;base64,AAAA")),
)

# The parsers


def read(body: bytes, content_type: str) -> Any:
    """What the view gets of a body. Raise what it raises."""
    plain = RequestFactory().generic("POST", URL, body, content_type=content_type)
    request = Request(plain, parsers=[bodies.JSONParser(), bodies.FormParser(), bodies.MultiPartParser()])
    try:
        bodies.check_size(plain)
        bodies.read(request)
        return read_files(request.data)
    finally:
        bodies.close_files(request)


def read_files(data: Any) -> Any:
    """The same with the bytes of files in their place."""
    if not isinstance(data, dict):
        return data
    return {name: value.read() if isinstance(value, UploadedFile) else value for name, value in data.items()}


class Double(Exception):
    """A name stands twice."""


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Double
    return dict(pairs)


def no_constant(name: str) -> None:
    raise ValueError(name)


def is_photo(name: str, value: Any) -> bool:
    return name in bodies.PHOTO_FIELDS and isinstance(value, str) and value[:5].lower() == "data:"


def photo(text: str) -> bytes:
    return base64.b64decode(re.sub("[\r\n]", "", text).partition(";base64,")[2], validate=True)


def has_photo(data: Any) -> bool:
    """Whether there is one anywhere in it."""
    if isinstance(data, dict):
        return any(is_photo(name, value) or has_photo(value) for name, value in data.items())
    return isinstance(data, list) and any(map(has_photo, data))


def plainly(body: bytes) -> Any:
    """What a body says, by the standard library alone. Raise ``ValueError`` or ``Double``."""
    return json.loads(body.decode(), object_pairs_hook=without_doubles, parse_constant=no_constant)


def with_photos(said: Any, found: Any, body: bytes) -> Any:
    """What is said, with photos as their bytes.

    What has photos deeper in it is nothing that anybody reads. A photo whose name is oddly escaped stays a text, which
    the view refuses.
    """
    if not isinstance(said, dict):
        return found if has_photo(said) else said
    expected = {}
    for name, value in said.items():
        if not is_photo(name, value):
            expected[name] = found[name] if has_photo(value) else value
        else:
            expected[name] = value if found[name] == value and b"\\" in body else photo(value)
    return expected


@settings(ON_PARSERS, max_examples=1200)
@given(json_bodies.filter(bool))
def test_json_means_what_the_standard_library_reads_in_it(body: bytes) -> None:
    try:
        said = plainly(body)
    except (ValueError, Double, RecursionError):
        with pytest.raises((APIException, TryOnError)):
            read(body, JSON)
        return
    try:
        found = read(body, JSON)
    except APIException:
        assert has_photo(said), "in an odd place, or no base64"
    else:
        assert repr(found) == repr(with_photos(said, found, body))  # NaN is not itself


@ON_PARSERS
@given(st.one_of(multipart_bodies.map(lambda body: (body, MULTIPART)), form_bodies.map(lambda body: (body, FORM))))
def test_a_form_is_read_or_refused(both: tuple[bytes, str]) -> None:
    try:
        found = read(*both)
    except (APIException, TryOnError) as error:
        status = error.status if isinstance(error, TryOnError) else error.status_code
        assert 400 <= status < 500
    else:
        assert isinstance(found, dict)


@settings(ON_PARSERS, max_examples=300)
@given(photo=st.binary(max_size=300), gap=st.sampled_from(["", " ", "\n"]), scheme=st.sampled_from(["data", "DATA"]))
def test_a_photo_arrives_as_it_was_sent(photo: bytes, gap: str, scheme: str) -> None:
    text = f"{scheme}:image/jpeg;a=b;base64,{base64.b64encode(photo).decode()}"
    body = f'{{"catalog_id":{gap}"x","user_image"{gap}:{gap}"{text}","nested":{{"a": 1}}}}'
    expected = {"catalog_id": "x", "user_image": photo, "nested": {"a": 1}}
    assert read(body.encode(), JSON) == expected
    assert read(body.replace("/", "\\/").encode(), JSON) == expected


# The view


@pytest.fixture
def ask(shop: Shop, fake: Callable[..., FakeProvider]) -> Iterator[Callable[[bytes, str], Any]]:
    """POST a body with a valid key, and see that the books agree with the answer."""
    fake(size="16x16")
    get_credits().grant(shop.user, 10_000, reason="test")
    client = Client(raise_request_exception=False, headers={"X-API-Key": shop.key})
    entries = CreditEntry.objects.filter(account__user=shop.user)
    taken = 0

    def post(body: bytes, content_type: str) -> Any:
        nonlocal taken
        before, balance = entries.count(), shop.balance()
        response = client.generic("POST", URL, body, content_type=content_type)
        answer = response.json()
        if response.status_code == 200:
            taken += 1
            assert answer["status"] == "success"
            assert shop.balance() == balance - 1
            return answer
        assert STATUS[answer["code"]] == response.status_code < 500, answer
        assert answer["detail"]
        assert len(response.content) < 10_000
        assert shop.balance() == balance
        assert entries.count() - before in (0, 2)
        return answer

    yield post
    assert taken, "some of it works"
    gc.collect()  # tells of files that nobody closed


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
@ON_THE_VIEW
@given(
    body=st.one_of(
        changed.map(lambda body: json.dumps(body).encode()),
        json_bodies,
        nested(st.integers(900, 1000)).map(str.encode),  # about where Python's stack ends
    )
)
def test_the_view_answers_any_json(ask: Callable[[bytes, str], Any], body: bytes) -> None:
    ask(body, JSON)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
@ON_THE_VIEW
@given(body=multipart_bodies)
def test_the_view_answers_any_form(ask: Callable[[bytes, str], Any], body: bytes) -> None:
    ask(body, MULTIPART)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
@settings(ON_THE_VIEW, max_examples=150)
@given(
    body=json_bodies,
    content_type=st.sampled_from(
        [JSON, "", FORM, "text/plain", f"{FORM}; charset=utf-16", "multipart/form-data", "*/*"]
    ),
)
def test_the_view_answers_any_type(ask: Callable[[bytes, str], Any], body: bytes, content_type: str) -> None:
    ask(body, content_type)
