"""The statistic `conditional`: the least error in closed form where it is known, and never less for any network."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cem.config import AttentionSurrogate
from cem.surrogates import SurrogateError, Terms, make_surrogate
from cem.surrogates.attention_conditional import QUANTISATION, common_side, patches_of

from .populations import generator, make_hostile

SHAPE, IMAGE, SIGMA = (3, 4, 4), (1, 8, 8), 0.2  # patches of 2 × 2, and as many numbers less one in z
PIXELS = math.prod(IMAGE)
LABELS = torch.zeros(4000, dtype=torch.int64)


def make(noise_std: float = SIGMA, shape: tuple[int, int, int] = SHAPE, **settings):
    cfg = AttentionSurrogate(statistic="conditional", **{"features": 8, "ridge": 1e-6, **settings})
    return make_surrogate(cfg, smashed_shape=shape, num_classes=1, noise_std=noise_std, seed=3)


def factors() -> tuple[Tensor, Tensor]:
    """x = A u for each patch, u of a standard normal; ẑ = B x."""
    return (torch.randn(*size, generator=generator(seed)) for seed, size in enumerate([(4, 4), (3, 4)]))


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images and ẑ of the linear Gaussian model, patch by patch."""
    mix, encoder = factors()
    patches = 0.1 * torch.randn(n, 4, 4, 4, generator=generator(seed)) @ mix.T  # batch, down, across, pixel
    images = 0.5 + patches.unflatten(3, (2, 2)).permute(0, 1, 3, 2, 4).reshape(n, *IMAGE)
    return images, (patches @ encoder.T).permute(0, 3, 1, 2)


def least_errors(noise_std: float = SIGMA) -> Tensor:
    """Cov(x|z) of a patch, in the coefficients' basis: on its diagonal, the least errors."""
    mix, encoder = factors()
    covariance = 0.01 * mix @ mix.T
    gain = covariance @ encoder.T @ torch.linalg.inv(encoder @ covariance @ encoder.T + noise_std**2 * torch.eye(3))
    basis = patches_of(torch.eye(4).view(4, 1, 2, 2), 1, 1).flatten(1)
    return (basis.T @ (covariance - gain @ encoder @ covariance) @ basis).diagonal()


def terms(surrogate, images: Tensor, smashed: Tensor, seed: int = 1) -> Terms:
    with torch.no_grad():
        return surrogate(smashed, LABELS[: len(images)], generator(seed), images)


@pytest.mark.parametrize("antithetic", [True, False])
def test_of_a_linear_gaussian_it_is_the_least_error_and_nothing_is_below(antithetic: bool) -> None:
    """Untrained features contain z itself. More samples come closer, from above."""
    excess = []
    for n in (20, 100, 1000):
        found = [terms(make(antithetic=antithetic), *draw(n, seed), seed).loss for seed in range(4000 // n)]
        excess.append(-float(torch.stack(found).mean()) - float((least_errors().mean() + QUANTISATION).log()))
    assert excess[0] > excess[1] > excess[2]
    assert excess[2] == pytest.approx(0, abs=0.01)


def test_its_nats_are_those_of_the_gaussian_and_do_not_depend_on_the_loss() -> None:
    images, smashed = draw(4000, 5)
    expected = -0.5 * PIXELS * float((2 * math.pi * math.e * (least_errors() + QUANTISATION)).log().mean())
    for residual in ("pixels", "coefficients"):
        found = terms(make(residual=residual), images, smashed)
        assert float(found.conditional_nats) == pytest.approx(expected, abs=0.01 * PIXELS)
        assert found.leakage_nats is None
    assert float(found.loss) == pytest.approx(-float((least_errors() + QUANTISATION).log().mean()), abs=0.02)


def test_more_noise_is_less_leakage() -> None:
    images, smashed = draw(1000, 5)
    found = [terms(make(noise_std), images, smashed) for noise_std in (0.0, 0.1, 0.5, 2.0)]
    for one, other in itertools.pairwise(found):
        assert one.loss > other.loss
        assert one.conditional_nats > other.conditional_nats


def test_without_information_nothing_is_better_than_the_mean() -> None:
    images, smashed = draw(4000, 5)
    error = (-terms(make(), images, torch.randn(smashed.shape, generator=generator(8))).loss).exp()
    assert float(error) == pytest.approx(float((images - images.mean(0)).square().mean()), rel=0.02)


def test_few_rows_of_a_vector_are_no_reason_to_predict_worse_than_the_mean() -> None:
    """A batch of 60 has 30 rows for as many weights and more: the ridge grows as it should."""
    z = torch.randn(60, 40, 1, 1, generator=generator(1))
    images = 0.5 + 0.1 * torch.randn(60, 1, 8, 8, generator=generator(2))  # of which z says nothing
    surrogate = make(0.0, shape=(40, 1, 1), features=64, ridge=0.5)
    assert float((-terms(surrogate, images, z).loss).exp()) < 1.5 * 0.1**2
    assert float((-terms(make(0.0, shape=(40, 1, 1), features=64, ridge=1e-4), images, z).loss).exp()) > 3 * 0.1**2


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 8, 8), (64, 1, 1)], ids=str)
@pytest.mark.parametrize("constant", ["one channel", "all"])
def test_constant_numbers_of_z_have_gradients_and_all_constant_is_the_mean_image(shape, constant) -> None:
    images = torch.rand(30, 1, 8, 8, generator=generator(2))
    z = torch.rand(30, *shape, generator=generator(3))
    z[:, : 1 if constant == "one channel" else shape[0]] = 0.3
    smashed = z.requires_grad_()
    surrogate = make(0.0, shape=shape, features=64, ridge=0.5)
    loss = surrogate(smashed, LABELS[:30], generator(), images).loss
    gradient = torch.autograd.grad(loss, smashed)[0]
    assert gradient.isfinite().all()
    assert gradient[:, : 1 if constant == "one channel" else shape[0]].abs().max() < 1.0
    of_fit = surrogate.fit_loss(smashed.detach(), LABELS[:30], generator(), images)
    assert all(one.isfinite().all() for one in torch.autograd.grad(of_fit, list(surrogate.parameters())))
    if constant == "all" and shape == (64, 1, 1):
        halves = images[::2], images[1::2]
        error = sum(float((one - other.mean(0)).square().mean()) for one, other in itertools.permutations(halves)) / 2
        assert float((-loss.detach()).exp()) == pytest.approx(error, rel=1e-4)


