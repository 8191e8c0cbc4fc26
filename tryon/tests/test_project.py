"""The project around the app: its settings, its documents, the direction of its imports."""

from __future__ import annotations

import ast
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from concurrent_log_handler import ConcurrentRotatingFileHandler
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client

from settings.base import database
from tryon.conf import known_settings

ROOT = Path(settings.BASE_DIR)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with nothing in the environment but what is given."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**keep, "READ_DOT_ENV": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "settings.production",
    "SECRET_KEY": "k" * 25 + "0123456789" * 4,
    "ALLOWED_HOSTS": "tryon.example.com",
    "OPENAI_API_KEY": "sk-test",
    "REDIS_URL": "redis://127.0.0.1:6379",
}


def test_imports_point_one_way() -> None:
    """sakura_inference -> tryon -> providers; settings are for Django alone."""
    forbidden = {
        "providers": ("tryon", "sakura_inference", "settings", "django.db", "django.conf"),
        "tryon": ("sakura_inference", "settings"),
    }
    for package, others in forbidden.items():
        for path in (ROOT / package).rglob("*.py"):
            if {"tests", "benchmarks"} & set(path.parts):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for name in names:
                    assert not any(name == other or name.startswith(f"{other}.") for other in others), (path, name)


HTTP_LIBRARIES = (
    *("aiohttp", "ftplib", "http.client", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "socket"),
    *("urllib.request", "urllib3", "xmlrpc.client"),
)

IMPORTERS = {
    "providers/http.py": {"httpcore", "httpx", "socket"},  # strangers' URLs, and the vendors that need no SDK
    "providers/google.py": {"httpx2"},  # the SDKs' own, to addresses that the operator chose
    "providers/openai/__init__.py": {"aiohttp", "httpx2"},
    "providers/openai/client.py": {"httpx2"},
    "providers/openai/failures.py": {"aiohttp", "httpx2"},
    "sakura_inference/management/commands/quickstart.py": {"socket"},  # looks for a free port
}
"""Who may open connections. Any other URL goes through ``providers.downloads``."""


def test_nobody_else_opens_a_url() -> None:
    found: dict[str, set[str]] = {}
    for package in ("providers", "tryon", "sakura_inference", "settings"):
        for path in (ROOT / package).rglob("*.py"):
            if {"tests", "benchmarks"} & set(path.parts):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                for library in HTTP_LIBRARIES:
                    if any(name == library or name.startswith(f"{library}.") for name in names):
                        found.setdefault(str(path.relative_to(ROOT)), set()).add(library)
    assert found == IMPORTERS


def test_the_guarded_client_is_for_downloads_and_downloads_are_for_two() -> None:
    callers = {
        name: {
            str(path.relative_to(ROOT))
            for package in ("providers", "tryon", "sakura_inference")
            for path in (ROOT / package).rglob("*.py")
            if not {"tests", "benchmarks"} & set(path.parts) and re.search(rf"(?<!def )\b{name}\(", path.read_text())
        }
        for name in ("guarded_client", "vendor_client", "download", "download_to")
    }
    assert callers == {
        "guarded_client": {"providers/downloads.py"},
        "vendor_client": {"providers/rest.py"},
        "download": {"providers/rest.py"},
        "download_to": {"providers/downloads.py", "tryon/fetching.py"},
    }


def test_starting_the_app_imports_no_vendors_sdk() -> None:
    code = (
        "import django, sys; django.setup();"
        "from django.urls import resolve; resolve('/health');"
        "print([m for m in ('openai', 'google.genai', 'aiohttp', 'cv2', 'numpy', 'storages') if m in sys.modules])"
    )
    result = python("-c", code, DJANGO_SETTINGS_MODULE="settings.test")
    assert result.stdout.strip() == "[]", result.stderr


def test_production_is_clean_under_check_deploy() -> None:
    result = python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert result.returncode == 0, result.stderr


