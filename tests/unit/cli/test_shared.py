"""What all commands share: exit codes, colours, completion, JSON; what status watches."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cem.cli import EXITS, app, main, study
from cem.cli.app import say, say_json
from cem.config import load_study
from cem.planning.plan import Plan

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture
def file(settings, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(settings()))
    return path


def call(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return done.value.code, *capsys.readouterr()


def test_the_table_of_exit_codes_is_that_of_the_code():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXITS


def test_a_fault_of_the_program_is_no_finding(capsys, file, monkeypatch):
    """A script must not take it for a run that failed, whose code Python's own for a traceback is."""

    def faulty(path: Path) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr(study, "load_study", faulty)
    code, out, err = call(capsys, "status", file)
    assert (code, out) == (70, "")
    assert "Traceback" in err
    assert "ZeroDivisionError: study.yaml\nThe fault above is one of cem" in err


def test_every_command_is_in_the_docs(capsys):
    text = DOCS.read_text(encoding="utf-8")
    names = [command.callback.__name__ for command in app.registered_commands]
    assert len(names) >= 12
    assert [name for name in names if f"`cem {name}" not in text] == []
    assert [
        name for name in re.findall(r"`cem (\w+)", text) if name not in [*names, "attack", "profile", "COMMAND"]
    ] == []


@pytest.mark.parametrize("command", [one.callback.__name__ for one in app.registered_commands])
def test_every_command_says_what_it_takes(capsys, command):
    code, out, _ = call(capsys, command, "-h")
    assert code == 0
    assert "Usage: cem" in out


@pytest.mark.parametrize("command", ["plan", "status", "show", "compare", "models", "data", "clean", "doctor"])
def test_every_command_that_lists_has_json(capsys, command):
    assert "--json" in call(capsys, command, "-h")[1]


def test_a_plan_in_json_has_runs_jobs_and_what_it_takes(capsys, file):
    plan = Plan(load_study(file))
    code, out, err = call(capsys, "plan", file, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["run"] for row in found["runs"]] == list(plan.runs)
    assert found["jobs"] == dict(plan.jobs())
    assert found["forecast"]["disk_bytes"]["images"] == 5000 * 32 * 32
    assert found["forecast"]["gpu_seconds"]["training"] > 0
    assert found["forecast"]["warm_ups"].keys() == {"count", "runs", "epochs_saved", "gpu_seconds_saved"}
    assert "H100" in found["forecast"]["basis"]["measured_on"]


def test_settings_in_json_are_what_they_are_in_the_study_and_absent_where_a_run_has_none(capsys, file, settings):
    """Numbers are numbers, and null is a value."""
    surrogates = [{"kind": "none"}, {"kind": "gmm", "weight": 0.5}, {"kind": "gmm", "weight": 2}]
    file.write_text(yaml.safe_dump(settings(surrogates=surrogates, seeds=[0, 1])))
    rows = json.loads(call(capsys, "plan", file, "--json")[1])["runs"]
    found = {(row["surrogate"], row.get("surrogate.weight", "absent"), row["seed"]) for row in rows if not row["added"]}
    assert found == {(*one, seed) for one in (("none", "absent"), ("gmm", 0.5), ("gmm", 2.0)) for seed in (0, 1)}
    assert all(type(row["seed"]) is int for row in rows)


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        say_json({"a": float("inf")})


def on_a_terminal(text: str, **variables: str) -> str:
    """What a program that says a text writes to a terminal."""
    program = f"from cem.cli.app import say; say({text!r})"
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm"} | variables
    subprocess.run([sys.executable, "-c", program], stdout=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    written = os.read(ours, 10_000).decode()
    os.close(ours)
    return written.replace("\r\n", "\n")


def test_colours_are_for_terminals_that_want_them(capsys):
    text = "a  failed  my-failed-run [red]done[/red]"
    assert on_a_terminal(text) == "a  \x1b[31mfailed\x1b[0m  my-failed-run [red]done[/red]\n"
    assert on_a_terminal(text, NO_COLOR="1") == text + "\n"
    assert on_a_terminal(text, TERM="dumb") == text + "\n"
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_a_shell_completes_commands():
    variables = os.environ | {"_CEM_COMPLETE": "complete_bash", "COMP_WORDS": "cem val", "COMP_CWORD": "1"}
    program = "from cem.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["validate"], done.stderr


def test_watching_ends_when_no_run_is_open(capsys, file, monkeypatch):
    looks = []

    def look(planned, named):
        found = real(planned, named)
        looks.append(found)
        if len(looks) == 3:
            for run in planned.runs:
                log = Path("logs") / "test" / run / "train.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text("TrainingError: no\n")
            return real(planned, named)
        return found

    real = study._look
    monkeypatch.setattr(study, "_look", look)
    code, out, _ = call(capsys, "status", file, "--watch", "--every", "0.1", "--json")
    assert len(looks) == 3
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["failed"] for line in lines] == [False, False, True]
    assert code == 1


def test_ctrl_c_ends_watching_with_the_code_of_what_was_shown(file, tmp_path):
    words = [sys.executable, "-m", "cem.cli", "status", str(file), "--watch", "--every", "30"]

    def hear_ctrl_c() -> None:  # which is ignored in what a shell runs in its background, tests too
        signal.signal(signal.SIGINT, signal.default_int_handler)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, preexec_fn=hear_ctrl_c, **pipes) as process:
        line = process.stdout.readline()  # it has looked once
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert line.startswith("run")
    assert (process.returncode, err) == (0, "")


def test_ctrl_c_elsewhere_is_its_own_code(monkeypatch, file):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "load_study", stop)
    with pytest.raises(SystemExit) as done:
        main(["validate", str(file)])
    assert done.value.code == 130
