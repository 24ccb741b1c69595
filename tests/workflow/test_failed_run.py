"""One run of several fails: the workflow ends with the report of the others, and says which is missing and why."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DIVERGING = {"surrogate": {"kind": "gmm"}, "training.lr": 1000.0, "training.max_grad_norm": None}
STUDY = {
    "name": "tiny",
    "dataset": {"source": "synthetic", "images": 400, "classes": 4, "channels": 1},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1"},
    "training": {"epochs": 3, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02},
    "attacks": [{"kind": "mean_image"}, {"kind": "linear"}],
    "runs": [{"surrogate": {"kind": "gmm", "weight": 0.5}}, DIVERGING],
    "report": {"images": 2, "map_samples": 20},
}


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=600, env=environment
    )


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = ["--profile", str(ROOT / "profiles/local")]
    return call(folder, "snakemake", "--snakefile", str(ROOT / "Snakefile"), *profile, "--cores", "2", *arguments)


def write_study(folder: Path, study: dict) -> None:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(study))


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("failed")
    write_study(folder, STUDY)
    return folder, snakemake(folder)


@pytest.fixture
def copied(failed, tmp_path_factory) -> Path:
    """The same in another folder, times included, for a test to change."""
    return Path(shutil.copytree(failed[0], tmp_path_factory.mktemp("copied") / "failed", copy_function=shutil.copy2))


def test_the_workflow_ends_with_the_report_of_the_others(failed) -> None:
    folder, done = failed
    assert done.returncode != 0
    results = pd.read_csv(folder / "results/tiny/results.csv")
    assert results["run"].nunique() == 3  # none, gmm, and their reference: not the run that diverges, nor its reference
    assert results["mse"].notna().all()
    page = re.sub("<[^>]+>", " ", (folder / "results/tiny/report.html").read_text())
    assert "2 of 5 runs have no result" in page
    cause = r"gmm-bound-w0\.1/s0-\w+ +failed: warm_up, TrainingError: epoch 1, batch \d+: expected a finite "
    assert re.search(cause, " ".join(page.split()))
    assert not (folder / "results/tiny/results.parquet").exists()


def test_it_says_which_run_is_missing_why_and_where(failed) -> None:
    folder, done = failed
    (line,) = [line for line in done.stderr.splitlines() if re.search(r"gmm-bound-w0\.1/s0-\w+: failed: warm_up", line)]
    assert "TrainingError: epoch 1, batch" in line
    log = done.stderr.splitlines()[done.stderr.splitlines().index(line) + 1].removeprefix("  log: ")
    assert "TrainingError" in (folder / log).read_text()
    assert "report of the 3 finished of 5 runs: results/tiny/report.html" in done.stderr


def test_status_says_the_same_to_people_and_programs(failed) -> None:
    folder, _ = failed
    text = call(folder, "cem.cli", "status")
    assert text.returncode == 1
    assert len([line for line in text.stdout.splitlines() if "failed: warm_up, TrainingError" in line]) == 2
    told = json.loads(call(folder, "cem.cli", "status", "--json").stdout)
    states = [one["state"] for one in told["runs"]]
    assert states.count("failed") == 2
    assert states.count("done") == 3
    assert told["report"]["older_than"] == []


def test_the_command_makes_the_report_at_any_time(failed) -> None:
    folder, _ = failed
    before = (folder / "results/tiny/report.html").read_bytes()
    (folder / "results/tiny/report.html").unlink()
    done = call(folder, "cem.cli", "report")
    assert done.returncode == 1
    assert "report of the 3 finished of 5 runs" in done.stdout
    assert (folder / "results/tiny/report.html").read_bytes() == before


def test_with_other_settings_that_run_alone_is_made_and_then_the_whole_report(copied) -> None:
    write_study(copied, {**STUDY, "runs": [STUDY["runs"][0], {"surrogate": {"kind": "gmm"}, "training.lr": 0.01}]})
    done = snakemake(copied)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)
    counts = {name: jobs.count(name) for name in jobs}
    assert counts["train"] == counts["warm_up"] == 2  # the run, and the reference with its learning rate
    assert counts["aggregate"] == counts["report"] == 1
    assert "prepare_data" not in counts
    assert "have no result" not in (copied / "results/tiny/report.html").read_text()
    assert pd.read_parquet(copied / "results/tiny/results.parquet")["run"].nunique() == 5
    assert call(copied, "cem.cli", "status").returncode == 0


def test_a_run_taken_out_of_the_study_leaves_no_report_that_still_names_it(copied) -> None:
    """All that is planned is there, older than the report of what was finished; it is made again all the same."""
    write_study(copied, {**STUDY, "runs": STUDY["runs"][:1]})
    done = snakemake(copied)
    assert done.returncode == 0, done.stderr
    assert "have no result" not in (copied / "results/tiny/report.html").read_text()
