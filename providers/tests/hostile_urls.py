"""URLs of people who try to have our server ask its own network, and a small internet to try them on."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpcore
import pytest

from providers import http

from .vendor import Answer, Call, VendorServer

PUBLIC = "93.184.216.34"
"""An address of the internet of the tests; ``stranger.test`` is there, and sends people wherever its path says."""

SECRET = "s3cr3t"
"""Stands in what must not be logged: passwords, paths and queries."""

PHOTO = b"\xff\xd8 a photo"


@dataclass(frozen=True, slots=True)
class Hostile:
    """``PORT`` in ``url`` and ``location`` is where the listener listens that must never be touched.

    A row with a ``location`` is a harmless URL whose server redirects there, after ``hops`` harmless redirects.
    ``answers`` are what DNS says of the name ``evil.test``: a list for each time it is asked, the last one for ever.
    """

    name: str
    url: str = ""
    location: str | None = None
    hops: int = 0
    status: int = 302
    answers: tuple[tuple[str, ...], ...] = field(default=())

    def url_on(self, port: int) -> str:
        if self.url or self.location is None:
            return self.url.replace("PORT", str(port))
        return f"http://stranger.test/{_slug(self.name)}/{self.hops}?key={SECRET}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _rows(prefix: str, **urls: str) -> list[Hostile]:
    return [Hostile(f"{prefix}: {name.replace('_', ' ')}", url) for name, url in urls.items()]


SCHEMES = _rows(
    "scheme",
    file="file:///etc/passwd",
    file_with_host="file://127.0.0.1/etc/passwd",
    ftp="ftp://127.0.0.1:PORT/a.jpg",
    gopher="gopher://127.0.0.1:PORT/_SET%20a%20b",
    dict="dict://127.0.0.1:PORT/stat",
    ldap="ldap://127.0.0.1:PORT/",
    websocket="ws://127.0.0.1:PORT/",
    unix="unix:///run/docker.sock",
    http_over_unix="http+unix://%2Frun%2Fdocker.sock/info",
    jar="jar:http://127.0.0.1:PORT/a.jar!/",
    javascript="javascript:fetch('http://127.0.0.1:PORT/')",
    url="url:http://127.0.0.1:PORT/",
    none="127.0.0.1:PORT/a.jpg",
    of_the_page="//127.0.0.1:PORT/a.jpg",
    path_only="/etc/passwd",
    empty="",
    with_a_tab="ht\ttp://127.0.0.1:PORT/",
    with_a_line_break="ht\ntp://127.0.0.1:PORT/",
    long_s="http\u017f://127.0.0.1:PORT/",
)

LOOPBACK = _rows(
    "loopback",
    plain="http://127.0.0.1:PORT/a.jpg",
    tls="https://127.0.0.1:PORT/a.jpg",
    upper_case="HTTP://127.0.0.1:PORT/a.jpg",
    another="http://127.53.1.9:PORT/",
    last="http://127.255.255.254:PORT/",
    unspecified="http://0.0.0.0:PORT/",
    zero="http://0:PORT/",
    two_parts="http://127.1:PORT/",
    three_parts="http://127.0.1:PORT/",
    decimal="http://2130706433:PORT/",
    decimal_that_overflows="http://6425673729:PORT/",
    hexadecimal="http://0x7f000001:PORT/",
    hexadecimal_upper="http://0X7F000001:PORT/",
    hexadecimal_parts="http://0x7f.0x0.0x0.0x1:PORT/",
    octal="http://017700000001:PORT/",
    octal_parts="http://0177.0.0.01:PORT/",
    octal_long="http://0000000000000000177.1:PORT/",
    mixed_radix="http://0x7f.0.1:PORT/",
    part_too_large="http://127.0.0.257:PORT/",
    trailing_dot="http://127.0.0.1.:PORT/",
    two_trailing_dots="http://127.0.0.1..:PORT/",
    dot_first="http://.127.0.0.1:PORT/",
    v6="http://[::1]:PORT/",
    v6_long="http://[0:0:0:0:0:0:0:1]:PORT/",
    v6_zeros="http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/",
    v6_unspecified="http://[::]:PORT/",
    v6_zone="http://[::1%25lo]:PORT/",
    v6_zone_unescaped="http://[::1%lo]:PORT/",
    v4_in_brackets="http://[127.0.0.1]:PORT/",
    future_in_brackets="http://[v1.127.0.0.1]:PORT/",
    port_80="http://127.0.0.1/",
    port_80_v6="http://[::1]/",
    port_443="https://localhost/",
)

NAMES = _rows(
    "name",
    localhost="http://localhost:PORT/",
    upper_case="http://LOCALHOST:PORT/",
    mixed_case="http://LocalHost:PORT/",
    trailing_dot="http://localhost.:PORT/",
    two_trailing_dots="http://localhost..:PORT/",
    dot_first="http://.localhost:PORT/",
    below_localhost="http://a.localhost:PORT/",
    ideographic_dot="http://127\u30020\u30020\u30021:PORT/",
    full_width_dot="http://127\uff0e0\uff0e0\uff0e1:PORT/",
    half_width_dot="http://127\uff610.0.1:PORT/",
    ideographic_trailing_dot="http://localhost\u3002:PORT/",
    full_width_digits="http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:PORT/",
    circled_digits="http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:PORT/",
    arabic_digits="http://\u0661\u0662\u0667.\u0660.\u0660.\u0661:PORT/",
    full_width_letters="http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54:PORT/",
    circled_letter="http://\u24dbocalhost:PORT/",
    soft_hyphen="http://local\u00adhost:PORT/",
    zero_width_space="http://local\u200bhost:PORT/",
    right_to_left_mark="http://\u200elocalhost:PORT/",
    line_separator="http://localhost\u2028:PORT/",
    next_line="http://localhost\u0085:PORT/",
    percent_encoded="http://%6c%6f%63%61%6c%68%6f%73%74:PORT/",
    percent_encoded_digits="http://%31%32%37.0.0.1:PORT/",
    percent_encoded_dot="http://127%2e0.0.1:PORT/",
    percent_encoded_nul="http://127.0.0.1%00.stranger.test:PORT/",
    percent_encoded_slash="http://127.0.0.1%2fstranger.test:PORT/",
    parentheses="http://(localhost):PORT/",
    star="http://*:PORT/",
    punycode_of_nothing="http://xn--:PORT/",
    bad_punycode="http://xn--a:PORT/",
    lone_surrogate="http://\ud800.test:PORT/",
    label_too_long=f"http://{'a' * 64}.test:PORT/",
    label_far_too_long=f"http://{'a' * 2000}.test/",
    name_too_long=f"http://{'a.' * 200}test:PORT/",
    of_this_network="http://redis:6379/",
    metadata="http://metadata.google.internal/computeMetadata/v1/",
)

PRIVATE = _rows(
    "private",
    ten="http://10.0.0.1/",
    hundred_seventy_two="http://172.16.0.1/",
    end_of_it="http://172.31.255.254/",
    hundred_ninety_two="http://192.168.1.1/",
    carrier_grade="http://100.64.0.1/",
    link_local="http://169.254.1.1/",
    metadata="http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    metadata_decimal="http://2852039166/latest/meta-data/",
    metadata_hexadecimal="http://0xa9fea9fe/",
    metadata_octal="http://0251.0376.0251.0376/",
    container_credentials="http://169.254.170.2/v2/credentials",
    metadata_alibaba="http://100.100.100.200/latest/meta-data/",
    metadata_oracle="http://192.0.0.192/latest/",
    host_agent_azure="http://168.63.129.16/machine?comp=goalstate",
    ietf_protocols="http://192.0.0.8/",
    documentation_1="http://192.0.2.1/",
    documentation_2="http://198.51.100.1/",
    documentation_3="http://203.0.113.1/",
    benchmarks="http://198.19.0.1/",
    six_to_four_relay="http://192.88.99.1/",
    as112="http://192.31.196.1/",
    amt="http://192.52.193.1/",
    as112_direct="http://192.175.48.1/",
    multicast="http://224.0.0.1/",
    ssdp="http://239.255.255.250/",
    reserved="http://240.0.0.1/",
    broadcast="http://255.255.255.255/",
    v6_unique_local="http://[fc00::1]/",
    v6_metadata_aws="http://[fd00:ec2::254]/latest/meta-data/",
    v6_metadata_google="http://[fd20:ce::254]/",
    v6_link_local="http://[fe80::1]/",
    v6_link_local_zone="http://[fe80::1%25eth0]/",
    v6_site_local="http://[fec0::1]/",
    v6_multicast="http://[ff02::1]/",
    v6_discard="http://[100::1]/",
    v6_dummy="http://[100:0:0:1::1]/",
    v6_documentation="http://[2001:db8::1]/",
    v6_documentation_new="http://[3fff::1]/",
    v6_benchmarks="http://[2001:2::1]/",
    v6_orchid="http://[2001:20::1]/",
    v6_as112="http://[2620:4f:8000::1]/",
    v6_segment_routing="http://[5f00::1]/",
    v6_unassigned="http://[4000::1]/",
)

EMBEDDED = _rows(
    "IPv4 in IPv6",
    mapped="http://[::ffff:127.0.0.1]:PORT/",
    mapped_hexadecimal="http://[::ffff:7f00:1]:PORT/",
    mapped_upper_case="http://[::FFFF:7F00:1]:PORT/",
    mapped_long="http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/",
    mapped_metadata="http://[::ffff:169.254.169.254]/",
    mapped_public=f"http://[::ffff:{PUBLIC}]/",
    translated="http://[::ffff:0:127.0.0.1]:PORT/",
    compatible="http://[::127.0.0.1]:PORT/",
    compatible_metadata="http://[::a9fe:a9fe]/",
    nat64="http://[64:ff9b::127.0.0.1]:PORT/",
    nat64_metadata="http://[64:ff9b::a9fe:a9fe]/",
    nat64_host_agent="http://[64:ff9b::168.63.129.16]/",
    nat64_of_ones_own="http://[64:ff9b:1::7f00:1]:PORT/",
    nat64_of_ones_own_64="http://[64:ff9b:1:808:7f:0:100:0]:PORT/",
    six_to_four="http://[2002:7f00:1::]:PORT/",
    six_to_four_private="http://[2002:a00:1::1]/",
    teredo_server="http://[2001:0:7f00:1::f7f7:f7f7]:PORT/",
    teredo_client="http://[2001:0:808:808::80ff:fffe]:PORT/",
    isatap="http://[2606:4700::5efe:127.0.0.1]:PORT/",
    isatap_of_a_global="http://[2606:4700::200:5efe:7f00:1]:PORT/",
)

PORTS = _rows(
    "port",
    ssh=f"http://{PUBLIC}:22/",
    smtp=f"http://{PUBLIC}:25/",
    redis=f"http://{PUBLIC}:6379/",
    memcached=f"http://{PUBLIC}:11211/",
    alternative=f"http://{PUBLIC}:8080/",
    zero="http://127.0.0.1:0/",
    negative="http://127.0.0.1:-1/",
    too_large="http://127.0.0.1:99999/",
    wraps_around="http://127.0.0.1:65616/",
    enormous=f"http://127.0.0.1:{'9' * 1000}/",
    two="http://127.0.0.1:PORT:80/",
    plus="http://127.0.0.1:+80/",
    underscore="http://127.0.0.1:8_0/",
    arabic="http://127.0.0.1:\u0668\u0660/",
    name="http://127.0.0.1:http/",
)

USER_INFO = _rows(
    "user info",
    name=f"http://{SECRET}@127.0.0.1:PORT/",
    name_and_password=f"http://me:{SECRET}@stranger.test/photo",
    empty_name="http://@stranger.test/photo",
    empty_both="http://:@stranger.test/photo",
    public_host_first="http://stranger.test@127.0.0.1:PORT/",
    public_host_and_port_first="http://stranger.test:80@127.0.0.1:PORT/",
    private_host_first="http://127.0.0.1:PORT@stranger.test/photo",
    two_ats="http://a@stranger.test@127.0.0.1:PORT/",
    encoded_at="http://stranger.test%40127.0.0.1:PORT/",
    encoded_hash="http://stranger.test%23@127.0.0.1:PORT/",
    full_width_at="http://stranger.test\uff20127.0.0.1:PORT/",
    full_width_hash="http://stranger.test\uff03@127.0.0.1:PORT/",
    full_width_slash="http://stranger.test\uff0f@127.0.0.1:PORT/",
    backslash_and_at="http://stranger.test\\@127.0.0.1:PORT/",
    backslash_and_at_turned="http://127.0.0.1:PORT\\@stranger.test/photo",
    semicolon="http://stranger.test;@127.0.0.1:PORT/",
    ampersand="http://stranger.test&@127.0.0.1:PORT#@stranger.test/",
    space="http://stranger.test @127.0.0.1:PORT/",
    password_with_a_slash=f"http://me:{SECRET}/@127.0.0.1:PORT/",
)

PARSERS = _rows(
    "parser",
    no_host="http://",
    no_host_but_a_path="http:///127.0.0.1:PORT/",
    four_slashes="http:////127.0.0.1:PORT/",
    one_slash="http:/127.0.0.1:PORT/",
    no_slash="http:127.0.0.1:PORT/",
    backslashes="http:\\\\127.0.0.1:PORT\\",
    slash_and_backslash="http:/\\127.0.0.1:PORT/",
    backslash_after_the_host="http://127.0.0.1:PORT\\.stranger.test/",
    question_first="http://?@127.0.0.1:PORT/",
    hash_first="http://#@127.0.0.1:PORT/",
    open_bracket="http://[::1",
    no_brackets="http://::1:PORT/",
    letters_after_the_bracket="http://[::1]stranger.test:PORT/",
    letters_before_the_bracket="http://stranger.test[::1]:PORT/",
    two_brackets="http://[::1][::2]:PORT/",
    tab_in_the_host="http://127.0.\t0.1:PORT/",
    tab_after_the_host="http://127.0.0.1\t:PORT/",
    line_break_in_the_host="http://127.0.\n0.1:PORT/",
    carriage_return_in_the_host="http://127.0.\r0.1:PORT/",
    nul_in_the_host="http://127.0.0.1\x00.stranger.test:PORT/",
    escape_in_the_host="http://\x1b[31m127.0.0.1:PORT/",
    delete_in_the_host="http://127.0.0.1\x7f:PORT/",
    space_in_the_host="http://127.0.0.1 .stranger.test:PORT/",
    space_before="\x1f http://127.0.0.1:PORT/",
    forged_header="http://stranger.test/photo HTTP/1.1\r\nHost: 127.0.0.1\r\nX: y",
    forged_header_in_the_query="http://stranger.test/photo?a\r\nX-Forged: yes",
    forged_request="http://stranger.test/\r\n\r\nGET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    forged_log_line=f"http://stranger.test/{SECRET}\nERROR tryon: everything was lost",
    lone_surrogate_in_the_path="http://stranger.test/\ud800",
    long=f"http://127.0.0.1:PORT/{'a' * 100_000}",
    long_query=f"http://127.0.0.1:PORT/?{'a' * 2000}",
)

DNS = [
    Hostile(f"DNS: {name}", f"http://evil.test:PORT/?key={SECRET}", answers=tuple(answers))
    for name, *answers in (
        ("loopback", ("127.0.0.1",)),
        ("loopback of IPv6", ("::1",)),
        ("unspecified", ("0.0.0.0",)),  # noqa: S104
        ("mapped", ("::ffff:127.0.0.1",)),
        ("NAT64", ("64:ff9b::7f00:1",)),
        ("6to4", ("2002:7f00:1::1",)),
        ("private", ("10.0.0.1",)),
        ("metadata", ("169.254.169.254",)),
        ("link-local with a zone", ("fe80::1%1",)),
        ("public, then private", (PUBLIC, "127.0.0.1")),
        ("private, then public", ("127.0.0.1", PUBLIC)),
        ("public of IPv6, then loopback of IPv6", ("2606:4700::1", "::1")),
        ("the last of many is private", (*(f"93.184.216.{last}" for last in range(1, 50)), "127.0.0.1")),
        ("no answer", ()),
        ("nonsense", ("not an address",)),
    )
]

REBINDING = [
    Hostile("rebinding: a second question", f"http://evil.test:PORT/?key={SECRET}", answers=((), ("127.0.0.1",))),
    Hostile(
        "rebinding: the address that was checked is gone",
        f"http://evil.test:PORT/photo?key={SECRET}",
        answers=(("93.184.216.35",), ("127.0.0.1",)),
    ),
    Hostile(
        "rebinding: a redirect to itself",
        f"http://evil.test/rebinding-a-redirect-to-itself/0?key={SECRET}",
        location="http://evil.test:PORT/",
        answers=((PUBLIC,), ("127.0.0.1",)),
    ),
    Hostile(
        "rebinding: on the third hop",
        location="http://evil.test:PORT/",
        hops=2,
        answers=(("127.0.0.1", PUBLIC),),
    ),
    Hostile("rebinding: on port 80", location="http://evil.test/", answers=(("127.0.0.1",),)),
]

REDIRECTS = [
    Hostile("redirect: to loopback", location="http://127.0.0.1:PORT/"),
    Hostile("redirect: for good", location="http://127.0.0.1:PORT/", status=301),
    Hostile("redirect: see other", location="http://127.0.0.1:PORT/", status=303),
    Hostile("redirect: temporary", location="http://127.0.0.1:PORT/", status=307),
    Hostile("redirect: permanent", location="http://127.0.0.1:PORT/", status=308),
    Hostile("redirect: to localhost", location="http://localhost:PORT/"),
    Hostile("redirect: to loopback of IPv6", location="http://[::1]:PORT/"),
    Hostile("redirect: to mapped", location="http://[::ffff:127.0.0.1]:PORT/"),
    Hostile("redirect: to decimal", location="http://2130706433:PORT/"),
    Hostile("redirect: to TLS", location="https://127.0.0.1:PORT/"),
    Hostile("redirect: to metadata", location="http://169.254.169.254/latest/meta-data/"),
    Hostile("redirect: to private", location="http://10.0.0.1/"),
    Hostile("redirect: to link-local of IPv6", location="http://[fe80::1]/"),
    Hostile("redirect: to another port", location=f"http://{PUBLIC}:22/"),
    Hostile("redirect: of the page", location="//127.0.0.1:PORT/"),
    Hostile("redirect: to a name with a private address", location="http://evil.test/", answers=(("10.0.0.1",),)),
    Hostile("redirect: on the third hop", location="http://127.0.0.1:PORT/", hops=2),
    Hostile("redirect: on the fourth hop", location="http://127.0.0.1:PORT/", hops=3),
    Hostile("redirect: without end", location="http://stranger.test/redirect-without-end/0"),
    Hostile("redirect: to where it is", location="?"),
    Hostile("redirect: to nothing", location=""),
    Hostile("redirect: to a file", location="file:///etc/passwd"),
    Hostile("redirect: to gopher", location="gopher://127.0.0.1:PORT/_SET"),
    Hostile("redirect: to ftp", location="ftp://127.0.0.1:PORT/"),
    Hostile("redirect: to data", location="data:image/png;base64,iVBORw0KGgo="),
    Hostile("redirect: to a user name", location=f"http://stranger.test:{SECRET}@127.0.0.1:PORT/"),
    Hostile("redirect: with backslashes", location="http:\\\\127.0.0.1:PORT\\"),
    Hostile("redirect: with backslashes alone", location="\\\\127.0.0.1:PORT\\"),
    Hostile("redirect: with a tab", location="http://127.0.0.1\t:PORT/"),
    Hostile("redirect: with an open bracket", location="http://["),
    Hostile("redirect: with an odd dot", location="http://127\u30020.0.1:PORT/"),
    Hostile("redirect: with two Locations", location="http://stranger.test/photo\r\nLocation: http://127.0.0.1:PORT/"),
    Hostile("redirect: to a long place", location=f"http://127.0.0.1:PORT/{'a' * 70_000}"),
]

HOSTILE = [
    *SCHEMES, *LOOPBACK, *NAMES, *PRIVATE, *EMBEDDED, *PORTS, *USER_INFO, *PARSERS, *DNS, *REBINDING, *REDIRECTS
]  # fmt: skip


class Internet:
    """DNS and a network of which the tests know every part.

    ``evil.test`` resolves as a row says, and ``stranger.test`` to ``PUBLIC``, where a server redirects as the rows
    say; under /photo there is one. Nothing else can be dialled but this machine itself, on which a listener waits at
    ``port``, as if that were one of the web's. ``asked`` are the names that somebody looked up, and ``dialled``
    the addresses to which somebody wanted a connection.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, stranger: VendorServer, listeners: list[socket.socket]
    ) -> None:
        self.port: int = listeners[0].getsockname()[1]
        self.asked: list[str] = []
        self.dialled: list[str] = []
        self.stranger = stranger
        self._listeners = listeners
        self._answers: list[tuple[str, ...]] = []
        self._resolve = socket.getaddrinfo
        stranger.answer = self._redirect
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", self._dialling(httpcore.AnyIOBackend.connect_tcp))
        # Else the listener would be safe for its port alone.
        monkeypatch.setattr(http.guarded_client, "__kwdefaults__", {"allowed_ports": (80, 443, self.port)})

    def meet(self, row: Hostile) -> str:
        """The row's URL, with DNS as the row says."""
        self._answers = list(row.answers)
        self.asked.clear()
        self.dialled.clear()
        return row.url_on(self.port)

    def touched(self) -> bool:
        """Whether somebody has connected to a listener since the last time."""
        return max(_has_caller(listener) for listener in self._listeners)  # asks all of them

    def _redirect(self, call: Call) -> Answer:
        if urlsplit(call.path).path == "/photo":
            return Answer(body=PHOTO)
        slug, _, hops = urlsplit(call.path).path.strip("/").partition("/")
        row = next(row for row in HOSTILE if _slug(row.name) == slug)
        location = f"/{slug}/{int(hops) - 1}" if int(hops) else (row.location or "").replace("PORT", str(self.port))
        return Answer(status=row.status, headers={"location": location})

    def _getaddrinfo(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(host)
        name = host.lower().rstrip(".")
        if name == "evil.test" and self._answers:
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        elif name == "stranger.test":
            answer = (PUBLIC,)
        elif name == "localhost" or name.endswith(".localhost"):
            answer = ("127.0.0.1", "::1")
        else:
            return self._resolve(host, port, *args, **{**kwargs, "flags": socket.AI_NUMERICHOST})
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in answer
        ]

    def _dialling(self, connect: Any) -> Any:
        @functools.wraps(connect)
        async def dial(backend: Any, host: str, port: int, **kwargs: Any) -> Any:
            self.dialled.append(host)
            if (host, port) == (PUBLIC, 80):
                return await connect(backend, "127.0.0.1", self.stranger.port, **kwargs)
            if host in ("::", "::1") or host.startswith(("0.", "127.", "::ffff:127.")):
                return await connect(backend, host, port, **kwargs)
            raise httpcore.ConnectError("there is nothing in this internet")

        return dial


def _has_caller(listener: socket.socket) -> bool:
    """A connection is there before anybody accepts it."""
    called = False
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            called = True
    return called


def listen() -> list[socket.socket]:
    """Sockets that listen at one port of this machine, of IPv4 and, where there is one, of IPv6."""
    listeners = [socket.create_server(("127.0.0.1", 0))]
    with contextlib.suppress(OSError):
        listeners.append(socket.create_server(("::1", listeners[0].getsockname()[1]), family=socket.AF_INET6))
    for listener in listeners:
        listener.setblocking(False)
    return listeners


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    listeners = listen()
    with VendorServer(Answer()) as stranger:
        yield Internet(monkeypatch, stranger, listeners)
    for listener in listeners:
        listener.close()
