"""The doctor says what a site lacks. SLURM is played by small programs on PATH; the probe's node is this host."""

import dataclasses
import fcntl
import sys

import pytest

from snakemake_executor_plugin_submitit.cluster.slurm import Answer, ask
from snakemake_executor_plugin_submitit.site import doctor
from snakemake_executor_plugin_submitit.site.doctor import Finding, place, software
from snakemake_executor_plugin_submitit.site.doctor.slurm import check_gpus, check_slurm, read_site
from snakemake_executor_plugin_submitit.site.program import Program

PROGRAM = Program("cem", setup="make .venv/ready")


def site_findings(partition: str = "", **settings: str) -> list[Finding]:
    site = read_site()
    gpus = check_gpus(site, "gpu", False, PROGRAM) if site and site.partitions else ()
    return [*check_slurm(site, partition, settings), *gpus]


def test_a_host_without_slurm_is_told_so_and_is_no_problem(no_slurm, quick, levels, of) -> None:
    found = list(doctor.examine(PROGRAM))
    assert "no command of SLURM on PATH" in of(found, "slurm")
    assert "problem" not in levels(found).values()


def test_a_good_site_has_no_warning(cluster, levels, of) -> None:
    found = site_findings("gpu")
    assert set(levels(found).values()) == {"ok"}
    assert "23.11.4" in of(found, "slurm")
    assert "cpu (default): limit 1-00:00:00, 4 node(s), no GPUs" in of(found, "partition")
    assert "gpu: limit 2:00:00, 3 node(s), GPUs gpu:a100:4, gpu:v100:2" in of(found, "partition")
    assert "gpu:a100:{gpus} or gpu:v100:{gpus}" in of(found, "gpus")
    assert "up to 1000 jobs" in of(found, "arrays")
    assert "lab_1; QoS long, normal" in of(found, "accounts")
    assert "5 (QoS normal) jobs at once" in of(found, "submit limit")


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
def test_what_the_controller_says_is_weighed(cluster, changes, subject, level, words, levels, of) -> None:
    cluster.config(**changes)
    found = site_findings()
    assert levels(found)[subject] == level
    assert words in of(found, subject)


def test_a_partition_that_is_not_there_is_named_with_the_choices(cluster, levels, of) -> None:
    found = site_findings("gpus")
    assert levels(found)["partition"] == "problem"
    assert "expected one of cpu, gpu, old, got 'gpus'" in of(found, "partition")
    assert levels(site_findings("old"))["partition"] == "problem"  # not up
    assert "got 'gpus'" in of(site_findings("cpu,gpus"), "partition")
    assert "got" not in of(site_findings("cpu,gpu"), "partition")