def test_production_is_clean_under_the_names_that_django_looks_for() -> None:
    """The project's middleware are Django's classes under names of its own, which switches checks off."""
    code = """if True:
        import django
        from django.conf import settings
        from django.core import checks
        from django.utils.module_loading import import_string

        django.setup()

        def name(path):
            base = import_string(path).__mro__[2]
            return f"{base.__module__}.{base.__name__}"

        ours = [path for path in settings.MIDDLEWARE if path.startswith("sakura_inference.")]
        settings.MIDDLEWARE = [name(path) for path in ours]
        settings.SILENCED_SYSTEM_CHECKS = []
        assert "django.middleware.security.SecurityMiddleware" in settings.MIDDLEWARE
        found = [m for m in checks.run_checks(include_deployment_checks=True) if m.level >= checks.WARNING]
        assert not found, found
    """
    result = python("-c", code, **PRODUCTION)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing"),
        ({"SECRET_KEY": "development-only-and-refused-in-production"}, "SECRET_KEY is missing, a default"),
        ({"SECRET_KEY": "k1" * 20 + "0123456"}, "SECRET_KEY is missing, a default, shorter than 50"),
        ({"SECRET_KEY": "k" * 60}, "or too regular"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS"),
        ({"ALLOWED_HOSTS": "a.com, *"}, "ALLOWED_HOSTS"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
    ],
)
def test_production_refuses_an_unsafe_start_and_names_the_variable(change: dict[str, str], says: str) -> None:
    result = python("manage.py", "check", **PRODUCTION | change)
    assert result.returncode != 0
    assert says in result.stderr


def test_defaults_of_the_environment_are_the_old_ones() -> None:
    code = (
        "from settings import base as s;"
        "print(s.TRYON['PROVIDER'], s.TRYON['SERVICE_NAME'], s.TRYON['THROTTLE_RPM'], s.PORT,"
        " s.GOOGLE_LOCATION, s.LOG_LEVEL)"
    )
    expected = "openai sakura-rasa-inference 10 8001 us-central1 INFO"
    assert python("-c", code).stdout.strip() == expected


def test_the_example_environment_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    code = "from settings import development as s; print(s.TRYON, s.DATABASES, s.CACHES, s.STORAGES, s.ALLOWED_HOSTS)"
    nothing, copied = python("-c", code), python("-c", code, **example)
    assert copied.returncode == 0, copied.stderr
    assert copied.stdout == nothing.stdout != ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"PORT": "abc"}, "PORT is 'abc'. Give a whole number"),
        ({"PORT": "99999"}, "PORT is 99999. Give 1 to 65535"),
        ({"THROTTLE_RPM": "ten"}, "THROTTLE_RPM is 'ten'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'LOUD'. Use DEBUG"),
        ({"DATABASE_URL": "secret"}, "DATABASE_URL is no database's address. Use sqlite:///path"),
        ({"STORAGE_URL": "ftp://x"}, "STORAGE_URL is 'ftp://x'. Use s3://bucket"),
        ({"STORAGE_URL": "s3://bucket/folder"}, "STORAGE_URL is 's3://bucket/folder'. Use s3://bucket"),
        ({"REDIS_URL": "localhost"}, "REDIS_URL is no Redis's address. Use redis://host:6379/0"),
        ({"READ_DOT_ENV": "maybe"}, "READ_DOT_ENV is 'maybe'. Give True or False"),
    ],
)
def test_a_wrong_value_in_the_environment_is_named_with_its_fix(change: dict[str, str], says: str) -> None:
    result = python("manage.py", "check", **change)
    assert result.returncode == 1
    assert says in result.stderr.splitlines()[-1]


def test_the_log_file_is_rotated_at_10_megabytes_with_5_backups() -> None:
    [handler] = [h for h in logging.getLogger("tryon").handlers if isinstance(h, ConcurrentRotatingFileHandler)]
    assert (handler.maxBytes, handler.backupCount) == (10 * 1024 * 1024, 5)
    assert handler.baseFilename.endswith("logs/inference.log")


POOL = {"min_size": 1, "max_size": 8, "timeout": 10, "reconnect_timeout": 5}


def test_postgresql_has_a_pool_and_no_connections_that_threads_keep() -> None:
    config = database("postgres://me:secret@host/name")
    assert config["CONN_MAX_AGE"] == 0
    assert config["OPTIONS"] == {"pool": POOL}


def test_a_relative_sqlite_file_lies_in_the_project_whatever_folder_a_command_is_run_from() -> None:
    assert database("sqlite:///shop.sqlite3")["NAME"] == str(ROOT / "shop.sqlite3")
    assert database("sqlite:////var/shop.sqlite3")["NAME"] == "/var/shop.sqlite3"
    assert database("sqlite://:memory:")["NAME"] == ":memory:"


