"""The harness itself: what the fault tests take for granted, without any plugin."""

import os
import signal

import pytest
from harness import USER, processes


def test_a_job_sees_the_gpus_it_asked_for(cluster, tmp_path) -> None:
    job = cluster.submit(
        "echo $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES", "-pgpu", "--gpus-per-node=2", f"--output={tmp_path}/out"
    )
    cluster.wait_for_state(job, "COMPLETED")
    assert (tmp_path / "out").read_text().strip() in ("g1:0,1", "g2:0,1")


@pytest.mark.usefixtures("accounting")
def test_the_accounting_knows_a_finished_job(cluster) -> None:
    good, bad = cluster.submit("true", "--job-name=good"), cluster.submit("exit 3", "--job-name=bad")

    def ended() -> dict[str, dict[str, str]]:
        rows = {row["name"]: row for row in cluster.sacct(good, bad)}
        return rows if {row["state"] for row in rows.values()} == {"COMPLETED", "FAILED"} else {}

    rows = cluster.wait_until(ended, 30, "sacct to know how both jobs ended")
    assert (rows["good"]["id"], rows["good"]["exit"]) == (good, "0:0")
    assert (rows["bad"]["id"], rows["bad"]["exit"]) == (bad, "3:0")


def test_squeue_has_a_row_for_each_array_element(cluster) -> None:
    job = cluster.submit("sleep 60", "--array=0-2%2")
    cluster.wait_until(lambda: [row["state"] for row in cluster.squeue()].count("RUNNING") == 2, 20, "two elements run")
    assert {row["id"] for row in cluster.squeue()} == {f"{job}_{i}" for i in range(3)}
    cluster.cancel_all()
    assert cluster.squeue() == []


def test_a_power_cut_kills_the_jobs_of_a_node_and_requeues_them(cluster, tmp_path) -> None:
    starts = tmp_path / "starts"
    job = cluster.submit(f"date +%s.%N >>{starts}; sleep 987654", "-pgpu", "-wg1")
    cluster.wait_until(lambda: processes("sleep 987654"), 20, "the job to sleep")
    cluster.power_cut("g1")
    assert not processes("sleep 987654")
    cluster.wait_for_state(job, "PENDING")
    cluster.power_on("g1")
    cluster.wait_until(lambda: len(starts.read_text().split()) == 2, 30, "the job to start again")


def test_an_urgent_job_takes_the_place_of_another_which_is_requeued(cluster) -> None:
    jobs = [cluster.submit("sleep 60", "-pgpu", "--gpus-per-node=2") for _ in range(2)]
    for job in jobs:
        cluster.wait_for_state(job, "RUNNING")
    urgent = cluster.submit("sleep 1", "-purgent", "--gpus-per-node=2")
    cluster.wait_for_state(urgent, "RUNNING", "COMPLETED")
    cluster.wait_until(lambda: "PENDING" in map(cluster.state, jobs), 20, "one of the jobs to be requeued")
    cluster.wait_until(lambda: [cluster.state(job) for job in jobs] == ["RUNNING"] * 2, 40, "both jobs to run again")


def test_what_a_job_holds_is_seen(cluster) -> None:
    assert cluster.held() == []
    job = cluster.submit("sleep 60", "-pgpu", "-wg2", "--gres=gpu:1")
    cluster.wait_for_state(job, "RUNNING")
    assert cluster.held() == ["g2"]


@pytest.mark.parametrize("now", [False, True], ids=["stopped", "killed"])
def test_jobs_outlive_the_controller(cluster, now) -> None:
    job = cluster.submit("sleep 60")
    cluster.wait_for_state(job, "RUNNING")
    if now:
        cluster.wait_until_saved()
    cluster.stop("slurmctld", now=now)
    assert "DOWN" in cluster.run("scontrol", "ping", check=False)
    cluster.start("slurmctld")
    assert cluster.state(job) == "RUNNING"


