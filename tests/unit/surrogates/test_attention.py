"""The attention surrogate: an upper bound whatever its weights, and the parts it is made of."""

import math

import pytest
import torch

from cem.config import AttentionSurrogate, Threshold, Vgg11
from cem.mixture import ClassMixture
from cem.models import make_split, parameter_count, smashed_shape
from cem.surrogates import MONITORS, SurrogateError, make_surrogate
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
    """One Gaussian for each class with independent dimensions: h(z|y) + H(y) − h(ε) in closed form."""
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


def test_antithetic_draws_are_the_mean_of_both_signs_and_their_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two draws; the number itself stays the bound: half of it is scored under −ε, as likely as ε."""
    z, labels = draw(60, 0)
    single, pairs = make(), make(antithetic=True)

    def gradient(surrogate, seed: int) -> torch.Tensor:
        clean = z.clone().requires_grad_()
        surrogate(clean, labels, generator(seed)).loss.backward()
        return clean.grad.flatten()

    def agreement(surrogate) -> float:
        found = [gradient(surrogate, seed) for seed in (1, 2)]
        return float(torch.cosine_similarity(*found, dim=0))

    assert 1 - agreement(pairs) < 0.1 * (1 - agreement(single))
    found, randn = [], torch.randn
    for sign in (1, -1):
        monkeypatch.setattr(torch, "randn", lambda *size, sign=sign, **how: sign * randn(*size, **how))
        found.append(single(z, labels, generator(1)).leakage_nats)
    monkeypatch.undo()
    torch.testing.assert_close(pairs(z, labels, generator(1)).leakage_nats, sum(found) / 2)


def test_one_sample_cannot_be_cross_fitted() -> None:
    with pytest.raises(ValueError, match="two samples"):
        make()(*draw(1, 0), generator())


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


# The paper's tables: image side, cut layer, classes, shape of z.
PAPER = {
    "CIFAR-10": (32, 4, 10, (8, 8, 8)),
    "CIFAR-100": (32, 4, 100, (8, 8, 8)),
    "CIFAR-10, cut 3": (32, 3, 10, (8, 16, 16)),
    "FaceScrub": (48, 4, 530, (8, 12, 12)),
    "Tiny ImageNet": (64, 4, 200, (8, 16, 16)),
}


@pytest.mark.parametrize("name", PAPER)
def test_spatial_tokens_cost_at_most_a_hundredth_of_the_network(name: str) -> None:
    side, cut, classes, expected = PAPER[name]
    with torch.device("meta"):
        encoder, classifier = make_split(Vgg11(cut_layer=cut), (3, side, side), classes)
    shape = smashed_shape(encoder, (3, side, side))
    assert shape == expected
    surrogate = make_surrogate(AttentionSurrogate(), smashed_shape=shape, num_classes=classes, noise_std=SIGMA)
    assert parameter_count(surrogate) <= 0.01 * (parameter_count(encoder) + parameter_count(classifier))


def test_flat_tokens_of_many_numbers_are_refused_with_the_count() -> None:
    cfg = AttentionSurrogate(tokens="flat")
    with pytest.raises(SurrogateError, match=r"flat tokens has [\d,]{9,} parameters for z of 8×16×16"):
        make_surrogate(cfg, smashed_shape=(8, 16, 16), num_classes=10, noise_std=SIGMA)
    small = make_surrogate(cfg, smashed_shape=SHAPE, num_classes=CLASSES, noise_std=SIGMA)
    assert torch.isfinite(small(*draw(12, 0), generator()).loss)


@pytest.mark.parametrize("statistic", ["mixture", "enhanced_variance"])
def test_samples_alone_with_their_class_are_scored_and_counted_until_the_next_epoch(statistic: str) -> None:
    surrogate = make(statistic)
    z, _ = draw(7, 0)
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    for _ in range(2):
        assert torch.isfinite(surrogate(z, labels, generator()).loss)
        assert torch.isfinite(surrogate.fit_loss(z, labels, generator()))  # the same samples: not counted again
    assert surrogate.monitor()["lone_samples"] == 2
    surrogate.begin_epoch(0.5)
    assert surrogate.monitor()["lone_samples"] == 0


def test_monitor_tells_gates_and_how_evenly_the_slots_are_used() -> None:
    surrogate = make()
    surrogate(*draw(60, 0), generator())
    said = surrogate.monitor()
    assert said["attention_gate"] == said["feed_forward_gate"] == pytest.approx(math.tanh(0.1))
    assert 0 < said["slot_usage_entropy"] <= math.log(4) + 1e-6
    assert set(said) <= set(MONITORS)


def test_a_threshold_ends_the_pressure_but_not_the_measurement() -> None:
    z, labels = draw(60, 0)
    high, none = make(threshold=Threshold(kind="fixed", value=100.0)), make()
    assert high(z, labels, generator()).loss.item() == 0
    assert torch.equal(high(z, labels, generator()).leakage_nats, none(z, labels, generator()).leakage_nats)
