"""What the doubles of vendors that make pictures as jobs share."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from providers.errors import InvalidProviderResponse
from providers.tests.vendor import Answer, VendorServer

from . import KEY, Double, Trouble


@dataclass(frozen=True, slots=True)
class End(Trouble):
    """A trouble after which there is no job left to ask for."""


class JobDouble(Double):
    """Base of them. Their first step takes the job, the next tells how it is."""

    final: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    """Step and name of the common troubles that end the job."""
    cancels: ClassVar[tuple[str, str]] = ("", "")
    """Method and path by which a job is cancelled, where it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.still_working = 1
        """Polls that find the job at work."""
        self.asked: dict[str, Any] = {}
        """What the job was to be."""

    def options(self, server: VendorServer) -> dict[str, Any]:
        return {"api_key": KEY, "base_url": server.base_url, "poll_every": 0.01}

    def is_at_work(self) -> bool:
        self.still_working -= 1
        return self.still_working >= 0

    def ends(self, trouble: Trouble) -> bool:
        return isinstance(trouble, End) or (trouble.step, trouble.name) in self.final


def data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


NO_LINKS: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("a number", 7),
    ("an empty text", ""),
    ("broken base64", "data:image/png;base64,AAAA*"),
    ("empty base64", "data:image/png;base64,"),
    ("data that is not base64", "data:image/png,AAAA"),
    ("base64 of no picture", "data:image/png;base64," + base64.b64encode(b"<html>").decode()),
    ("link to a private address", "http://10.0.0.1/a.png"),
    ("link to a file", "file:///etc/passwd"),
    ("link that is none", "a.png"),
)
"""What is no picture, in place of a link to one."""


def no_pictures(step: str) -> Iterator[Trouble]:
    """Downloads that are complete, and are no picture."""
    for name, body in (("html", b"<html>hello</html>"), ("text", b"Expired"), ("gif", b"GIF89a\x01\x00\x01\x00")):
        answer = Answer(body=body, headers={"content-type": "image/png"})
        yield End(f"{name} for a picture", step, answer, InvalidProviderResponse)
