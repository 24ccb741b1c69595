"""Per-class Gaussian mixtures of smashed data: fit, density, leakage."""

from cem.mixture.background import Background
from cem.mixture.consistency import i_mmse
from cem.mixture.family import Family, Scored, fit_family
from cem.mixture.files import load_mixture, save_mixture
from cem.mixture.fit import fit_mixture, fit_mixture_as, fit_mixture_stream
from cem.mixture.leakage import Leakage, Sandwich
from cem.mixture.lowrank import capacity
from cem.mixture.model import ClassMixture, label_entropy, noise_entropy
from cem.mixture.pairs import Contrast, Pairs
from cem.mixture.samples import MixtureError, Samples

__all__ = [
    "Background",
    "ClassMixture",
    "Contrast",
    "Family",
    "Leakage",
    "MixtureError",
    "Pairs",
    "Samples",
    "Sandwich",
    "Scored",
    "capacity",
    "fit_family",
    "fit_mixture",
    "fit_mixture_as",
    "fit_mixture_stream",
    "i_mmse",
    "label_entropy",
    "load_mixture",
    "noise_entropy",
    "save_mixture",
]
