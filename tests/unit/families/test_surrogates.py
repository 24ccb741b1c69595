"""What holds for every registered surrogate: what training relies on, whatever a surrogate computes."""

import json
import math
import re
from functools import cache
from typing import Literal

import pytest
import torch
from torch import Tensor

from cem.config import SURROGATES, MixtureFit, Run, SurrogateSettings, SyntheticDataset, Training, Vgg11
from cem.mixture import ClassMixture, fit_mixture
from cem.surrogates import MONITORS, Surrogate, Terms, make_surrogate
from cem.training.protocol import train_batch
from cem.training.schedule import surrogate_computed, surrogate_weight
from cem.training.state import State

from ..surrogates.populations import NEAR, generator
from ..training.small import make_batch, make_state, model
from .examples import cases, reader, wrong_facts

CASES = cases(SURROGATES)
EACH = pytest.mark.parametrize("cfg", CASES)
THAT_ADD = pytest.mark.parametrize("cfg", [case for case in CASES if case.values[0].adds_term])
THRESHOLDS = (
    {"kind": "coupled"},
    {"kind": "fixed", "value": 1e-3},
    {"kind": "quantile", "quantile": 0.1},
    {"kind": "schedule"},
)
LABELS = torch.arange(60) % NEAR.classes
SMASHED = NEAR.draw(60, 5)[0]
IMAGES = torch.rand(60, 1, 8, 8, generator=generator(9))


def terms_of(
    surrogate: Surrogate, smashed: Tensor = SMASHED, labels: Tensor = LABELS, images: Tensor = IMAGES
) -> Terms:
    """With the images, where it asks for them."""
    return surrogate(smashed, labels, generator(1), **({"images": images} if surrogate.uses_images else {}))


def changed(cfg: SurrogateSettings, **settings: object) -> SurrogateSettings:
    """The same with other settings, checked as a study's are."""
    return reader(SURROGATES).validate_json(json.dumps(cfg.sparse() | settings), strict=True)


def with_thresholds() -> list[object]:
    """All of them, and those that leave a threshold open with one of each kind."""
    found = list(CASES)
    for case in CASES:
        (cfg,) = case.values
        for threshold in THRESHOLDS if "threshold" in type(cfg).model_fields.keys() - cfg.model_fields_set else ():
            found.append(pytest.param(changed(cfg, threshold=threshold), id=f"{case.id}, {threshold['kind']}"))
    return found


EACH_THRESHOLD = pytest.mark.parametrize("cfg", with_thresholds())


@cache
def mixture(fit: MixtureFit) -> ClassMixture:
    smashed, labels = NEAR.draw(600, 3)
    return fit_mixture(smashed.flatten(1), labels, generator=generator(), **fit.model_dump())


def made(cfg: SurrogateSettings, noise_std: float = NEAR.noise_std, seed: int = 3) -> Surrogate:
    """As a job makes it: from a mixture, where its settings ask for one."""
    start = {} if cfg.mixture is None else {"mixture": mixture(cfg.mixture), "num_samples": 600}
    sizes = {"smashed_shape": NEAR.shape, "num_classes": NEAR.classes}
    return make_surrogate(cfg, **sizes, noise_std=noise_std, seed=seed, **start)


def ready(cfg: SurrogateSettings, noise_std: float = NEAR.noise_std) -> Surrogate:
    """In the middle of a training: it has seen all private images, and is told so."""
    surrogate = made(cfg, noise_std)
    surrogate.measure_threshold(*NEAR.draw(600, 3))
    surrogate.begin_epoch(0.5)
    surrogate.refit(*NEAR.draw(600, 3))
    return surrogate


