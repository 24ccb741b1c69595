"""What z adds to a guess of the image, through the encoder: one step of Gauss and Newton, exact for a linear one."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.attacks.base import Knowledge, chunks
from cem.attacks.standard import observed_spread
from cem.models.attention import plain_attention
from cem.types import Images, PerImage, Smashed

SPECTRUM_IMAGES = 2048  # that a covariance is estimated from: bounds time
SPECTRUM_NUMBERS = 2**25  # pixels of all of them: bounds memory, to some 2 GB in double precision
LEAST_NOISE = 0.01  # part of z's spread that stands in for a smaller σ: the encoder is a line over so short a way only
ITERATIONS = 10  # of conjugate gradients in a step to the most probable image
HALVINGS = 5  # of such a step that are looked at, too: an encoder that bends may make the whole of it too long
LEAST_VARIANCE = 1e-4  # part of the largest one: rounding moves an image along directions that nothing else does


@dataclass(frozen=True)
class Spectrum:
    """Covariance of standardised images: U diag(λ) Uᵀ + rest · (I − U Uᵀ)."""

    basis: Float[Tensor, "pixel rank"]
    variances: Float[Tensor, " rank"]
    rest: Float[Tensor, ""]

    @classmethod
    def of(cls, images: Float[Tensor, "image pixel"]) -> "Spectrum":
        """Of centred images. Directions beyond half their number share one variance: what is left of the total."""
        _, values, directions = torch.linalg.svd(images.double(), full_matrices=False)
        count, pixels = images.shape
        rank = min(pixels, max(1, count // 2))
        variances = values.square() / count
        rest = variances[rank:].sum() / max(1, pixels - rank)
        return cls(directions[:rank].T.float().contiguous(), variances[:rank].float(), rest.float())

    def unknown(self, images: Images, time: float) -> Images:
        """C_t times images, C_t = (Σ⁻¹ + t²/(1 − t)² I)⁻¹: the covariance of Gaussian x of which x_t is known."""

        def left(variance: Tensor) -> Tensor:
            return variance * (1 - time) ** 2 / ((1 - time) ** 2 + variance * time**2)

        flat, rest = images.flatten(1), left(self.rest)
        along = (flat @ self.basis) * (left(self.variances) - rest)
        return (rest * flat + along @ self.basis.T).view_as(images)


def spectrum_images(knowledge: Knowledge) -> int:
    """From how many of the attacker's images a covariance is estimated at most."""
    return min(SPECTRUM_IMAGES, max(2, SPECTRUM_NUMBERS // knowledge.images[0].numel()))


@dataclass(frozen=True)
class Noise:
    """The noise that an attacker assumes in z.

    measured: standard deviation of what the client's z has beside F(x), over the visible values of the attacker's
    images. std: the same, or LEAST_NOISE of z's spread where that is more. parts: standard deviation of each number of
    z for these F(x), in parts of `std`, where the channel's differs from number to number; None: all are alike.
    """

    measured: float
    std: float
    parts: Callable[[Smashed], Smashed] | None = None

    @property
    def choices(self) -> dict[str, float | bool]:
        """What an attack says of it in its record."""
        return {"noise_std": self.measured, "assumed_noise_std": self.std, "noise_per_value": self.parts is not None}

    def times(self, variance: float) -> "Noise":
        """Noise of so many times the variance."""
        return replace(self, std=math.sqrt(variance) * self.std)


@dataclass(frozen=True)
class Explainer:
    """Moves a guess to where it explains z: m + C Jᵀ (J C Jᵀ + D)⁻¹ (z − F(x) − J (m − x)), J the slope of F at x.

    x: the guess. m: the guess itself unless a centre is given. That is the mean given z of an image that is Gaussian
    around m with covariance C, where F is linear and the noise N(0, D). D = σ²I, or diagonal where the noise has parts.
    encode: F, frozen. masked: a 0 in z says that the value is hidden, and nothing has to explain it.
    iterations: of conjugate gradients, for each image by itself.
    """

    encode: Callable[[Images], Smashed] | nn.Module
    noise: Noise
    masked: bool
    iterations: int

    def __call__(
        self, guess: Images, smashed: Smashed, unknown: Callable[[Images], Images], centre: Images | None = None
    ) -> Images:
        """Unknown: multiplies by C. centre: m."""
        with torch.enable_grad(), plain_attention():
            x = guess.detach().requires_grad_()
            clean = self.encode(x)
            weight = torch.zeros_like(clean).requires_grad_()
            (pulled,) = torch.autograd.grad(clean, x, weight, create_graph=True)  # Jᵀ · weight, linear in it
        trust = self.trust(smashed, clean.detach())  # D = σ² trust⁻²: z times it has noise of one size

        def back(change: Smashed) -> Images:
            """C Jᵀ times a change of z."""
            return unknown(torch.autograd.grad(clean, x, trust * change, retain_graph=True)[0])

        def ahead(change: Images) -> Smashed:
            """J times a change of the image."""
            (moved,) = torch.autograd.grad(pulled, weight, change, retain_graph=True)
            return trust * moved

        def spread(change: Smashed) -> Smashed:
            """(J C Jᵀ + σ²I) times a change of z."""
            return ahead(back(change)) + self.noise.std**2 * change

        left = trust * (smashed - clean.detach())
        if centre is None:
            return guess + back(solve(spread, left, self.iterations))
        return centre + back(solve(spread, left + ahead(guess - centre), self.iterations))

    def trust(self, smashed: Smashed, clean: Smashed) -> Smashed:
        """Weight of each number of z whose F(x) is `clean`: 1 over its part of the noise; 0 where it is hidden."""
        seen = (smashed != 0).to(clean.dtype) if self.masked else torch.ones_like(smashed)
        return seen if self.noise.parts is None else seen / self.noise.parts(clean)

    @torch.no_grad()
    def unlikeliness(self, images: Images, smashed: Smashed) -> PerImage:
        """−2 log p(z|x) of each image, up to a constant that all images share, over what is not hidden."""
        clean: Tensor = self.encode(images)
        trust = self.trust(smashed, clean)
        found = (trust * (clean - smashed)).square().flatten(1).sum(1) / self.noise.std**2
        if self.noise.parts is None:
            return found
        # Parts may depend on F(x): louder noise explains more, and is less likely for it.
        return found - 2 * torch.where(trust > 0, trust, 1.0).log().flatten(1).sum(1)


@dataclass(frozen=True)
class MostProbable:
    """Steps of Gauss and Newton to the image that is most probable given z, where images are Gaussian.

    Minimises ‖m ⊙ (F(x) − z)‖²/σ² + (x − centre)ᵀ Σ⁻¹ (x − centre) over x in [0, 1]: maximum a posteriori under the
    explainer's noise. Its σ may differ from number to number, and with F(x): then 2 Σ log σ is added. The search takes
    whole steps, which leave poor minima behind; the answer is the most probable of all images that these, and halves of
    them, came to, for each z by itself. spectrum: Σ. Source: docs/theory.md, "The attacks".
    """

    explain: Explainer
    spectrum: Spectrum

    def images(self, smashed: Smashed, centre: Images, steps: int) -> Iterator[Images]:
        """The most probable image before each step and, last, after all: steps + 1 of them."""
        place = best = centre
        least = self.objective(centre, smashed, centre)
        yield best
        for _ in range(steps):
            step = self.explain(place, smashed, lambda change: self.spectrum.unknown(change, 0.0), centre) - place
            origin, place = place, (place + step).clamp(0, 1)
            for halving in range(HALVINGS + 1):
                tried = (origin + step / 2**halving).clamp(0, 1)
                there = self.objective(tried, smashed, centre)
                best = torch.where((there < least).view(-1, 1, 1, 1), tried, best)
                least = torch.minimum(there, least)
            yield best

    @torch.no_grad()
    def objective(self, images: Images, smashed: Smashed, centre: Images) -> PerImage:
        """What is minimised; infinite where it is no number."""
        apart = (images - centre).flatten(1)
        along = (apart @ self.spectrum.basis).square()
        least = LEAST_VARIANCE * self.spectrum.variances.max()
        rest = (apart.square().sum(1) - along.sum(1)).clamp_min(0) / torch.maximum(self.spectrum.rest, least)
        prior = (along / torch.maximum(self.spectrum.variances, least)).sum(1) + rest
        return (self.explain.unlikeliness(images, smashed) + prior).nan_to_num(torch.inf)


def noise_of(knowledge: Knowledge, encoder: nn.Module, generator: torch.Generator) -> Noise:
    """The noise in z, for what needs a probability of z given the image.

    Its size is measured, and so holds for the mean of several looks; how it is shared out is what the channel says.
    """
    square, law, count = 0.0, 0.0, 0
    with torch.no_grad():
        for rows in chunks(knowledge.images.shape):
            z = knowledge.observe(rows, generator)
            seen = z != 0 if knowledge.masked else torch.ones_like(z, dtype=torch.bool)
            clean = encoder(knowledge.targets(rows))
            square += torch.where(seen, z - clean, 0.0).double().square().sum().item()
            count += int(seen.sum())
            if knowledge.stds is not None:
                law += torch.where(seen, knowledge.stds(clean), 0.0).double().square().sum().item()
    measured = math.sqrt(square / max(1, count))
    spread = observed_spread(knowledge, visible=True).by_value().scale.item()
    least = LEAST_NOISE * spread
    std, stds = max(measured, least), knowledge.stds
    if stds is None:
        return Noise(measured, std)
    factor = math.sqrt(square / law) if law > 0 else 0.0
    return Noise(measured, std, lambda clean: (factor * stds(clean)).clamp_min(least) / std)


def solve(matrix: Callable[[Smashed], Smashed], target: Smashed, iterations: int) -> Smashed:
    """The solution of `matrix`(x) = target by conjugate gradients from 0, for each of a batch by itself.

    One that is solved to rounding stays where it is.
    """
    solution, residual, direction = torch.zeros_like(target), target, target
    square = _inner(residual, residual)
    for _ in range(iterations):
        image = matrix(direction)
        length = _ratio(square, _inner(direction, image))
        solution, residual = solution + length * direction, residual - length * image
        before, square = square, _inner(residual, residual)
        direction = residual + _ratio(square, before) * direction
    return solution


def _inner(one: Smashed, other: Smashed) -> Float[Tensor, "batch 1 1 1"]:
    return (one * other).sum((1, 2, 3), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Above / below; 0 where nothing is left to divide by."""
    return torch.where(below > torch.finfo(below.dtype).tiny, above / below, 0.0)
