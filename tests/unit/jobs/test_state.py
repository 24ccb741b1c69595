"""A file for each part of a state: whole or absent, each by itself, and what cem 0.1.0 left is read."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from cem.jobs.attempts import Attempts
from cem.jobs.interruption import resumable
from cem.jobs.state import FILES, FolderStore, StateError, StateStore, own_folder, state_folder
from cem.storage.tensors import CheckpointError, save_checkpoint


@pytest.fixture
def store(tmp_path) -> FolderStore:
    return FolderStore(tmp_path, Attempts(tmp_path, FILES, "cpu"))


def content(number: int) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    return {"weight": torch.full((3,), float(number))}, {"step": number}


def loaded(store: StateStore) -> int | None:
    """The number whose content is there, tensors and header alike."""
    saved = store.load()
    if saved is None:
        return None
    tensors, header = saved
    assert torch.equal(tensors["weight"], content(header["step"])[0]["weight"])
    return header["step"]


def test_each_part_is_a_file_of_its_own(store, tmp_path) -> None:
    fit = store.part("fit")
    for number, part in enumerate((fit.part("lr0"), fit.part("lr1"), store.part("scoring"))):
        assert loaded(part) is None
        part.save(*content(number))
    names = {path.name for path in tmp_path.glob(FILES)}
    assert names == {"state.fit.lr0.safetensors", "state.fit.lr1.safetensors", "state.scoring.safetensors"}
    before = (tmp_path / "state.fit.lr0.safetensors").stat().st_mtime_ns
    fit.part("lr1").save(*content(7))
    assert (tmp_path / "state.fit.lr0.safetensors").stat().st_mtime_ns == before  # a save writes its own part alone
    assert [loaded(fit.part("lr0")), loaded(fit.part("lr1")), loaded(store.part("scoring"))] == [0, 7, 2]
    assert loaded(store) is None
    assert str(tmp_path / "state.fit.lr1.safetensors") == fit.part("lr1").place


def test_a_request_to_stop_reaches_every_part(tmp_path) -> None:
    with resumable(tmp_path / "job", "cpu") as store:
        part = store.part("fit").part("lr0")
        assert not part.asked_to_stop()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert part.asked_to_stop()
        assert store.asked_to_stop()


def test_a_store_without_a_folder_keeps_nothing() -> None:
    store = StateStore().part("fit")
    store.save(*content(1))
    assert (loaded(store), store.asked_to_stop(), store.end(), store.earlier_seconds) == (None, False, [], 0.0)


def test_damage_to_one_part_is_named_and_does_not_reach_the_others(store, tmp_path) -> None:
    store.part("fit").save(*content(1))
    store.part("scoring").save(*content(2))
    (tmp_path / "state.fit.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"state\.fit\.safetensors: expected .*Delete it and run again"):
        store.part("fit").load()
    assert loaded(store.part("scoring")) == 2


def write_former(folder) -> None:
    """As cem 0.1.0 kept parts: all in one file."""
    parts = {"fit": {"parts": {"lr0": {"step": 1}, "lr1": {"step": 2}}}, "scoring": {"step": 3}}
    tensors = {"fit.lr0.weight": 1, "fit.lr1.weight": 2, "scoring.weight": 3}
    tensors = {name: content(number)[0]["weight"] for name, number in tensors.items()}
    save_checkpoint(folder / "state.safetensors", "state", tensors, {"parts": parts})


def test_parts_in_one_file_are_read_and_what_is_saved_since_counts(store, tmp_path) -> None:
    write_former(tmp_path)
    fit = store.part("fit")
    parts = [fit.part("lr0"), fit.part("lr1"), store.part("scoring")]
    assert [loaded(part) for part in parts] == [1, 2, 3]
    assert loaded(store.part("gan")) is loaded(fit.part("lr2")) is None
    parts[1].save(*content(9))
    assert [loaded(part) for part in parts] == [1, 9, 3]


def test_the_state_of_a_training_has_no_parts(store, tmp_path) -> None:
    store.save(*content(4))
    assert loaded(store) == 4
    assert (tmp_path / "state.safetensors").exists()
    assert store.part("fit").load() is None


def test_a_part_file_is_a_state_for_the_record_of_attempts(tmp_path) -> None:
    attempts = Attempts(tmp_path, FILES, "cpu")
    FolderStore(tmp_path, attempts).part("fit").save(*content(1))
    attempts.end("saved")
    again = Attempts(tmp_path, FILES, "cpu")
    assert again.all[0].lost_seconds < again.all[0].seconds
    (tmp_path / "state.fit.safetensors").unlink()
    assert Attempts(tmp_path, FILES, "cpu").kept_seconds == 0


WORK = """
import sys
from pathlib import Path
import torch
from cem.jobs.interruption import resumable
from cem.storage import tensors

folder, survives = Path(sys.argv[1]), int(sys.argv[2])
write = Path.write_bytes
moments = []

def die(path, data):
    \"\"\"The process is killed when it has half of a file written, or all but its name.\"\"\"
    moments.append(path)
    if len(moments) > survives:
        import os, signal
        write(path, data[: len(data) // 2] if survives % 2 else data)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, data)

Path.write_bytes = die
with resumable(folder, "cpu") as store:
    total = torch.zeros(2)
    for name in ("a", "b", "c"):
        part = store.part(name)
        tensors, header = part.load() or ({"total": total}, {"step": 0})
        total = tensors["total"]
        for step in range(header["step"], 3):
            total = total * 1.5 + len(name) + step
            part.save({"total": total}, {"step": step + 1})
    print(total.tolist())
"""


def test_killed_in_any_save_of_any_part_it_ends_with_the_same_bits(tmp_path) -> None:
    def run(folder, survives: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WORK, folder, str(survives)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    expected = run(tmp_path / "whole", 10**6)
    assert (expected.returncode, expected.stderr) == (0, "")
    starts, done = 0, None
    while done is None or done.returncode:
        # Two saves of each attempt succeed, one in three attempts ends in its first.
        done = run(tmp_path / "killed", (2, 1, 0)[starts % 3] if starts < 9 else 10**6)
        starts += 1
        assert starts < 20, done.stderr
    assert starts > 5
    assert done.stdout == expected.stdout
    assert not (tmp_path / "killed").exists()


def test_the_folder_is_named_by_all_that_the_state_depends_on(tmp_path, monkeypatch) -> None:
    names = {state_folder(tmp_path, {"lr": 1}, {"data": "a"}), state_folder(tmp_path, {"lr": 2}, {"data": "a"})}
    names |= {state_folder(tmp_path, {"lr": 1}, {"data": "b"})}
    monkeypatch.setattr("cem.jobs.state.NUMERICS", 10**6)
    names |= {state_folder(tmp_path, {"lr": 1}, {"data": "a"})}
    assert len(names) == 4


def test_two_processes_do_not_work_on_one_state(tmp_path) -> None:
    with own_folder(tmp_path), pytest.raises(StateError, match="another process is at work"), own_folder(tmp_path):
        pass