def test_what_it_remembers_of_few_images_is_no_bound_on_them_and_fresh_ones_show_it() -> None:
    """z says nothing. Features that were fitted to both halves tell the images of one from those of the other."""

    def sample(seed: int) -> tuple[Tensor, Tensor]:
        return torch.rand(100, *IMAGE, generator=generator(seed)), torch.randn(100, *SHAPE, generator=generator(-seed))

    surrogate, (images, smashed) = make(0.0, features=64, ridge=0.5), sample(1)
    least = float((images - images.mean(0)).square().mean())
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.zero_grad()
        surrogate.fit_loss(smashed, LABELS[:100], generator(step), images).backward()
        optimizer.step()
    own, fresh = terms(surrogate, images, smashed), terms(surrogate, *sample(2))
    assert float((-own.loss).exp()) < 0.5 * least
    assert float((-fresh.loss).exp()) > 0.95 * least
    assert fresh.conditional_nats < own.conditional_nats - 0.3 * PIXELS


def test_units_of_z_do_not_matter() -> None:
    """Nor do those of single channels, and their origin, where there is no noise of one size."""
    images, smashed = draw(300, 5)
    scale, shift = torch.tensor([0.01, 3.0, 100.0]).view(3, 1, 1), torch.tensor([5.0, 0.0, -1.0]).view(3, 1, 1)
    before = terms(make(0.0).double(), images.double(), smashed.double())
    after = terms(make(0.0).double(), images.double(), (smashed * scale + shift).double())
    torch.testing.assert_close(after.loss, before.loss, rtol=1e-5, atol=0)
    one = terms(make(0.2).double(), images.double(), smashed.double())
    other = terms(make(20.0).double(), images.double(), (100 * smashed).double())
    torch.testing.assert_close(other.loss, one.loss, rtol=1e-9, atol=0)


