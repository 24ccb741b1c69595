"""Golden numbers: what the same study gave when NUMERICS was last raised.

A change that makes this fail changes what old results mean: raise `cem.NUMERICS`, then put the new numbers below. A
new setting at a default that keeps the old behaviour changes the digest of the defaults alone: put the new one below.
"""

import hashlib
import json

import pytest
import torch

import cem
from cem.config import (
    AttentionSurrogate,
    DefenseSettings,
    GaussianSurrogate,
    GmmSurrogate,
    LocalDp,
    MlxtendDataset,
    Run,
    TopK,
    Training,
    Vgg11,
)
from cem.defenses import make_defense
from cem.jobs.process import make_generator
from cem.models import make_decoder, make_split, smashed_shape
from cem.surrogates import make_surrogate
from cem.training.protocol import train_batch

from .training.small import make_batch, make_state, weights
from .training.steps import DEFENSES

DEFAULTS = {
    "gmm bound": GmmSurrogate(),
    "gmm legacy": GmmSurrogate(formula="legacy"),
    "gaussian": GaussianSurrogate(),
    "attention mixture": AttentionSurrogate(),
    "attention enhanced_variance": AttentionSurrogate(statistic="enhanced_variance"),
    "training": Training(),
    "model": Vgg11(),
    "dataset": MlxtendDataset(),
}
GOLDEN_NUMERICS = 6
GOLDEN_DEFAULTS = "8e7e48772a3c3386"
PLAIN: dict[str, tuple[DefenseSettings, ...]] = {  # which the shared list has with other settings alone
    "default topk": (TopK(fraction=0.3),),
    "default local_dp": (LocalDp(),),
}
GOLDEN_NUMBERS = {
    "encoder": 0.08411289,
    "classifier": 0.07666922,
    "decoder": 0.00682637,
    "gmm bound": 1.257458,
    "gmm legacy": 1.388299,
    "gaussian": 1.884398,
    "attention mixture": 1.965831,
    "attention enhanced_variance": 3.312384,
    "training with masks": 0.1307043,
    "training with penalties": 2.126228,
    "training with shaped learned": 0.1281996,
    "training with shaped fisher": 0.621592,
    "training with vib": 0.1758682,
    "training with local_dp": 0.1307383,
    "training with default topk": 0.1306505,
    "training with default local_dp": 0.136208,
}


def trained(defenses: tuple[DefenseSettings, ...]) -> float:
    """Mean square of all that two steps of training leave, with a decay that is large."""
    training = Training(lr=0.2, weight_decay=0.1)
    model = Vgg11(width=0.1)
    dataset = MlxtendDataset(channels=1)
    noise_std = 0.0 if any(one.adds_noise for one in defenses) else 0.05
    run = Run(dataset=dataset, model=model, noise_std=noise_std, defenses=defenses, training=training, seed=0)
    state = make_state(run)
    for seed in (1, 2):
        train_batch(state.client, state.server, make_batch(seed), 0.0, with_surrogate=False)
    left = [one for name, one in sorted(weights(state).items()) if one.is_floating_point() and "surrogate" not in name]
    return float(torch.stack([one.double().square().mean() for one in left]).mean())


def numbers() -> dict[str, float]:
    """A scalar of each part that results rest on, from fixed seeds."""
    draws = make_generator(0, "golden", "cpu")
    images = torch.rand(24, 1, 32, 32, generator=draws)
    labels = torch.arange(24) % 3
    encoder, classifier = make_split(Vgg11(width=0.1), (1, 32, 32), 3, draws)
    shape = smashed_shape(encoder, (1, 32, 32))
    spread = torch.rand(24, *shape, generator=draws)  # an untrained encoder's outputs lie below every threshold
    with torch.no_grad():
        clean = encoder.eval()(images)
        z = make_defense(0.05, []).corrupt(clean, draws)
        found = {"encoder": clean.std(), "classifier": classifier.eval()(z).std()}
        found["decoder"] = make_decoder("res_normN2C8", shape, (1, 32, 32), draws).eval()(z).std()
        for name in ("gmm bound", "gmm legacy", "gaussian", "attention mixture", "attention enhanced_variance"):
            surrogate = make_surrogate(DEFAULTS[name], smashed_shape=shape, num_classes=3, noise_std=0.05)
            surrogate.refit(spread, labels)
            found[name] = surrogate(spread, labels, make_generator(1, name, "cpu")).loss
    steps = {f"training with {name}": trained(defenses) for name, defenses in (DEFENSES | PLAIN).items()}
    return {name: float(value) for name, value in found.items()} | steps


def defaults() -> str:
    """Digest of the settings' defaults."""
    text = json.dumps({name: settings.model_dump(mode="json") for name, settings in DEFAULTS.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_numbers_and_defaults_are_those_of_this_numerics() -> None:
    advice = "numbers changed: raise cem.NUMERICS and put the new values into tests/unit/test_numerics.py"
    assert GOLDEN_NUMERICS == cem.NUMERICS, advice
    assert defaults() == GOLDEN_DEFAULTS, advice
    # Other processors round otherwise; a changed formula is off by far more.
    assert numbers() == pytest.approx(GOLDEN_NUMBERS, rel=1e-3), advice
