"""Seconds to fit per-class mixtures by EM: all classes at once, against scikit-learn's GaussianMixture class by class.

50,000 samples × 512 dimensions, 10 classes × 5 diagonal components that overlap a little (4.8 standard deviations
apart), float32, drawn here. Both start from k-means++ and k-means, once, and end when a round gains less than 1e-3 nats
a sample; both run on the same number of threads (--threads). They are timed in turn, and the median of the ratios
counts. Held-out log-likelihoods are of 10,000 further samples, in nats a sample, under each side's own density.
Exit code 1 when the ratio is below 3, or when our held-out log-likelihood is the lower one.
Usage: python benchmarks/mixture.py [--samples N] [--repeats N] [--threads N]
"""

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from cem.mixture import ClassMixture, fit_mixture
from cem.runtime import set_up_process

CLASSES, COMPONENTS, DIMENSIONS = 10, 5, 512
REQUIRED = 3.0
EQUAL = 0.01  # nats a sample: less is no difference


def true_mixture() -> ClassMixture:
    draws = torch.Generator().manual_seed(0)
    shape = (CLASSES, COMPONENTS, DIMENSIONS)
    weights = 0.5 + torch.rand(shape[:2], generator=draws)
    return ClassMixture(
        weights / weights.sum(1, keepdim=True),
        0.15 * torch.randn(shape, generator=draws) + torch.randn(CLASSES, 1, DIMENSIONS, generator=draws),
        0.5 + torch.rand(shape, generator=draws),
        torch.full((CLASSES,), 1 / CLASSES),
    )


def ours(z: torch.Tensor, labels: torch.Tensor, seed: int) -> ClassMixture:
    draws = torch.Generator().manual_seed(seed)
    return fit_mixture(z, labels, components=COMPONENTS, covariance="diag", fit="em", generator=draws)


def theirs(classes: list[np.ndarray], seed: int) -> list[GaussianMixture]:
    settings = {"covariance_type": "diag", "tol": 1e-3, "max_iter": 100, "init_params": "kmeans", "n_init": 1}
    return [GaussianMixture(COMPONENTS, random_state=seed, **settings).fit(own) for own in classes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    set_up_process(args.threads)
    truth = true_mixture()
    labels, held_labels = torch.arange(args.samples) % CLASSES, torch.arange(10_000) % CLASSES
    z = truth.sample(labels, generator=torch.Generator().manual_seed(1))
    held = truth.sample(held_labels, generator=torch.Generator().manual_seed(2))
    classes = [z[labels == c].numpy() for c in range(CLASSES)]
    print(f"held-out log-likelihood of the truth: {truth.log_density(held, held_labels).mean():.3f} nats")

    ratios, likelihoods = [], []
    with threadpool_limits(args.threads):
        for seed in range(args.repeats):
            start = time.perf_counter()
            models = theirs(classes, seed)
            middle = time.perf_counter()
            mixture = ours(z, labels, seed)
            seconds = time.perf_counter() - middle
            ratios.append((middle - start) / seconds)
            reference = np.mean([models[c].score(held[held_labels == c].numpy()) for c in range(CLASSES)])
            likelihoods.append((float(reference), float(mixture.log_density(held, held_labels).mean())))
            rounds = statistics.mean(model.n_iter_ for model in models)
            print(
                f"scikit-learn: {middle - start:6.2f} s, {likelihoods[-1][0]:.3f} nats (rounds: {rounds:.1f})"
                f"   fit_mixture: {seconds:6.2f} s, {likelihoods[-1][1]:.3f} nats"
            )
    ratio = statistics.median(ratios)
    reference, found = (statistics.median(side) for side in zip(*likelihoods, strict=True))
    print(
        f"ratio: {ratio:.1f} (median, {min(ratios):.1f} to {max(ratios):.1f}; required: {REQUIRED:g}); "
        f"held out: scikit-learn {reference:.3f}, fit_mixture {found:.3f} nats"
    )
    if ratio < REQUIRED or found < reference - EQUAL:
        print(
            f"too slow or less likely: expected a ratio of {REQUIRED:g} or more and at least {reference:.3f} nats, "
            f"found {ratio:.1f} and {found:.3f}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
