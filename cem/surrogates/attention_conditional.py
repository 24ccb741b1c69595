"""The attention surrogate's statistic `conditional`: how well an image can be regressed on learned features of z."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from cem.config import AttentionSurrogate
from cem.models.init import allocate, initialise
from cem.surrogates.base import Given, Surrogate, SurrogateError, Terms, intra_class_mse
from cem.surrogates.thresholds import VarianceThreshold
from cem.types import Images, Labels, Smashed

QUANTISATION = (1 / 255) ** 2 / 12  # variance of what rounding to 8 bits took away: no error of an image is below it
_HIDDEN = 32  # channels of the first convolution
_WAVES = 3  # cosines along each axis of the map
_SMALLEST = 1e-6  # of the largest variance of a feature: one that varies less is not divided by its own
_TINY = 1e-20  # least variance that is divided by: of less, 1/√v and its derivative leave float32


class Moments(NamedTuple):
    """Means of products, over the samples and positions of each half: features (the last is 1) and patches."""

    features: Float[Tensor, "half feature feature"]
    cross: Float[Tensor, "half feature target"]
    squares: Float[Tensor, "half target"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "half sign row feature"],
        patches: Float[Tensor, "half row target"],
        rows: Float[Tensor, " half"],
    ) -> "Moments":
        """From what each half has at `rows` of its positions, the others being zero; signs share a patch."""
        count, together = rows.view(-1, 1, 1), features.flatten(1, 2)
        return cls(
            together.mT @ together / (features.shape[1] * count),
            features.mean(1).mT @ patches / count,
            patches.square().sum(1) / count.squeeze(2),
        )

    def regression(self, ridge: float) -> Float[Tensor, "half feature target"]:
        """Each half's weights of the features, the intercept last, for its patches.

        ridge: added to the variance of every feature, in parts of it.
        """
        # 1. About the means, and in units of each feature's standard deviation: no unit of a feature matters.
        mean, target = self.features[:, -1:, :-1], self.cross[:, -1:]
        covariance = self.features[:, :-1, :-1] - mean.mT @ mean
        variance = covariance.diagonal(dim1=1, dim2=2)
        largest = variance.amax(1, keepdim=True)
        scale = (variance + _SMALLEST * largest).clamp_min(_TINY).rsqrt()
        # Where no feature varies but by rounding, what is left of its variance is no unit: the mean is predicted.
        rounding = torch.finfo(scale.dtype).eps * self.features.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
        scale = torch.where(largest > rounding, scale, 0.0).unsqueeze(2)
        ridges = ridge * torch.eye(variance.shape[1], dtype=scale.dtype, device=scale.device)
        # 2. The normal equations. The check of `cholesky` would wait for a GPU; where it fails, the weights predict
        #    badly, and any weights give an upper bound on h(x|z).
        factor = torch.linalg.cholesky_ex(scale * covariance * scale.mT + ridges).L
        weights = scale * torch.cholesky_solve(scale * (self.cross[:, :-1] - mean.mT @ target), factor)
        return torch.cat([weights, target - mean @ weights], 1)

    def errors(self, weights: Float[Tensor, "half feature target"]) -> Float[Tensor, "half target"]:
        """Mean squared error in each half, of each number of a patch, with these weights."""
        explained = weights * (2 * self.cross - self.features @ weights)
        return (self.squares - explained.sum(1)).clamp_min(0)


class Features(nn.Module):
    """Numbers for each position of z: of two convolutions, and of z itself.

    z is standardised, channel by channel, so that its unit does not matter. The convolutions see 5 × 5 positions, and
    the second one the mean of the whole map beside them.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, _HIDDEN, 3, padding=1)
        self.far = nn.Conv2d(_HIDDEN, features, 3, padding=1)
        self.whole = nn.Linear(_HIDDEN, features, bias=False)
        self.linear = nn.Conv2d(channels, min(channels, _HIDDEN), 1, bias=False)

    def forward(self, z: Smashed) -> Float[Tensor, "batch z_height z_width feature"]:
        variance, mean = torch.var_mean(z, (0, 2, 3), correction=0, keepdim=True)
        # A channel that is constant but for rounding says nothing, and has no unit.
        varies = variance > (2 * torch.finfo(z.dtype).eps * mean).square() + _TINY
        scale = torch.where(varies, variance.clamp_min(_TINY).rsqrt(), 0.0)
        z = ((z - mean) * scale).contiguous(memory_format=torch.channels_last)
        near = gelu(self.near(z))
        far = gelu(self.far(near) + self.whole(near.mean((2, 3)))[:, :, None, None])
        return torch.cat([far, self.linear(z)], 1).permute(0, 2, 3, 1)


