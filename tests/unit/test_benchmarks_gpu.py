"""The GPU benchmark runs without a GPU, at its smallest, where neither Snakemake nor submitit is installed."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ABSENT = ("snakemake", "submitit", "mlxtend", "torchvision", "matplotlib")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    return gpu


def test_quick_run_on_the_cpu_compares_measures_and_needs_nothing_that_a_gpu_machine_lacks(tmp_path: Path) -> None:
    for name in ABSENT:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not installed there')")
    table = tmp_path / "table.md"
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--quick", "--out", table]
    path = os.pathsep.join([str(tmp_path), str(BENCHMARKS.parent)])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in table.read_text().splitlines()]
    assert len({len(line.split("|")) for line in table.read_text().splitlines()}) == 1
    names = [row[0] for row in rows]
    compared = [row for row in rows if row[-1].strip(" |") == "ok"]
    assert len(compared) == 26  # 22 numbers, and four jobs that were stopped
    # The second process draws for another device, as a GPU's does; here that is no other: all bits are the same.
    assert all(row[3] in ("0.0e+00", "") for row in compared)
    for shape in ("CIFAR-10", "FaceScrub", "Tiny"):
        for surrogate in ("none", "gmm bound", "attention mixture"):
            assert f"{shape}, few, step with {surrogate}" in names
    assert "CIFAR-10, few, 2 trainings side by side, all together" in names
    assert table.read_text().strip() == done.stdout.strip()


def test_a_number_that_differs_or_is_none_is_not_ok(gpu) -> None:
    name = "none, step 1: cross entropy"
    assert gpu.compared(name, 2.0, 2.0 * (1 + 0.5e-4)).verdict == "ok"
    for found in (2.0 * (1 + 2e-4), math.nan, math.inf, None):
        assert gpu.compared(name, 2.0, found).verdict == "NOT OK"


def sleep(**_):
    yield ("slept", 1.0)
    time.sleep(60)


def fail(**_):
    yield ("failed", 1.0)
    raise ValueError("as a GPU without memory would")


def leave(**_):
    yield ("left", 1.0)
    time.sleep(0.5)  # as a crash of the driver would, some time after
    os._exit(0)


@pytest.mark.parametrize(
    ("work", "why"), [(sleep, "not done in 1 s"), (fail, "without memory"), (leave, "without a word")]
)
def test_a_section_that_fails_keeps_what_it_found_and_says_why(gpu, work, why: str, tmp_path: Path) -> None:
    import multiprocessing

    section = gpu.Section("a section", work, 1)
    found = list(gpu.run(section, gpu.QUICK, tmp_path, True, multiprocessing.get_context("fork")))
    assert found[0][1] == 1.0
    assert why in found[1].device
    assert found[1].verdict == "NOT OK"
