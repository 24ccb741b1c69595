"""What is handed to sbatch, and how its refusals are read."""

import pickle
import subprocess
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.cluster import send
from snakemake_executor_plugin_submitit.cluster.script import batch_script
from snakemake_executor_plugin_submitit.cluster.send import UNNAMED, RefusedError, is_whole, refusal, send_to_slurm
from snakemake_executor_plugin_submitit.cluster.slurm import Answer
from snakemake_executor_plugin_submitit.node.command import Command

GOLDEN = Path(__file__).parent / "golden"
REQUEST = {
    "mem": "1300MB", "time": 60, "cpus_per_task": 2, "partition": "gpu", "account": "lab", "gpus_per_node": "2",
    "job_name": "smk-1", "comment": "train", "signal": "USR2@120", "requeue": True,
}  # fmt: skip
POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size)"
)


@pytest.mark.parametrize("count", [1, 3])
def test_the_batch_file_is_this_one(count: int) -> None:
    text = batch_script(
        Path("/shared/it's here/smk-1"), REQUEST, "/opt/python3", ["module load cuda"], ["--nodelist=g1"], count, 2
    )
    path = GOLDEN / ("array.sh" if count > 1 else "job.sh")
    assert text == path.read_text(), f"If this change is meant: put the new text into {path}."


def test_the_batch_file_of_a_hostile_folder_runs_what_it_should(tmp_path) -> None:
    folder = tmp_path / "it's $(touch harm) & `more`"
    folder.mkdir()
    script = tmp_path / "batch.sh"
    script.write_text(batch_script(folder, REQUEST, "python").replace("srun", "printf '%s\\n'"))
    done = subprocess.run(["bash", str(script)], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("words", "limit", "later"),
    [
        (f"sbatch: error: AssocMaxSubmitJobLimit; {POLICY}", "AssocMaxSubmitJobLimit", True),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit; {POLICY}", "QOSMaxSubmitJobPerUserLimit", True),
        (f"sbatch: error: QOSGrpSubmitJobsLimit; {POLICY}", "QOSGrpSubmitJobsLimit", True),
        (f"sbatch: error: MaxSubmitJobsPerAccount; {POLICY}", "MaxSubmitJobsPerAccount", True),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit; {POLICY}", "", False),
        (f"sbatch: error: QOSMaxCpuPerUserLimit; {POLICY}", "", False),
        (POLICY, UNNAMED, True),
        ("sbatch: error: Batch job submission failed: Invalid wckey specification", "", False),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", "", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", "", True),
        ("no answer within 300 s", "", True),
        ("sbatch: error: Batch job submission failed: Rate limit exceeded, please retry momentarily", "", True),
        ("sbatch: error: Batch job submission failed: MaxJobCount limit reached", "", True),
        ("sbatch: error: Batch job submission failed: Message receive failure", "", True),
        ("sbatch: error: Batch job submission failed: I/O error writing script/environment to file", "", True),
        ("sbatch: error: Batch job submission failed: Communication connection failure", "", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", "", True),
        ("sbatch: error: job_submit: set --account and try again", "", False),
        ("sbatch: error: Memory specification of /scratch/temporary/communication", "", False),
    ],
)
def test_only_what_may_pass_is_tried_again(words: str, limit: str, later: bool) -> None:
    error = RefusedError(words)
    assert (error.limit, error.later) == (limit, later)


@pytest.mark.parametrize(
    ("site", "slurm", "limit", "later"),
    [
        (
            "Maximum number of jobs reached?",
            "Batch job submission failed: Job violates accounting/QOS policy",
            UNNAMED,
            True,
        ),
        ("Note: MaxSubmitJobs per user is 100", "Batch job submission failed: Invalid qos specification", "", False),
        ("Use an account of the partition standby", "Batch job submission failed: Invalid account", "", False),
    ],
)
def test_a_sites_own_words_are_told_and_decide_nothing(site: str, slurm: str, limit: str, later: bool) -> None:
    error = refusal(Answer(1, "", f"{site}\nsbatch: error: {slurm}\n"))
    assert str(error) == f"{site}; error: {slurm}"
    assert (error.limit, error.later) == (limit, later)


def commands(count: int) -> list[Command]:
    return [Command("true", "/", f"/events-{index}", 1) for index in range(count)]


@pytest.mark.parametrize(("count", "answer"), [(1, "41"), (2, "41;cluster"), (2, "Welcome to site 7!\n41")])
def test_what_is_sent_is_whole(programs, enter, make_task, settings, request_made, monkeypatch, count, answer) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "another")
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    submission = enter(*[make_task(str(index)) for index in range(count)], job_id=None, whole=False)
    programs("sbatch", f'echo "$@" >"{submission.folder}/words"; env >"{submission.folder}/env"; printf "{answer}\\n"')
    submission.job_id = send_to_slurm(submission, commands(count), request_made, settings)
    assert submission.job_id == "41"
    assert all(is_whole(submission, index) for index in range(count))
    assert (submission.folder / "words").read_text() == f"--parsable {submission.folder / 'batch.sh'}\n"
    assert "SBATCH_" not in (submission.folder / "env").read_text()
    header = (submission.folder / "batch.sh").read_text().splitlines()
    assert f"#SBATCH --job-name={submission.name}" in header
    assert "wckey" not in "".join(header)
    last = submission.folder / f"41{'' if count == 1 else '_1'}_submitted.pkl"
    assert pickle.loads(last.read_bytes()).function.events == f"/events-{count - 1}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "echo welcome; echo 'sbatch: error: QOSMax' >&2; echo 'sbatch: error: no' >&2; exit 1",
            "^error: QOSMax; error: no$",
        ),
        (
            "echo 'sbatch: error: no' >&2; echo 'Ask hpc@uni about GPUs' >&2; exit 1",
            "^error: no; Ask hpc@uni about GPUs$",
        ),
        ("exit 3", "exit code 3"),
        ("echo hello", "expected the number of a job from sbatch, found 'hello'"),
        ("exec sleep 9", "no answer within"),
    ],
)
def test_why_sbatch_would_not_is_told(
    programs, enter, make_task, settings, request_made, monkeypatch, body, words
) -> None:
    monkeypatch.setattr(send, "_SBATCH_S", 0.3)
    submission = enter(make_task(), job_id=None, whole=False)
    programs("sbatch", body)
    with pytest.raises(RefusedError, match=words):
        send_to_slurm(submission, commands(1), request_made, settings)
    assert not is_whole(submission, 0)


@pytest.mark.parametrize(("number", "later"), [(28, True), (11, True), (13, False)])
def test_a_fault_of_this_machine_is_judged_by_its_number_and_not_by_its_path(
    enter, make_task, request_made, settings, monkeypatch, number: int, later: bool
) -> None:
    def fails(*_, **__):
        raise OSError(number, "words", "/scratch/temporarily unavailable/QOSMaxSubmitJobPerUserLimit")

    monkeypatch.setattr(send, "script_of", fails)
    with pytest.raises(RefusedError) as refused:
        send_to_slurm(enter(make_task(), job_id=None), [], request_made, settings)
    assert (refused.value.later, refused.value.limit) == (later, "")