class ConditionalEntropy(Surrogate):
    """Regresses the image on z = ẑ + ε, with one half of a batch, and scores the other half; then the halves swap.

    A small network gives features of each position of z. Ridge regression in closed form takes them to the patch of the
    image at that position. The error e is of the half that the regression has not seen. loss = −log e of the mean over
    all pixels, or −mean log e over the coefficients of a patch. Its gradient goes through the closed form, so that the
    attacker inside answers every change of the encoder at once. The network's own Adam minimises the same error.

    ½ Σ log(2πe · e), over coefficients, is an upper bound on h(x|z) for any features that were not fitted to the images
    which are scored. So `conditional_nats`, its negative, is then a **lower** bound on I(x; z) − h(x): a bad network
    under-states the leakage, and can do nothing else. In training the network has met the images in earlier epochs: of
    a small private set it remembers what z does not say, and the number of a batch is too high. The one of results.csv
    is of images that nothing was fitted to (`cem.training.conditional`).
    Source: docs/theory.md, "The conditional entropy".
    """

    uses_images = True

    def __init__(self, cfg: AttentionSurrogate, given: Given) -> None:
        super().__init__()
        self.cfg, self.threshold = cfg, VarianceThreshold(cfg.threshold, given.noise_std)
        self.take_noise(given.noise_std)
        self.network = Features(given.smashed_shape[0], cfg.features)

    def take_noise(self, noise_std: float) -> None:
        self.noise_std, self.threshold.noise_std = noise_std, noise_std

    def begin_epoch(self, progress: float) -> None:
        """Move a scheduled threshold."""
        self.threshold.begin_epoch(progress)

    def monitor(self) -> dict[str, float]:
        """The error at which the pressure stops, if there is one."""
        threshold = self.threshold.value()
        return {} if threshold is None else {"error_threshold": threshold}

    def forward(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None, images: Images | None = None
    ) -> Terms:
        """Terms of a batch and its images in [0, 1]; the noise comes from `generator`. It has no upper bound.

        Raises SurrogateError for fewer than two samples, or without images.
        """
        errors, numbers = self._errors(smashed, images, generator, signs=2 if self.cfg.antithetic else 1)
        log_error, threshold = self._log(errors), self.threshold.value()
        loss = -log_error if threshold is None else torch.relu(math.log(threshold) - log_error)
        return Terms(loss, None, intra_class_mse(smashed, labels), conditional_nats(errors.detach(), numbers))

    def fit_loss(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None, images: Images | None = None
    ) -> Float[Tensor, ""]:
        """log of the error, which the network is to make small."""
        return self._log(self._errors(smashed, images, generator, signs=1)[0])

    def _log(self, errors: Float[Tensor, " coefficient"]) -> Float[Tensor, ""]:
        """log of the mean squared error of a pixel; or the mean of the logs of the errors of the coefficients."""
        return errors.mean().log() if self.cfg.residual == "pixels" else errors.log().mean()

    def _errors(
        self, smashed: Smashed, images: Images | None, generator: torch.Generator | None, signs: int
    ) -> tuple[Float[Tensor, " coefficient"], int]:
        """Mean squared error of each coefficient of a patch where the other half predicts it; numbers of an image.

        signs: 2 to use each draw of the noise with both.
        """
        if images is None or len(smashed) < 2:
            raise SurrogateError(
                "the conditional statistic regresses the images of one half of a batch, and scores the other: expected "
                f"two samples or more with their images, found {len(smashed)}{' without' if images is None else ''}. "
                "Use a larger batch_size."
            )
        noise = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype)
        noise = self.noise_std * torch.stack([noise, -noise][:signs])
        features, patches = self.rows_of((smashed + noise).flatten(0, 1), images)
        features = features.reshape(signs, *patches.shape[:3], -1)
        moments = Moments.of(_halves(features), _halves(patches.unsqueeze(0)).squeeze(1), _rows(features))
        rows = len(smashed) // 2 * patches.shape[1] * patches.shape[2]
        errors = moments.errors(self.regression(moments, rows).flip(0)).mean(0)
        return errors + QUANTISATION, images[0].numel()

    def regression(self, moments: Moments, rows: int) -> Float[Tensor, "half feature target"]:
        """Each half's weights, from so many positions of it."""
        # What is best grows with the weights for a row: of a map there is a hundredth, of a vector more than one.
        return moments.regression(self.cfg.ridge * moments.features.shape[-1] / rows)

    def rows_of(
        self, noisy: Float[Tensor, "z_batch z_channel z_height z_width"], images: Images
    ) -> tuple[Float[Tensor, "z_batch down across feature"], Float[Tensor, "batch down across coefficient"]]:
        """Features of z, and coefficients of the patches of the images."""
        sides = [common_side(image, z) for image, z in zip(images.shape[2:], noisy.shape[2:], strict=True)]
        return _with_place(_pooled(self.network(noisy), *sides)), patches_of(images.to(noisy.dtype), *sides)


