"""What the node does with a command, and what it says of it."""

import signal
import subprocess
import sys
import time

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.costs import costs_of
from snakemake_executor_plugin_submitit.events import append, has_ended_well, read_attempts
from snakemake_executor_plugin_submitit.executor import _check_paths
from snakemake_executor_plugin_submitit.node import Command, ignore_request_to_save
from snakemake_executor_plugin_submitit.slurm import Cost


@pytest.fixture
def events(tmp_path):
    return tmp_path / "events.jsonl"


def test_what_has_ended_well_does_not_run_again(events, tmp_path) -> None:
    append(events, "start", node="g1", gpus=[])
    append(events, "end", code=0)
    before = events.read_text()
    assert Command(f"touch {tmp_path}/ran", str(tmp_path), str(events), 20, 10, 30)() == 0
    assert not (tmp_path / "ran").exists()
    assert events.read_text() == before


@pytest.mark.parametrize(("code", "how"), [(0, "end"), (75, "saved")])
def test_what_ends_well_after_the_request_to_save_is_done_and_not_lost(
    events, tmp_path, monkeypatch, code, how
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    append(events, "start", node="g1", gpus=[])
    command = Command("", str(tmp_path), str(events), 20, 10, 30)
    child = subprocess.Popen(["/bin/bash", "-c", f"sleep 0.3; exit {code}"])
    command.pid, command.started = child.pid, time.time()
    assert command.checkpoint() is not None
    child.wait()
    assert [attempt.how for attempt in read_attempts(events)] == [how]
    assert has_ended_well(events) is (code == 0)


def test_a_requeued_attempt_is_found_in_the_accounting(cluster, books, enter, make_task) -> None:
    submission = enter(make_task())
    append(submission.events(0), "start", node="g1", gpus=["0"])
    append(submission.events(0), "saved", elapsed_s=4.0)
    [attempt] = [line for line in submission.events(0).read_text().splitlines() if '"start"' in line]
    begun = float(attempt.split('"time": ')[1].split(",")[0])
    cluster.costs = lambda job: [Cost("REQUEUED", begun, 4.0, 1.8, 1, 226.0, "g1")]
    [cost] = costs_of([(submission, 0)], cluster)
    assert (cost.source, cost.state, cost.lost) == ("accounting", "REQUEUED", True)


@pytest.mark.parametrize("path", ["a $(id)", "a `id`", "a\\b", "a\nb", "100%"])
def test_a_path_that_a_shell_would_read_otherwise_is_refused(path) -> None:
    with pytest.raises(WorkflowError, match=r"(?s)expected paths without \$.*Nothing was submitted"):
        _check_paths([path])


@pytest.mark.parametrize("path", ["a b", "it's", 'a "b"; &', "é"])
def test_other_paths_are_taken(path) -> None:
    _check_paths([path])


def test_a_script_that_starts_after_the_signal_is_told_when_it_can_hear(events, tmp_path) -> None:
    command = Command("", str(tmp_path), str(events), 20, 10, 30)
    script = (
        "import time; time.sleep(1)\nimport signal, sys\nsignal.signal(12, lambda *_: sys.exit(75))\ntime.sleep(30)"
    )
    words = ["/bin/bash", "-c", '"$0" -c "$1"; exit $?', sys.executable, script]
    child = subprocess.Popen(words, preexec_fn=ignore_request_to_save)
    command.pid = child.pid
    child.send_signal(signal.SIGUSR2)
    assert command._ended_within(10)
    assert child.wait() == 75