def test_a_silent_controller_is_a_problem(cluster, levels, of) -> None:
    cluster.program("scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    found = site_findings()
    assert levels(found)["slurm"] == "problem"
    assert "Unable to contact slurm controller" in of(found, "slurm")


def test_a_missing_command_is_named(cluster, levels, of) -> None:
    cluster.remove("sbatch")
    assert "sbatch" in of(site_findings(), "slurm")
    assert levels(site_findings())["slurm"] == "problem"


def test_accounting_that_does_not_answer_is_a_warning(cluster, levels, of) -> None:
    cluster.program("sacct", "echo 'Unable to connect' >&2; exit 1")
    assert levels(site_findings())["accounting"] == "warning"
    cluster.remove("sacct")
    assert "no command sacct" in of(site_findings(), "accounting")


def test_no_account_where_one_is_needed_is_a_problem(cluster, levels) -> None:
    cluster.program("sacctmgr", "")
    assert levels(site_findings())["accounts"] == "problem"
    cluster.config(AccountingStorageEnforce="none")
    assert levels(site_findings())["accounts"] == "ok"


def test_limits_on_submitted_jobs_are_told(cluster, of) -> None:
    cluster.program("sacctmgr", "[ $4 = qos ] && printf 'a|3\nb|9\n' || printf '|a,b|\nlab|a,b|5\nother|a|7\n'")
    assert "3 (QoS a), 9 (QoS b), 5 (account lab), 7 (account other)" in of(site_findings(), "submit limit")
    assert "9 (QoS b), 5 (account lab) jobs" in of(site_findings(account="lab", qos="b"), "submit limit")
    cluster.config(AccountingStorageEnforce="associations")
    assert of(site_findings(), "submit limit") == ""


def test_an_account_that_one_has_not_is_a_problem_where_it_matters(cluster, levels, of) -> None:
    found = site_findings(account="lab_2")
    assert levels(found)["accounts"] == "problem"
    assert "expected one of lab_1, got 'lab_2'" in of(found, "accounts")
    cluster.config(AccountingStorageEnforce="none")
    assert levels(site_findings(account="lab_2"))["accounts"] == "ok"


def test_wckeys_are_told_where_they_are_enforced(cluster, of) -> None:
    assert of(site_findings(), "wckeys") == ""
    cluster.config(AccountingStorageEnforce="associations,limits,qos,wckeys")
    assert "jobs carry none but your default one" in of(site_findings(), "wckeys")
    assert "jobs carry 'lab'" in of(site_findings(wckey="lab"), "wckeys")


def test_variables_of_slurm_are_told_as_the_head_tells_them(cluster, quick, monkeypatch, of) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    cluster.program("sbatch", 'cat "${@: -1}" >&2; exit 1')
    found = list(doctor.examine(PROGRAM))
    assert "jobs that name no partition get 'gpu', from SBATCH_PARTITION" in of(found, "environment")
    assert "not used: SLURM_CLUSTERS" in of(found, "environment")
    assert "#SBATCH --partition=gpu;" in of(found, "probe")


def test_a_surrounding_job_is_not_handed_on(cluster, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "conf")
    monkeypatch.setenv("SLURM_JWT", "token")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    program = "import os; print(sorted(k for k in os.environ if k.startswith(('SLURM', 'SBATCH'))))"
    assert ask(sys.executable, "-c", program).out == "['SLURM_CONF', 'SLURM_JWT', 'SLURM_TIME_FORMAT']\n"


def test_a_command_that_hangs_or_is_not_there_is_an_answer(cluster) -> None:
    cluster.program("squeue", "exec sleep 20")
    assert ask("squeue", timeout_s=0.3).code == 124
    assert ask("no-such-command").code == 127


def own_check(scratch):
    (scratch / "file").touch()
    yield Finding("ok", "own", "written")


def test_a_folder_is_tried(no_slurm, levels) -> None:
    found = list(place.check_place(no_slurm, shared_matters=False, probed=False, program=PROGRAM, more=own_check))
    assert list(levels(found)) == ["path", "file system", "locks", "rename", "own"]
    assert set(levels(found).values()) == {"ok"}
    assert list(no_slurm.iterdir()) == []


def test_a_percent_sign_in_the_path_is_a_problem(tmp_path, cluster, quick, monkeypatch, levels) -> None:
    folder = tmp_path / "100%j"
    folder.mkdir()
    monkeypatch.chdir(folder)
    found = list(doctor.examine(PROGRAM))
    assert levels(found)["path"] == "problem"
    assert not any(line.startswith("sbatch") for line in cluster.asked)


def test_a_file_system_of_one_host_is_a_warning_unless_a_node_is_asked(no_slurm, monkeypatch, levels) -> None:
    for kind, probed, level in (("ext4", False, "warning"), ("ext4", True, "ok"), ("nfs4", False, "ok")):
        monkeypatch.setattr(place, "file_system", lambda folder, kind=kind: kind)
        assert levels(place.check_place(no_slurm, True, probed, PROGRAM, doctor.no_more))["file system"] == level


def test_locks_that_do_not_work_are_a_warning(no_slurm, monkeypatch, levels, of) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = list(place.check_place(no_slurm, True, True, PROGRAM, doctor.no_more))
    assert levels(found)["locks"] == "warning"
    assert "No locks available" in of(found, "locks")


def test_software_that_is_not_there_is_a_problem(no_slurm, levels, of, monkeypatch) -> None:
    monkeypatch.setattr(software, "ask", lambda *_, timeout_s=0.0: Answer(1, "", "Traceback\nImportError: libcudart"))
    found = list(software.check_software(PROGRAM))
    assert levels(found) == {"python": "ok", "torch": "problem", "executor": "warning"}
    assert "ImportError: libcudart" in of(found, "torch")
    assert "python -m snakemake" in of(found, "executor")
    answers = iter(
        [Answer(0, '["2.14", "13.0", ["H100"]]', ""), Answer(0, "['snakemake_executor_plugin_submitit']", "")]
    )
    monkeypatch.setattr(software, "ask", lambda *_, timeout_s=0.0: next(answers))
    found = list(software.check_software(PROGRAM))
    assert set(levels(found).values()) == {"ok"}
    assert "H100" in of(found, "gpu here")


def test_the_profile_in_use_is_told(no_slurm) -> None:
    settings, found = software.read_profile("slurm", PROGRAM)
    assert (settings, found.level) == ({}, "warning")
    software.profile.install("slurm", {"account": "lab_1"}, PROGRAM)
    settings, found = software.read_profile("slurm", PROGRAM)
    assert (settings, found.level) == ({"account": "lab_1"}, "ok")


def test_a_finding_is_a_line_and_its_advice() -> None:
    assert str(Finding("ok", "a", "b")) == "ok       a: b"
    assert str(Finding("problem", "a", "b", "c")) == "problem  a: b\n         c"
    assert dataclasses.is_dataclass(Finding)


@pytest.mark.parametrize(
    ("gpus", "settings", "level", "words"),
    [
        (True, {"gpu-partition": "gpu"}, "ok", "submitit-gres"),
        (True, {"gpu-partition": "cpu,gpu"}, "ok", "submitit-gres"),
        (True, {"partition": "cpu"}, "problem", "go to cpu, which shows none; gpu has some"),
        (True, {"no-gpu": "true"}, "warning", "profile install slurm --gpu"),
        (False, {}, "problem", "profile install slurm --no-gpu"),
        (False, {"no-gpu": "true"}, "ok", "rules that ask for GPUs run without"),
    ],
)
def test_what_becomes_of_jobs_that_ask_for_gpus_is_said(
    cluster, quick, monkeypatch, levels, of, gpus, settings, level, words
) -> None:
    if not gpus:
        cluster.program("sinfo", "echo 'cpu*|up|1-00:00:00|4|(null)'")
    monkeypatch.setattr(doctor, "read_profile", lambda *_: (settings, doctor.Finding("ok", "profile", "")))
    found = list(doctor.examine(PROGRAM, probe=False))
    assert levels(found)["gpus"] == level
    assert words in of(found, "gpus")
