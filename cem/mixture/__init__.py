"""Per-class Gaussian mixtures of smashed data: fit, density, leakage."""

from cem.mixture.em import VARIANCE_FLOOR
from cem.mixture.files import load_mixture, save_mixture
from cem.mixture.fit import fit_mixture, fit_mixture_as, fit_mixture_stream
from cem.mixture.lowrank import capacity
from cem.mixture.model import ClassMixture, label_entropy, noise_entropy
from cem.mixture.samples import MixtureError

__all__ = [
    "VARIANCE_FLOOR",
    "ClassMixture",
    "MixtureError",
    "capacity",
    "fit_mixture",
    "fit_mixture_as",
    "fit_mixture_stream",
    "label_entropy",
    "load_mixture",
    "noise_entropy",
    "save_mixture",
]
