"""What the node does with a command, and what it says of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.books.events import append, read_attempts
from snakemake_executor_plugin_submitit.cluster.accounting import costs_of
from snakemake_executor_plugin_submitit.cluster.slurm import Cost
from snakemake_executor_plugin_submitit.head.executor import _check_paths
from snakemake_executor_plugin_submitit.node.command import STOPPED, Command, ignore_request_to_save, is_replaced
from snakemake_executor_plugin_submitit.node.inner import MODULE

NODE = """
import json, sys
from snakemake_executor_plugin_submitit.node.command import Command
command = Command(*json.loads(sys.argv[1]))
if sys.argv[2:] == ["handler"]:  # as submitit's, which gives up
    import signal
    from submitit.core.utils import UncompletedJobError

    def handle(*_):
        assert command.checkpoint() is None
        raise UncompletedJobError("not requeued")

    signal.signal(signal.SIGUSR2, handle)
command()
"""


@pytest.fixture
def events(tmp_path):
    return tmp_path / "events.jsonl"


def test_what_has_ended_well_does_not_run_again(events, tmp_path) -> None:
    append(events, "start", node="g1", gpus=[])
    append(events, "end", code=0)
    before = events.read_text()
    assert Command(f"touch {tmp_path}/ran", str(tmp_path), str(events), 10)() == 0
    assert not (tmp_path / "ran").exists()
    assert events.read_text() == before


@pytest.mark.parametrize("state", ["retried", "cancelled"])
def test_what_its_head_gave_up_does_not_run(tmp_path, enter, make_task, state) -> None:
    """SLURM requeues it all the same, or takes late what sbatch was told: another job may write the same files."""
    submission = enter(make_task("a"), make_task("b"))
    submission.members[1].state = state
    submission.save()
    with pytest.raises(SystemExit, match="sent it again as another"):
        Command(f"touch {tmp_path}/ran", str(tmp_path), str(submission.events(1)), 10)()
    assert not (tmp_path / "ran").exists()
    assert not submission.events(1).exists()
    assert not is_replaced(submission.events(0))


def test_where_the_books_say_nothing_a_job_runs(tmp_path, enter, make_task) -> None:
    submission = enter(make_task())
    (submission.folder / "record.json").write_text("{")
    assert not is_replaced(submission.events(0))
    assert not is_replaced(tmp_path / "events-0.jsonl")


LISTENS = "import signal, sys, time\nsignal.signal(12, lambda *_: sys.exit({code}))\ntime.sleep(30)"
DEAF = "import sys, time\ntime.sleep(1)\nsys.exit({code})"
# A script that is only starting when the signal comes: it hears nothing before it was looked for once.
STARTS = "import os, time\nwhile not os.path.exists({looked!r}):\n    time.sleep(0.01)\n"


def looked_for(command: Command, monkeypatch, tmp_path) -> str:
    """The path of a file that is made once the command has looked for who catches the signal."""
    looked, listeners = tmp_path / "looked", command._listeners

    def look() -> set[int]:
        found = listeners()
        looked.touch()
        return found

    monkeypatch.setattr(command, "_listeners", look)
    return str(looked)


@pytest.mark.parametrize(
    ("script", "code", "requeued"), [(LISTENS, 75, True), (LISTENS, 0, False), (DEAF, 0, False), (DEAF, 3, False)]
)
def test_only_what_saved_on_the_signal_is_requeued(events, tmp_path, monkeypatch, script, code, requeued) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    append(events, "start", node="g1", gpus=[])
    command = Command("", str(tmp_path), str(events), 10)
    looked = looked_for(command, monkeypatch, tmp_path)
    words = [sys.executable, "-c", STARTS.format(looked=looked) + script.format(code=code)]
    with subprocess.Popen(words, preexec_fn=ignore_request_to_save) as child:
        command.pid, command.started = child.pid, time.time()
        assert (command.checkpoint() is not None) is requeued
        assert command.ended is not requeued
        assert child.wait() == code
    assert [attempt.how for attempt in read_attempts(events)] == ["saved" if requeued else ""]


def test_what_saved_and_ended_before_it_was_looked_for_is_requeued(events, tmp_path, monkeypatch) -> None:
    """Although it has only just begun to listen."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    append(events, "start", node="g1", gpus=[])
    command = Command("", str(tmp_path), str(events), 10)
    late = "import time; time.sleep(1)\n" + LISTENS.format(code=75)
    with subprocess.Popen([sys.executable, "-c", late], preexec_fn=ignore_request_to_save) as child:
        command.pid, command.started = child.pid, time.time()
        command._begin_to_watch()
        while not command._listeners():
            time.sleep(0.05)
        time.sleep(1)
        child.send_signal(signal.SIGUSR2)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert command.checkpoint() is not None


