"""dFIL, against Jacobians that are known."""

import pytest
import torch
from torch import nn

from cem.config import Vgg11
from cem.expected import fisher_leakage
from cem.models import make_split

PIXELS, DIM = 48, 20


class Linear(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.weight = torch.randn(DIM, PIXELS, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return (images.flatten(1) @ self.weight.T + 2).view(len(images), DIM, 1, 1)


def images(n: int = 300, side: int = 4, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def measured(encoder, x, noise_std=0.3, probes=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return fisher_leakage(encoder, x, noise_std, probes=probes, generator=generator)


def test_the_basis_is_exact_for_a_linear_encoder() -> None:
    encoder = Linear()
    truth = float(encoder.weight.double().square().sum() / (PIXELS * 0.3**2))
    found = measured(encoder, images(5))
    assert found.values.tolist() == pytest.approx([truth] * 5, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("probes", [1, 4])
def test_probes_are_within_three_standard_errors(probes, seed) -> None:
    encoder = Linear()
    truth = float(encoder.weight.double().square().sum() / (PIXELS * 0.3**2))
    found = measured(encoder, images(), probes=probes, seed=seed)
    assert abs(found.mean - truth) < 3 * found.sem
    assert 0 < found.sem < 0.03 * truth


def test_a_real_encoder_against_its_jacobian() -> None:
    encoder, _ = make_split(Vgg11(width=0.05, bottleneck="noRELU_C4S1"), (1, 32, 32), 3)
    encoder.eval().requires_grad_(False)
    x = images(6, 32, 1)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: encoder(one[None])[0].flatten()))(x).flatten(2)
    truth = jacobian.double().square().sum((1, 2)) / (1024 * 0.1**2)
    torch.testing.assert_close(measured(encoder, x, 0.1).values, truth, rtol=1e-4, atol=0)
    many = measured(encoder, x.repeat(50, 1, 1, 1), 0.1, probes=4)
    assert abs(many.mean - float(truth.mean())) < 3 * many.sem


def test_a_constant_encoder_gives_nothing() -> None:
    encoder = Linear()
    encoder.weight.zero_()
    assert measured(encoder, images(3)).values.tolist() == [0, 0, 0]


def test_it_grows_with_one_over_the_noise_variance() -> None:
    weak, strong = (measured(Linear(), images(20), std, probes=2).mean for std in (0.1, 0.2))
    assert weak == pytest.approx(4 * strong)
