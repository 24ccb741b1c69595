import math

import pytest
import torch
from torch import nn

from cem.models.init import initialise


def network():
    return nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.ConvTranspose2d(64, 16, 3), nn.Linear(128, 200))


def initialised(seed, **options):
    module = network()
    initialise(module, torch.Generator().manual_seed(seed), **options)
    return module


@pytest.mark.parametrize(("index", "fan_in"), [(0, 8 * 9), (2, 16 * 9), (3, 128)])
def test_default_weights_and_biases_fill_plus_minus_one_over_root_fan_in(index, fan_in):
    part, bound = initialised(0)[index], 1 / math.sqrt(fan_in)
    torch_part = network()[index]  # PyTorch's own draw has the same bounds
    for mine, theirs in ((part.weight, torch_part.weight), (part.bias, torch_part.bias)):
        assert mine.abs().max() <= bound
        assert theirs.abs().max() <= bound
        assert mine.abs().max() > 0.8 * bound
    assert part.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_client_gets_xavier_weights_and_no_bias():
    part = initialised(0, client=True)[0]
    bound = math.sqrt(6 / ((8 + 64) * 9))
    assert part.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert part.weight.abs().max() <= bound
    assert not part.bias.any()


def test_batch_normalisation_starts_over():
    module = network()
    with torch.no_grad():
        for tensor in module[1].state_dict().values():
            tensor.fill_(7)
    initialise(module, torch.Generator().manual_seed(0))
    assert {name: set(tensor.reshape(-1).tolist()) for name, tensor in module[1].state_dict().items()} == {
        "weight": {1.0}, "bias": {0.0}, "running_mean": {0.0}, "running_var": {1.0}, "num_batches_tracked": {0},
    }  # fmt: skip


def test_seed_decides_the_weights_and_the_global_generator_is_untouched():
    module = network()
    before = torch.random.get_rng_state()
    initialise(module, torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.random.get_rng_state())
    again, other = initialised(1), initialised(2)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert not torch.equal(module[0].weight, other[0].weight)


def test_unknown_module_with_parameters_is_refused():
    with pytest.raises(TypeError, match=r"1: expected a convolution.*found PReLU"):
        initialise(nn.Sequential(nn.ReLU(), nn.PReLU()), torch.Generator())


def test_a_module_that_draws_itself_draws_its_parts_too_and_nothing_else():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = nn.Linear(2, 2), nn.Parameter(torch.empty(3))

        def draw(self, generator):
            nn.init.ones_(self.inner.weight)
            nn.init.zeros_(self.inner.bias)
            nn.init.uniform_(self.scale, generator=generator)

    module = nn.Sequential(Own(), nn.Linear(2, 2))
    initialise(module, torch.Generator().manual_seed(0))
    assert (module[0].inner.weight == 1).all()
    assert module[0].scale.unique().numel() == 3
    assert not (module[1].weight == 1).any()
