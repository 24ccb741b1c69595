"""The doctor says what a site lacks. SLURM is played by small programs on PATH; the probe's node is this host."""

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cem import doctor
from cem.doctor import Finding, choose_target, place, software
from cem.doctor import probe as probing
from cem.doctor.finding import ask
from cem.doctor.node import main as run_on_node
from cem.doctor.probe import Target, command, read_report, script
from cem.doctor.slurm import check_slurm, read_site

CONFIG = {
    "SLURM_VERSION": "23.11.4",
    "MaxArraySize": "1001",
    "JobRequeue": "1",
    "PreemptMode": "OFF",
    "PreemptType": "preempt/none",
    "SelectType": "select/cons_tres",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageEnforce": "associations,limits",
}
PARTITIONS = """\
cpu*|up|1-00:00:00|4|(null)
gpu|up|2:00:00|2|gpu:a100:4(S:0-1)
gpu|up|2:00:00|1|gpu:v100:2
old|drain|1:00|1|(null)"""
FIRST = {
    "node": "n1", "python": "3.11.7", "gpus": ["0"], "token": "t",
    "locked": True, "torch": "2", "cuda": True, "time": 0.0,
}  # fmt: skip


class Cluster:
    """A folder of programs that answer as SLURM does; everything they were asked is in `asked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.program("sinfo", f'[ "$1" = --version ] && echo slurm 23.11.4 || cat <<"END"\n{PARTITIONS}\nEND')
        self.config()
        for name in ("squeue", "scancel", "sacct", "sbatch"):
            self.program(name, "")
        self.program("sacctmgr", "echo 'lab_1|normal,long'")

    def program(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.folder}/asked"\n{body}\n')
        path.chmod(0o755)

    def config(self, **changes: str) -> None:
        lines = "\n".join(f"{key:<24}= {value}" for key, value in (CONFIG | changes).items())
        self.program("scontrol", f'cat <<"END"\nConfiguration data as of now\n{lines}\nEND')

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def no_slurm(tmp_path, monkeypatch) -> Path:
    """A PATH with nothing but a shell, and a working folder whose name is hostile."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "sleep"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    work = tmp_path / """it's "my" $(work)"""
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def cluster(no_slurm, tmp_path, monkeypatch) -> Cluster:
    made = Cluster(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.fixture
def quick(monkeypatch):
    """Without the checks of this host's software, which take seconds."""
    monkeypatch.setattr(doctor, "check_software", lambda: iter(()))


def levels(findings) -> dict[str, str]:
    """Subject → worst level."""
    order = ("ok", "warning", "problem")
    found: dict[str, str] = {}
    for one in findings:
        found[one.subject] = max(found.get(one.subject, "ok"), one.level, key=order.index)
    return found


def of(findings, subject: str) -> str:
    return "\n".join(str(one) for one in findings if one.subject == subject)


def site_findings(partition: str = "") -> list[Finding]:
    return list(check_slurm(read_site(), partition))


def test_a_host_without_slurm_is_told_so_and_is_no_problem(no_slurm, quick) -> None:
    found = list(doctor.examine())
    assert "no command of SLURM on PATH" in of(found, "slurm")
    assert "problem" not in levels(found).values()


def test_a_good_site_has_no_warning(cluster) -> None:
    found = site_findings("gpu")
    assert set(levels(found).values()) == {"ok"}
    assert "23.11.4" in of(found, "slurm")
    assert "cpu (default): limit 1-00:00:00, 4 node(s), no GPUs" in of(found, "partition")
    assert "gpu: limit 2:00:00, 3 node(s), GPUs gpu:a100:4, gpu:v100:2" in of(found, "partition")
    assert "gpu:a100:{gpus} or gpu:v100:{gpus}" in of(found, "gpus")
    assert "up to 1000 jobs" in of(found, "arrays")
    assert "lab_1; QoS long, normal" in of(found, "accounts")


@pytest.mark.parametrize(
    ("changes", "subject", "level", "words"),
    [
        ({"MaxArraySize": "0"}, "arrays", "warning", "one by one"),
        ({"JobRequeue": "0"}, "requeue", "ok", "--requeue"),
        ({"PreemptType": "preempt/qos", "PreemptMode": "CANCEL"}, "preemption", "warning", "submitit-retries"),
        ({"PreemptType": "preempt/qos", "PreemptMode": "REQUEUE"}, "preemption", "ok", "SIGTERM"),
        (
            {
                "PreemptType": "preempt/qos",
                "PreemptMode": "GANG,REQUEUE",
                "SlurmctldParameters": "preempt_send_user_signal",
            },
            "preemption",
            "ok",
            "SIGUSR2",
        ),
        ({"SelectType": "select/linear"}, "gpus", "warning", "submitit-gres: gpu:a100:{gpus}"),
        ({"AccountingStorageType": "(null)"}, "accounting", "ok", "jobs' own"),
    ],
)
def test_what_the_controller_says_is_weighed(cluster, changes, subject, level, words) -> None:
    cluster.config(**changes)
    found = site_findings()
    assert levels(found)[subject] == level
    assert words in of(found, subject)


def test_a_partition_that_is_not_there_is_named_with_the_choices(cluster) -> None:
    found = site_findings("gpus")
    assert levels(found)["partition"] == "problem"
    assert "expected one of cpu, gpu, old, got 'gpus'" in of(found, "partition")
    assert levels(site_findings("old"))["partition"] == "problem"  # not up


def test_a_silent_controller_is_a_problem(cluster) -> None:
    cluster.program("scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    found = site_findings()
    assert levels(found)["slurm"] == "problem"
    assert "Unable to contact slurm controller" in of(found, "slurm")


def test_a_missing_command_is_named(cluster) -> None:
    cluster.remove("sbatch")
    assert "sbatch" in of(site_findings(), "slurm")
    assert levels(site_findings())["slurm"] == "problem"


def test_accounting_that_does_not_answer_is_a_warning(cluster) -> None:
    cluster.program("sacct", "echo 'Unable to connect' >&2; exit 1")
    assert levels(site_findings())["accounting"] == "warning"
    cluster.remove("sacct")
    assert "no command sacct" in of(site_findings(), "accounting")


def test_no_account_where_one_is_needed_is_a_problem(cluster) -> None:
    cluster.program("sacctmgr", "")
    assert levels(site_findings())["accounts"] == "problem"
    cluster.config(AccountingStorageEnforce="none")
    assert levels(site_findings())["accounts"] == "ok"


def test_a_surrounding_job_is_not_handed_on(cluster, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "conf")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    program = "import os; print([k for k in os.environ if k.startswith(('SLURM', 'SBATCH'))])"
    assert ask(sys.executable, "-c", program).out == "['SLURM_CONF']\n"


def test_a_command_that_hangs_or_is_not_there_is_an_answer(cluster) -> None:
    cluster.program("squeue", "exec sleep 20")
    assert ask("squeue", timeout_s=0.3).code == 124
    assert ask("no-such-command").code == 127


def test_a_folder_is_tried(no_slurm) -> None:
    found = list(place.check_place(no_slurm, shared_matters=False, probed=False))
    assert set(levels(found)) == {"path", "file system", "locks", "rename", "hdf5"}
    assert set(levels(found).values()) == {"ok"}
    assert list(no_slurm.iterdir()) == []


def test_a_percent_sign_in_the_path_is_a_problem(tmp_path, cluster, quick, monkeypatch) -> None:
    folder = tmp_path / "100%j"
    folder.mkdir()
    monkeypatch.chdir(folder)
    found = list(doctor.examine())
    assert levels(found)["path"] == "problem"
    assert not any(line.startswith("sbatch") for line in cluster.asked)


def test_a_file_system_of_one_host_is_a_warning_unless_a_node_is_asked(no_slurm, monkeypatch) -> None:
    for kind, probed, level in (("ext4", False, "warning"), ("ext4", True, "ok"), ("nfs4", False, "ok")):
        monkeypatch.setattr(place, "file_system", lambda folder, kind=kind: kind)
        assert levels(place.check_place(no_slurm, shared_matters=True, probed=probed))["file system"] == level


def test_locks_that_do_not_work_are_a_warning(no_slurm, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = list(place.check_place(no_slurm, shared_matters=True, probed=True))
    assert levels(found)["locks"] == "warning"
    assert "No locks available" in of(found, "locks")


def test_the_profile_in_use_is_told(no_slurm) -> None:
    settings, found = software.read_profile("slurm")
    assert (settings, found.level) == ({}, "warning")
    doctor.software.profiles.install("slurm", {"account": "lab_1"})
    settings, found = software.read_profile("slurm")
    assert (settings, found.level) == ({"account": "lab_1"}, "ok")


def test_the_probe_goes_where_the_jobs_with_gpus_go(cluster) -> None:
    site = read_site()
    assert site is not None
    chosen = [
        choose_target(site, settings, given)
        for settings, given in (({}, ""), ({"gpu-partition": "gpu", "partition": "cpu"}, ""), ({}, "gpu"))
    ]
    assert [(one.partition, one.gpu) for one in chosen] == [("cpu", False), ("gpu", True), ("gpu", True)]


def test_the_probe_is_asked_for_as_the_jobs_are(tmp_path) -> None:
    settings = {
        "account": "a",
        "gres": "gpu:a100:{gpus}",
        "setup": "module load x",
        "python": "apptainer exec c python",
    }
    words = command(tmp_path, tmp_path / "it's", Target("gpu", True, settings))
    assert {"--partition=gpu", "--account=a", "--gres=gpu:a100:1", "--no-requeue"} <= set(words)
    assert words[-1] == str(tmp_path / "it's/job.sh")
    assert "--gpus-per-node=1" in command(tmp_path, tmp_path, Target("gpu", True, {}))
    assert not [word for word in command(tmp_path, tmp_path, Target("cpu", False, settings)) if "gres" in word]
    text = script(tmp_path / "$(date) it's", Target("gpu", True, settings))
    assert "module load x\nsrun --unbuffered apptainer exec c python -m cem.doctor.node '" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


NODE = """
for last; do :; done
export SLURMD_NODENAME=n1 CUDA_VISIBLE_DEVICES=0
folder=${last%/*}
echo 7
srun() { shift; exec "$@"; }
(. "$last" >"$folder/log" 2>&1 & echo $! >"PID")
"""


@pytest.fixture
def node(cluster, tmp_path, monkeypatch):
    """sbatch starts the job's script here, scancel signals it, squeue says that it runs."""
    monkeypatch.setenv("PYTHONPATH", str(Path(doctor.__file__).parents[2]))
    cluster.program("sbatch", NODE.replace("PID", f"{tmp_path}/pid"))
    cluster.program("squeue", 'echo "RUNNING|None"')
    cluster.program("scancel", f'[ "$1" = --signal=USR2 ] && kill -USR2 $(cat {tmp_path}/pid) || true')
    return cluster


def test_the_probe_reports_from_its_node(node, quick, no_slurm) -> None:
    found = list(doctor.examine(partition="gpu", wait_s=20.0))
    assert "ran on n1, GPU 0" in of(found, "probe")
    assert levels(found)["folder there"] == levels(found)["locks there"] == levels(found)["signal"] == "ok"
    assert "scancel 7" in node.asked
    assert list(no_slurm.iterdir()) == []


def test_a_probe_that_stays_pending_is_taken_back_with_its_reason(node, quick) -> None:
    node.program("sbatch", "echo 7")
    for reason, level in (("Priority", "warning"), ("PartitionTimeLimit", "problem")):
        node.program("squeue", f'echo "PENDING|{reason}"')
        found = list(doctor.examine(partition="gpu", wait_s=0.1))
        assert levels(found)["probe"] == level
        assert f"reason: {reason}" in of(found, "probe")
        assert node.asked[-1] == "scancel 7"


def test_a_probe_that_is_refused_tells_what_sbatch_said(node, quick) -> None:
    node.program("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    found = list(doctor.examine(wait_s=1.0))
    assert levels(found)["probe"] == "problem"
    assert "Invalid account" in of(found, "probe")


def test_a_probe_that_leaves_nothing_means_another_folder(node, quick, monkeypatch) -> None:
    monkeypatch.setattr(probing, "_LATE_S", 0.1)
    node.program("sbatch", "echo 7")
    node.program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert "nodes do not see this folder" in of(list(doctor.examine(wait_s=1.0)), "probe")


def test_a_probe_whose_python_fails_shows_its_log(node, quick) -> None:
    node.program("sbatch", 'for last; do :; done; echo "no such module" >"${last%/*}/log"; echo 7')
    node.program("squeue", "")
    text = of(list(doctor.examine(wait_s=1.0)), "probe")
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
def test_a_report_is_weighed(change, subject, level) -> None:
    assert levels(read_report(FIRST | change, "t", Target("gpu", True, {}), now=1.0))[subject] == level


def test_the_program_on_the_node_waits_for_the_signal(tmp_path, monkeypatch) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr("cem.doctor.node.time.sleep", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    before = signal.getsignal(signal.SIGUSR2)
    try:
        run_on_node(tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    first = json.loads((tmp_path / "first.json").read_text())
    assert (first["token"], first["locked"]) == ("t", False)
    assert abs(first["time"] - time.time()) < 60
    assert json.loads((tmp_path / "last.json").read_text()) == {"signal": True}


def test_a_finding_is_a_line_and_its_advice() -> None:
    assert str(Finding("ok", "a", "b")) == "ok       a: b"
    assert str(Finding("problem", "a", "b", "c")) == "problem  a: b\n         c"
    assert dataclasses.is_dataclass(Finding)
