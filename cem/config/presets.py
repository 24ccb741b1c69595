"""The rows of the published tables, by the tables' own names, and what the paper's studies have in common.

`preset: Noise_Nopeek` in a study, a row or a grid stands for that row's settings. Source: arXiv 2503.00383 and its
released scripts; docs/published.md says what is known and what is assumed.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

Settings = dict[str, Any]  # dotted path of a run's setting → value

# The tables do not say the σ of each row. σ = 0.025 is stated for noise alone, and taken for the rows that are called
# after their noise. The others have the smallest σ of the released scripts: CEM cannot run there without noise, and
# with the same σ they would be the rows that are called after it.
NOISE, LITTLE = 0.025, 0.01
_NOPEEK = {"kind": "nopeek", "weight": 0.3}
_DROPOUT = {"kind": "dropout", "rate": 0.2}
_RESSFL: Settings = {"kind": "adversarial", "weight": 0.3, "threshold": 0.5, "net": "res_normN4C64", "lr": 1e-3}
_RESSFL_LARGER = _RESSFL | {"threshold": 0.6}

PRESETS: dict[str, Settings] = {
    "No_defense": {"model.bottleneck": None, "noise_std": 0.0, "defenses": []},
    "Bottleneck": {"model.bottleneck": "noRELU_C8S1", "noise_std": NOISE, "defenses": []},
    "DistCorr": {"model.bottleneck": "noRELU_C8S1", "noise_std": LITTLE, "defenses": [_NOPEEK]},
    "Dropout": {"model.bottleneck": "noRELU_C8S1", "noise_std": LITTLE, "defenses": [_DROPOUT]},
    "PATROL": {
        "model.bottleneck": "noRELU_C8S1", "model.extra_conv": 16, "noise_std": LITTLE,
        "defenses": [_RESSFL, {"kind": "pruning", "fraction": 0.05, "at": 0.75}],
    },
    "ResSFL": {"model.bottleneck": "noRELU_C8S1", "noise_std": LITTLE, "defenses": [_RESSFL]},
    "Noise_Nopeek": {"model.bottleneck": "noRELU_C8S1", "noise_std": NOISE, "defenses": [_NOPEEK]},
    "Noise_ARL": {"model.bottleneck": "noRELU_C8S1", "noise_std": NOISE, "defenses": [_RESSFL]},
}  # fmt: skip
# Data set → preset → what differs there from the above.
_LARGER_IMAGES: dict[str, Settings] = {
    "PATROL": {"defenses": [_RESSFL_LARGER, {"kind": "pruning", "fraction": 0.05, "at": 0.75}]},
    "ResSFL": {"defenses": [_RESSFL_LARGER]},
    "Noise_ARL": {"defenses": [_RESSFL_LARGER]},
}
ELSEWHERE = {"tinyimagenet": _LARGER_IMAGES, "facescrub": _LARGER_IMAGES}
ASSUMED = {  # preset → what the tables do not say of it
    "DistCorr": "its σ and weight are not published",
    "Dropout": "its σ is not published",
    "PATROL": "its σ is not published",
    "ResSFL": "its σ is not published",
    "Noise_Nopeek": "its weight is not published",
}

_CIFAR: Settings = {
    "dataset.side": 32, "dataset.channels": 3,
    "dataset.augment": {"crop_padding": 4, "flip": True, "rotation_deg": 15.0},
    "model.arch": "vgg11", "model.cut_layer": 4, "model.width": 1.0, "model.activation": "sigmoid",
    "training.epochs": 240, "training.batch_size": 128, "training.lr": 0.05, "training.lr_decay": 0.2,
    "training.milestones": [0.25, 0.5, 0.75, 0.875], "training.momentum": 0.9, "training.weight_decay": 5e-4,
    "training.max_grad_norm": None, "training.precision": "fp32",
}  # fmt: skip
_LARGER = {"dataset.augment": {"flip": True, "rotation_deg": 15.0}, "training.batch_size": 256}
# Data set → what all its rows share.
SHARED: dict[str, Settings] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR | {"model.cut_layer": 3},
    "tinyimagenet": _CIFAR
    | _LARGER
    | {"dataset.side": 64, "model.arch": "resnet20", "model.cut_layer": 5, "training.epochs": 120},
    "facescrub": _CIFAR | _LARGER | {"dataset.side": 48},
}
IMAGES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "tinyimagenet": (100_000, 10_000)}  # train, test
# What the released program adds to a row with CEM; the coupled threshold is half as large for ResNet-20.
CEM: Settings = {"kind": "gmm", "formula": "legacy", "weight": 16.0, "schedule": "legacy_lr"}
CEM_ELSEWHERE: dict[str, Settings] = {"tinyimagenet": {"threshold": {"kind": "coupled", "tau": 0.0625}}}

# Kind → the attack as the paper has it. What is not said here is at this program's default, which is the paper's.
ATTACKS: dict[str, Settings] = {
    "decoder": {"kind": "decoder", "net": "res_normN8C64", "epochs": 50, "lr": 1e-3},
    "gan": {
        "kind": "gan", "net": "res_normN8C64", "start": "decoder", "decoder": {"net": "res_normN8C64", "epochs": 50},
    },
}  # fmt: skip

# How people spell them, with what they add: Tiny-ImageNet, facescrub48, CIFAR10_jpeg.
SPELT = {
    "cifar10": r"cifar[\W_]*10(?![a-z0-9])", "cifar100": r"cifar[\W_]*100(?![a-z0-9])",
    "tinyimagenet": r"tiny[\W_]*image[\W_]*net(?![a-z])", "facescrub": r"face[\W_]*scrub(?![a-z])",
}  # fmt: skip


def published_dataset(name: str) -> str | None:
    """The data set of the tables that one is, or is a copy of, such as `cifar10_jpeg`; None where it is none."""
    return next((known for known, spelt in SPELT.items() if re.match(spelt, name.lower())), None)


def preset_settings(name: object, dataset: str) -> Settings:
    """What a preset stands for on a data set; on one that is not of the paper, what it stands for on CIFAR-10.

    Raises ValueError for a preset that does not exist.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}; found {name!r}")
    return PRESETS[name] | ELSEWHERE.get(published_dataset(dataset) or "", {}).get(name, {})


def _is_known(name: str) -> str:
    preset_settings(name, "")
    return name


Preset = Annotated[str, AfterValidator(_is_known), WithJsonSchema({"enum": list(PRESETS), "type": "string"})]