@pytest.mark.parametrize(("code", "end"), [(0, 0), (3, 3)])
def test_what_ignores_the_signal_runs_on_and_ends_as_without_it(events, tmp_path, start_node, code, end) -> None:
    node = start_node(f"touch started; sleep 2; exit {code}", "slurm", handler=True)
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    node.send_signal(signal.SIGUSR2)
    assert node.wait(30) == end
    [attempt] = read_attempts(events)
    assert attempt.code == code
    assert attempt.last.asked


def test_on_this_machine_what_ignores_the_signal_is_killed_with_all_below_it_at_the_limit(
    events, tmp_path, start_node
) -> None:
    node = start_node("touch started; sleep 60; touch slept", "local", handler=True, minutes=0.2)
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    node.send_signal(signal.SIGUSR2)
    assert node.wait(20) == 1
    assert [attempt.code for attempt in read_attempts(events)] == [-1]


def test_a_requeued_attempt_is_found_in_the_accounting(cluster, books, enter, make_task) -> None:
    submission = enter(make_task())
    append(submission.events(0), "start", node="g1", gpus=["0"])
    append(submission.events(0), "saved", elapsed_s=4.0)
    [attempt] = [line for line in submission.events(0).read_text().splitlines() if '"start"' in line]
    begun = float(attempt.split('"time": ')[1].split(",")[0])
    cluster.costs = lambda job: [Cost("REQUEUED", begun, 4.0, 1.8, 1, 226.0)]
    [cost] = costs_of([(submission, 0)], cluster)
    assert (cost.source, cost.state, cost.lost) == ("accounting", "REQUEUED", True)


@pytest.mark.parametrize("path", ["a $(id)", "a `id`", "a\\b", "a\nb", "100%"])
def test_a_path_that_a_shell_would_read_otherwise_is_refused(path) -> None:
    with pytest.raises(WorkflowError, match=r"(?s)expected paths without \$.*Nothing was submitted"):
        _check_paths([path])


@pytest.mark.parametrize("path", ["a b", "it's", 'a "b"; &', "é"])
def test_other_paths_are_taken(path) -> None:
    _check_paths([path])


