"""The real Snakefile, on a study small enough to run in a minute."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STUDY = {
    "name": "tiny",
    "dataset": {"source": "synthetic", "images": 400, "classes": 4, "channels": 1},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1"},
    "training": {"epochs": 3, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02},
    "attacks": [
        {"kind": "mean_image"},
        {"kind": "linear"},
        {"kind": "nearest"},
        {"kind": "decoder", "net": "res_normN0C4", "epochs": 1, "batch_size": 32},
    ],
    "runs": [{"surrogate": {"kind": "gmm", "weight": 0.5}}, {"surrogate": {"kind": "attention", "slots": 2}}],
    "report": {"images": 2, "map_samples": 20},
}


def snakemake(folder: Path, *arguments: str) -> str:
    """What Snakemake prints. Fails with it when it ends with an error."""
    # As `make study` has it: Python's own path lies below the study's folder, whatever that is called.
    environment_folder = folder / ".venv"
    if not environment_folder.exists():
        environment_folder.symlink_to(sys.prefix, target_is_directory=True)
    python = str(environment_folder / "bin/python")
    command = [python, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    text = done.stdout + done.stderr
    if done.returncode:
        logs = "\n".join(path.read_text() for path in folder.glob("logs/**/*.log"))
        pytest.fail(f"{text}\n{logs}")
    return text


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Rule → how many jobs a dry run counts."""
    lines = snakemake(folder, "--dry-run", "--quiet", "host", *arguments).splitlines()
    counts = [line.split() for line in lines]
    return {
        words[0]: int(words[1])
        for words in counts
        if len(words) == 2 and words[0].isidentifier() and words[1].isdigit()
    }


