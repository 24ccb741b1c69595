"""Per-class Gaussian mixtures of smashed data: fit, density, leakage."""

from cem.mixture.old import VARIANCE_FLOOR, ClassMixture, MixtureError, fit_mixture, load_mixture, noise_entropy, save_mixture
