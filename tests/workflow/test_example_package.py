"""A package with a member for every family, installed from its folder, through Snakemake to the report."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cem.config import DEFENSES, MODELS, SURROGATES, Family

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests/example_package"


def run(folder: Path, site: Path, *module: str) -> subprocess.CompletedProcess:
    """`python -m …` in a folder, with the packages in `site`."""
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Where the example package is installed, apart from the environment of the tests."""
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)  # setuptools builds beside what it reads
    folder = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    done = run(source, Path(), "pip", "install", *quiet, "--target", str(folder), ".")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(tmp_path) -> Path:
    shutil.copy(EXAMPLE / "study.yaml", tmp_path)
    return tmp_path


@pytest.mark.workflow
def test_a_study_with_six_foreign_members_comes_to_its_report(site, work):
    snakefile = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml"]
    done = run(work, site, "snakemake", *snakefile, "--cores", "2")
    logs = "\n".join(path.read_text() for path in work.glob("logs/**/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    results = pd.read_csv(work / "results/example/results.csv", keep_default_na=False)
    assert set(results["dataset"]) == {"discs"}
    assert set(results["arch"]) == {"two_convolutions"}
    assert set(results["surrogate"]) == {"none", "batch_variance"}
    assert set(results["defense"]) == {"rounding16", ""}  # the reference has none
    asked = results[results["defense"] == "rounding16"]
    infer = asked[asked["scope"] == "infer"].astype({"mse": float, "edge_error": float})
    by_attack = infer.groupby("attack")[["mse", "edge_error"]].mean()
    assert set(by_attack.index) == {"mean_image", "linear", "neighbours"}
    assert by_attack.loc["neighbours", "mse"] < by_attack.loc["mean_image", "mse"]
    assert by_attack.loc["neighbours", "edge_error"] < by_attack.loc["mean_image", "edge_error"]
    page = (work / "results/example/report.html").read_text(encoding="utf-8")
    assert "edge_error: a lower value says that the reconstruction is closer." in page
    assert "batch_variance-w0.1" in page
    assert "neighbours" in page


@pytest.mark.parametrize(
    ("written", "misspelt", "meant"),
    [
        ("kind: rounding", "kind: roundin", "rounding"),
        ("kind: neighbours", "kind: neighbors", "neighbours"),
        ("kind: batch_variance", "kind: batch_varianc", "batch_variance"),
        ("arch: two_convolutions", "arch: two_convolution", "two_convolutions"),
        ("source: discs", "source: disks", "discs"),
        ("kind: edge_error", "kind: edge_eror", "edge_error"),
    ],
)
def test_a_misspelt_kind_is_answered_with_the_right_one(site, work, written, misspelt, meant):
    study = work / "study.yaml"
    study.write_text(study.read_text().replace(written, misspelt))
    done = run(work, site, "cem.cli", "validate", "study.yaml")
    assert done.returncode == 2
    assert f"did you mean '{meant}'?" in done.stderr


def known(family: Family[Any]) -> str:
    return ", ".join(map(repr, family.members))


def test_without_its_package_a_kind_is_unknown_and_the_known_ones_are_named(site, work):
    assert run(work, site, "cem.cli", "validate", "study.yaml").returncode == 0
    done = run(work, work / "nothing", "cem.cli", "validate", "study.yaml")
    assert done.returncode == 2
    assert f"surrogates.1: expected one of {known(SURROGATES)}; found 'batch_variance'" in done.stderr
    assert f"defenses.0: expected one of {known(DEFENSES)}; found 'rounding'" in done.stderr
    assert f"model: expected one of {known(MODELS)}; found 'two_convolutions'" in done.stderr