def write_study(folder: Path, study: dict) -> None:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(study))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished study, in a folder whose name holds a space and quotes."""
    folder = tmp_path_factory.mktemp("""it's "my" study""")
    write_study(folder, STUDY)
    snakemake(folder)
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of the finished study, times included, for a test to change."""
    return Path(shutil.copytree(done, tmp_path / "copy", symlinks=True, copy_function=shutil.copy2))


def test_results_hold_every_run_attack_and_scope(done) -> None:
    results = pd.read_csv(done / "results/tiny/results.csv")
    assert len(results) == (3 + 1) * 4 * 2
    assert set(results.surrogate.fillna("none")) == {"none", "gmm", "attention"}
    assert results.mse.between(0, 1).all()
    assert (done / "results/tiny/report.html").stat().st_size > 10_000
    assert not list((done / "results").glob(".state/*/state.safetensors"))


def test_the_learning_rate_found_on_the_reference_is_that_of_all(done) -> None:
    found = [
        json.loads(path.read_text()) for path in done.glob("results/tiny/runs/*/*/*/*/attacks/decoder/attack.json")
    ]
    (tuned,) = [about for about in found if "tried" in about["choices"]]
    tried = tuned["choices"]["tried"]
    best = min(tried, key=lambda name: (-tried[name]["epochs"], tried[name]["val_mse"]))  # of those that came furthest
    assert len(found) == 4
    assert {f"lr {about['choices']['lr']:g}" for about in found} == {best}
    assert {f"lr {about['settings']['lr']:g}" for about in found if about is not tuned} == {best}


def test_nothing_is_left_to_do(done) -> None:
    assert planned(done) == {}


def test_scripts_that_are_newer_rerun_nothing_under_the_profiles(copy) -> None:
    """As after an upgrade, which would otherwise cost a study all its training."""
    shutil.copytree(ROOT / "workflow", copy / "workflow", copy_function=shutil.copy)
    shutil.copy(ROOT / "Snakefile", copy)
    newer = ("--snakefile", "Snakefile")
    assert planned(copy, *newer)["train"] == 3 + 1
    for name in ("local", "slurm"):
        profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        assert planned(copy, *newer, "--rerun-triggers", *profile["rerun-triggers"]) == {}


@pytest.mark.parametrize("edited", [0, 1], ids=["first", "last"])
def test_an_edited_weight_reruns_that_run_alone_and_leaves_an_orphan(copy, edited) -> None:
    runs = [dict(run) for run in STUDY["runs"]]
    runs[edited] = {"surrogate": runs[edited]["surrogate"] | {"weight": 0.25}}
    write_study(copy, {**STUDY, "runs": runs})
    jobs = planned(copy)
    once = ("train", "extract_activations", "fit_mixture", "baseline_attacks", "attack", "aggregate", "report")
    assert {name: jobs.get(name) for name in once} == dict.fromkeys(once, 1)
    assert "warm_up" not in jobs
    status = subprocess.run([sys.executable, "-m", "cem.cli", "status"], cwd=copy, capture_output=True, text=True)
    orphans = [line for line in status.stdout.splitlines() if line.startswith("orphan")]
    assert len(orphans) == 1
    assert ("gmm-bound-w0.5", "attention-mixture-w0.1")[edited] in orphans[0]


def test_an_edited_attack_trains_nothing(copy) -> None:
    attacks = [*STUDY["attacks"][:3], {**STUDY["attacks"][3], "epochs": 2}]
    write_study(copy, {**STUDY, "attacks": attacks})
    jobs = planned(copy)
    assert jobs.get("attack") == 4
    assert not {"train", "warm_up", "extract_activations", "baseline_attacks"} & set(jobs)


def test_one_deleted_output_reruns_what_hangs_on_it_alone(copy) -> None:
    next(copy.glob("results/tiny/runs/*/noise0.025/none/*/attacks/decoder/metrics.parquet")).unlink()
    assert planned(copy)["attack"] == 1
    assert {name for name in planned(copy) if name not in ("total", "all")} == {"attack", "aggregate", "report"}


def test_the_profile_for_slurm_plans_without_slurm(tmp_path) -> None:
    write_study(tmp_path, STUDY)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(tmp_path / "bin")}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--dry-run",
        "--quiet",
        "host",
    ]
    command += ["--profile", str(ROOT / "profiles/slurm")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert "baseline_attacks" in done.stdout + done.stderr


def test_a_folder_with_a_quote_works_through_the_executor(tmp_path, monkeypatch) -> None:
    folder = tmp_path / """it's "my" study"""
    folder.mkdir()
    write_study(folder, STUDY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    snakemake(folder, "--executor", "submitit", "--submitit-cluster", "local", "--submitit-poll", "0.5", "--jobs", "1",
              "--until", "warm_up")  # fmt: skip
    assert len(list(folder.glob("results/tiny/warmup/**/model.safetensors"))) == 2


def test_a_folder_whose_name_a_shell_would_run_is_refused(tmp_path) -> None:
    folder = tmp_path / "$(touch pwned)"
    folder.mkdir()
    write_study(folder, STUDY)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Expected a working folder whose path has no $" in done.stdout + done.stderr
    assert not list(tmp_path.glob("**/pwned"))


def test_a_bad_study_stops_before_any_job(tmp_path) -> None:
    write_study(tmp_path, {**STUDY, "noise_sd": 1})
    assert "did you mean 'noise_std'?" in refused(tmp_path)


def test_a_key_given_twice_is_refused_in_any_file_that_snakemake_reads(tmp_path) -> None:
    """It would take the last of the two without a word."""
    write_study(tmp_path, STUDY)
    default = tmp_path / "config/config.yaml"
    text = default.read_text()
    (tmp_path / "more.yaml").write_text("noise_std: 0.1\nseeds: [1]\nnoise_std: 0.2\n")
    message = "given twice: noise_std (lines 1 and 3)"
    assert f"more.yaml: {message}" in refused(tmp_path, "--configfile", str(default), "more.yaml")
    default.write_text(f"noise_std: 0.1\n{text}noise_std: 0.2\n")
    assert "config.yaml: given twice: noise_std (lines 1 and " in refused(tmp_path)


def test_numbers_on_the_command_line_are_numbers(tmp_path) -> None:
    """Snakemake hands them on as texts."""
    write_study(tmp_path, STUDY)
    changes = ["training={epochs: 5, lr: 1e-3, max_grad_norm: null}", "seeds=[3, 4]"]
    assert planned(tmp_path, "--config", *changes)["train"] == 2 * (3 + 1)
    assert "training.epochs: input should be a valid integer; found 2.5" in refused(
        tmp_path, "--config", "training={epochs: 2.5}"
    )


def refused(folder: Path, *arguments: str) -> str:
    """What Snakemake prints when it stops before any job."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert not (folder / "results").exists()
    return done.stdout + done.stderr


def test_the_same_study_twice_gives_the_same_bytes(done, tmp_path) -> None:
    """Of the run under the mixture, and what it rests on: warm-ups, mixtures, the reference that tunes its attack."""
    (run,) = done.glob("results/tiny/runs/*/*/gmm-*/*")
    write_study(tmp_path, STUDY)
    snakemake(tmp_path, *(str(path.relative_to(done)) for path in run.glob("attacks/*/metrics.parquet")))
    made = [*tmp_path.glob("results/**/model.safetensors"), *tmp_path.glob("results/**/metrics.parquet")]
    assert len(made) == 2 + 2 + 4 + 1
    for path in made:
        assert path.read_bytes() == (done / path.relative_to(tmp_path)).read_bytes(), path
