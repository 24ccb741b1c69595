"""On a GPU no surrogate makes a step wait: shapes and branches depend on no value that lies on the device.

Torch's fake tensors stand in for those on a GPU. They hold no values: asking for one raises, and so does a CPU tensor
among them.
"""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cem.config import AttentionSurrogate, GaussianSurrogate, GmmSurrogate, SurrogateSettings, Threshold
from cem.mixture import ClassMixture
from cem.surrogates import Surrogate, attention_mixture, make_surrogate

SHAPE, CLASSES, DIM = (4, 2, 2), 30, 16
CASES = {
    "gmm bound": GmmSurrogate(),
    "gmm bound, pca": GmmSurrogate(covariance="pca", rank=2),
    "gmm bound, quantile": GmmSurrogate(threshold=Threshold(kind="quantile")),
    "gmm legacy": GmmSurrogate(formula="legacy"),
    "gaussian": GaussianSurrogate(),
    "gaussian, schedule": GaussianSurrogate(threshold=Threshold(kind="schedule")),
    "attention mixture": AttentionSurrogate(embedding=16),
    "attention mixture, schedule": AttentionSurrogate(embedding=16, threshold=Threshold(kind="schedule")),
    "attention enhanced_variance": AttentionSurrogate(statistic="enhanced_variance", reduced=16),
    "attention conditional": AttentionSurrogate(statistic="conditional", features=8),
    "attention conditional, coefficients": AttentionSurrogate(statistic="conditional", residual="coefficients"),
}


def make(cfg: SurrogateSettings) -> Surrogate:
    mixture = None
    if isinstance(cfg, GmmSurrogate):
        k, low_rank = cfg.components, ()
        if cfg.covariance == "pca":
            low_rank = (torch.rand(CLASSES, DIM, cfg.rank), torch.rand(CLASSES, k, cfg.rank))
        moments = (torch.rand(CLASSES, k, DIM), torch.rand(CLASSES, k, DIM))
        mixture = ClassMixture(
            torch.full((CLASSES, k), 1 / k), *moments, torch.full((CLASSES,), 1 / CLASSES), *low_rank
        )
    surrogate = make_surrogate(
        cfg, smashed_shape=SHAPE, num_classes=CLASSES, noise_std=0.1, num_samples=600, mixture=mixture
    )
    surrogate.measure_threshold(torch.rand(60, *SHAPE), torch.arange(60) % CLASSES)
    surrogate.begin_epoch(0.5)
    return surrogate


def on_gpu(surrogate: Surrogate) -> None:
    for module in surrogate.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device="cuda")))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda"))


def step(surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fused cell has no fake; anything that reads the same tensors will do.
    monkeypatch.setattr(
        nn.GRUCell, "forward", lambda cell, x, h: h + (x @ cell.weight_ih.T + cell.bias_ih)[:, : len(h[0])]
    )
    with FakeTensorMode():
        on_gpu(surrogate)
        smashed = torch.empty(33, *SHAPE, device="cuda")
        labels = torch.empty(33, dtype=torch.int64, device="cuda")
        seen = {"images": torch.empty(33, 3, 8, 8, device="cuda")} if surrogate.uses_images else {}
        terms = surrogate(smashed, labels, **seen)
        assert {term.device.type for term in terms} == {"cuda"}
        surrogate.fit_loss(smashed, labels, **seen)


@pytest.mark.parametrize("name", [name for name in CASES if "enhanced" not in name])
def test_a_step_asks_for_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step(make(CASES[name]), monkeypatch)


def test_enhanced_variance_asks_how_large_the_largest_class_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And would need sets of the size of the batch otherwise; the others are seen not to by this raising here."""
    with pytest.raises(DataDependentOutputException):
        step(make(CASES["attention enhanced_variance"]), monkeypatch)


@pytest.mark.parametrize("threshold", [Threshold(), Threshold(kind="coupled")])
def test_room_for_classes_that_are_absent_changes_nothing(
    threshold: Threshold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has a place for each class that a batch may hold, a CPU for those it holds."""
    draws = torch.Generator().manual_seed(0)
    smashed, labels = torch.rand(33, *SHAPE, generator=draws), torch.randint(7, (33,), generator=draws)
    found = {}
    for padded in (False, True):
        if padded:
            monkeypatch.setattr(attention_mixture, "_room", lambda labels, classes: min(len(labels), classes))
        surrogate = make(AttentionSurrogate(embedding=16, threshold=threshold))
        z = smashed.clone().requires_grad_()
        terms = surrogate(z, labels, torch.Generator().manual_seed(1))
        fit = surrogate.fit_loss(z, labels, torch.Generator().manual_seed(1))
        (terms.loss + fit).backward()
        gradients = [p.grad for p in surrogate.parameters() if p.grad is not None]
        found[padded] = torch.cat(
            [torch.stack([*terms, fit]).detach(), z.grad.flatten(), *map(torch.flatten, gradients)]
        )
    assert found[True].isfinite().all()
    assert math.isclose(float(found[True].norm()), float(found[False].norm()), rel_tol=1e-4)
    assert torch.allclose(found[True], found[False], rtol=1e-4, atol=1e-5)
