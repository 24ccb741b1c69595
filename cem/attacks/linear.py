"""Ridge regression from z to the image, in closed form."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.attacks.base import AttackError, ClosedFormAttack, Fitted, Knowledge, chunks, hold_out
from cem.attacks.standard import Standard, observed_spread
from cem.types import Images, Labels, Smashed

HELD_OUT = 0.1
RIDGES = tuple(10.0**power for power in range(-8, 3))  # in parts of the mean variance of a dimension of z


@dataclass
class Moments:
    """Sums over images, in float64, that least squares needs; those of two sets of images add up."""

    count: int
    z: Float[Tensor, " dim"]
    x: Float[Tensor, " pixels"]
    zz: Float[Tensor, "dim dim"]
    zx: Float[Tensor, "dim pixels"]

    @classmethod
    def zeros(cls, dim: int, pixels: int, device: torch.device) -> "Moments":
        shapes = ((dim,), (pixels,), (dim, dim), (dim, pixels))
        return cls(0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, z: Float[Tensor, "batch dim"], x: Float[Tensor, "batch pixels"]) -> None:
        """Take in a minibatch."""
        z, x = z.double(), x.double()
        self.count += len(z)
        self.z += z.sum(0)
        self.x += x.sum(0)
        self.zz += z.T @ z
        self.zx += z.T @ x

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count, self.z + other.z, self.x + other.x, self.zz + other.zz, self.zx + other.zx
        )

    def about(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means of (z − z₀)(z − z₀)ᵀ and of (z − z₀)(x − x₀)ᵀ."""
        mean_z, mean_x = self.z / self.count, self.x / self.count
        zz = self.zz / self.count - torch.outer(mean_z, z) - torch.outer(z, mean_z) + torch.outer(z, z)
        zx = self.zx / self.count - torch.outer(mean_z, x) - torch.outer(z, mean_x) + torch.outer(z, x)
        return zz, zx


class LinearAttack(ClosedFormAttack):
    """Least squares with an intercept and a ridge; the images are clamped to [0, 1].

    z is standardised first, by one scale for all its values; where it does not vary the answer is the mean image.
    A z whose image is not a number, such as one with a NaN, is answered with the mean of the attacker's images.
    """

    standard: Standard
    weight: Float[Tensor, "dim pixels"]  # of z, standardised
    intercept: Float[Tensor, " pixels"]
    mean: Float[Tensor, " pixels"]
    image_shape: torch.Size

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.standard = observed_spread(knowledge, visible=False).by_value()
        fitted_on, selected_on = _accumulate(knowledge, self.standard)
        ridge = choose_ridge(fitted_on, selected_on)
        moments = fitted_on + selected_on
        weight, intercept = solve(moments, ridge)
        self.weight, self.intercept = weight.float(), intercept.float()
        self.mean = (moments.x / moments.count).float()
        self.image_shape = knowledge.images.shape[1:]
        return Fitted(parameters=weight.numel() + intercept.numel(), choices={"ridge": ridge})

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        pixels = self.intercept + self.standard(smashed).flatten(1) @ self.weight
        pixels = torch.where(pixels.isnan().any(1, keepdim=True), self.mean, pixels)
        return pixels.clamp(0, 1).reshape(len(pixels), *self.image_shape)


def solve(moments: Moments, ridge: float) -> tuple[Float[Tensor, "dim pixels"], Float[Tensor, " pixels"]]:
    """Weight and intercept that minimise the mean of ‖x − Wᵀz − b‖² plus ridge · (mean variance of z) · ‖W‖²."""
    values, vectors, rotated = _eigen(moments)
    weight = vectors @ (rotated * _shrunk(values, ridge)[:, None])
    return weight, moments.x / moments.count - moments.z / moments.count @ weight


def choose_ridge(fitted_on: Moments, selected_on: Moments) -> float:
    """The ridge of the grid whose fit has the least mean squared error, before clamping, on the held-out images.

    With z and x about the means of the fitting images, the error is tr(WᵀC W) − 2 tr(WᵀD) + const, where C and D are
    the held-out moments. In the eigenbasis of the fitting covariance every ridge only rescales W's rows, so the large
    products are the same for all.
    """
    values, vectors, rotated = _eigen(fitted_on)
    zz, zx = selected_on.about(fitted_on.z / fitted_on.count, fitted_on.x / fitted_on.count)
    quadratic = (vectors.T @ zz @ vectors) * (rotated @ rotated.T)
    linear = (rotated * (vectors.T @ zx)).sum(1)
    errors = []
    for ridge in RIDGES:
        scale = _shrunk(values, ridge)
        errors.append(float(scale @ quadratic @ scale - 2 * linear @ scale))
    return RIDGES[errors.index(min(errors))]


def _eigen(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and -vectors of z's covariance, and the cross-covariance with x in that basis."""
    if moments.count < 2:
        raise AttackError(
            f"linear: expected two of the attacker's images or more to fit on, beside those held out; found "
            f"{moments.count}. Raise data_size."
        )
    zz, zx = moments.about(moments.z / moments.count, moments.x / moments.count)
    values, vectors = torch.linalg.eigh(zz)
    values = values.clamp_min(0)  # rounding leaves eigenvalues of 0 a little below it
    return values, vectors, vectors.T @ zx


def _shrunk(values: Float[Tensor, " dim"], ridge: float) -> Float[Tensor, " dim"]:
    """1 / (value + ridge · their mean); 0 where none varies, as what does not vary tells nothing."""
    total = values + ridge * values.mean()
    return torch.where(total > 0, 1 / total, 0.0)


def _accumulate(knowledge: Knowledge, standard: Standard) -> tuple[Moments, Moments]:
    """Moments of the rows to fit on and of those held out, from one z of each image."""
    held = torch.zeros(knowledge.num_images, dtype=torch.bool)
    held[hold_out(knowledge.num_images, HELD_OUT, knowledge.generator("split", "cpu"))[1]] = True
    held = held.to(knowledge.device)
    corruption = knowledge.generator("corruption")
    parts: list[Moments] = []
    for rows in chunks(knowledge.images.shape):
        z, x = standard(knowledge.observe(rows, corruption)).flatten(1), knowledge.targets(rows).flatten(1)
        if not parts:
            parts = [Moments.zeros(z.shape[1], x.shape[1], knowledge.device) for _ in range(2)]
        for part, chosen in zip(parts, (~held[rows], held[rows]), strict=True):
            part.add(z[chosen], x[chosen])
    return parts[0], parts[1]
