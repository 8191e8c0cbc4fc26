"""The benchmark runs, and what it prints makes sense. How fast anything is, no test can say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.stress
def test_benchmark_prints_the_server_beside_the_bare_client() -> None:
    command = [
        sys.executable,
        "-m",
        "tryon.benchmarks",
        "--images=10",
        "--rounds=2",
        "--concurrency=4",
        "--waiting=20",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| (\+?[\d.]+)", result.stdout, re.M)
    names = [name for name, *_ in rows]
    assert names == [
        "CPU per image, ms",
        "latency alone, p50, ms",
        "latency alone, p99, ms",
        "peak memory, 20 waiting, MB",
        "CPU per image, 20 waiting, ms",
    ]
    server, floor, _ = (float(value) for value in rows[0][1:])
    assert server > floor > 0, "a server does more than a bare client"


def test_benchmark_says_what_is_wrong_with_a_database() -> None:
    url = "postgres://nobody@127.0.0.1:9/none"
    command = [sys.executable, "-m", "tryon.benchmarks", "--database", url]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "--database: " in result.stderr
    assert "Traceback" not in result.stderr
