"""Per-class Gaussian mixtures of smashed data: fit, density, leakage."""

from cem.mixture.em import VARIANCE_FLOOR
from cem.mixture.files import load_mixture, save_mixture
from cem.mixture.fit import choose_components, fit_mixture, fit_mixture_stream
from cem.mixture.lowrank import capacity
from cem.mixture.model import ClassMixture, noise_entropy
from cem.mixture.samples import MixtureError

__all__ = [
    "VARIANCE_FLOOR",
    "ClassMixture",
    "MixtureError",
    "capacity",
    "choose_components",
    "fit_mixture",
    "fit_mixture_stream",
    "load_mixture",
    "noise_entropy",
    "save_mixture",
]
