"""Settings that all environments share. This package reads the environment; nothing else does."""

import logging
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from .environment import BASE_DIR, env, read_dot_env

read_dot_env()

SECRET_KEY = env.str("SECRET_KEY", default="")
DEBUG = False
ALLOWED_HOSTS: list[str] = [name.strip() for name in env.list("ALLOWED_HOSTS", default=[])]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "tryon",
    "sakura_inference",
]

# The API's own chain is the first three, none of which changes threads; the rest is for the admin alone
# (see sakura_inference/middleware.py).
MIDDLEWARE = [
    "tryon.request_id.request_id_middleware",
    "sakura_inference.middleware.SecurityMiddleware",
    "sakura_inference.middleware.XFrameOptionsMiddleware",
    "sakura_inference.middleware.SessionMiddleware",
    "sakura_inference.middleware.CommonMiddleware",
    "sakura_inference.middleware.CsrfViewMiddleware",
    "sakura_inference.middleware.AuthenticationMiddleware",
    "sakura_inference.middleware.MessageMiddleware",
]

# On everywhere: the admin is where refunds are made and keys revoked, behind a login, and the docs tell no secret. A
# server that only serves the API to the world needs neither.
ADMIN_ENABLED = env.bool("ADMIN_ENABLED", default=True)
DOCS_ENABLED = env.bool("DOCS_ENABLED", default=True)

ROOT_URLCONF = "sakura_inference.urls"
WSGI_APPLICATION = "sakura_inference.wsgi.application"
ASGI_APPLICATION = "sakura_inference.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Databases, cache


def database(url: str) -> dict[str, Any]:
    """A DATABASES entry for ``sqlite:///path`` or ``postgres://user:password@host:port/name?options``."""
    try:
        config: dict[str, Any] = environ.Env.db_url_config(url)
    except ValueError:
        config = {}
    if "ENGINE" not in config:
        # The URL itself may hold a password.
        raise ImproperlyConfigured(
            "DATABASE_URL is no database's address. Use sqlite:///path or postgres://user:password@host:5432/name, "
            "with what is special in a password written as %XX."
        )
    defaults: dict[str, Any] = {}
    if config["ENGINE"] == "django.db.backends.sqlite3":
        if config["NAME"] != ":memory:":
            config["NAME"] = str(BASE_DIR / str(config["NAME"]))  # whatever folder a command is run from
        # Without these, parallel writers fail with "database is locked".
        defaults = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    elif config["ENGINE"] == "django.db.backends.postgresql":
        # Under ASGI each request has a thread of its own: only a pool can reuse connections. Who gets none in
        # time, because the server is away or too much goes on, hears 503; the pool's own 30 s are too long for that.
        # While the server is away the pool waits longer and longer between its attempts, until it gives up and
        # begins anew: by default after five minutes, so that a server that is back would be away for as long again.
        config["CONN_MAX_AGE"] = 0
        pool = {"min_size": 1, "max_size": env.int("DATABASE_POOL", default=8), "timeout": 10, "reconnect_timeout": 5}
        defaults = {"pool": pool}
    config["OPTIONS"] = defaults | config.get("OPTIONS", {})
    return config