def test_a_script_that_starts_after_the_signal_is_told_when_it_can_hear(events, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    command = Command("", str(tmp_path), str(events), 10)
    script = STARTS.format(looked=looked_for(command, monkeypatch, tmp_path)) + LISTENS.format(code=75)
    words = ["/bin/bash", "-c", '"$0" -c "$1"; exit $?', sys.executable, script]
    child = subprocess.Popen(words, preexec_fn=ignore_request_to_save)
    command.pid = child.pid
    child.send_signal(signal.SIGUSR2)
    assert command._wait() == (True, 75)
    assert child.wait() == 75


SNAKEFILE = """
rule all:
    output: "done"
    shell: {shell!r}
"""
# Signals a process all the time, from when a file is there until the process is gone.
STORM = """
import os, signal, sys, time
from pathlib import Path
inner = int(sys.argv[1])
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    while True:
        os.kill(inner, signal.SIGTERM)
        time.sleep(0.001)
except ProcessLookupError:
    pass
"""


@pytest.fixture
def inner(tmp_path):
    """The inner Snakemake's command line, for a workflow of one shell command."""

    def made(shell: str) -> str:
        (tmp_path / "Snakefile").write_text(SNAKEFILE.format(shell=shell))
        python = shlex.quote(sys.executable)
        return f"{python} -m {MODULE} -m snakemake --cores 1 --executor local --force"

    return made


def test_sigterm_from_the_scripts_end_to_snakemakes_leaves_a_success(tmp_path, inner) -> None:
    command = f"exec {inner('touch {output}; sleep 0.1')}"
    child = subprocess.Popen(["/bin/bash", "-c", command], cwd=tmp_path, preexec_fn=ignore_request_to_save)
    with subprocess.Popen([sys.executable, "-c", STORM, str(child.pid), str(tmp_path / "done")]) as storm:
        assert child.wait(60) == 0
        assert storm.wait(10) == 0
    assert list((tmp_path / ".snakemake" / "metadata").iterdir())
    assert not list((tmp_path / ".snakemake" / "incomplete").iterdir())


@pytest.fixture
def start_node(events, tmp_path):
    """Starts a node's process on a command, in a session of its own."""

    def started(command: str, executor: str, handler: bool = False, minutes: float = 10) -> subprocess.Popen:
        arguments = [command, str(tmp_path), str(events), minutes]
        return subprocess.Popen(
            [sys.executable, "-c", NODE, json.dumps(arguments), *["handler"] * handler],
            env={**os.environ, "SUBMITIT_EXECUTOR": executor, "SLURM_JOB_ID": "1", "SUBMITIT_LOCAL_JOB_ID": "1"},
            start_new_session=True,
        )

    return started


def stop(node: subprocess.Popen, executor: str, awaited) -> None:
    """SIGTERM, a moment after a file is there: to all processes of a step by SLURM, else to the node's."""
    while not awaited.exists():
        time.sleep(0.05)
    time.sleep(0.2)
    if executor == "slurm":
        os.killpg(node.pid, signal.SIGTERM)
    else:
        node.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("executor", ["slurm", "local"])
@pytest.mark.parametrize("late", [False, True])
def test_sigterm_ends_the_script_and_a_snakemake_that_is_only_starting(
    events, tmp_path, inner, start_node, executor, late
) -> None:
    node = start_node(inner("touch started; sleep 60; touch slept"), executor)
    stop(node, executor, tmp_path / "started" if late else events)
    assert node.wait(30) == STOPPED
    assert (tmp_path / "started").exists() is late
    assert not (tmp_path / "slept").exists()
    assert [attempt.how for attempt in read_attempts(events)] == ["stopped"]


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_a_script_that_saves_on_sigterm_outlives_its_shell(tmp_path, inner, start_node, executor) -> None:
    (tmp_path / "script.py").write_text(
        "import signal, time\nfrom pathlib import Path\nstop = []\nsignal.signal(15, lambda *_: stop.append(1))\n"
        "Path('started').touch()\nwhile not stop:\n    time.sleep(0.1)\ntime.sleep(2)\nPath('saved').touch()\n"
    )
    node = start_node(inner(f"{shlex.quote(sys.executable)} script.py; true"), executor)
    stop(node, executor, tmp_path / "started")
    assert node.wait(30) == STOPPED
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_sigterm_before_there_is_a_child_touches_nobody_else(events, tmp_path, monkeypatch, executor) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    told = []
    monkeypatch.setattr(os, "kill", lambda *call: told.append(call))
    command = Command("", str(tmp_path), str(events), 10)
    command._stop(signal.SIGTERM, None)
    assert command.stopped
    assert not told


RETRIED = """
rule all:
    output: "done"
    retries: 3
    resources: mem_mb=lambda wildcards, attempt: attempt
    {directive}
"""


@pytest.mark.parametrize(
    ("directive", "tried"),
    [("shell: 'echo {resources.mem_mb} >>tried; exit 1'", "2"), ("run: shell('echo run >>tried; exit 1')", "run")],
)
def test_a_rules_retries_start_nothing_again_inside_the_job(tmp_path, directive, tried) -> None:
    (tmp_path / "Snakefile").write_text(RETRIED.replace("{directive}", directive))
    words = ["-m", MODULE, "-m", "snakemake", "--cores", "1", "--executor", "local", "--attempt", "2"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "tried").read_text().split() == [tried], done.stderr
