"""Activations are stored in float16 only where the noise hides what that rounds off."""

import pytest
import torch

from cem.defenses import NotApplicable
from cem.models import make_split
from cem.storage.hdf5 import open_activations
from cem.storage.tensors import save_checkpoint
from cem.training import extract_activations
from cem.training.precision import stored_dtype


@pytest.mark.parametrize(
    ("scale", "noise_std", "expected"),
    [
        (1.0, 0.0, "float32"),
        (1e-3, 0.0, "float32"),
        (0.5, 0.025, "float16"),
        (8.0, 0.025, "float32"),
        (8.0, 1.0, "float16"),
        (1e-3, 1e-6, "float32"),
        (1e5, 1e4, "float32"),  # beyond what float16 holds
    ],
)
def test_the_format_follows_from_the_data_and_the_noise(scale, noise_std, expected):
    draws = torch.Generator().manual_seed(0)
    small, large = (part * (2 * torch.rand(50, 2, 4, 4, generator=draws) - 1) for part in (1e-6 * scale, scale))
    found, why = stored_dtype("auto", noise_std, [small, large])
    assert found == expected
    assert why
    error = (large - large.half().float()).abs().max().item()
    assert (error <= noise_std / 100 and noise_std > 0) == (expected == "float16")


def test_noise_of_several_sizes_need_not_hide_the_rounding():
    small = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found, why = stored_dtype("auto", NotApplicable("it is shaped"), [small])
    assert (found, "not of one size" in why) == ("float32", True)
    assert stored_dtype("auto", 10.0, [small])[0] == "float16"


@pytest.mark.parametrize(("noise_std", "expected"), [(0.0, "float32"), (10.0, "float16")])
def test_the_file_holds_that_format_and_says_why(data, make_run, tmp_path, noise_std, expected):
    run = make_run(noise_std=noise_std)
    parts = zip(("encoder", "classifier"), make_split(run.model, (1, 32, 32), 4), strict=True)
    tensors = {f"{part}.{name}": tensor for part, net in parts for name, tensor in net.state_dict().items()}
    save_checkpoint(tmp_path / "model.safetensors", "model", tensors, {})
    out = tmp_path / "activations.h5"
    extract_activations(run, data, tmp_path / "model.safetensors", "model", "auto", out)
    with open_activations(out) as file:
        assert file.attrs["smashed_dtype"] == expected
        assert file.attrs["smashed_dtype_why"]
        assert file.read("test", slice(0, 5), lambda clean: clean.dtype) == expected


@pytest.mark.parametrize("asked", ["float16", "float32"])
def test_what_the_study_says_is_done_unseen(asked):
    def batches():
        raise AssertionError
        yield

    assert stored_dtype(asked, 0.0, batches())[0] == asked