def loss_and_bounds(surrogate: Surrogate, order: Tensor) -> Tensor:
    """In float64, without a draw of noise: which sample gets which draw depends on the order."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randn", lambda size, **_: torch.zeros(size, dtype=torch.float64))
        terms = terms_of(surrogate.double(), SMASHED[order].double(), LABELS[order], IMAGES[order].double())
    bounds = [bound for bound in (terms.leakage_nats, terms.conditional_nats) if bound is not None]
    return torch.stack([value.double() for value in (terms.loss, *bounds)])


@EACH
def test_facts_have_their_types(cfg: SurrogateSettings) -> None:
    facts: dict[str, object] = {
        "adds_term": bool,
        "weight": float,
        "schedule": str,
        "formula": str,
        "label": str,
        "fitted_by": Literal["own", "shared", "frozen"],
        "own_lr": float,
        "own_warmup_epochs": int,
        "measures_threshold": bool,
        "moves_threshold": bool,
        "smallest_class": int,
        "checks_size": bool,
    }
    assert not wrong_facts(cfg, facts)
    assert [type(cfg.refit_due(since)) for since in range(4)] == [bool] * 4
    assert re.fullmatch(r"[A-Za-z0-9_.+-]+", cfg.label), "a label is part of a run's id, and so of a path"
    assert cfg.adds_term or not cfg.weight
    assert (cfg.own_lr > 0) or cfg.fitted_by != "own"


@EACH_THRESHOLD
def test_terms_are_finite_numbers_and_so_is_their_gradient(cfg: SurrogateSettings) -> None:
    clean = SMASHED.clone().requires_grad_()
    before = clean.detach().clone()
    terms = terms_of(ready(cfg), clean)
    for term in terms:
        assert term.shape == ()
        assert term.isfinite()
    bounds = [bound for bound in (terms.leakage_nats, terms.conditional_nats) if bound is not None]
    assert bounds
    assert not any(bound.requires_grad for bound in bounds)
    assert terms.intra_class_mse > 0
    assert torch.equal(clean, before)
    if not cfg.adds_term:
        assert not terms.loss
        return
    (gradient,) = torch.autograd.grad(terms.loss, clean)
    assert gradient.isfinite().all()
    assert gradient.any()


@EACH_THRESHOLD
def test_without_noise_the_leakage_is_infinite_and_the_loss_is_not(cfg: SurrogateSettings) -> None:
    """Also in a batch without some of the classes."""
    for kept in (LABELS >= 0, LABELS == 1):
        clean = SMASHED[kept].requires_grad_()
        terms = terms_of(ready(cfg, noise_std=0.0), clean, LABELS[kept], IMAGES[kept])
        assert terms.loss.isfinite()
        assert terms.leakage_nats is None or float(terms.leakage_nats) == (math.inf if cfg.adds_term else 0.0)
        assert terms.conditional_nats is None or terms.conditional_nats.isfinite()
        if cfg.adds_term:
            assert torch.autograd.grad(terms.loss, clean)[0].isfinite().all()


@EACH_THRESHOLD
def test_order_of_samples_does_not_matter(cfg: SurrogateSettings) -> None:
    """Rows move in blocks of six, one sample of each class for each half, where halves score each other."""
    order = (6 * torch.randperm(10, generator=generator(2)).unsqueeze(1) + torch.arange(6)).flatten()
    before = loss_and_bounds(ready(cfg), torch.arange(60))
    torch.testing.assert_close(loss_and_bounds(ready(cfg), order), before)


@EACH
def test_the_generator_decides_all_that_it_draws(cfg: SurrogateSettings) -> None:
    before = torch.random.get_rng_state()
    one, other = (terms_of(ready(cfg)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@EACH
def test_first_weights_depend_on_the_seed_alone(cfg: SurrogateSettings) -> None:
    before = torch.random.get_rng_state()
    one, again, other = (made(cfg, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), again.parameters(), strict=True))
    parameters = list(zip(one.parameters(), other.parameters(), strict=True))
    assert not parameters or not all(torch.equal(*pair) for pair in parameters)


@EACH
def test_it_has_a_loss_of_its_own_just_if_it_has_parameters_of_its_own(cfg: SurrogateSettings) -> None:
    surrogate = ready(cfg)
    images = {"images": IMAGES} if surrogate.uses_images else {}
    fit_loss, parameters = surrogate.fit_loss(SMASHED, LABELS, generator(1), **images), list(surrogate.parameters())
    assert (fit_loss is None) == (not parameters)
    assert parameters or cfg.fitted_by == "frozen"
    if fit_loss is not None:
        assert fit_loss.shape == ()
        assert fit_loss.isfinite()
        gradients = [g for g in torch.autograd.grad(fit_loss, parameters, allow_unused=True) if g is not None]
        assert any(gradient.any() for gradient in gradients)
        assert all(gradient.isfinite().all() for gradient in gradients)


@EACH_THRESHOLD
def test_state_round_trip_gives_the_same_future(cfg: SurrogateSettings) -> None:
    one, other = ready(cfg), made(cfg)
    terms_of(one)  # what a batch moves is part of the state
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(0.9)
    other.load_state_dict(one.state_dict())
    for step in range(2):
        found = [terms_of(surrogate) for surrogate in (one, other)]
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
        assert one.monitor() == other.monitor()
        for surrogate in (one, other):
            surrogate.refit(*NEAR.draw(300, 7 + step))
    assert one.state_dict().keys() == other.state_dict().keys()


@EACH_THRESHOLD
def test_what_it_monitors_has_a_column_of_the_history(cfg: SurrogateSettings) -> None:
    surrogate = ready(cfg)
    terms_of(surrogate)
    told = surrogate.monitor()
    assert set(told) <= set(MONITORS)
    assert all(math.isfinite(value) for value in told.values())


@EACH
def test_a_training_too_short_for_its_own_warm_up_is_refused(cfg: SurrogateSettings) -> None:
    own = cfg.own_warmup_epochs
    cfg.check_training(Training(epochs=3 + own, warmup_epochs=2))
    if own:
        with pytest.raises(ValueError, match=str(own)):
            cfg.check_training(Training(epochs=2 + own, warmup_epochs=2))


# In training, by the protocol.


def train_steps(
    cfg: SurrogateSettings | None, steps: int, protocol: str = "joint", weight: float | None = None
) -> State:
    """A run's parties after some steps of its first epoch after the warm-ups; of one without a surrogate for None."""
    own = cfg.own_warmup_epochs if cfg else 0
    training = Training(epochs=2 + own, warmup_epochs=0, protocol=protocol)
    settings = {} if cfg is None else {"surrogate": cfg}
    dataset = SyntheticDataset(images=100, classes=3, channels=1)
    run = Run(model=Vgg11(width=0.05, bottleneck="noRELU_C4S1"), dataset=dataset, training=training, **settings)
    state = make_state(run)
    if run.surrogate.measures_threshold:
        state.client.surrogate.measure_threshold(*NEAR.draw(60, 3))
    used = surrogate_weight(run.surrogate, training, own) if weight is None else weight
    for step in range(steps):
        train_batch(
            state.client, state.server, make_batch(step), used, surrogate_computed(run.surrogate, training, own)
        )
    return state