@pytest.mark.usefixtures("accounting")
def test_what_happens_while_the_accounting_is_away_reaches_it_later(cluster) -> None:
    cluster.stop("slurmdbd")
    assert cluster.run("sacct", check=False) == ""
    job = cluster.submit("true")
    cluster.wait_for_state(job, "COMPLETED")
    cluster.start("slurmdbd")
    cluster.wait_until(
        lambda: [row["state"] for row in cluster.sacct(job)] == ["COMPLETED"], 30, "sacct to know the job"
    )


def test_a_frozen_daemon_wakes_up(cluster) -> None:
    os.kill(cluster.pid("slurmctld"), signal.SIGSTOP)
    cluster.start("slurmctld")
    assert cluster.squeue() == []


def test_everything_broken_is_mended(cluster) -> None:
    cluster.submit("sleep 60", "-pgpu", "-wg2")
    cluster.power_cut("g2", quiet=True)
    cluster.run("scontrol", "update", "nodename=c2", "state=drain", "reason=test")
    for daemon in reversed(cluster.daemons):
        cluster.stop(daemon, now=True)
    cluster.restore()
    assert set(cluster.run("sinfo", "-hN", "-o", "%t").split()) == {"idle"}
    assert cluster.squeue() == cluster.held() == []
    assert not cluster.accounting or cluster.sacct()


def test_somebody_who_is_not_root_submits(cluster, tmp_path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o777)
    job = cluster.submit("id -un; squeue -hj $SLURM_JOB_ID -o %a", "--output=out", user=USER, cwd=folder)
    cluster.wait_for_state(job, "COMPLETED")
    assert (folder / "out").read_text().split() == [USER, "ci" if cluster.accounting else "(null)"]
    assert (folder / "out").owner() == USER


def test_somebody_who_is_not_root_has_the_projects_python(cluster) -> None:
    python, environment = cluster.python(USER)
    program = "import os, snakemake; print(os.getuid() > 0, snakemake.__version__)"
    assert cluster.run(python, "-c", program, user=USER, environment=environment).startswith("True 9.")


def test_a_cluster_without_accounting_stands_beside_the_other(cluster, plain_cluster) -> None:
    job = plain_cluster.submit("true", "-pgpu", "--gpus-per-node=1")
    plain_cluster.wait_for_state(job, "COMPLETED")
    assert "disabled" in plain_cluster.run("bash", "-c", "sacct 2>&1", check=False)
    assert {row["partition"] for row in cluster.squeue("all")} <= {"cpu", "gpu", "urgent", "scavenge"}


def test_a_shim_stands_before_the_real_program(cluster, shims) -> None:
    def ask() -> str:
        return cluster.run("squeue", "--version", check=False, environment=shims.environment)

    real = ask()
    assert real.startswith("slurm")
    shims("squeue", "echo nonsense; exit 1")
    assert ask() == "nonsense\n"
    shims("squeue", 'echo first; exec $REAL "$@"')
    assert ask() == "first\n" + real
    assert cluster.run("squeue", "--version") == real
    shims.remove("squeue")
    assert ask() == real
    assert shims.calls("squeue") == ["'--version'"] * 2


def test_waiting_for_what_does_not_come_says_what_it_was(cluster) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"Waited 0.2 s for: rain(.|\n)*PARTITION"):
        cluster.wait_until(lambda: False, 0.2, "rain")


@pytest.mark.slow
def test_the_controller_notices_a_quiet_power_cut(cluster) -> None:
    job = cluster.submit("sleep 300", "-pgpu", "-wg1")
    cluster.wait_for_state(job, "RUNNING")
    cluster.power_cut("g1", quiet=True)
    assert cluster.state(job) == "RUNNING"
    cluster.wait_for_state(job, "PENDING", timeout_s=90)


@pytest.mark.slow
def test_the_time_limit_is_announced_by_a_signal(cluster, tmp_path) -> None:
    out = tmp_path / "out"
    script = "trap 'echo USR2' USR2; while :; do sleep 1; done"
    job = cluster.submit(script, "--time=1", "--signal=B:USR2@30", f"--output={out}")
    cluster.wait_until(lambda: out.exists() and "USR2" in out.read_text(), 90, "the signal")
    cluster.wait_for_state(job, "TIMEOUT", timeout_s=120)
