"""The benchmarks run, and what they print makes sense. How fast anything is, no test can say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from providers.tests.models import models

__all__ = ["models"]

ROOT = Path(__file__).resolve().parents[2]

CPU_ROW = r"^\| ([\w -]+?) \| (\d+) \| (\d+) \|$"

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


@pytest.mark.stress
@pytest.mark.parametrize("name", ["SQLite", "PostgreSQL"])
def test_creates_prints_queries_and_creates_per_second(name: str) -> None:
    command = [sys.executable, "-m", "tryon.benchmarks.creates", "--creates=8", "--concurrency", "1", "4"]
    result = subprocess.run([*command, "--only", name.lower()], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert result.returncode == 0, result.stderr
    titles, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in result.stdout.splitlines()
        if line.startswith("|")
    ]
    assert titles == [
        name,
        "queries",
        "BEGIN, COMMIT",
        "creates/s, 1 process, 1 at a time",
        "creates/s, 1 process, 4 at a time",
        "creates/s, 2 processes, 1 at a time",
        "creates/s, 2 processes, 4 at a time",
    ]
    counts = {what: (int(queries), int(commands)) for what, queries, commands, *_ in rows}
    assert list(counts) == ["success", "success with a key", "replay", "provider failure", "no credits"]
    assert all(queries > 0 for queries, _ in counts.values())
    assert sum(counts["success"]) <= 12
    assert counts["success"][1] == 4, "two transactions, one to enter and one to leave"
    assert counts["replay"][1] == 0, "nothing is written"
    measured, silent = rows[:2], rows[2:]
    assert all(float(rate) > 0 for _, _, _, *rates in measured for rate in rates)
    assert all(rates == [""] * 4 for _, _, _, *rates in silent)


def test_creates_says_what_is_wrong_with_an_argument() -> None:
    command = [sys.executable, "-m", "tryon.benchmarks.creates", "--concurrency", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "argument --concurrency: invalid positive value: '0'" in result.stderr


@pytest.mark.stress
@pytest.mark.usefixtures("models")
def test_offline_prints_what_a_picture_costs() -> None:
    """Milliseconds are the machine's; the ratio is taken within one run, and memory is what it is anywhere."""
    command = [sys.executable, "-m", "tryon.benchmarks.offline", "--runs=3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert result.returncode == 0, result.stderr
    cpu, memory = result.stdout.split("Once per process")
    stages = {name: (int(one), int(two)) for name, one, two in re.findall(CPU_ROW, cpu, re.M)}
    total = stages.pop("all of it")
    assert set(stages) > {"pose net", "saliency net", "parsing", "fitting", "wearing", "PNG"}
    known = {name for name, (_, again) in stages.items() if not again}
    assert known == {"pose net", "saliency net", "outline of the person", "parsing", "body"}, (
        "the person is known already"
    )
    for column, whole in enumerate(total):
        assert sum(stage[column] for stage in stages.values()) == pytest.approx(whole, rel=0.2), "nothing is left out"
    [share] = re.findall(r"^\| beside the first \| +\| ([\d.]+) times \|$", cpu, re.M)
    assert 0 < float(share) <= 0.5
    peaks = re.findall(r"^\| (one picture|4 more) \| (\d+) \| (\d+) \|$", memory, re.M)
    assert [what for what, *_ in peaks] == ["one picture", "4 more"]
    above = [int(more) for *_, more in peaks]
    assert 0 < above[0] < 450
    assert above[0] <= above[1] < 1.1 * 450, "a tenth more, if several are made"


@pytest.mark.parametrize("module", ["tryon.benchmarks", "tryon.benchmarks.creates"])
def test_benchmark_says_what_is_wrong_with_a_database(module: str) -> None:
    url = "postgres://nobody@127.0.0.1:9/none"
    command = [sys.executable, "-m", module, "--database", url]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "--database: " in result.stderr
    assert "Traceback" not in result.stderr
