"""A state saved on one kind of device is not gone on from on another."""

import pytest
import torch

from cem.storage.tensors import CheckpointError, Stateful


def test_a_generators_state_of_another_kind_of_device_is_refused() -> None:
    own = Stateful(generators={"noise": torch.Generator().manual_seed(3)})
    tensors, header = own.pack({}, {})
    expected = torch.rand(3, generator=own.generators["noise"])
    own.unpack(tensors, header)
    assert torch.equal(torch.rand(3, generator=own.generators["noise"]), expected)
    of_gpu = {"generator.noise": torch.zeros(16, dtype=torch.uint8)}  # seed and offset: all that a GPU's has
    with pytest.raises(CheckpointError, match="another kind of device"):
        own.unpack(of_gpu, {})
