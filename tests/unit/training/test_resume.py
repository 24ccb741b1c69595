"""A training that is killed or stopped at any moment ends with the same bits as one that was left alone."""

import csv
import fcntl
import json
import signal
import time
from pathlib import Path

import pytest
from forked import Forked

from cem.config import AttentionSurrogate, GaussianSurrogate, GmmSurrogate, PairSurrogate, Threshold
from cem.jobs.interruption import SAVED
from cem.jobs.state import StateError, own_folder
from cem.storage.tensors import load_checkpoint

from .conftest import TRAINING

CLOCK = {"images_per_s", "seconds", "peak_memory_mb"}
QUANTILE = Threshold(kind="quantile")
CONDITIONAL = AttentionSurrogate(statistic="conditional", features=8)
SLOTS = AttentionSurrogate(embedding=16, slots=4, warmup_epochs=1, threshold=QUANTILE)
RUNS = {  # and what asks them to stop: each signal once, since a start takes seconds
    "gmm joint": (GmmSurrogate(), "joint", signal.SIGTERM),
    "pair split": (PairSurrogate(lower=CONDITIONAL), "split", signal.SIGUSR2),
    "gaussian joint": (GaussianSurrogate(), "joint", signal.SIGINT),
    "attention split": (SLOTS, "split", signal.SIGTERM),
}


def outcome(folder: Path) -> tuple[bytes, bytes, list[dict[str, str]]]:
    """What must not depend on interruptions: both models' bytes, and the history without its clock."""
    with (folder / "run/history.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name not in CLOCK} for row in csv.DictReader(file)]
    return (folder / "warm/model.safetensors").read_bytes(), (folder / "run/model.safetensors").read_bytes(), rows


def wait_for_save(process: Forked, folder: Path, after: float) -> None:
    """Return as soon as a state newer than `after` is on disk. Fails when the process ends before that."""
    while not any(p.stat().st_mtime > after for p in folder.glob(".state/*/state.safetensors")):
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)


def finish(start, run, data: Path, folder: Path) -> None:
    assert start(run, data, folder).wait(timeout=120) == 0, (folder / "log").read_text()


@pytest.fixture(scope="module", params=RUNS)
def reference(request, tmp_path_factory, make_run, start, data):
    """A run that nobody disturbs, what it ends with, and a signal."""
    surrogate, protocol, number = RUNS[request.param]
    training = TRAINING.model_copy(update={"protocol": protocol})
    run, folder = make_run(surrogate=surrogate, training=training), tmp_path_factory.mktemp("undisturbed")
    finish(start, run, data, folder)
    return run, outcome(folder), number


def test_sigkill_at_any_moment(reference, start, data, tmp_path) -> None:
    run, expected, _ = reference
    for delay in (0.0, 0.05, 0.3):
        process = start(run, data, tmp_path)
        wait_for_save(process, tmp_path, time.time())
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(start, run, data, tmp_path)
    assert "going on from" in (tmp_path / "log").read_text()
    assert outcome(tmp_path) == expected
    assert not list(tmp_path.glob(".state/*/state.safetensors"))
    summary = json.loads((tmp_path / "run/train.json").read_text())
    ended = [attempt["ended"] for attempt in summary["attempts"]]  # of the run; the warm-up has its own
    assert ended[-1] == "done"
    assert set(ended[:-1]) <= {"killed"}
    assert all(0 <= attempt["lost_seconds"] <= attempt["seconds"] for attempt in summary["attempts"])
    assert summary["attempts"][-1]["seconds"] > 0


def test_a_request_to_stop_saves_in_the_middle_of_an_epoch(reference, start, data, tmp_path) -> None:
    run, expected, number = reference
    process = start(run, data, tmp_path)
    wait_for_save(process, tmp_path, 0.0)
    process.send_signal(number)
    assert process.wait(timeout=60) == SAVED
    (state,) = tmp_path.glob(".state/*/state.safetensors")
    header = load_checkpoint(state, "state")[1]
    assert header["step"] > 0
    assert len(json.loads(header["history"])) == header["epoch"]
    finish(start, run, data, tmp_path)
    assert outcome(tmp_path) == expected
    assert json.loads((tmp_path / "run/train.json").read_text())["accuracy_val"] > 0.5


def test_two_processes_do_not_train_the_same_run(tmp_path) -> None:
    message = "another process is at work with exactly these settings"
    with own_folder(tmp_path), pytest.raises(StateError, match=message), own_folder(tmp_path):
        pass


def test_a_damaged_state_is_named_and_not_guessed_around(make_run, start, data, tmp_path) -> None:
    process = start(make_run(), data, tmp_path)
    wait_for_save(process, tmp_path, 0.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (state,) = tmp_path.glob(".state/*/state.safetensors")
    with (state.parent / "lock").open("a") as lock:  # the lock of a killed process is free
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    state.write_bytes(state.read_bytes()[:100])
    assert start(make_run(), data, tmp_path).wait(timeout=60) == 1
    assert "Delete it and run again" in (tmp_path / "log").read_text()
