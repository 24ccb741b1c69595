"""Settings: frozen, bounded, closed. A study is read with `load_study`; it knows the runs it asks for."""

from typing import Any

from cem.config.attack import (
    ATTACKS,
    Attack,
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
from cem.config.attack_base import AttackSettings
from cem.config.attention import AttentionSurrogate
from cem.config.base import ConfigError, Seed, Settings, Slug
from cem.config.bottleneck import parse_bottleneck
from cem.config.dataset import (
    DATASETS,
    ActivationsDataset,
    Augment,
    Dataset,
    DatasetSettings,
    IdxDataset,
    ImageFolderDataset,
    MlxtendDataset,
    NimfaDataset,
    NpzDataset,
    SyntheticDataset,
    TorchvisionDataset,
)
from cem.config.decoder import DecoderFit, FlowFit, Loss, NetworkFit, StartingDecoder, TunedFit, parse_decoder
from cem.config.defense import (
    DEFENSES,
    Adversarial,
    Defense,
    Dropout,
    Hsic,
    NoPeek,
    Pruning,
    SparseCoding,
    TopK,
)
from cem.config.defense_base import DefenseSettings
from cem.config.load import load_study, parse_study, read_settings
from cem.config.metric import METRICS, Lpips, Metric, MetricSettings, every_metric
from cem.config.mixture import MixtureFit
from cem.config.model import (
    MODELS,
    MobileNetV2,
    Model,
    ResNet,
    ResNet20,
    ResNet32,
    Vgg,
    Vgg11,
    Vgg13,
    Vgg16,
    VitSmall,
)
from cem.config.model_base import ModelSettings
from cem.config.noise import LocalDp, ShapedNoise, Vib
from cem.config.own_network import Checkpoint, GivenActivations, OwnModel, Torchvision
from cem.config.registry import Family, Member, load
from cem.config.run import Run
from cem.config.split import Split
from cem.config.study import Study
from cem.config.surrogate import (
    SURROGATES,
    GaussianSurrogate,
    GmmSurrogate,
    NoSurrogate,
    PairSurrogate,
    Surrogate,
)
from cem.config.surrogate_base import LEGACY_LR, SurrogateSettings, SurrogateTerm, ThresholdTerm
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
    "ActivationsDataset",
    "Adversarial",
    "Attack",
    "AttackSettings",
    "AttentionSurrogate",
    "Augment",
    "Checkpoint",
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
    "GaussianSurrogate",
    "GivenActivations",
    "GmmSurrogate",
    "Hsic",
    "IdxDataset",
    "ImageFolderDataset",
    "Linear",
    "LocalDp",
    "Loss",
    "Lpips",
    "MeanImage",
    "Member",
    "Metric",
    "MetricSettings",
    "MixtureFit",
    "MlxtendDataset",
    "MobileNetV2",
    "Model",
    "ModelSettings",
    "Nearest",
    "NetworkFit",
    "NimfaDataset",
    "NoPeek",
    "NoSurrogate",
    "NpzDataset",
    "Optimization",
    "OwnModel",
    "PairSurrogate",
    "PriorSearch",
    "Pruning",
    "ResNet",
    "ResNet20",
    "ResNet32",
    "Run",
    "Seed",
    "Settings",
    "ShadowModel",
    "ShapedNoise",
    "Slug",
    "SparseCoding",
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
    "Torchvision",
    "TorchvisionDataset",
    "Training",
    "TunedFit",
    "Vgg",
    "Vgg11",
    "Vgg13",
    "Vgg16",
    "Vib",
    "VitSmall",
    "every_metric",
    "load",
    "load_study",
    "parse_bottleneck",
    "parse_decoder",
    "parse_study",
    "read_settings",
]
