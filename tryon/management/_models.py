"""The offline provider's model files, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from django.core.management.base import CommandError
from tqdm import tqdm

from providers.local.models import ModelFetchError, default_models_dir, fetch_models

from ..conf import conf


def models_dir() -> Path:
    """Where the settings (else the provider's default) keep the model files."""
    for entry in conf.PROVIDERS.values():
        options = entry.get("OPTIONS", {})
        if entry.get("BACKEND") == "providers.local.LocalProvider" and options.get("models_dir"):
            return Path(options["models_dir"])
    return default_models_dir()


def fetch(progress: TextIO) -> Path:
    """Fetch what is missing and return the folder. Raise ``CommandError``."""
    folder = models_dir()
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, leave=False, file=progress, disable=None) as bar:

        def report(name: str, done: int, total: int) -> None:
            bar.set_description(name, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        try:
            fetch_models(folder, report=report)
        except ModelFetchError as error:
            raise CommandError(str(error)) from error
    return folder