def test_an_invertible_map_of_z_does_not_matter_to_affine_features() -> None:
    images, smashed = draw(300, 5)
    mix = torch.randn(3, 3, generator=generator(6))
    found = []
    for z in (smashed, torch.einsum("dc,bchw->bdhw", mix, smashed)):
        surrogate = make(0.0, ridge=1e-9).double()
        with torch.no_grad():
            surrogate.network.far.weight.zero_()  # what the convolutions give is constant then
            surrogate.network.whole.weight.zero_()
        found.append(terms(surrogate, images.double(), z.double()).loss)
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize("residual", ["pixels", "coefficients"])
def test_the_gradient_is_that_of_finite_differences(residual: str, size: int) -> None:
    """Through features, closed form and score, for the encoder and for the network; an odd batch, too."""
    images, smashed = (values.double() for values in draw(size, 5))
    surrogate = make(residual=residual, ridge=1e-3).double()

    def loss(z: Tensor) -> Tensor:
        return surrogate(z, LABELS[:size], generator(1), images).loss

    assert torch.autograd.gradcheck(loss, smashed.requires_grad_())
    surrogate.fit_loss(smashed.detach(), LABELS[:size], generator(1), images).backward()
    weight, step = surrogate.network.far.weight, 1e-5
    with torch.no_grad():
        direction = torch.randn(weight.shape, generator=generator(2), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            weight.add_(sign * step * direction)
            values.append(surrogate.fit_loss(smashed, LABELS[:size], generator(1), images))
            weight.sub_(sign * step * direction)
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((weight.grad * direction).sum(), slope, rtol=1e-5, atol=1e-9)


def constant(surrogate) -> None:
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.zero_()


@pytest.mark.parametrize("spoil", [make_hostile, constant])
def test_a_hostile_network_only_under_states_the_leakage(spoil) -> None:
    """On any sample: the truth is what no regression can beat. The probe is another, untouched network."""
    least = float((least_errors().mean() + QUANTISATION).log())
    for n in (10, 60, 1000):
        losses, nats, probe = [], [], []
        for seed in range(2000 // n):
            surrogate, (images, smashed) = make(), draw(n, seed)
            spoil(surrogate)
            found = terms(surrogate, images, smashed, seed)
            losses.append(float(found.loss))
            nats.append(float(found.conditional_nats))
            probe.append(float(terms(make(), images, smashed, seed).conditional_nats))
        count = len(losses)
        assert sum(losses) / count <= -least + 0.01
        if n == 1000:
            assert sum(nats) / count <= sum(probe) / count + 0.01


def test_training_the_network_raises_the_bound_where_the_image_is_no_linear_map_of_z() -> None:
    def sample(seed: int) -> tuple[Tensor, Tensor]:
        z = torch.randn(64, *SHAPE, generator=generator(seed))
        return (0.3 * (z[:, :1] * z[:, 1:2]).tanh() + 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3), z

    surrogate = make(0.05, features=16, ridge=1e-3)
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=1e-2)
    before = terms(surrogate, *sample(0)).conditional_nats
    for step in range(60):
        images, z = sample(1 + step)
        optimizer.zero_grad()
        surrogate.fit_loss(z, LABELS[:64], generator(step), images).backward()
        optimizer.step()
    assert terms(surrogate, *sample(0)).conditional_nats > before + 0.2 * PIXELS


def test_pairs_of_noise_make_the_gradient_less_noisy() -> None:
    images, smashed = draw(64, 5)
    cosines = {}
    for antithetic in (True, False):
        gradients = []
        for seed in range(2):
            z = smashed.clone().requires_grad_()
            make(2.0, antithetic=antithetic)(z, LABELS[:64], generator(seed), images).loss.backward()
            gradients.append(z.grad.flatten())
        cosines[antithetic] = float(torch.cosine_similarity(*gradients, dim=0))
    assert cosines[True] > cosines[False]


def test_what_is_scored_does_not_move_the_regression_that_scores_it() -> None:
    """Images of the odd half are predicted from even ones alone: that half's error moves as fixed weights say."""
    images, smashed = draw(40, 5)
    shifted = images.clone()
    shifted[1::2] += 10.0
    error = (-terms(make(), images, smashed).loss).exp()
    moved = (-terms(make(), shifted, smashed).loss).exp()
    assert float(moved - error) == pytest.approx(100.0, rel=0.02)  # of both halves: no regression knows of the shift


@pytest.mark.parametrize(
    ("image", "z", "side"), [(32, 8, 8), (32, 7, 4), (28, 7, 7), (50, 7, 5), (32, 1, 1), (8, 32, 8)]
)
def test_a_map_that_does_not_divide_the_image_is_averaged_to_one_that_does(image: int, z: int, side: int) -> None:
    assert common_side(image, z) == side
    found = terms(make(shape=(3, z, z)), torch.rand(6, 3, image, image), torch.rand(6, 3, z, z))
    assert found.loss.isfinite()


def test_patches_keep_the_sum_of_squares_and_lie_where_z_has_them() -> None:
    images = torch.rand(2, 3, 8, 12, generator=generator())
    patches = patches_of(images, 4, 3)
    torch.testing.assert_close(patches.square().sum((1, 2, 3)), images.square().sum((1, 2, 3)))
    images[:, :, 2:4, 8:] += 1.0
    moved = (patches_of(images, 4, 3) - patches).abs().amax(3) > 1e-3
    assert moved.nonzero().tolist() == [[0, 1, 2], [1, 1, 2]]


def test_it_asks_for_two_samples_and_their_images() -> None:
    images, smashed = draw(2, 5)
    with pytest.raises(SurrogateError, match="found 1"):
        make()(smashed[:1], LABELS[:1], generator(), images[:1])
    with pytest.raises(SurrogateError, match="found 2 without"):
        make()(smashed, LABELS[:2], generator())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"slots": 4}, "has no slots"),
        ({"tokens": "flat"}, "has no tokens"),
        ({"optimizer": "shared"}, "predict badly"),
        ({"threshold": {"kind": "coupled"}}, "squared error"),
        ({"threshold": {"kind": "quantile"}}, "squared error"),
    ],
)
def test_settings_that_do_not_apply_are_refused(settings: dict, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AttentionSurrogate(statistic="conditional", **settings)


def test_the_mixture_has_no_settings_of_the_regression() -> None:
    with pytest.raises(ValidationError, match="has no residual"):
        AttentionSurrogate(residual="coefficients")


def test_the_pressure_ends_at_the_threshold() -> None:
    images, smashed = draw(100, 5)
    error = float((-terms(make(), images, smashed).loss).exp())
    for value, expected in ((0.5 * error, 0.0), (2 * error, math.log(2))):
        surrogate = make(threshold={"kind": "fixed", "value": value})
        assert float(terms(surrogate, images, smashed).loss) == pytest.approx(expected, abs=1e-5)
        assert surrogate.monitor() == {"error_threshold": pytest.approx(value)}