def test_a_database_url_keeps_its_options_and_no_secret_gets_into_an_error() -> None:
    config = database("postgres://me:secret@host/name?sslmode=verify-full")
    assert config["OPTIONS"] == {"sslmode": "verify-full", "pool": POOL}
    assert database("sqlite:///x?timeout=5")["OPTIONS"] | {"init_command": ""} == {
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "",
    }
    with pytest.raises(ImproperlyConfigured) as caught:
        database("postgres://me:a/secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_secret_may_begin_with_a_dollar_and_hosts_may_have_spaces_between() -> None:
    code = "from settings import base as s; print(s.SECRET_KEY, s.ALLOWED_HOSTS)"
    result = python("-c", code, SECRET_KEY="$abc", ALLOWED_HOSTS="a.com, b.com")
    assert result.stdout.strip() == "$abc ['a.com', 'b.com']"


def test_development_uses_the_offline_provider_and_redis_has_room_for_all_threads() -> None:
    code = "from settings import development as s; print(s.TRYON['PROVIDER'], s.CACHES)"
    result = python("-c", code, REDIS_URL="redis://localhost")
    assert result.stdout.startswith("local ")
    assert "'max_connections': 1000" in result.stdout


@pytest.mark.parametrize("module", ["asgi", "wsgi"])
def test_a_production_server_does_not_start_without_the_providers_key(module: str) -> None:
    start = ("-c", f"import sakura_inference.{module}")
    assert python(*start, **PRODUCTION).returncode == 0
    refused = python(*start, **PRODUCTION | {"OPENAI_API_KEY": ""})
    assert refused.returncode != 0
    assert "OPENAI_API_KEY" in refused.stderr


def test_dot_env_may_choose_the_settings(tmp_path: Path) -> None:
    shutil.copy(ROOT / "manage.py", tmp_path)
    shutil.copytree(ROOT / "settings", tmp_path / "settings")
    (tmp_path / ".env").write_text("DJANGO_SETTINGS_MODULE=settings.production\nSECRET_KEY=short\n")
    result = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SECRET_KEY is missing, a default" in result.stderr


def test_no_migration_is_missing() -> None:
    result = python("manage.py", "makemigrations", "--check", "--dry-run", DJANGO_SETTINGS_MODULE="settings.test")
    assert result.returncode == 0, result.stdout


def test_the_readme_documents_every_setting_and_every_check() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in known_settings() if f"`{name}`" not in readme]
    assert missing == []
    for line in (ROOT / "tryon" / "checks.py").read_text().splitlines():
        if line.startswith(("E00", "W00")):
            assert f"tryon.{line[:4]}" in readme


def test_the_example_environment_names_every_variable_the_settings_read() -> None:
    example = (ROOT / ".env.example").read_text()
    for path in (ROOT / "settings").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("env."):
                name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
                if isinstance(name, str) and name != "READ_DOT_ENV":
                    assert f"{name}=" in example, name


def test_the_package_holds_the_two_packages_and_stays_lean() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["tryon*", "providers*"]
    heavy = ("openai", "google", "numpy", "opencv", "storages", "psycopg", "redis", "uvicorn", "spectacular")
    assert not [name for name in project["project"]["dependencies"] if any(word in name for word in heavy)]


def test_docs_are_served_without_anything_from_elsewhere(client: Client) -> None:
    for path in ("/docs", "/redoc"):
        page = client.get(path).content.decode()
        assert "http://" not in page
        assert "https://" not in page


def test_the_docs_refuse_in_json(client: Client) -> None:
    for path in ("/docs", "/redoc"):
        assert client.post(path).json()["code"] == "method_not_allowed"
        refused = client.get(path, headers={"Accept": "image/png"})
        assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


def test_the_schema_is_valid_and_names_the_route(tmp_path: Path) -> None:
    target = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", f"--file={target}")
    text = target.read_text()
    assert "/api/v1/create-image" in text
    example = text[text.index("examples:") : text.index("multipart/form-data")]
    assert "catalog_id: dress-7" in example
    assert "api_key" not in example, "it would contradict the key that Swagger UI sends in a header"


def test_service_information_and_liveness(client: Client) -> None:
    assert client.get("/").json()["service"] == "sakura-rasa-inference"
    assert client.get("/health").json() == {"status": "ok", "service": "sakura-rasa-inference"}
