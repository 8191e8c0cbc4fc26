"""The model files of the offline provider, for the tests that run it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from providers.local.models import ModelFetchError, default_models_dir, fetch_models


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the model files, fetched once per machine. Skips without them, but fails on a CI server."""
    folder = default_models_dir()
    try:
        fetch_models(folder)
    except ModelFetchError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and the model files are not to be had: {error}")
        pytest.skip(str(error))
    return folder
