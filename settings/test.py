"""Tests: the offline parts only, files and logs in a temporary folder."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from .environment import BASE_DIR

# Neither a developer's .env nor the shell may change what the tests see.
os.environ["READ_DOT_ENV"] = "0"
for line in (BASE_DIR / ".env.example").read_text().splitlines():
    os.environ.pop(line.partition("=")[0], None)
for name in ("http_proxy", "https_proxy", "all_proxy", "aws_profile"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

from .base import *  # noqa: E402, F403
from .base import HANDLERS, LOGGING, TRYON, database  # noqa: E402

TEST_DIR = Path(tempfile.mkdtemp(prefix="tryon-tests-"))
atexit.register(shutil.rmtree, TEST_DIR, ignore_errors=True)

SECRET_KEY = "only-for-tests"  # noqa: S105
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# A file, not memory: other threads and processes must see the same database, as they do in life.
DATABASES = {
    "default": database(f"sqlite:///{TEST_DIR / 'db.sqlite3'}") | {"TEST": {"NAME": str(TEST_DIR / "test.sqlite3")}}
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
MEDIA_ROOT = TEST_DIR / "media"
LOGGING |= {
    "handlers": {**HANDLERS, "file": {**HANDLERS["file"], "filename": str(TEST_DIR / "logs" / "inference.log")}}
}

TRYON |= {
    "PROVIDER": "fake",
    "THROTTLE_RPM": 0,
    # A test that wants recovery calls it.
    "RECOVER_EVERY": 0,
    # Retries are at once, and a provider that fails in one test is asked in the next.
    "RETRY_PAUSE": 0,
    "CIRCUIT_FAILURES": 0,
}
