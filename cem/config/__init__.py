"""Settings: frozen, bounded, closed. A study is read with `load_study`; it knows the runs it asks for."""

from typing import Any

from cem.config.attack import (
    ATTACKS,
    Attack,
    AttackSettings,
    ClassMean,
    Decoder,
    Flow,
    Gan,
    Linear,
    MeanImage,
    Nearest,
    Optimization,
    PriorSearch,
    ShadowModel,
)
from cem.config.base import ConfigError, Seed, Settings, Slug
from cem.config.dataset import (
    DATASETS,
    Augment,
    Dataset,
    DatasetSettings,
    IdxDataset,
    ImageFolderDataset,
    MlxtendDataset,
    NimfaDataset,
    NpzDataset,
    Split,
    SyntheticDataset,
    TorchvisionDataset,
)
from cem.config.decoder import DecoderFit, FlowFit, Loss, NetworkFit, StartingDecoder, TunedFit, parse_decoder
from cem.config.defense import DEFENSES, Defense, DefenseSettings, Dropout, NoPeek, TopK
from cem.config.load import load_study, parse_study, read_settings
from cem.config.metric import METRICS, Lpips, Metric, MetricSettings, every_metric
from cem.config.mixture import MixtureFit
from cem.config.model import MODELS, Model, ModelSettings, Vgg11, parse_bottleneck
from cem.config.registry import Family, Member, load
from cem.config.study import Run, Study
from cem.config.surrogate import (
    LEGACY_LR,
    SURROGATES,
    AttentionSurrogate,
    GmmSurrogate,
    NoSurrogate,
    Surrogate,
    SurrogateSettings,
    SurrogateTerm,
    ThresholdTerm,
)
from cem.config.threshold import Threshold
from cem.config.training import Training

FAMILIES: tuple[Family[Any], ...] = (SURROGATES, DEFENSES, ATTACKS, MODELS, DATASETS, METRICS)

__all__ = [
    "ATTACKS",
    "DATASETS",
    "DEFENSES",
    "FAMILIES",
    "LEGACY_LR",
    "METRICS",
    "MODELS",
    "SURROGATES",
    "Attack",
    "AttackSettings",
    "AttentionSurrogate",
    "Augment",
    "ClassMean",
    "ConfigError",
    "Dataset",
    "DatasetSettings",
    "Decoder",
    "DecoderFit",
    "Defense",
    "DefenseSettings",
    "Dropout",
    "Family",
    "Flow",
    "FlowFit",
    "Gan",
    "GmmSurrogate",
    "IdxDataset",
    "ImageFolderDataset",
    "Linear",
    "Loss",
    "Lpips",
    "MeanImage",
    "Member",
    "Metric",
    "MetricSettings",
    "MixtureFit",
    "MlxtendDataset",
    "Model",
    "ModelSettings",
    "Nearest",
    "NetworkFit",
    "NimfaDataset",
    "NoPeek",
    "NoSurrogate",
    "NpzDataset",
    "Optimization",
    "PriorSearch",
    "Run",
    "Seed",
    "Settings",
    "ShadowModel",
    "Slug",
    "Split",
    "StartingDecoder",
    "Study",
    "Surrogate",
    "SurrogateSettings",
    "SurrogateTerm",
    "SyntheticDataset",
    "Threshold",
    "ThresholdTerm",
    "TopK",
    "TorchvisionDataset",
    "Training",
    "TunedFit",
    "Vgg11",
    "every_metric",
    "load",
    "load_study",
    "parse_bottleneck",
    "parse_decoder",
    "parse_study",
    "read_settings",
]
