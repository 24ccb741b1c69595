"""The GMM surrogate: the released heuristic against a plain loop, and the laws of the bound."""

import math

import pytest
import torch

from cem.config import GmmSurrogate, Threshold
from cem.surrogates import make_surrogate

SHAPE, CLASSES, SIGMA = (4, 2, 2), 3, 0.1


def batch(n: int = 90, seed: int = 0, spread: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    centres = torch.rand(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(9))
    return centres[labels] + spread * torch.randn(n, *SHAPE, generator=generator), labels


def fitted(cfg: GmmSurrogate, sigma: float = SIGMA):
    surrogate = make_surrogate(cfg, smashed_shape=SHAPE, num_classes=CLASSES, noise_std=sigma)
    surrogate.refit(*batch(300, seed=1))
    return surrogate


def plain_legacy(z, labels, mixture, samples, sigma):
    """docs/theory.md, "The released heuristic": a loop over classes and components, exactly as it reads."""
    gamma, tau = 0.01, 0.125
    flat = z.flatten(1)
    per_class = []
    for c in sorted(set(labels.tolist())):
        own = flat[labels == c]
        centroids = mixture.means[c]
        nearest = ((own[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        total = torch.zeros(())
        for j in range(len(centroids)):
            members = own[nearest == j]
            if len(members) == 0:
                continue
            s = ((members - centroids[j]) ** 2).mean()
            w = mixture.weights[c, j]
            expected = w * samples / CLASSES
            r = 10 * len(members) / expected
            r = 0.99 if r >= 1 else r
            v = r * s + (1 - r) * mixture.variances[c, j, 0]
            total = total + w * torch.relu(torch.log(v + gamma) - math.log(tau * sigma**2 + gamma))
        per_class.append(total)
    return torch.stack(per_class).mean()


@pytest.mark.parametrize("size", [9, 90])  # r below and above its cap
def test_legacy_is_the_plain_loop_in_value_and_gradient(size: int) -> None:
    surrogate = fitted(GmmSurrogate(formula="legacy")).double()
    z, labels = batch(size, seed=2)
    z = z.double()
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = surrogate(ours, labels).loss
    expected = plain_legacy(theirs, labels, surrogate.mixture, 300, SIGMA)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-15)


def test_bound_is_theorem_2_of_the_fitted_mixture_when_the_batch_is_the_data() -> None:
    z, labels = batch(300, seed=1)
    surrogate = fitted(GmmSurrogate())
    # With B = N, π and Σ become the batch's own: those the mixture was fitted to.
    loss = surrogate(z, labels).loss
    bound = surrogate.mixture.leakage_bound(SIGMA) / z[0].numel()
    assert float(loss) == pytest.approx(bound, rel=1e-4)


def test_gradient_of_the_bound_does_not_fade_with_the_size_of_the_data() -> None:
    z, labels = batch(60, seed=4)
    norms = []
    for samples in (300, 300_000):
        surrogate = fitted(GmmSurrogate())
        surrogate.fitted_on = samples
        x = z.clone().requires_grad_()
        surrogate(x, labels).loss.backward()
        norms.append(float(x.grad.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.3)


def test_legacy_without_a_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="formula legacy has a threshold"):
        fitted(GmmSurrogate(formula="legacy", threshold=Threshold()))(*batch(6))


def test_it_says_so_when_it_has_no_mixture() -> None:
    surrogate = make_surrogate(GmmSurrogate(), smashed_shape=SHAPE, num_classes=CLASSES, noise_std=SIGMA)
    with pytest.raises(RuntimeError, match="call refit"):
        surrogate(*batch(6))
