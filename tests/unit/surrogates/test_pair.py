"""An upper and a lower bound at once: the sum of both, and nothing else."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cem.config import AttentionSurrogate, GmmSurrogate, PairSurrogate, Threshold
from cem.surrogates import Surrogate, make_surrogate

from .populations import NEAR, generator, make

LOWER = AttentionSurrogate(statistic="conditional", features=8, weight=0.3)
UPPERS = {
    "gmm": GmmSurrogate(components=2, weight=0.7),
    "mixture": AttentionSurrogate(embedding=16, slots=3, components=2, weight=0.7),
}
SMASHED, LABELS = NEAR.draw(60, 5)
IMAGES = torch.rand(60, 1, 8, 8, generator=generator(9))


def ready(cfg: PairSurrogate | AttentionSurrogate | GmmSurrogate) -> Surrogate:
    surrogate = make(NEAR, cfg)
    surrogate.refit(*NEAR.draw(600, 3))
    return surrogate


def gradient(loss: Tensor, clean: Tensor) -> Tensor:
    return torch.autograd.grad(loss, clean)[0]


@pytest.mark.parametrize("upper", UPPERS)
def test_it_is_both_with_their_weights(upper: str) -> None:
    """The draws of noise are those of one generator, in turn."""
    clean, draws = SMASHED.clone().requires_grad_(), generator(1)
    above = ready(UPPERS[upper])(clean, LABELS, draws)
    below = ready(LOWER)(clean, LABELS, draws, IMAGES)
    expected = 0.7 * above.loss + 0.3 * below.loss
    found = ready(PairSurrogate(upper=UPPERS[upper], lower=LOWER))(clean, LABELS, generator(1), IMAGES)
    assert torch.equal(found.loss, expected)
    torch.testing.assert_close(gradient(found.loss, clean), gradient(expected, clean))
    assert torch.equal(found.leakage_nats, above.leakage_nats)
    assert torch.equal(found.conditional_nats, below.conditional_nats)


def test_each_part_is_fitted_by_whom_it_says() -> None:
    for frozen in ("upper", "lower"):
        parts = {"upper": UPPERS["mixture"], "lower": LOWER}
        parts[frozen] = parts[frozen].model_copy(update={"optimizer": "frozen"})
        cfg = PairSurrogate(**parts)
        surrogate = ready(cfg)
        assert cfg.fitted_by == "own"
        surrogate.fit_loss(SMASHED, LABELS, generator(1), IMAGES).backward()
        fitted = {name.split(".")[0] for name, value in surrogate.named_parameters() if value.grad is not None}
        assert fitted == {"upper", "lower"} - {frozen}


def test_both_thresholds_are_told_apart() -> None:
    fixed = Threshold(kind="fixed", value=0.02)
    lower = LOWER.model_copy(update={"threshold": Threshold(kind="fixed", value=0.03)})
    surrogate = ready(PairSurrogate(upper=GmmSurrogate(components=2, threshold=fixed), lower=lower))
    assert surrogate.monitor() == {"threshold": 0.02, "error_threshold": 0.03}


def test_its_label_has_both_weights_and_the_common_factor() -> None:
    cfg = PairSurrogate(upper=UPPERS["gmm"], lower=LOWER, weight=2)
    assert cfg.label == "pair-gmm-bound-w0.7+attention-conditional-w0.3-w2"
    assert cfg.formula == "bound+conditional"
    assert PairSurrogate.model_validate(cfg.sparse()) == cfg


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"lower": UPPERS["mixture"]}, "expected statistic conditional as lower"),
        ({"upper": LOWER}, "another as upper"),
        ({"upper": GmmSurrogate(weight=0)}, "by itself"),
        ({"upper": GmmSurrogate(schedule="ramp")}, "give the pair the schedule ramp"),
        ({"upper": AttentionSurrogate(optimizer="shared")}, "found shared"),
        ({"upper": AttentionSurrogate(lr=0.01)}, "one Adam fits both"),
    ],
)
def test_what_is_no_pair_is_refused(settings: dict, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PairSurrogate(**settings)


def test_a_mixture_starts_the_upper_bound() -> None:
    """As a job makes it: see cem.training.stages."""
    cfg = PairSurrogate(upper=UPPERS["gmm"], lower=LOWER)
    fitted = ready(UPPERS["gmm"]).mixture
    made = make_surrogate(
        cfg, smashed_shape=NEAR.shape, num_classes=NEAR.classes, noise_std=0.1, num_samples=600, mixture=fitted
    )
    assert torch.equal(made.upper.mixture.means, fitted.means)
    assert cfg.mixture == UPPERS["gmm"].mixture
