"""Whose request it is, when there is no user to count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import RequestFactory

from tryon.throttling import client_address


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "expected"),
    [
        (0, "198.51.100.7", "", "198.51.100.7"),
        (0, "198.51.100.7", "1.2.3.4", "198.51.100.7"),
        (1, "10.0.0.1", "1.2.3.4", "1.2.3.4"),
        (1, "10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        (2, "10.0.0.1", "1.2.3.4", "10.0.0.1"),
        (1, "10.0.0.1", "", "10.0.0.1"),
        (1, "10.0.0.1", "1.2.3.4:55123", "1.2.3.4"),
        (1, "10.0.0.1", "[2001:db8:1:2::9]:443", "2001:db8:1:2::"),
        (0, "::ffff:198.51.100.7", "", "198.51.100.7"),
        (1, "10.0.0.1", "unknown", "0.0.0.0"),  # noqa: S104
        (0, "", "", "0.0.0.0"),  # noqa: S104
        (0, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::"),
        (0, "2001:db8:1:2:ffff::9", "", "2001:db8:1:2::"),
    ],
)
def test_the_address_is_the_clients_as_far_as_proxies_can_be_trusted(
    tryon: Callable[..., None], proxies: int, remote: str, forwarded: str, expected: str
) -> None:
    tryon(TRUSTED_PROXIES=proxies)
    request = RequestFactory().get("/", headers={"X-Forwarded-For": forwarded}, REMOTE_ADDR=remote)
    assert client_address(request) == expected
