"""The example files of providers/README.md, as somebody's own project has them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import providers

README = Path(providers.__file__).with_name("README.md")
FILES = re.compile(r"^`(shop/[a-z]+\.py)`\n\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, outside of this repository, that Python imports from. It has the README's files in it."""
    for name, text in FILES.findall(README.read_text()):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)) or name == "shop":
            del sys.modules[name]
