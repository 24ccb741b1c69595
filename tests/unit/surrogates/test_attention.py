"""The attention surrogate: an upper bound whatever its weights, and the parts it is made of."""

import math

import pytest
import torch

from cem.config import AttentionSurrogate
from cem.mixture import ClassMixture
from cem.surrogates import make_surrogate
from cem.surrogates.cross_attention import GatedCrossAttention
from cem.surrogates.slot_attention import SlotAttention

SHAPE, CLASSES, SIGMA = (4, 2, 2), 3, 0.3
DIM = math.prod(SHAPE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def population() -> ClassMixture:
    means = torch.randn(CLASSES, 1, DIM, generator=generator(1))
    variances = 0.05 + 0.2 * torch.rand(CLASSES, 1, DIM, generator=generator(2))
    return ClassMixture(torch.ones(CLASSES, 1), means, variances, torch.full((CLASSES,), 1 / CLASSES))


def draw(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % CLASSES
    return population().sample(labels, generator=generator(seed)).view(n, *SHAPE), labels


def make(statistic: str = "mixture", **settings):
    cfg = AttentionSurrogate(statistic=statistic, embedding=16, slots=4, components=2, **settings)
    return make_surrogate(cfg, smashed_shape=SHAPE, num_classes=CLASSES, noise_std=SIGMA, seed=3)


def true_leakage() -> float:
    """One Gaussian a class with independent dimensions: h(z|y) + H(y) − h(ε) in closed form."""
    capacity = 0.5 * torch.log1p(population().variances / SIGMA**2).sum(-1).mean()
    return float(capacity) + math.log(CLASSES)


def leakage(surrogate, batches: int = 6) -> float:
    with torch.no_grad():
        values = [surrogate(*draw(300, 100 + i), generator(i)).leakage_nats for i in range(batches)]
    return float(torch.stack(values).mean())


def fit(surrogate, steps: int = 150) -> None:
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=3e-3)
    for i in range(steps):
        optimizer.zero_grad()
        surrogate.fit_loss(*draw(120, 1000 + i), generator(i)).backward()
        optimizer.step()


def test_mixture_is_an_upper_bound_untrained_hostile_and_trained_and_training_tightens_it() -> None:
    truth = true_leakage()
    surrogate = make()
    untrained = leakage(surrogate)
    fit(surrogate)
    trained = leakage(surrogate)
    assert 0.99 * truth <= trained < untrained
    assert trained <= 1.15 * truth
    hostile = make()
    with torch.no_grad():
        for parameter in hostile.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator(7)))
    assert leakage(hostile) >= 0.99 * truth


def test_the_density_of_a_half_does_not_depend_on_that_half() -> None:
    surrogate = make()
    z, labels = draw(40, 5)
    first, second = slice(0, 20), slice(20, 40)
    tokens = z.flatten(2).transpose(1, 2)
    scored = tokens[second][:1]
    others = tokens[second].clone()
    one = surrogate._log_density(tokens[first], labels[first], scored, labels[second][:1])
    others[1:] += 10.0
    all_of_it = surrogate._log_density(tokens[first], labels[first], others, labels[second])
    torch.testing.assert_close(all_of_it[:1], one)


@pytest.mark.parametrize("statistic", ["mixture", "enhanced_variance"])
def test_more_spread_costs_more_and_a_gradient_step_lowers_it(statistic: str) -> None:
    surrogate = make(statistic)
    if statistic == "mixture":
        fit(surrogate, 60)
    z, labels = draw(120, 8)
    means = torch.stack([z[labels == c].mean(0) for c in range(CLASSES)])[labels]
    with torch.no_grad():
        losses = [float(surrogate(means + k * (z - means), labels, generator(1)).loss) for k in (0.5, 1.0, 2.0)]
    assert losses == sorted(losses)
    x = z.clone().requires_grad_()
    before = surrogate(x, labels, generator(1)).loss
    before.backward()
    assert surrogate(z - x.grad, labels, generator(1)).loss < before


def test_no_noise_is_legal() -> None:
    for statistic in ("mixture", "enhanced_variance"):
        cfg = AttentionSurrogate(statistic=statistic)
        surrogate = make_surrogate(cfg, smashed_shape=SHAPE, num_classes=CLASSES, noise_std=0.0)
        terms = surrogate(*draw(12, 0), generator())
        assert torch.isfinite(terms.loss)
        assert torch.isinf(terms.leakage_nats)


def test_one_sample_cannot_be_cross_fitted() -> None:
    with pytest.raises(ValueError, match="two samples"):
        make()(*draw(1, 0), generator())


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = make().state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert all(torch.equal(one[name], value) for name, value in make().state_dict().items())


def _filled(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator(4)))
    return module


def test_slots_do_not_depend_on_the_order_of_tokens_and_ignore_padding() -> None:
    module = _filled(SlotAttention(8, 3, 2))
    tokens = torch.randn(2, 10, 8, generator=generator(5))
    order = torch.randperm(10, generator=generator(6))
    torch.testing.assert_close(module(tokens[:, order]), module(tokens))
    padded = torch.cat([tokens, 50 * torch.ones(2, 4, 8)], dim=1)
    present = torch.arange(14).expand(2, -1) < 10
    torch.testing.assert_close(module(padded, present), module(tokens))


def test_cross_attention_does_not_depend_on_the_order_of_slots_and_closed_gates_change_nothing() -> None:
    module = _filled(GatedCrossAttention(8, 2))
    queries, slots = torch.randn(2, 5, 8, generator=generator(1)), torch.randn(2, 4, 8, generator=generator(2))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(queries, slots[:, order]), module(queries, slots))
    with torch.no_grad():
        module.attention_gate.zero_()
        module.feed_forward_gate.zero_()
    assert torch.equal(module(queries, slots), queries)
    module.reset_gates()
    assert module.attention_gate.item() == module.feed_forward_gate.item() == pytest.approx(0.1)