def conditional_nats(errors: Float[Tensor, " coefficient"], numbers: int) -> Float[Tensor, ""]:
    """−h(x|z) at most, nats for one image of so many numbers, of the mean squared errors of a patch's coefficients."""
    return -0.5 * numbers * (2 * math.pi * math.e * errors).log().mean()


def make_conditional(cfg: AttentionSurrogate, given: Given) -> ConditionalEntropy:
    """The module, with its first weights."""
    with torch.device("meta"):  # no draw from torch's global generator
        module = ConditionalEntropy(cfg, given)
    allocate(module, "cpu")
    initialise(module, torch.Generator().manual_seed(given.seed))
    return module


def common_side(image: int, z: int) -> int:
    """Patches along a side: as many as z has positions, or fewer where these do not divide the image."""
    return max(side for side in range(1, min(image, z) + 1) if image % side == 0)


def patches_of(images: Images, down: int, across: int) -> Float[Tensor, "batch down across coefficient"]:
    """Coefficients of each of the patches, of an orthonormal cosine transform over colours and both axes.

    Squared errors have the same sum in it as in pixels, and little correlation.
    """
    count, colours, height, width = images.shape
    parts = images.reshape(count, colours, down, height // down, across, width // across).permute(0, 2, 4, 1, 3, 5)
    for axis in (3, 4, 5):
        parts = (parts.movedim(axis, -1) @ _cosines(parts.shape[axis], parts).T).movedim(-1, axis)
    return parts.flatten(3)


def _cosines(size: int, like: Tensor) -> Float[Tensor, "wave place"]:
    """Orthonormal: of so many places, cosines of so many frequencies."""
    steps = torch.arange(size, dtype=like.dtype, device=like.device)
    basis = torch.cos(math.pi / size * torch.outer(steps, steps + 0.5)) * (2 / size) ** 0.5
    return torch.cat([basis[:1] * 0.5**0.5, basis[1:]])


def _pooled(
    features: Float[Tensor, "batch z_height z_width feature"], down: int, across: int
) -> Float[Tensor, "batch down across feature"]:
    """Means over the part of the map that each patch covers."""
    if features.shape[1:3] == (down, across):
        return features
    rows, columns = (_shares(*sides, features) for sides in zip((down, across), features.shape[1:3], strict=True))
    return torch.einsum("ih,jw,bhwf->bijf", rows, columns, features)


def _shares(parts: int, size: int, like: Tensor) -> Float[Tensor, "part place"]:
    """How much of each of `parts` equal parts of a side each of `size` places has."""
    part = torch.arange(parts + 1, dtype=like.dtype, device=like.device).unsqueeze(1) / parts
    place = torch.arange(size + 1, dtype=like.dtype, device=like.device) / size
    return (torch.minimum(part[1:], place[1:]) - torch.maximum(part[:-1], place[:-1])).clamp_min(0) * parts


def _with_place(
    features: Float[Tensor, "batch down across feature"],
) -> Float[Tensor, "batch down across more"]:
    """Features, then slow cosines of the place, then 1: what is expected of a patch depends on where it is."""
    count, down, across, _ = features.shape
    y, x = ((_cosines(side, features) * side**0.5)[:_WAVES].T for side in (down, across))
    place = (y[:, None, :, None] * x[None, :, None, :]).flatten(2).flip(2)  # the constant one is the last
    return torch.cat([features, place.expand(count, -1, -1, -1)], 3)


def _halves(values: Float[Tensor, "sign batch down across number"]) -> Float[Tensor, "2 sign row number"]:
    """The even and the odd samples' positions. The second half of an odd batch ends with zeros."""
    if values.shape[1] % 2:
        values = pad(values, (0, 0) * 3 + (0, 1))
    signs, count, down, across, numbers = values.shape
    halves = values.reshape(signs, count // 2, 2, down, across, numbers).movedim(2, 0)
    return halves.reshape(2, signs, count // 2 * down * across, numbers)


def _rows(features: Float[Tensor, "sign batch down across number"]) -> Float[Tensor, "2"]:
    """Positions of the samples of each half."""
    _, count, down, across, _ = features.shape
    odd = torch.arange(2, dtype=features.dtype, device=features.device) * (count % 2)
    return down * across * ((count + 1) // 2 - odd)
