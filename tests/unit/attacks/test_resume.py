"""A learned attack that is killed or stopped at any moment ends with the same bits as one that was left alone."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked

from cem.config import Decoder, Run, SyntheticDataset, Vgg11
from cem.evaluation import attack_run
from cem.jobs.interruption import SAVED
from cem.jobs.state import FILES, StateError, own_folder
from cem.models import make_split
from cem.storage.hdf5 import Reader, write_file
from cem.storage.tensors import load_checkpoint, save_checkpoint

COUNTS = {"private": 600, "val": 10, "shadow": 10, "test": 60}
DRIVER = """
import sys
from pathlib import Path
from cem.config import Decoder, Flow, Gan, Run
from cem.evaluation import attack_run
from cem.models import critic
folder, epochs, kinds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split()
run = Run.model_validate_json((folder / "run.json").read_text())
critic.WIDTHS = (4, 8, 16)
attacks = {
    "decoder": Decoder(net="res_normN0C8", lr=1e-3, epochs=epochs, batch_size=32),
    "gan": Gan(net="res_normN0C8", epochs=epochs, batch_size=32, critic_steps=3),
    "flow": Flow(net="unet_C8", epochs=epochs, batch_size=32, samples=2, steps=4, selection_images=16),
}
attack_run(run, [attacks[kind] for kind in kinds], activations=folder / "activations.h5", data=folder / "data.h5",
           model=folder / "model.safetensors",
           folder=folder / "attacks", num_images=5, results=folder)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A run's files: images of noise, and z that are their pooled pixels."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    images = {split: rng.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8) for split, count in COUNTS.items()}
    with write_file(folder / "data.h5", "dataset", attrs={"class_names": ["a", "b"]}) as file:
        for split, values in images.items():
            file[f"{split}/images"], file[f"{split}/labels"] = values, np.arange(len(values)) % 2
    run = Run(model=Vgg11(width=0.1), dataset=SyntheticDataset(), noise_std=0.05)
    encoder, classifier = make_split(run.model, (1, 32, 32), 2)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"classifier.{name}": tensor for name, tensor in classifier.state_dict().items()}
    save_checkpoint(folder / "model.safetensors", "model", tensors, {})
    sources = {"data": folder / "data.h5", "model": folder / "model.safetensors"}
    with write_file(folder / "activations.h5", "activations", sources) as file:
        for split, values in images.items():
            pooled = values.reshape(-1, 1, 8, 4, 8, 4).mean((3, 5)) / 255
            file[f"{split}/smashed"] = np.concatenate([pooled, 1 - pooled], axis=1).astype(np.float16)
            file[f"{split}/labels"] = np.arange(len(values)) % 2
    (folder / "run.json").write_text(run.model_dump_json())
    return folder


@pytest.fixture
def copy(files, tmp_path) -> Path:
    for path in files.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def start(folder: Path, epochs: int = 6, kinds: str = "decoder") -> Forked:
    return Forked(DRIVER, folder, str(epochs), kinds, log=folder / "log")


def finish(folder: Path, epochs: int = 6, kinds: str = "decoder") -> None:
    assert start(folder, epochs, kinds).wait(timeout=120) == 0, (folder / "log").read_text()


def outcome(folder: Path, kind: str = "decoder") -> tuple[bytes, np.ndarray]:
    with Reader(folder / f"attacks/{kind}/reconstructions.h5", kind="reconstructions") as reader:
        rebuilt = np.stack([reader.file[f"{scope}/reconstructions"] for scope in ("train", "infer")])
    return (folder / f"attacks/{kind}/metrics.parquet").read_bytes(), rebuilt


def wait_for_save(process: Forked, folder: Path, after: float) -> None:
    """Return as soon as a state newer than `after` is on disk. Fails when the process ends before that."""
    while not any(path.stat().st_mtime > after for path in folder.glob(f".state/*/{FILES}")):
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def expected(files) -> tuple[bytes, np.ndarray]:
    """What an attack that nobody disturbs ends with; `files` then holds what a GAN and a flow do, too."""
    finish(files, kinds="decoder gan flow")
    return outcome(files)


