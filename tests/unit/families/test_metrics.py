"""What holds for every registered metric: one number for each image, which says the same whatever stands beside it."""

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cem.config import METRICS, MetricSettings, every_metric
from cem.evaluation.scoring import pair_metrics
from cem.metrics import MetricError

from .examples import cases, wrong_facts

EACH = pytest.mark.parametrize("cfg", cases(METRICS))
CPU = torch.device("cpu")


def made(cfg: MetricSettings) -> Callable[[Tensor, Tensor], Tensor]:
    return cfg.make(CPU)


def images(cfg: MetricSettings, seed: int, n: int = 5, channels: int = 3) -> Tensor:
    """Images of the smallest side that is not tiny, smooth with some noise."""
    draws, side = torch.Generator().manual_seed(seed), max(16, cfg.smallest_side)
    smooth = interpolate(torch.rand(n, channels, 4, 4, generator=draws), size=(side, side), mode="bilinear")
    return 0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=draws)


def closeness(cfg: MetricSettings, reconstruction: Tensor, target: Tensor) -> Tensor:
    """Its values, turned so that higher is closer."""
    return made(cfg)(reconstruction, target) * (1 if cfg.better == "higher" else -1)


@pytest.mark.parametrize("cfg", cases(METRICS, working=False))
def test_facts_have_their_types(cfg: MetricSettings) -> None:
    facts: dict[str, Any] = {"always": bool, "smallest_side": int, "better": Literal["lower", "higher"], "unit": str}
    assert not wrong_facts(cfg, facts)
    assert cfg.smallest_side >= 1
    assert cfg.member.isidentifier(), "a metric's kind is a column of the results"


@EACH
@pytest.mark.parametrize("channels", [1, 3])
def test_identical_images_have_the_best_value(cfg: MetricSettings, channels: int) -> None:
    x, y = images(cfg, 0, channels=channels), images(cfg, 1, channels=channels)
    best = closeness(cfg, x, x)
    assert best.shape == (5,)
    torch.testing.assert_close(best, best[:1].expand(5), atol=1e-6, rtol=1e-6)  # the same for all images
    assert (closeness(cfg, x, y) < best).all()
    assert (closeness(cfg, (x + 0.01).clamp(0, 1), x) < best).all()


@EACH
def test_more_noise_is_worse(cfg: MetricSettings) -> None:
    x, draws = images(cfg, 0), torch.Generator().manual_seed(2)
    noise = torch.randn(x.shape, generator=draws)
    means = [float(closeness(cfg, (x + std * noise).clamp(0, 1), x).mean()) for std in (0.0, 0.02, 0.1, 0.4)]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == len(means)


@EACH
def test_an_image_scores_the_same_alone_as_in_a_batch_and_in_any_order(cfg: MetricSettings) -> None:
    x, y = images(cfg, 0), images(cfg, 1)
    before = x.clone(), y.clone()
    together = made(cfg)(x, y)
    assert together.shape == (5,)
    alone = torch.cat([made(cfg)(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(made(cfg)(x[order], y[order]), together[order], atol=1e-6, rtol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(before, (x, y), strict=True))


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_compared_in_single_precision(cfg: MetricSettings, dtype: torch.dtype) -> None:
    metric, x, y = made(cfg), images(cfg, 0).to(dtype), images(cfg, 1).to(dtype)
    assert metric(x, y).dtype == torch.float32
    assert torch.equal(metric(x, y), metric(x.float(), y.float()))
    assert torch.equal(metric(x, y.float()), metric(x.float(), y.float()))


@EACH
def test_different_shapes_are_refused(cfg: MetricSettings) -> None:
    x = images(cfg, 0)
    for other in (x[:1], x[:, :1], x[..., 1:]):
        for pair in ((x, other), (other, x)):
            with pytest.raises(MetricError, match="found"):
                made(cfg)(*pair)


@EACH
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_the_unit_interval_are_refused(cfg: MetricSettings, bad: float) -> None:
    x, y = images(cfg, 0), images(cfg, 1)
    x[2, 0, 3, 3] = bad
    for pair in ((x, y), (y, x)):
        with pytest.raises(MetricError, match=r"\[0, 1\]; found"):
            made(cfg)(*pair)


@EACH
def test_the_smallest_side_is_exact(cfg: MetricSettings) -> None:
    side, chosen = cfg.smallest_side, () if cfg.always else (cfg,)
    x, y = (torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    metric = pair_metrics(side, chosen, CPU)[cfg.member]
    assert metric(x, y).isfinite().all()
    if side > 1:
        with pytest.raises(MetricError, match=rf"{side} pixels at least.*found"):
            made(cfg)(x[..., 1:, 1:], y[..., 1:, 1:])
    if cfg.always:
        assert cfg.member not in pair_metrics(side - 1, chosen, CPU)
    else:
        with pytest.raises(MetricError, match=f"{cfg.member}: expected images with sides of {side} pixels at least"):
            pair_metrics(side - 1, chosen, CPU)


def test_every_study_has_the_metrics_that_are_always_there() -> None:
    always = [kind for kind, member in METRICS.members.items() if member.always]
    assert [metric.member for metric in every_metric(())] == always
