"""Where the pressure stops: each kind of threshold."""

import math

import pytest
import torch

from cem.config import GmmSurrogate, Threshold
from cem.surrogates import make_surrogate
from cem.surrogates.thresholds import VarianceThreshold, hinge

SIGMA = 0.1


def threshold(**settings) -> VarianceThreshold:
    return VarianceThreshold(Threshold(**settings), SIGMA)


def test_kinds_that_do_not_move() -> None:
    assert threshold().value() is None
    assert threshold(kind="coupled").value() == pytest.approx(0.125 * SIGMA**2)
    assert threshold(kind="fixed", value=0.5).value() == 0.5
    assert VarianceThreshold(Threshold(kind="coupled", floor=0.01), 0.0).value() == 0.01


def test_quantile_is_of_the_variances_within_a_class() -> None:
    module = threshold(kind="quantile", quantile=0.25)
    with pytest.raises(RuntimeError, match="measure_threshold"):
        module.value()
    labels = torch.arange(4000) % 4
    scale = torch.linspace(0.1, 1.0, 5)
    flat = labels.unsqueeze(1) + scale * torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    module.measure(flat, labels)
    expected = torch.stack([flat[labels == c].var(0, unbiased=False) for c in range(4)]).quantile(0.25)
    assert module.value() == pytest.approx(float(expected), rel=0.1)
    again = threshold(kind="quantile")
    again.load_state_dict(module.state_dict())
    assert again.value() == module.value()


@pytest.mark.parametrize(("shape", "quarter"), [("linear", 0.75), ("cosine", 0.5 + 0.5 * math.cos(math.pi / 4))])
def test_schedule_goes_from_start_to_end(shape: str, quarter: float) -> None:
    module = threshold(kind="schedule", start=1.0, end=1e-9, shape=shape)
    found = []
    for progress in (0.0, 0.25, 1.0):
        module.begin_epoch(progress)
        found.append(module.value())
    assert found == pytest.approx([1.0, quarter, 1e-6], rel=1e-4)  # the end is below the floor


def test_hinge_is_zero_below_and_rises_above() -> None:
    variance = torch.tensor([0.01, 0.1, 0.4])
    expected = [0.0, 0.0, math.log(0.4 + 0.01) - math.log(0.1 + 0.01)]
    assert hinge(variance, 0.1, 0.01).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("covariance", ["diag", "pca"])
def test_gmm_below_its_threshold_pays_for_the_components_alone(covariance: str) -> None:
    cfg = GmmSurrogate(components=2, covariance=covariance, threshold=Threshold(kind="fixed", value=1e3))
    surrogate = make_surrogate(cfg, smashed_shape=(4, 2, 2), num_classes=3, noise_std=SIGMA)
    labels = torch.arange(90) % 3
    z = torch.rand(90, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    surrogate.refit(z.detach(), labels)
    terms = surrogate(z, labels)
    terms.loss.backward()
    assert 0 < terms.loss < math.log(6) / 16 + 1e-6
    assert terms.leakage_nats > math.log(6)
    assert not z.grad.any()
