"""Checkpoints come back as they were, and a damaged or foreign one is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cem.storage.tensors import VERSION, CheckpointError, Stateful, load_checkpoint, save_checkpoint, subset

HEADER = {"epoch": 3, "history": [{"loss": 0.5}], "name": "σ"}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "weight": weight,
        "transposed": weight.T,
        "shared": weight[0],
        "half": weight.half(),
        "step": torch.tensor(7),
        "mask": weight > 0,
        "state": generator.get_state(),
        "empty": torch.empty(0, 2),
        "parameter": torch.nn.Parameter(weight),
    }


@pytest.fixture
def path(tmp_path, tensors) -> Path:
    save_checkpoint(tmp_path / "model.safetensors", "model", tensors, HEADER)
    return tmp_path / "model.safetensors"


def test_tensors_and_header_come_back(path, tensors):
    found, header = load_checkpoint(path, "model")
    assert header == {"kind": "model", "version": VERSION, **HEADER}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert not found[name].requires_grad


def test_the_same_content_is_the_same_bytes(path, tensors, tmp_path):
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, "model", dict(reversed(tensors.items())), dict(reversed(HEADER.items())))
    assert other.read_bytes() == path.read_bytes()


def test_what_was_read_outlives_the_file(path, tensors):
    found, _ = load_checkpoint(path, "model")
    path.unlink()
    assert torch.equal(found["weight"], tensors["weight"])


def test_another_kind_is_refused(path):
    with pytest.raises(CheckpointError, match=r"kind 'state' version 1, found kind 'model' version 1. Delete it"):
        load_checkpoint(path, "state")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"cem": json.dumps({"kind": "model", "version": 2})}])
def test_a_foreign_or_newer_checkpoint_is_refused(tmp_path, tensors, metadata):
    save_file({"weight": tensors["weight"]}, tmp_path / "a", metadata=metadata)
    with pytest.raises(
        CheckpointError, match=r"expected a checkpoint of kind 'model' version 1, found kind .* Delete it"
    ):
        load_checkpoint(tmp_path / "a", "model")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused_wherever_it_ends(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cannot read it: .* Delete it and run again"):
        load_checkpoint(path, "model")


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_header_that_is_no_json_object_is_refused(tmp_path, tensors, text):
    save_file({"weight": tensors["weight"]}, tmp_path / "a", metadata={"cem": text})
    with pytest.raises(CheckpointError, match="Delete it and run again"):
        load_checkpoint(tmp_path / "a", "model")


def test_a_pickle_is_refused(tmp_path, tensors):
    torch.save({"weight": tensors["weight"]}, tmp_path / "a")
    with pytest.raises(CheckpointError, match="cannot read it"):
        load_checkpoint(tmp_path / "a", "model")


@pytest.mark.parametrize("place", ["absent", "."])
def test_an_absent_checkpoint_is_an_error(tmp_path, place):
    with pytest.raises(CheckpointError, match="cannot read it"):
        load_checkpoint(tmp_path / place, "model")


def test_a_header_that_json_lacks_is_refused_and_nothing_is_written(path, tensors):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(path, "model", tensors, {"loss": float("nan")})
    assert path.read_bytes() == before


FULL = """
import os, resource, sys
import torch
from cem.storage.tensors import save_checkpoint
from cem.storage.files import StoreError
path = sys.argv[1]
save_checkpoint(path, "model", {"old": torch.zeros(3)}, {})
old = open(path, "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    save_checkpoint(path, "model", {"new": torch.zeros(1_000_000)}, {})
except StoreError as error:
    assert "Free or choose another disk" in str(error), error
    print(open(path, "rb").read() == old, os.listdir(os.path.dirname(path)))
"""


def test_a_disk_that_fills_leaves_the_old_checkpoint_whole(tmp_path):
    """The limit on a file's size stands for the disk."""
    command = [sys.executable, "-c", FULL, tmp_path / "a"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True ['a']\n", "")


def test_a_subset_is_named_without_its_prefix(tensors):
    named = {"encoder.0.weight": tensors["weight"], "encoder_2.weight": tensors["half"], "encoder": tensors["step"]}
    assert list(subset(named, "encoder")) == ["0.weight"]
    assert subset(named, "classifier") == {}


class Machine:
    """A small network under training, with all that its next steps depend on."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
        self.critic = torch.nn.Linear(2, 1)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=0.1)
        self.sgd = torch.optim.SGD(self.critic.parameters(), lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.adam, T_max=10)
        self.draws = torch.Generator().manual_seed(seed)
        self.stateful = Stateful(
            {"net": self.net, "critic": self.critic},
            {"optimizer.net": self.adam, "critic_optimizer": self.sgd},
            {"draws": self.draws},
            self.schedule,
        )

    def steps(self, many: int) -> list[float]:
        losses = []
        for _ in range(many):
            for optimizer in (self.adam, self.sgd):
                optimizer.zero_grad()
            loss = self.critic(self.net(torch.randn(8, 3, generator=self.draws))).square().mean()
            loss.backward()
            self.adam.step()
            self.sgd.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def packed(self, **tensors):
        return self.stateful.pack({"step": 3}, tensors)


def equal(one, other) -> bool:
    """Two packs."""
    same = one[0].keys() == other[0].keys() and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    return same and one[1] == other[1]


@pytest.mark.parametrize("before", [0, 3])
def test_what_is_packed_is_put_back_and_goes_on_with_the_same_bits(tmp_path, before) -> None:
    whole = Machine(0)
    whole.steps(before)
    save_checkpoint(tmp_path / "a", "state", *whole.packed(best={"weight": torch.ones(2)}, order=torch.arange(3)))
    tensors, header = load_checkpoint(tmp_path / "a", "state")
    assert header["step"] == 3
    assert torch.equal(subset(tensors, "best")["weight"], torch.ones(2))
    assert torch.equal(tensors["order"], torch.arange(3))
    again = Machine(1)
    again.steps(1)  # of which nothing is to be left
    again.stateful.unpack(tensors, header)
    assert equal(again.packed(), whole.packed())
    assert again.steps(4) == whole.steps(4)
    assert equal(again.packed(), whole.packed())


def test_a_pack_lacks_nothing_that_a_module_asks_for() -> None:
    machine = Machine(0)
    tensors, header = machine.packed()
    del tensors["net.0.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        machine.stateful.unpack(tensors, header)
