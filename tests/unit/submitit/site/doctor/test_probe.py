"""The probe asks for what jobs ask for, waits within bounds, and is weighed. Its node is this host."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.cluster.resources import make_request
from snakemake_executor_plugin_submitit.cluster.send import send_to_slurm
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.node.command import Command
from snakemake_executor_plugin_submitit.site import doctor
from snakemake_executor_plugin_submitit.site.doctor import choose_target
from snakemake_executor_plugin_submitit.site.doctor import probe as probing
from snakemake_executor_plugin_submitit.site.doctor.node import main as run_on_node
from snakemake_executor_plugin_submitit.site.doctor.probe import Target, read_report, script
from snakemake_executor_plugin_submitit.site.doctor.slurm import read_site
from snakemake_executor_plugin_submitit.site.program import Program

PROGRAM = Program("cem", setup="make .venv/ready")

FIRST = {
    "node": "n1", "python": "3.11.7", "gpus": ["0"], "token": "t",
    "locked": True, "torch": "2", "cuda": True, "time": 0.0,
}  # fmt: skip


def test_the_probe_goes_where_the_jobs_with_gpus_go(cluster) -> None:
    site = read_site()
    assert site is not None
    chosen = [
        choose_target(site, settings, given)
        for settings, given in (({}, ""), ({"gpu-partition": "gpu", "partition": "cpu"}, ""), ({}, "gpu"))
    ]
    assert [(one.partition, one.gpu) for one in chosen] == [("cpu", False), ("gpu", True), ("gpu", True)]


def test_the_probe_is_asked_for_with_the_options_of_a_job(cluster, tmp_path, programs, enter, make_task) -> None:
    site = {
        "account": "a",
        "gres": "gpu:a100:{gpus}",
        "wckey": "w",
        "setup": "module load x",
        "python": "apptainer exec c python",
    }
    text = script(tmp_path / "$(date) it's", Target("gpu", True, site), PROGRAM)
    said = {"--partition=gpu", "--account=a", "--wckey=w", "--export=ALL", "--gres=gpu:a100:1"}
    assert said <= set(text.replace("#SBATCH ", "").splitlines())
    assert re.search(r"(?m)^srun --unbuffered .* apptainer exec c python -u -m " + run_on_node.__module__, text)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    settings = ExecutorSettings(**site)
    request = make_request("train", {"gpu": 1, "slurm_partition": "gpu", "mem_mb": 2000, "runtime": 10}, 1, settings)
    submission = enter(make_task(), job_id=None, whole=False)
    programs("sbatch", "echo 7")
    send_to_slurm(submission, [Command("true", "/", "/events", 10)], request, settings)
    assert _options((submission.folder / "batch.sh").read_text()) == _options(text)
    assert "gpus" not in script(tmp_path, Target("cpu", False, {}), PROGRAM)
    assert "gpus-per-node=1" in script(tmp_path, Target("gpu", True, {}), PROGRAM)


def _options(text: str) -> list[str]:
    """What is asked of sbatch, without the names of files and jobs."""
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    return [line for line in lines if not re.search("--(output|job-name|comment)=", line)]


NODE = """
for last; do :; done
export SLURMD_NODENAME=n1 CUDA_VISIBLE_DEVICES=0
folder=${last%/*}
echo 7
srun() { shift 4; exec "$@"; }
(. "$last" >"$folder/7_0_log.out" 2>&1 & echo $! >"PID")
"""


@pytest.fixture
def node(cluster, tmp_path, monkeypatch):
    """sbatch starts the job's script here, scancel signals it, squeue says that it runs."""
    monkeypatch.setenv("PYTHONPATH", str(Path(doctor.__file__).parents[3]))
    cluster.program("sbatch", NODE.replace("PID", f"{tmp_path}/pid"))
    cluster.program("squeue", 'echo "RUNNING|None"')
    cluster.program("scancel", f'[ "$1" = --signal=USR2 ] && kill -USR2 $(cat {tmp_path}/pid) || true')
    return cluster


def test_the_probe_reports_from_its_node(node, quick, no_slurm, levels, of) -> None:
    found = list(doctor.examine(PROGRAM, partition="gpu", wait_s=20.0))
    assert "ran on n1, GPU 0" in of(found, "probe")
    assert levels(found)["folder there"] == levels(found)["locks there"] == levels(found)["signal"] == "ok"
    assert "scancel 7" in node.asked
    assert list(no_slurm.iterdir()) == []


def test_a_probe_that_stays_pending_is_taken_back_with_its_reason(node, quick, levels, of) -> None:
    node.program("sbatch", "echo 7")
    expected = {"Priority": "warning", "QOSMaxJobsPerUserLimit": "warning", "PartitionTimeLimit": "problem"}
    for reason, level in expected.items():
        node.program("squeue", f'echo "PENDING|{reason}"')
        found = list(doctor.examine(PROGRAM, partition="gpu", wait_s=0.1))
        assert levels(found)["probe"] == level
        assert f"reason: {reason}" in of(found, "probe")
        assert ("Lower runtime" in of(found, "probe")) == (level == "problem")
        assert node.asked[-1] == "scancel 7"


def test_a_probe_that_is_refused_tells_what_sbatch_said(node, quick, levels, of) -> None:
    node.program("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    found = list(doctor.examine(PROGRAM, wait_s=1.0))
    assert levels(found)["probe"] == "problem"
    assert "Invalid account" in of(found, "probe")


def test_a_limit_on_submitted_jobs_is_no_problem(node, quick, levels, of) -> None:
    node.program("sbatch", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1")
    found = list(doctor.examine(PROGRAM, wait_s=1.0))
    assert levels(found)["probe"] == "warning"
    assert "a limit on submitted jobs is reached (AssocMaxSubmitJobLimit)" in of(found, "probe")


def test_a_probe_that_leaves_nothing_means_another_folder(node, quick, monkeypatch, of) -> None:
    monkeypatch.setattr(probing, "_LATE_S", 0.1)
    node.program("sbatch", "echo 7")
    node.program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert "nodes do not see this folder" in of(list(doctor.examine(PROGRAM, wait_s=1.0)), "probe")


def test_a_probe_whose_python_fails_shows_its_log(node, quick, of) -> None:
    node.program("sbatch", 'for last; do :; done; echo "no such module" >"${last%/*}/7_0_log.out"; echo 7')
    node.program("squeue", "")
    text = of(list(doctor.examine(PROGRAM, wait_s=1.0)), "probe")
    assert "no such module" in text
    assert "submitit-setup" in text


@pytest.mark.parametrize(
    ("change", "subject", "level"),
    [
        ({}, "torch there", "ok"),
        ({"gpus": []}, "gpu there", "problem"),
        ({"token": "other"}, "folder there", "problem"),
        ({"locked": False}, "locks there", "warning"),
        ({"locked": "No locks available"}, "locks there", "warning"),
        ({"cuda": False}, "torch there", "warning"),
        ({"torch_error": "ImportError: libcuda"}, "torch there", "problem"),
        ({"time": -900.0}, "clocks", "warning"),
    ],
)
def test_a_report_is_weighed(change, subject, level, levels) -> None:
    assert levels(read_report(FIRST | change, "t", Target("gpu", True, {}), now=1.0))[subject] == level


def test_the_program_on_the_node_waits_for_the_signal(tmp_path, monkeypatch) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    before = signal.getsignal(signal.SIGUSR2)
    try:
        run_on_node(tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    first = json.loads((tmp_path / "first.json").read_text())
    assert (first["token"], first["locked"]) == ("t", False)
    assert abs(first["time"] - time.time()) < 60
    assert json.loads((tmp_path / "last.json").read_text()) == {"signal": True}


def test_the_advice_names_the_program_that_asks(node, quick) -> None:
    node.program("sbatch", "echo 7")
    node.program("squeue", 'echo "PENDING|Priority"')
    text = "\n".join(map(str, doctor.examine(Program("mine", setup="make it"), wait_s=0.1)))
    assert "mine profile install slurm" in text
    assert "mine doctor --wait 1800" in text
    assert "cem" not in text


@pytest.mark.parametrize(
    ("setup", "level", "said"),
    [
        ("true\nmodule load cuda/99\ntrue", "problem", "module load cuda/99 (exit code 127)"),
        ("echo 'ERROR:105: Unable to locate a modulefile' >&2", "warning", "ERROR:105"),
        ("export A=1; echo loaded", "ok", ""),
        ("exit 3", "problem", ""),
    ],
)
def test_a_setup_that_fails_is_shown_though_jobs_go_on_after_it(
    node, quick, monkeypatch, levels, of, setup, level, said
) -> None:
    if setup == "exit 3":
        node.program("squeue", "")
    profile = {"setup": setup}
    monkeypatch.setattr(doctor, "read_profile", lambda *_: (profile, doctor.Finding("ok", "profile", "")))
    found = list(doctor.examine(PROGRAM, partition="gpu", wait_s=20.0))
    assert levels(found)["probe" if setup == "exit 3" else "setup there"] == level
    assert said in of(found, "setup there")
