"""Settings: frozen, bounded, closed. A study is read with `load_study`; it knows the runs it asks for."""

from cem.config.attack import BASELINES, Attack, Decoder, Linear, MeanImage, Nearest, parse_decoder
from cem.config.base import ConfigError, Settings
from cem.config.dataset import (
    Augment,
    Dataset,
    IdxDataset,
    ImageFolderDataset,
    MlxtendDataset,
    NpzDataset,
    Split,
    SyntheticDataset,
    TorchvisionDataset,
)
from cem.config.load import load_study, parse_study
from cem.config.model import ITEMS, Defense, Dropout, NoPeek, SplitModel, TopK, parse_bottleneck
from cem.config.study import Run, Study
from cem.config.surrogate import AttentionSurrogate, GmmSurrogate, MixtureFit, NoSurrogate, Surrogate, Threshold
from cem.config.training import Training

__all__ = [
    "BASELINES",
    "ITEMS",
    "Attack",
    "AttentionSurrogate",
    "Augment",
    "ConfigError",
    "Dataset",
    "Decoder",
    "Defense",
    "Dropout",
    "GmmSurrogate",
    "IdxDataset",
    "ImageFolderDataset",
    "Linear",
    "MeanImage",
    "MixtureFit",
    "MlxtendDataset",
    "Nearest",
    "NoPeek",
    "NoSurrogate",
    "NpzDataset",
    "Run",
    "Settings",
    "Split",
    "SplitModel",
    "Study",
    "Surrogate",
    "SyntheticDataset",
    "Threshold",
    "TopK",
    "TorchvisionDataset",
    "Training",
    "load_study",
    "parse_bottleneck",
    "parse_decoder",
    "parse_study",
]
