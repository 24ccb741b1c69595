"""How far each run is, told from files alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cem import ATTACK_NUMERICS, NUMERICS
from cem.config import Run
from cem.jobs.attempts import HEARTBEAT
from cem.jobs.work import name_work, read_work
from cem.planning.plan import Plan
from cem.planning.status import (
    MOST_CHARACTERS,
    RunStatus,
    State,
    last_error,
    newer_than_report,
    study_status,
    unfinished,
)
from cem.planning.steps import Step, steps_of
from cem.storage.files import sha256

ATTACKS = [{"kind": "mean_image"}, {"kind": "decoder"}]


@pytest.fixture
def plan(study, tmp_path, monkeypatch) -> Plan:
    """Two runs and their reference, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Plan(study(surrogates=[{"kind": "none"}, {"kind": "gmm"}], attacks=ATTACKS))


def of(plan: Plan, number: int = 0, at_work: bool = False) -> RunStatus:
    return study_status(plan, at_work=at_work)[number]


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def step(plan: Plan, rule: str, number: int = 0) -> Step:
    name, run = list(plan.runs.items())[number]
    return next(one for one in steps_of(plan, name, run) if one.rule == rule)


def finish(plan: Plan, run: Run) -> None:
    """All files of a run, as this version makes them."""
    for one in steps_of(plan, run.id, run):
        write(one.log, "epoch 1/2\ndone\n")
        for path in one.outputs:
            write(path)
    write(plan.run(run) / "train.json", json.dumps({"numerics": NUMERICS}))
    for attack in plan.attacks(run):
        about = {"settings": attack.sparse(), "numerics": [NUMERICS, ATTACK_NUMERICS]}
        write(plan.attack(run, attack.id) / "attack.json", json.dumps(about))


def test_of_nothing_all_are_waiting(plan) -> None:
    assert [one.state for one in study_status(plan)] == [State.WAITING] * 3


def test_a_run_with_all_its_files_is_done(plan) -> None:
    first, *_ = plan.runs.values()
    finish(plan, first)
    assert [one.state for one in study_status(plan)] == [State.DONE, State.WAITING, State.WAITING]
    (plan.attack(first, "decoder") / "manifest.json").unlink()
    assert of(plan).state == State.WAITING


def test_a_failure_is_told_with_its_cause_on_one_line_and_its_log(plan) -> None:
    log = step(plan, "train").log
    write(log, "epoch 1/3 (train): x; 9 s left\nTrainingError: epoch 2: expected a finite loss,\nbut it is nan.\n")
    found = of(plan)
    assert (found.state, found.rule, found.log) == (State.FAILED, "train", str(log))
    assert found.cause == "TrainingError: epoch 2: expected a finite loss, but it is nan."
    assert found.text == f"failed: train, {found.cause}"


def test_a_traceback_ends_with_its_cause(plan) -> None:
    text = 'Traceback (most recent call last):\n  File "x", line 1\ntorch.OutOfMemoryError: CUDA out of memory.\n'
    write(step(plan, "train").log, text)
    assert of(plan).cause == "torch.OutOfMemoryError: CUDA out of memory."


def test_a_long_cause_is_cut(plan) -> None:
    write(step(plan, "train").log, "ValueError: " + "x" * 5000)
    assert len(of(plan).cause) == MOST_CHARACTERS


def test_a_step_that_runs_share_fails_for_all_of_them(plan) -> None:
    write(step(plan, "warm_up").log, "DataError: no images")
    assert [one.state for one in study_status(plan)] == [State.FAILED, State.FAILED, State.WAITING]  # another warm-up


@pytest.mark.parametrize("ended", ["done", "stopped on request, the state saved in x: run the same again to go on"])
def test_a_job_that_ended_well_has_not_failed_though_its_files_are_gone(plan, ended) -> None:
    write(step(plan, "train").log, f"ValueError: was caught\n{ended}\n")
    assert of(plan).state == State.WAITING


def test_a_job_without_a_last_word_runs_while_a_workflow_does_and_was_broken_off_otherwise(plan) -> None:
    write(step(plan, "train").log, "epoch 3/14 (train): cross_entropy 0.3; 62 s left\n")
    running = of(plan, at_work=True)
    assert running.text == "running: train, epoch 3 of 14, about 62 s left"
    assert (running.epoch, running.epochs, running.eta_s) == (3, 14, 62)
    broken = of(plan, at_work=False)
    assert (broken.state, broken.cause) == (State.FAILED, "ended without a message: stopped, killed, or out of memory")


def test_whether_a_workflow_is_at_work_is_seen_by_its_locks(plan) -> None:
    write(step(plan, "train").log)
    assert study_status(plan)[0].state == State.FAILED
    write(Path(".snakemake/locks/0.input.lock"))
    assert study_status(plan)[0].state == State.RUNNING


