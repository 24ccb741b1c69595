"""What must hold for the surrogates whatever they are made of: gradients point the right way, names do not matter."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from cem.config import AttentionSurrogate, GaussianSurrogate, GmmSurrogate, SurrogateSettings, Threshold
from cem.surrogates.attention_mixture import Components, Halves, divide

from .populations import NEAR, fit, generator, make

FORMULAS = {
    "gmm bound": GmmSurrogate(components=2),
    "gmm bound, pca": GmmSurrogate(components=2, covariance="pca", rank=2),
    "gmm legacy": GmmSurrogate(formula="legacy", components=2),
    "gaussian": GaussianSurrogate(),
    "attention mixture": AttentionSurrogate(embedding=16),
    "attention mixture, linear": AttentionSurrogate(tokens="linear", reduced=16),
    "attention enhanced_variance": AttentionSurrogate(statistic="enhanced_variance", reduced=32),
    "attention enhanced_variance, spatial": AttentionSurrogate(
        statistic="enhanced_variance", tokens="spatial", embedding=16
    ),
}
THRESHOLDS = {
    "none": Threshold(),
    "coupled": Threshold(kind="coupled"),
    "fixed": Threshold(kind="fixed", value=1e-3),
    "quantile": Threshold(kind="quantile", quantile=0.1),
    "schedule": Threshold(kind="schedule"),
}
CASES = [(name, kind) for name in FORMULAS for kind in THRESHOLDS if (name, kind) != ("gmm legacy", "none")]


def ready(cfg: SurrogateSettings):
    """A surrogate in the middle of a training: fitted to NEAR, with its threshold measured."""
    surrogate = make(NEAR, cfg)
    if isinstance(cfg, GmmSurrogate):
        surrogate.refit(*NEAR.draw(600, 3))
    elif cfg.formula == "mixture":
        surrogate.load_state_dict(fitted(cfg.model_copy(update={"threshold": Threshold()})))
    surrogate.measure_threshold(*NEAR.draw(600, 3))
    surrogate.begin_epoch(0.5)
    return surrogate


@cache
def fitted(cfg: AttentionSurrogate) -> dict[str, torch.Tensor]:
    surrogate = make(NEAR, cfg)
    fit(surrogate, NEAR, 80)
    return surrogate.state_dict()


def made(name: str, kind: str):
    return ready(FORMULAS[name].model_copy(update={"threshold": THRESHOLDS[kind]}))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_more_spread_within_components_costs_more(name: str, kind: str) -> None:
    losses = []
    for scale in (0.5, 1.0, 2.0):
        smashed, labels = replace(NEAR, spread=scale * NEAR.spread).draw(300, 8)  # the same draws, about the same means
        surrogate = made(name, kind)
        with torch.no_grad():
            losses.append(float(surrogate(smashed, labels, generator(1)).loss))
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_gradient_step_lowers_the_loss_and_the_true_leakage(name: str, kind: str) -> None:
    smashed, labels = NEAR.draw(300, 8)
    moving = smashed.clone().requires_grad_()
    before = made(name, kind)(moving, labels, generator(1)).loss
    before.backward()
    step = 0.05 * smashed.numel() ** 0.5 * moving.grad / moving.grad.norm()
    assert made(name, kind)(smashed - step, labels, generator(1)).loss < before
    assert estimated_leakage(smashed - step) < estimated_leakage(smashed)


def estimated_leakage(smashed: torch.Tensor) -> float:
    """I(ẑ; z) of the samples themselves, by Monte Carlo: they are the population, and its density is exact.

    A kernel estimate: ẑ is uniform on the samples, so z is a mixture of as many Gaussians of variance σ².
    """
    flat = smashed.flatten(1)
    noisy = (flat + NEAR.noise_std * torch.randn(20, *flat.shape, generator=generator(4))).flatten(0, 1)
    squared = torch.cdist(noisy, flat).square() / NEAR.noise_std**2
    log_density = torch.logsumexp(-0.5 * squared, 1) - math.log(len(flat))
    # −E log p(z) − h(ε); the Gaussian's constant cancels, except for its ½ per dimension.
    return float(-log_density.mean()) - 0.5 * flat.shape[1]


def loss_and_leakage(surrogate, smashed: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """In float64, without a draw of noise: which sample gets which draw depends on the order."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randn", lambda size, **_: torch.zeros(size, dtype=torch.float64))
        terms = surrogate.double()(smashed.double(), labels)
    return torch.stack([terms.loss, terms.leakage_nats])


