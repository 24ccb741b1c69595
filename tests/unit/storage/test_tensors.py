"""Checkpoints come back as they were, and a damaged or foreign one is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cem.storage.tensors import VERSION, CheckpointError, load_checkpoint, save_checkpoint, subset

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