def test_a_sign_of_life_shows_what_runs_and_an_old_one_what_is_unfinished(plan) -> None:
    name, run = next(iter(plan.runs.items()))
    folder = plan.root / ".state" / "0123"
    folder.mkdir(parents=True)
    name_work(folder, plan.attack(run, "decoder"))
    (folder / HEARTBEAT).touch()
    write(step(plan, "attack").log, "decoder: epoch 2/8, train_mse 0.1, val_mse 0.1, 1.0 s, 6 s left\n")
    assert of(plan).text == "running: attack, epoch 2 of 8, about 6 s left"
    (one,) = unfinished(plan)
    assert (one.makes, one.alive) == (plan.attack(run, "decoder"), True)
    os.utime(folder / HEARTBEAT, (time.time() - 1000,) * 2)
    assert not unfinished(plan)[0].alive
    assert of(plan).run == name


def test_states_of_other_studies_are_not_this_ones(plan) -> None:
    for number, makes in enumerate(("results/other/runs/a", str(plan.folder) + "2/runs/a")):
        folder = plan.root / ".state" / str(number)
        folder.mkdir(parents=True)
        name_work(folder, Path(makes))
    (plan.root / ".state" / "nameless").mkdir()
    assert unfinished(plan) == []
    assert read_work(plan.root / ".state" / "nameless") is None


@pytest.mark.parametrize(
    ("file", "change", "what"),
    [
        ("train.json", {"numerics": NUMERICS - 1}, "the training is of another version's numerics"),
        ("attacks/decoder/attack.json", {"settings": {"kind": "decoder", "epochs": 7}}, "decoder has other settings"),
        ("attacks/decoder/attack.json", {"numerics": [NUMERICS, ATTACK_NUMERICS - 1]}, "decoder is of another version"),
    ],
)
def test_done_with_other_settings_than_now_is_told(plan, file, change, what) -> None:
    first, *_ = plan.runs.values()
    finish(plan, first)
    path = plan.run(first) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = of(plan)
    assert found.state == State.CHANGED
    assert what in found.cause


def test_a_networks_own_file_that_is_another_now_is_told(plan, tmp_path) -> None:
    first, weights = next(iter(plan.runs.values())), tmp_path / "w.safetensors"
    finish(plan, first)
    weights.write_text("one")
    path = plan.run(first) / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {str(weights): sha256(weights)}}))
    assert of(plan).state == State.DONE
    weights.write_text("another")
    assert (of(plan).state, of(plan).cause) == (State.CHANGED, "the network's own files are others now")


def test_a_learning_rate_that_was_found_is_no_other_setting(plan) -> None:
    first, *_ = plan.runs.values()
    finish(plan, first)
    path = plan.attack(first, "decoder") / "attack.json"
    attack = next(one for one in plan.attacks(first) if one.id == "decoder")
    choices = {"lr": 0.003, "net": attack.net, "loss": {"mse": 1.0, "l1": 0.0, "ssim": 0.0}}
    record = {"choices": choices, "numerics": [NUMERICS, ATTACK_NUMERICS]}
    path.write_text(json.dumps(record | {"settings": attack.tuned(choices).sparse()}))
    assert of(plan).state == State.DONE
    path.write_text(json.dumps(record | {"settings": attack.tuned(choices).sparse() | {"batch_size": 7}}))
    assert of(plan).state == State.CHANGED


def test_an_error_of_a_later_attempt_counts_though_older_files_are_there(plan) -> None:
    first, *_ = plan.runs.values()
    finish(plan, first)
    log = step(plan, "train").log
    write(log, "TrainingError: diverged")
    later = time.time() + 10
    os.utime(log, (later, later))
    assert of(plan).state == State.FAILED


def test_which_runs_are_newer_than_the_report(plan) -> None:
    first, second, _ = plan.runs.values()
    finish(plan, first)
    assert newer_than_report(plan) == []
    write(plan.report)
    now = time.time()
    os.utime(plan.report, (now + 5, now + 5))
    assert newer_than_report(plan) == []
    finish(plan, second)
    os.utime(plan.run(second) / "train.json", (now + 9, now + 9))
    assert newer_than_report(plan) == [second.id]


def test_the_end_of_a_log_is_read_however_long_it_is(tmp_path) -> None:
    log = tmp_path / "log"
    log.write_text("ValueError: early\n" + "x" * 100 + "\n" + "line\n" * 100_000 + "OSError: disk full\n")
    assert last_error(log) == "OSError: disk full"
    assert last_error(tmp_path / "none") == ""


def test_it_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, cem.planning.status; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