@pytest.mark.parametrize(
    ("name", "kind"), [case for case in CASES if "mixture" not in case[0] and case[0] != "gaussian"]
)
def test_order_of_samples_does_not_matter(name: str, kind: str) -> None:
    """Any order, where no half of a batch is scored under the other; for those that do, see tests/unit/families."""
    smashed, labels = NEAR.draw(60, 5)[0], torch.arange(60) % NEAR.classes
    order = torch.randperm(60, generator=generator(2))
    before = loss_and_leakage(made(name, kind), smashed, labels)
    torch.testing.assert_close(loss_and_leakage(made(name, kind), smashed[order], labels[order]), before)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_names_of_classes_do_not_matter(name: str, kind: str) -> None:
    smashed, labels = NEAR.draw(60, 5)[0], torch.arange(60) % NEAR.classes
    renamed, new_name = made(name, kind), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for part in ("weights", "means", "norms", "variances", "basis", "spread", "class_embedding"):
            if hasattr(renamed, part):
                getattr(renamed, part)[new_name] = getattr(renamed, part).clone()
    after = loss_and_leakage(renamed, smashed, new_name[labels])
    torch.testing.assert_close(after, loss_and_leakage(made(name, kind), smashed, labels))


@pytest.mark.parametrize("name", [name for name in FORMULAS if "attention" in name])
def test_order_of_the_slots_does_not_matter(name: str) -> None:
    smashed, labels = NEAR.draw(60, 5)
    surrogate = ready(FORMULAS[name])
    before = loss_and_leakage(surrogate, smashed, labels)
    with torch.no_grad():
        surrogate.slots.initial.copy_(surrogate.slots.initial.roll(3, 0))
    torch.testing.assert_close(loss_and_leakage(surrogate, smashed, labels), before)


def predicted(surrogate, smashed: torch.Tensor, labels: torch.Tensor, halves: Halves) -> Components:
    with torch.no_grad():
        mixture, _ = surrogate._predict(surrogate.tokens(smashed), labels, halves, generator(1))
    return Components(*(part.unflatten(0, (2, -1)) for part in mixture))


def assert_same(one: Components, other: Components) -> None:
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slot_init", ["learned", "gaussian"])
def test_order_of_the_support_does_not_matter_to_attention(slot_init: str) -> None:
    surrogate = ready(AttentionSurrogate(embedding=16, slot_init=slot_init))
    smashed, labels = NEAR.draw(61, 5)
    halves = divide(labels)
    order = torch.randperm(halves.rows.shape[1], generator=generator(2))
    shuffled = Halves(halves.rows[:, order], halves.present[:, order])
    assert_same(predicted(surrogate, smashed, labels, shuffled), predicted(surrogate, smashed, labels, halves))


def test_what_is_scored_does_not_move_the_density_that_scores_it() -> None:
    surrogate = ready(AttentionSurrogate(embedding=16))
    smashed, labels = NEAR.draw(61, 5)
    halves = divide(labels)
    before = predicted(surrogate, smashed, labels, halves)
    changed = smashed.clone()
    changed[halves.rows[1][halves.present[1] > 0]] += 5.0  # the second half, which the first half's density scores
    after = predicted(surrogate, changed, labels, halves)
    assert_same(Components(*(part[0] for part in after)), Components(*(part[0] for part in before)))


def test_a_predicted_variance_does_not_enter_the_loss_of_a_threshold() -> None:
    surrogate = ready(AttentionSurrogate(embedding=16, components=1, threshold=THRESHOLDS["fixed"]))
    smashed, labels = NEAR.draw(60, 5)
    before = loss_and_leakage(surrogate, smashed, labels)
    with torch.no_grad():
        surrogate.head[1].bias[-surrogate.token_size :] -= 5.0
    after = loss_and_leakage(surrogate, smashed, labels)
    torch.testing.assert_close(after[0], before[0])
    assert after[1] != before[1]


def test_halves_hold_each_class_that_has_two_samples() -> None:
    labels = torch.tensor([2, 0, 0, 1, 2, 2, 0, 3, 3])
    halves = divide(labels)
    kept = [rows[present > 0].tolist() for rows, present in zip(*halves, strict=True)]
    assert sorted(kept[0] + kept[1]) == list(range(9))
    for half in kept:
        assert {0, 2, 3} <= {int(labels[row]) for row in half}
