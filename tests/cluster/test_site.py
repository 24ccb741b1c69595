"""What sites and users set: variables, limits, keys, holds, resources. `cem doctor` says what then happens."""

import subprocess
import sys

import pytest
from harness import models
from harness.cluster import ROOT

WISHES = {
    "SBATCH_ACCOUNT": "ci",
    "SBATCH_PARTITION": "urgent",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_NO_REQUEUE": "1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_MEM_PER_CPU": "1",
    "SLURM_NTASKS": "4",
    "SLURM_GPUS_PER_TASK": "3",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_JOB_ID": "9",
    "SLURM_CLUSTERS": "elsewhere",
    "SQUEUE_PARTITION": "gpu",
    "SQUEUE_FORMAT": "%j",
    "SACCT_FORMAT": "User",
    "SCANCEL_NAME": "nobody",
}
pytestmark = pytest.mark.usefixtures("accounting")


@pytest.fixture
def limits(cluster):
    """`limits("MaxSubmitJobs=5")` for root in account ci; taken back afterwards."""
    user = ("modify", "user", "root", "where", "account=ci", "set")

    def manage(*words: str) -> None:
        cluster.run("sacctmgr", "-iQ", *words)

    yield lambda *settings: manage(*user, *settings)
    manage(*user, "MaxSubmitJobs=-1", "QOS=normal")
    cluster.run("sacctmgr", "-iQ", "delete", "qos", "cem_short", check=False)
    cluster.run("sacctmgr", "-iQ", "delete", "user", "root", "wckeys=cem_key", check=False)


@pytest.fixture
def stranger(cluster):
    """A job of the same user whose name has a line's end, and which waits."""
    job = cluster.submit("true", "--account=root", "--job-name=evil\n1_0|RUNNING|smk", "--hold")
    yield
    cluster.run("scancel", job)  # before the harness looks at the queue