def same(one: tuple[bytes, np.ndarray], other: tuple[bytes, np.ndarray]) -> bool:
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def test_sigkill_at_any_moment(copy, expected) -> None:
    for delay in (0.0, 0.05, 0.2):
        process = start(copy)
        wait_for_save(process, copy, time.time())
        time.sleep(delay)
        process.kill()
        process.wait()
    finish(copy)
    assert "going on from" in (copy / "log").read_text()
    assert same(outcome(copy), expected)
    assert not list(copy.glob(".state/*"))
    attempts = json.loads((copy / "attacks/decoder/attack.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == ["killed"] * 3 + ["done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_request_to_stop_saves_in_the_middle_of_an_epoch(copy, expected, number) -> None:
    process = start(copy)
    wait_for_save(process, copy, 0.0)
    process.send_signal(number)
    assert process.wait(timeout=60) == SAVED
    (state,) = copy.glob(f".state/*/{FILES}")
    assert state.name == "state.fit.net.safetensors"
    assert load_checkpoint(state, "state")[1]["step"] > 0
    finish(copy)
    assert same(outcome(copy), expected)
    attempts = json.loads((copy / "attacks/decoder/attack.json").read_text())["attempts"]
    assert [attempt["ended"] for attempt in attempts] == ["saved", "done"]


def test_a_state_that_cem_0_1_0_left_is_gone_on_from(copy, expected) -> None:
    """All parts were in one file then, with the same content."""
    process = start(copy)
    wait_for_save(process, copy, 0.0)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=60) == SAVED
    (state,) = copy.glob(f".state/*/{FILES}")
    tensors, header = load_checkpoint(state, "state")
    former = {f"fit.net.{name}": tensor for name, tensor in tensors.items()}
    parts = {"fit": {"parts": {"net": {key: header[key] for key in header.keys() - {"kind", "version"}}}}}
    save_checkpoint(state.with_name("state.safetensors"), "state", former, {"parts": parts})
    state.unlink()
    finish(copy)
    assert "going on from" in (copy / "log").read_text()
    assert same(outcome(copy), expected)
    assert not list(copy.glob(".state/*"))


@pytest.mark.usefixtures("expected")
@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_another_that_is_killed_and_then_stopped(copy, files, kind) -> None:
    process = start(copy, kinds=kind)
    wait_for_save(process, copy, 0.0)
    process.kill()
    process.wait()
    process = start(copy, kinds=kind)
    wait_for_save(process, copy, time.time())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=60) == SAVED
    finish(copy, kinds=kind)
    assert (copy / "log").read_text().count("going on from") == 2
    assert same(outcome(copy, kind), outcome(files, kind))


def test_another_budget_begins_anew_and_a_second_process_is_refused(copy) -> None:
    process = start(copy)
    wait_for_save(process, copy, 0.0)
    (folder,) = copy.glob(".state/*")
    with pytest.raises(StateError, match="another process is at work"), own_folder(folder):
        pass
    process.kill()
    process.wait()
    finish(copy, epochs=1)
    assert "going on from" not in (copy / "log").read_text()
    assert list(copy.glob(".state/*")) == [folder]  # the other attack's state is kept for it


def test_other_weights_to_start_from_are_another_state(files, tmp_path, monkeypatch) -> None:
    """Under the same settings: the file has the same name."""
    run, own, states = Run.model_validate_json((files / "run.json").read_text()), tmp_path / "own", []
    monkeypatch.setattr("cem.evaluation.run.set_up_process", lambda threads: torch.device("cpu"))
    monkeypatch.setattr(
        "cem.evaluation.run.run_attacks", lambda attacks, *_, state_of, **__: states.append(state_of(*attacks))
    )
    for content in ("one", "other", "one"):
        own.write_text(content)
        attack_run(
            run, [Decoder(weights=str(own))], activations=files / "activations.h5", data=files / "data.h5",
            model=files / "model.safetensors", folder=tmp_path, num_images=5, results=tmp_path,
        )  # fmt: skip
    assert states[0] == states[2] != states[1]


def test_a_damaged_state_is_named(copy) -> None:
    process = start(copy)
    wait_for_save(process, copy, 0.0)
    process.kill()
    process.wait()
    (state,) = copy.glob(f".state/*/{FILES}")
    state.write_bytes(state.read_bytes()[:100])
    assert start(copy).wait(timeout=60) == 1
    assert "Delete it and run again" in (copy / "log").read_text()
