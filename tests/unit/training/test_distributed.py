"""A training by several processes is that of one: the same numbers, whatever fails."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn

from cem.config import DEFENSES as DEFENSE_FAMILY
from cem.config import SURROGATES as FAMILY
from cem.config import AttentionSurrogate, Pruning, Run, SyntheticDataset, Training
from cem.data.prepare import prepare_data
from cem.jobs.interruption import Interrupted
from cem.training import ranks, ranks_for, train, warm_up
from cem.training.distributed import RankError, Ranks, SharedBatchNorm, World

from .steps import CASES, DEFENSES, SURROGATES, every_case

CLOCK = {"images_per_s", "seconds", "peak_memory_mb"}
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """All cases by two processes, started once."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.unit.training.steps"]
    ranks = [subprocess.Popen([*command, str(rank), "2", folder], cwd=ROOT) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="module")
def by_one() -> dict[str, torch.Tensor]:
    return every_case(World())


@pytest.mark.parametrize(("surrogate", "defenses", "protocol"), CASES)
def test_two_processes_make_the_steps_of_one(by_one, by_two, surrogate, defenses, protocol) -> None:
    """Readings, gradients, weights, momenta of statistics: three steps in float64, two of them of odd batches."""
    prefix = f"{surrogate} {defenses} {protocol}/"
    expected = {name: value for name, value in by_one.items() if name.startswith(prefix)}
    assert {"cross_entropy", "client_grad_norm"} <= {name.split(".")[-1] for name in expected}
    for name, value in expected.items():
        first, second = (rank[name] for rank in by_two)
        torch.testing.assert_close(first, value, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(first, second), name  # to the bit: each goes its own way from here


def test_every_surrogate_and_defence_of_the_families_is_among_them() -> None:
    assert {cfg.member for cfg in SURROGATES.values()} == set(FAMILY.members)
    pruned = {"pruning"}  # acts between batches: test_pruning.py
    assert {cfg.member for defenses in DEFENSES.values() for cfg in defenses} | pruned == set(DEFENSE_FAMILY.members)


@pytest.mark.parametrize(("defenses", "learned"), [("shaped learned", "shaped_noise"), ("vib", "vib")])
def test_what_a_defence_learns_is_learned(by_one, defenses, learned) -> None:
    """Else that two processes agree about it would say nothing."""
    found = {name: value for name, value in by_one.items() if name.startswith(f"none {defenses} joint/")}
    names = [name.removesuffix(".grad") for name in found if f"/2.learned.{learned}" in name and name.endswith(".grad")]
    assert names
    for name in names:
        assert not torch.equal(found[name], found[name.replace("/2.", "/0.")]), name


class Job:
    """Trains a run by two processes in a folder, from a warm-up of one; `started` are all that it has started."""

    def __init__(self, run: Run, data: Path, folder: Path, monkeypatch) -> None:
        self.run, self.data, self.folder, self.started = run, data, folder, []
        popen = subprocess.Popen

        def start(*args, **settings) -> subprocess.Popen:
            self.started.append(popen(*args, **settings))
            return self.started[-1]

        monkeypatch.setattr(subprocess, "Popen", start)
        warm_up(run, data, folder / "warm.safetensors", folder / "warm.csv", folder)

    def train(self, name: str, ranks: int = 2) -> tuple[bytes, list[dict[str, str]]]:
        """Model and history, without its clock."""
        warm, out = self.folder / "warm.safetensors", self.folder / name
        train(self.run, self.data, warm, self.folder / "warm.csv", None, out, self.folder, ranks=ranks)
        with (out / "history.csv").open(newline="") as file:
            rows = [{name: row[name] for name in row if name not in CLOCK} for row in csv.DictReader(file)]
        return (out / "model.safetensors").read_bytes(), rows

    def when(self, happened, act) -> None:
        """Do something as soon as something has happened."""

        def wait() -> None:
            while not happened():
                time.sleep(0.01)
            act()

        threading.Thread(target=wait, daemon=True).start()

    def saved_after(self, moment: float) -> bool:
        return any(path.stat().st_mtime > moment for path in self.folder.glob(".state/*/state.safetensors"))


@pytest.fixture
def job(make_run, tmp_path, monkeypatch) -> Job:
    dataset = SyntheticDataset(images=600, classes=4, channels=1)
    prepare_data(dataset, tmp_path / "data.h5")
    training = Training(epochs=3, warmup_epochs=1, batch_size=31)
    run = make_run(surrogate=AttentionSurrogate(embedding=16, slots=4), dataset=dataset, training=training)
    return Job(run, tmp_path / "data.h5", tmp_path, monkeypatch)


def test_a_training_by_two_is_stopped_and_killed_and_ends_with_the_same_bits(job) -> None:
    expected = job.train("undisturbed")
    assert [row["phase"] for row in expected[1]] == ["warm_up", "train", "train"]
    job.when(lambda: len(job.started) >= 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):  # after the first batch
        job.train("disturbed")
    began = time.time()
    job.when(lambda: job.saved_after(began), lambda: job.started[-1].kill())
    with pytest.raises(RankError, match="process 2 of the 2 of this training was killed by SIGKILL"):
        job.train("disturbed")
    assert all(process.returncode is not None for process in job.started)
    assert job.train("disturbed") == expected
    summary = json.loads((job.folder / "disturbed/train.json").read_text())
    assert [attempt["ended"] for attempt in summary["attempts"]] == ["saved", "failed", "done"]
    assert all(attempt["lost_seconds"] < attempt["seconds"] for attempt in summary["attempts"])


def test_channels_leave_the_client_in_every_process(make_run, tmp_path, monkeypatch) -> None:
    dataset = SyntheticDataset(images=300, classes=3, channels=1)
    prepare_data(dataset, tmp_path / "data.h5")
    training = Training(epochs=4, warmup_epochs=1, batch_size=31, milestones=(), lr=0.01)
    run = make_run(dataset=dataset, defenses=(Pruning(fraction=0.3, at=0.5),), training=training)
    job = Job(run, tmp_path / "data.h5", tmp_path, monkeypatch)
    by_one, by_two = (load(job.train(f"by {ranks}", ranks)[0]) for ranks in (1, 2))
    before = load((tmp_path / "warm.safetensors").read_bytes())
    assert sum(map(torch.numel, by_two.values())) < sum(before[name].numel() for name in by_two)
    torch.testing.assert_close(by_two, by_one, rtol=1e-2, atol=1e-3)  # of one shape, too


def test_a_process_that_fails_is_shown_with_its_traceback(job, monkeypatch) -> None:
    say = ranks._say
    monkeypatch.setattr(ranks, "_say", lambda process, line: say(process, _broken(line)))
    with pytest.raises(
        RankError, match=r"(?s)process 2 of the 2 .* ended with exit code 1.*Traceback.*KeyError: 'state'"
    ):
        job.train("broken")


def _broken(line: str) -> str:
    values = json.loads(line)
    return json.dumps({name: values[name] for name in values if name != "state" or values["rank"] == 0}) + "\n"


def test_a_batch_too_small_for_the_processes_is_refused() -> None:
    world = object.__new__(Ranks)
    world.size = 4
    with pytest.raises(RankError, match="4 processes and batches of 3"):
        world.check_batch(3)


@pytest.mark.parametrize(("gpus", "seen", "expected"), [(1, 4, 1), (0, 4, 1), (4, 0, 1), (4, 4, 4), (2, 4, 2)])
def test_a_process_for_each_gpu_that_the_job_asked_for(monkeypatch, gpus, seen, expected) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert ranks_for(gpus) == expected


def test_fewer_gpus_than_asked_for_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RankError, match=r"expected the 2 GPUs .* found 1"):
        ranks_for(2)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone, whose parts are whole batches."""
    torch.distributed.init_process_group(
        "gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1, timeout=timedelta(minutes=1)
    )
    yield Ranks(torch.device("cpu"))
    torch.distributed.destroy_process_group()


LAYERS = {
    "maps": (nn.BatchNorm2d(4), (6, 4, 3, 3)),
    "vectors": (nn.BatchNorm1d(4), (6, 4)),
    "without weights": (nn.BatchNorm2d(4, affine=False), (6, 4, 3, 3)),
    "cumulative": (nn.BatchNorm2d(4, momentum=None), (6, 4, 3, 3)),
    "no running statistics": (nn.BatchNorm2d(4, track_running_stats=False), (6, 4, 3, 3)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_shared_batch_normalisation_is_torchs(alone, layer, dtype) -> None:
    original, shape = LAYERS[layer]
    expected, shared = nn.Sequential(deepcopy(original)), nn.Sequential(deepcopy(original))
    alone.share(shared)
    assert isinstance(shared[0], SharedBatchNorm)
    assert list(expected.state_dict()) == list(shared.state_dict())
    gradients = []
    for net in (expected, shared):
        for step in range(2):
            x = (1 + torch.randn(shape, generator=torch.Generator().manual_seed(step))).to(dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = net(x)
            assert y.dtype == dtype
            (y.float() * torch.arange(y.numel()).view(shape).sin()).sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in net.parameters())])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(gradients[1], gradients[0], **tolerance)
    torch.testing.assert_close(shared.state_dict(), expected.state_dict(), **tolerance)
    torch.testing.assert_close(shared.eval()(x), expected.eval()(x), **tolerance)