def doctor(workflow, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`cem doctor` in the workflow's folder, of its profile: its output is read at the end."""
    workflow.write()
    variables = {**workflow.cluster.environment, **workflow.shims.environment, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "cem.cli", "doctor", "--profile", "profile", "--wait", "30"],
        cwd=workflow.folder,
        env={**variables, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def accounted(cluster, job: str, field: str) -> str:
    return cluster.run("sacct", "-XnP", "-j", job, f"--format={field}").strip()


@pytest.mark.usefixtures("stranger")
def test_no_variable_misleads_and_a_limit_on_submitted_jobs_is_kept(workflow, cluster, limits) -> None:
    """A hostile environment, where wckeys are enforced and five jobs allowed; the head is killed and started again."""
    limits("MaxSubmitJobs=5")
    workflow.profile["default-resources"] = {"slurm_partition": "cpu", "mem_mb": 100, "runtime": 5}
    workflow.runs = {"a": {"epochs": 24, "partition": "cpu", "gpu": 0, "runtime": 5}}
    targets = [*models("a"), *(f"hosts/{number}.txt" for number in range(6))]
    asked = doctor(workflow, WISHES)
    first = workflow.head(*models("a"), environment=WISHES)
    start = workflow.wait_for_training("a")
    first.kill()
    again = workflow.head(*targets, environment=WISHES)

    said, _ = asked.communicate(timeout=120)
    assert asked.returncode == 0, said
    assert "jobs that name no account get 'ci', from SBATCH_ACCOUNT" in said
    assert "not used: SBATCH_EXPORT, SBATCH_NO_REQUEUE, SBATCH_TIMELIMIT, SLURM_CLUSTERS" in said
    assert "submit limit: 5 (account ci) jobs at once" in said
    assert "wckeys: enforced here: jobs carry none" in said

    assert again.wait(120) == 0
    assert accounted(cluster, start["job"], "Account,Partition,TimelimitRaw,ReqMem") == "ci|cpu|5|500M"
    assert accounted(cluster, start["job"], "WCKey").startswith("*")  # SLURM's own: none was named
    output = again.output()
    assert f"adopted job {start['job']}" in output
    assert "jobs that name no account get 'ci', from SBATCH_ACCOUNT" in output
    assert output.count("the site's limit on submitted jobs is reached (AssocMaxSubmitJobLimit)") == 1
    assert "does not answer" not in output
    assert all((workflow.folder / target).exists() for target in targets)
    workflow.check_trained_once()
    assert len(workflow.starts()) == 1


def test_a_wckey_that_one_has_not_is_refused(workflow) -> None:
    """One that is set: see the test of the resources. None: all other tests."""
    workflow.profile["submitit-wckey"] = "cem_key"
    asked = doctor(workflow)
    head = workflow.head("hosts/1.txt")
    assert head.wait(60) == 1
    assert "Invalid wckey specification" in head.output()
    said, _ = asked.communicate(timeout=60)
    assert asked.returncode == 1
    assert "sbatch refused it" in said
    assert "Invalid wckey specification" in said


def test_what_waits_for_somebody_is_said_once_and_what_saved_goes_on(workflow, cluster, limits) -> None:
    """One head: jobs longer than the partition, one longer than its QoS, one that is held, one that is not requeued."""
    cluster.run("sacctmgr", "-iQ", "add", "qos", "cem_short", "set", "MaxWall=2", "flags=DenyOnLimit")
    limits("qos+=cem_short")
    plain = {"partition": "cpu", "gpu": 0, "epochs": 20, "periodic": False}
    workflow.runs = {
        "long": {**plain, "runtime": 3000},
        "longer": {**plain, "runtime": 3000},
        "held": {**plain, "epochs": 6},
        "saved": {**plain, "epochs": 8, "mem_mb": 90},  # a job of its own
    }
    workflow.profile |= {
        "keep-going": True,
        "submitit-retries": 0,
        "set-resources": {"greet": {"slurm_qos": "cem_short"}},
    }
    head = workflow.head(*models(*workflow.runs), "hosts/1.txt")
    saved, held = (workflow.wait_for_training(run) for run in ("saved", "held"))
    cluster.run("scontrol", "update", f"JobId={saved['job']}", "Requeue=0")
    cluster.run("scancel", "--signal=USR2", saved["job"])
    cluster.run("scontrol", "requeuehold", held["job"])
    head.wait_for("will not start by itself: job requeued in held state. Let it go with: scontrol release", 60)
    cluster.run("scontrol", "release", held["job"])
    [record] = [one for one in workflow.books() if len(one["members"]) == 2]
    cluster.run("scancel", record["job_id"])
    assert head.wait(90) == 1
    output = head.output()
    assert "sbatch refused it: error: QOSMaxWallDurationPerJobLimit" in output
    assert "trying again" not in output
    assert output.count("will not start") == 2
    assert (
        f"job {record['job_id']}_0 and 1 more (train) will not start by themselves: PartitionTimeLimit. Lower" in output
    )
    assert output.count("cancelled by user 0") + output.count("cancelled. ") + output.count(": cancelled\n") == 2
    assert [start["job"] == held["job"] for start in workflow.starts("held")] == [True, True]
    assert [start["job"] == saved["job"] for start in workflow.starts("saved")] == [True, False]
    workflow.check_trained_once("saved")
    assert f"job {saved['job']} (train run=saved): its state saved on" in output
    assert {member["attempt"] for one in workflow.books() for member in one["members"]} == {1}


@pytest.mark.parametrize(("name", "value"), [("nodes", 2), ("slurm_reservation", "night"), ("cpus_per_gpu", 4)])
def test_a_resource_that_nobody_reads_is_refused_by_name(workflow, shims, name, value) -> None:
    shims("sbatch", 'exec $REAL "$@"')
    workflow.profile["set-resources"] = {"greet": {name: value}}
    head = workflow.head("hosts/1.txt")
    assert head.wait(30) == 1
    assert f"expected no resource {name}, found {value!r}" in head.output()
    assert shims.calls("sbatch") == []


def test_resources_reach_the_job(workflow, cluster, limits) -> None:
    """Two GPUs for one job; two jobs of a group that take turns on one; other options of SLURM; a key."""
    cluster.run("sacctmgr", "-iQ", "add", "user", "root", "account=ci", "wckeys=cem_key")
    workflow.runs = {"two": {"epochs": 1, "gpu": 2}}
    workflow.profile |= {
        "submitit-wckey": "cem_key",
        "groups": {"greet": "pair"},
        "group-components": {"pair": 2},
        "set-resources": {
            "greet": {
                "slurm_partition": "gpu",
                "gpu": 1,
                "gpu_model": "fake",
                "mem_mb_per_cpu": 150,
                "slurm_extra": "--nodelist=g2 --nice=7",
            },
            "evaluate": {"gres": "gpu:fake:2", "slurm_partition": "gpu"},
        },
    }
    assert workflow.head("results/two/evaluation.json", "hosts/1.txt", "hosts/2.txt").wait(90) == 0
    jobs = {record["members"][0]["rule"]: record["job_id"] for record in workflow.books()}
    assert workflow.model("two")["gpus"] == "0,1"
    expected = {"train": "2", "evaluate": "2", "greet": "1"}
    found = {rule: accounted(cluster, job, "WCKey,AllocTRES") for rule, job in jobs.items()}
    assert {rule for rule, gpus in expected.items() if f"gres/gpu={gpus}" not in found[rule]} == set(), found
    assert all(text.startswith("cem_key|") for text in found.values())
    assert accounted(cluster, jobs["greet"], "NodeList,ReqMem") == "g2|550M"
