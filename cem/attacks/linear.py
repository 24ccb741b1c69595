"""Ridge regression from z to the image, in closed form."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cem.attacks.base import AttackError, ClosedFormAttack, Fitted, Knowledge, chunks, hold_out
from cem.attacks.standard import Standard, observed_spread
from cem.types import Images, Labels, Smashed

HELD_OUT = 0.1
RIDGES = tuple(10.0**power for power in range(-8, 3))  # in parts of the mean variance of a dimension of z
MOST_BYTES = 2 << 30  # of one set of moments of z: beyond, z is taken in the space that the attacker's images span
MOST_DIMENSIONS = 4096  # of that space
BLOCK = 1 << 25  # values of images that are fitted at once there


@dataclass
class Moments:
    """Sums over images, in float64, that least squares needs; those of two sets of images add up."""

    count: int
    z: Float[Tensor, " dim"]
    x: Float[Tensor, " pixels"]
    zz: Float[Tensor, "dim dim"]
    zx: Float[Tensor, "dim pixels"]
    xx: Float[Tensor, ""]  # of the squares of all pixels

    @classmethod
    def zeros(cls, dim: int, pixels: int, device: torch.device) -> "Moments":
        shapes: tuple[tuple[int, ...], ...] = ((dim,), (pixels,), (dim, dim), (dim, pixels), ())
        return cls(0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, z: Float[Tensor, "batch dim"], x: Float[Tensor, "batch pixels"]) -> None:
        """Take in a minibatch."""
        z, x = z.double(), x.double()
        self.count += len(z)
        self.z += z.sum(0)
        self.x += x.sum(0)
        self.zz += z.T @ z
        self.zx += z.T @ x
        self.xx += x.square().sum()

    def __add__(self, other: "Moments") -> "Moments":
        names = ("count", "z", "x", "zz", "zx", "xx")
        return Moments(*(getattr(self, name) + getattr(other, name) for name in names))

    def spread(self, x: Float[Tensor, " pixels"]) -> Float[Tensor, ""]:
        """Mean of ‖x − x₀‖²."""
        return self.xx / self.count - 2 * (self.x / self.count) @ x + x @ x

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

    Where z is too large for its covariance, or has twice as many dimensions as the attacker has images, z is taken in
    the space that the attacker's own z span. The solution lies in it, so nothing changes: this is the dual form. With
    more than 4,096 images it is the space of so many of them, drawn at random, and `choices` says so.
    """

    standard: Standard
    basis: Float[Tensor, "z dim"] | None  # orthonormal; None: all dimensions of z
    weight: Float[Tensor, "dim pixels"]  # of z, standardised
    intercept: Float[Tensor, " pixels"]
    mean: Float[Tensor, " pixels"]
    image_shape: torch.Size

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.standard = observed_spread(knowledge, visible=False).by_value()
        self.image_shape = knowledge.images.shape[1:]
        dim, pixels = self.standard.centre.numel(), self.image_shape.numel()
        large = dim * (dim + pixels) * 8 > MOST_BYTES
        few = knowledge.num_images <= min(dim // 2, MOST_DIMENSIONS)  # eigenvectors there take at most an eighth
        fit = self._fit_in_span if large or few else self._fit_all
        error, choices = fit(knowledge)
        parameters = self.weight.numel() + self.intercept.numel()
        return Fitted(parameters, held_out_mse=error / pixels, choices=choices)

    def _fit_all(self, knowledge: Knowledge) -> tuple[float, dict[str, int | float]]:
        """With moments of all dimensions of z, which need one pass over the images."""
        fitted_on, selected_on = _accumulate(knowledge, self.standard)
        errors = ridge_errors(fitted_on, selected_on)
        ridge = RIDGES[int(errors.argmin())]
        moments = fitted_on + selected_on
        weight, intercept = solve(moments, ridge)
        self.basis, self.weight, self.intercept = None, weight.float(), intercept.float()
        self.mean = (moments.x / moments.count).float()
        return errors.min().item(), {"ridge": ridge}

    def _fit_in_span(self, knowledge: Knowledge) -> tuple[float, dict[str, int | float]]:
        """With the dimensions of z that the attacker's images span, a block of pixels at a time."""
        basis, z = _in_span(knowledge, self.standard)
        dim = self.standard.centre.numel()
        held = _held_out(knowledge)
        blocks = [
            knowledge.images.flatten(1)[:, start : start + max(1, BLOCK // len(z))]
            for start in range(0, self.image_shape.numel(), max(1, BLOCK // len(z)))
        ]

        def moments(block: Tensor, chosen: Tensor) -> Moments:
            found = Moments.zeros(z.shape[1], block.shape[1], z.device)
            found.add(z[chosen], block[chosen].float() / 255)
            return found

        errors = torch.zeros(len(RIDGES), dtype=torch.float64)
        spectrum = Spectrum.of(moments(blocks[0][:, :0], ~held), dim)
        for block in blocks:
            errors += ridge_errors(moments(block, ~held), moments(block, held), spectrum)
        ridge = RIDGES[int(errors.argmin())]
        everything = torch.ones_like(held)
        spectrum = Spectrum.of(moments(blocks[0][:, :0], everything), dim)
        solved = [solve(moments(block, everything), ridge, spectrum) for block in blocks]
        self.basis = basis.float()
        self.weight = torch.cat([weight.float() for weight, _ in solved], dim=1)
        self.intercept = torch.cat([intercept.float() for _, intercept in solved])
        self.mean = torch.cat([(block.float() / 255).double().mean(0).float() for block in blocks])
        reduced = knowledge.num_images > MOST_DIMENSIONS
        return errors.min().item(), {"ridge": ridge} | ({"dimensions": z.shape[1]} if reduced else {})

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        z = self.standard(smashed).flatten(1)
        pixels = self.intercept + (z if self.basis is None else z @ self.basis) @ self.weight
        pixels = torch.where(pixels.isnan().any(1, keepdim=True), self.mean, pixels)
        return pixels.clamp(0, 1).reshape(len(pixels), *self.image_shape)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and -vectors of the covariance of z, which is the same for all pixels.

    dim: how many dimensions the mean variance of z is over; more than there are, where beyond these none varies.
    """

    values: Float[Tensor, " dim"]
    vectors: Float[Tensor, "dim dim"]
    dim: int

    @classmethod
    def of(cls, moments: Moments, dim: int | None = None) -> "Spectrum":
        if moments.count < 2:
            raise AttackError(
                f"linear: expected two of the attacker's images or more to fit on, beside those held out; found "
                f"{moments.count}. Raise data_size."
            )
        zz, _ = moments.about(moments.z / moments.count, moments.x / moments.count)
        values, vectors = torch.linalg.eigh(zz)
        values = values.clamp_min(0)  # rounding leaves eigenvalues of 0 a little below it
        return cls(values, vectors, len(values) if dim is None else dim)

    def rotated(self, moments: Moments) -> Float[Tensor, "dim pixels"]:
        """The cross-covariance with x, in the basis of the eigenvectors."""
        return self.vectors.T @ moments.about(moments.z / moments.count, moments.x / moments.count)[1]

    def shrunk(self, ridge: float) -> Float[Tensor, " dim"]:
        """1 / (value + ridge · their mean); 0 where none varies, as what does not vary tells nothing."""
        total = self.values + ridge * (self.values.sum() / self.dim)
        return torch.where(total > 0, 1 / total, 0.0)


def solve(
    moments: Moments, ridge: float, spectrum: Spectrum | None = None
) -> tuple[Float[Tensor, "dim pixels"], Float[Tensor, " pixels"]]:
    """Weight and intercept that minimise the mean of ‖x − Wᵀz − b‖² plus ridge · (mean variance of z) · ‖W‖².

    spectrum: of the moments, where it is known.
    """
    spectrum = spectrum or Spectrum.of(moments)
    weight = spectrum.vectors @ (spectrum.rotated(moments) * spectrum.shrunk(ridge)[:, None])
    return weight, moments.x / moments.count - moments.z / moments.count @ weight


def ridge_errors(fitted_on: Moments, selected_on: Moments, spectrum: Spectrum | None = None) -> Float[Tensor, " ridge"]:
    """Of each ridge of the grid, the mean of ‖x − x̂‖² on the held-out images, before clamping; float64.

    With z and x about the means of the fitting images, it is tr(WᵀC W) − 2 tr(WᵀD) + tr(E), where C, D and E are the
    held-out moments of z, of z with x, and of x. In the eigenbasis of the fitting covariance every ridge only rescales
    W's rows, so the large products are the same for all. Errors of several blocks of pixels add up. spectrum: of
    `fitted_on`.
    """
    spectrum = spectrum or Spectrum.of(fitted_on)
    vectors, rotated = spectrum.vectors, spectrum.rotated(fitted_on)
    mean_x = fitted_on.x / fitted_on.count
    zz, zx = selected_on.about(fitted_on.z / fitted_on.count, mean_x)
    spread = selected_on.spread(mean_x)
    quadratic = (vectors.T @ zz @ vectors) * (rotated @ rotated.T)
    linear = (rotated * (vectors.T @ zx)).sum(1)
    scales = [spectrum.shrunk(ridge) for ridge in RIDGES]
    return torch.stack([scale @ quadratic @ scale - 2 * linear @ scale + spread for scale in scales]).cpu()


def _held_out(knowledge: Knowledge) -> Bool[Tensor, " images"]:
    """Which of the attacker's images the ridge is chosen on."""
    held = torch.zeros(knowledge.num_images, dtype=torch.bool)
    held[hold_out(knowledge.num_images, HELD_OUT, knowledge.generator("split", "cpu"))[1]] = True
    return held.to(knowledge.device)


def _observed(knowledge: Knowledge, standard: Standard) -> Iterator[tuple[slice, Float[Tensor, "rows dim"]]]:
    """One z of each image, standardised, some rows at a time; the same at every call."""
    corruption = knowledge.generator("corruption")
    for rows in chunks(knowledge.images.shape):
        yield rows, standard(knowledge.observe(rows, corruption)).flatten(1)


def _in_span(knowledge: Knowledge, standard: Standard) -> tuple[Float[Tensor, "z dim"], Float[Tensor, "images dim"]]:
    """An orthonormal basis of what the z of at most MOST_DIMENSIONS images span, and each image's z in it; float64."""
    count = knowledge.num_images
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=knowledge.generator("span", "cpu"))[:MOST_DIMENSIONS]] = True
    chosen = chosen.to(knowledge.device)
    spanning = torch.cat([z[chosen[rows]] for rows, z in _observed(knowledge, standard)])
    basis, _ = torch.linalg.qr(spanning.double().T)
    return basis, torch.cat([z.double() @ basis for _, z in _observed(knowledge, standard)])


def _accumulate(knowledge: Knowledge, standard: Standard) -> tuple[Moments, Moments]:
    """Moments of the rows to fit on and of those held out, from one z of each image."""
    held = _held_out(knowledge)
    parts: list[Moments] = []
    for rows, z in _observed(knowledge, standard):
        x = knowledge.targets(rows).flatten(1)
        if not parts:
            parts = [Moments.zeros(z.shape[1], x.shape[1], knowledge.device) for _ in range(2)]
        for part, chosen in zip(parts, (~held[rows], held[rows]), strict=True):
            part.add(z[chosen], x[chosen])
    return parts[0], parts[1]
