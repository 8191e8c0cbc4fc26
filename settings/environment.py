"""The environment and ``.env``. Only this package reads them."""

import os
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

FALSE = ("false", "off", "no", "n", "0")


class Environment(environ.Env):  # type: ignore[misc]
    """The environment, in which ``NAME=`` means as much as no ``NAME`` at all, as .env.example has it."""

    def get_value(self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, **kwargs: Any) -> Any:
        given = self.ENVIRON.get(var)
        if given == "" and default is not self.NOTSET:
            return default
        if given is not None and cast is bool and given.lower() not in (*self.BOOLEAN_TRUE_STRINGS, *FALSE):
            raise ImproperlyConfigured(f"{var} is {given!r}. Give True or False, or leave it out.")
        if given is not None and cast is str:
            return given  # environ would take "$…" for the name of another variable
        try:
            return super().get_value(var, cast, default, **kwargs)
        except ValueError:
            kind = "a whole number" if cast is int else "another value"
            raise ImproperlyConfigured(f"{var} is {given!r}. Give {kind}, or leave it out.") from None


env = Environment()


def read_dot_env() -> None:
    """Add the lines of ``.env``; what the environment has already counts more."""
    if env.bool("READ_DOT_ENV", default=True):
        env.read_env(BASE_DIR / ".env")


def choose_settings() -> None:
    """Set DJANGO_SETTINGS_MODULE as ``.env`` has it, else to development. For manage.py, asgi.py and wsgi.py."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        read_dot_env()
        os.environ["DJANGO_SETTINGS_MODULE"] = env.str("DJANGO_SETTINGS_MODULE", default="settings.development")