@THAT_ADD
def test_a_surrogate_moves_the_encoder_and_not_the_classifier(cfg: SurrogateSettings) -> None:
    """One step from equal weights: the server's is that of `none`, the client's is not."""
    plain, state = train_steps(None, 1), train_steps(cfg, 1)
    servers = zip(plain.server.classifier.parameters(), state.server.classifier.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in servers)
    encoders = zip(plain.client.encoder.parameters(), state.client.encoder.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in encoders if a.dim() > 1)


@pytest.mark.parametrize("protocol", ["joint", "split"])
@EACH
def test_at_weight_zero_every_surrogate_is_none_bit_for_bit(cfg: SurrogateSettings, protocol: str) -> None:
    plain = train_steps(None, 3, protocol)
    state = train_steps(changed(cfg, weight=0.0) if cfg.adds_term else cfg, 3, protocol)
    for a, b in zip(model(plain.client, plain.server), model(state.client, state.server), strict=True):
        assert torch.equal(a, b)
    for name, draws in state.generators.items():
        assert torch.equal(draws.get_state(), plain.generators[name].get_state())


@EACH
def test_who_fits_its_own_parameters(cfg: SurrogateSettings) -> None:
    before, after = train_steps(cfg, 0).client.surrogate, train_steps(cfg, 1).client.surrogate
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert any(moved) == (cfg.fitted_by != "frozen")


@pytest.mark.parametrize("cfg", [case for case in CASES if case.values[0].fitted_by == "own"])
def test_the_weight_does_not_reach_parameters_fitted_on_their_own(cfg: SurrogateSettings) -> None:
    one, other = (train_steps(cfg, 1, weight=weight).client.surrogate.state_dict() for weight in (0.01, 10.0))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