DATABASES = {"default": database(env.str("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")


def cache(redis_url: str) -> dict[str, object]:
    """A CACHES entry: Redis where there is a URL, else this process's memory."""
    if not redis_url:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    if not redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise ImproperlyConfigured("REDIS_URL is no Redis's address. Use redis://host:6379/0, or leave it empty.")
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_url,
        # One thread a request asks at once; redis-py refuses the 101st by default.
        "OPTIONS": {"max_connections": 1000, "socket_timeout": 2, "socket_connect_timeout": 2},
    }


CACHES = {"default": cache(REDIS_URL)}

# Files

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "media"

# Under ASGI a body of more bytes waits on the disk and not in memory, while its request waits.
FILE_UPLOAD_MAX_MEMORY_SIZE = 128 * 1024


def result_storage(url: str) -> dict[str, object]:
    """A STORAGES entry for ``s3://bucket``, ``gs://bucket`` or ``azure://container``; empty is MEDIA_ROOT."""
    if not url:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    scheme, _, name = url.partition("://")
    backends: dict[str, tuple[str, dict[str, object]]] = {
        "s3": (
            "storages.backends.s3.S3Storage",
            {"bucket_name": name, "endpoint_url": env.str("S3_ENDPOINT_URL", default=None)},
        ),
        "gs": ("storages.backends.gcloud.GoogleCloudStorage", {"bucket_name": name}),
        "azure": (
            "storages.backends.azure_storage.AzureStorage",
            {
                "azure_container": name,
                "connection_string": env.str("AZURE_STORAGE_CONNECTION_STRING", default=None),
            },
        ),
    }
    if scheme not in backends or not name or "/" in name:
        raise ImproperlyConfigured(
            f"STORAGE_URL is {url!r}. Use s3://bucket, gs://bucket or azure://container, or leave it empty."
        )
    backend, options = backends[scheme]
    return {"BACKEND": backend, "OPTIONS": options}


STORAGES = {
    "default": result_storage(env.str("STORAGE_URL", default="")),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Languages, time

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

# API

REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    # The create-image view brings its own; this is for the schema's.
    "EXCEPTION_HANDLER": "tryon.views.exception_handler",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Sakura virtual try-on",
    "DESCRIPTION": "A person, a garment, one picture.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENFORCE_NON_BLANK_FIELDS": True,
    # Swagger UI and ReDoc come from the sidecar package, not from a CDN.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# The names of the old server; a project of its own may want them for other things of Google's too.
GOOGLE_API_KEY = env.str("GOOGLE_API_KEY", default="")
GOOGLE_PROJECT_ID = env.str("GOOGLE_PROJECT_ID", default="")
GOOGLE_LOCATION = env.str("GOOGLE_LOCATION", default="us-central1")
GOOGLE_APPLICATION_CREDENTIALS = env.str("GOOGLE_APPLICATION_CREDENTIALS", default="")


def provider(backend: str, **options: object) -> dict[str, object]:
    """An entry of PROVIDERS. An option that the environment leaves empty keeps its default."""
    return {
        "BACKEND": f"providers.{backend}",
        "OPTIONS": {name: value for name, value in options.items() if value != ""},
    }


TRYON = {
    "PROVIDER": env.str("AI_PROVIDER", default="openai"),
    "FALLBACK_PROVIDERS": [name.strip() for name in env.list("AI_FALLBACK_PROVIDERS", default=[])],
    "PROVIDERS": {
        "openai": provider(
            "openai.OpenAIProvider",
            api_key=env.str("OPENAI_API_KEY", default=""),
            base_url=env.str("OPENAI_BASE_URL", default=""),
            azure_api_version=env.str("OPENAI_AZURE_API_VERSION", default=""),
            model=env.str("OPENAI_MODEL", default=""),
        ),
        "gemini": provider(
            "gemini.GeminiProvider",
            api_key=GOOGLE_API_KEY,
            model=env.str("GEMINI_MODEL", default=""),
            describe_with=env.str("GEMINI_DESCRIBE_WITH", default=""),
        ),
        "vertex": provider(
            "vertex.VertexProvider",
            project=GOOGLE_PROJECT_ID,
            location=GOOGLE_LOCATION,
            credentials=GOOGLE_APPLICATION_CREDENTIALS,
        ),
        "stability": provider("stability.StabilityProvider", api_key=env.str("STABILITY_API_KEY", default="")),
        "sora": provider(
            "sora.SoraProvider",
            api_key=env.str("SORA_API_KEY", default=""),
            base_url=env.str("SORA_BASE_URL", default=""),
            model=env.str("SORA_MODEL", default=""),
        ),
        "fashn": provider(
            "fashn.FashnProvider",
            api_key=env.str("FASHN_API_KEY", default=""),
            model=env.str("FASHN_MODEL", default=""),
        ),
        "bfl": provider("bfl.BFLProvider", api_key=env.str("BFL_API_KEY", default="")),
        "fal": provider(
            "fal.FalProvider",
            api_key=env.str("FAL_KEY", default=""),
            model=env.str("FAL_MODEL", default=""),
            fields=env.json("FAL_FIELDS", default=""),
        ),
        "replicate": provider(
            "replicate.ReplicateProvider",
            api_key=env.str("REPLICATE_API_TOKEN", default=""),
            model=env.str("REPLICATE_MODEL", default=""),
            fields=env.json("REPLICATE_FIELDS", default=""),
        ),
        "local": provider("local.LocalProvider", models_dir=env.str("LOCAL_MODELS_DIR", default="")),
        "fake": {"BACKEND": "providers.fake.FakeProvider"},
    },
    "SERVICE_NAME": env.str("SERVICE_NAME", default="sakura-rasa-inference"),
    "THROTTLE_RPM": env.int("THROTTLE_RPM", default=10),
    "TRUSTED_PROXIES": env.int("TRUSTED_PROXIES", default=0),
}

PORT = env.int("PORT", default=8001)
if not 1 <= PORT <= 65535:
    raise ImproperlyConfigured(f"PORT is {PORT}. Give 1 to 65535.")

# Logs

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(f"LOG_LEVEL is {LOG_LEVEL!r}. Use DEBUG, INFO, WARNING, ERROR or CRITICAL.")
LOG_FILE = BASE_DIR / "logs" / "inference.log"

HANDLERS: dict[str, dict[str, object]] = {
    "console": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request_id", "mask"]},
    "file": {
        "()": "sakura_inference.logs.rotating_file",
        "filename": str(LOG_FILE),
        "max_bytes": 10 * 1024 * 1024,
        "backups": 5,
        "formatter": "json",
        "filters": ["request_id", "mask"],
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "tryon.request_id.RequestIDFilter"},
        "mask": {"()": "tryon.masking.MaskSecrets"},
    },
    "formatters": {
        # One JSON object a line: what a user typed cannot break it or forge another.
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        },
    },
    "handlers": HANDLERS,
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "tryon": {"handlers": ["console", "file"], "level": LOG_LEVEL, "propagate": False},
        "providers": {"handlers": ["console", "file"], "level": LOG_LEVEL, "propagate": False},
        "django": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
    },
}
