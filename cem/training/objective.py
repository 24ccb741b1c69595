"""The objective, term by term: the one place where λ acts.

    L = CE(classifier(corrupt(ẑ)), y) + Σ defence terms + λ(t) · surrogate(ẑ, y)

The server has the first term, the client the others. Each term gets an alias of ẑ to itself, through which the gradient
that it sends to the encoder is watched. At λ = 0 the surrogate's term is left out of the graph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cem.defenses import Defense, NotApplicable
from cem.surrogates import Surrogate, Terms
from cem.training.gradients import guard, watched
from cem.types import Images, Labels, Smashed

Scalar = Float[Tensor, ""]


@dataclass
class Sent:
    """What the client makes of a batch: z for the server, its own terms' sum, which stays, and readings of both.

    The gradient norms among the values come with the backward pass. The values are detached: hooks of the graph hold
    them, and a value that held the graph would keep both in memory for good.
    """

    z: Smashed
    own: Scalar
    values: dict[str, Scalar]


class Score(NamedTuple):
    """What the server makes of z: its term, and the share of the images that it classifies rightly."""

    cross_entropy: Scalar
    train_accuracy: Scalar


def objective(score: Score, sent: Sent) -> Scalar:
    """L, of both parties' terms."""
    return score.cross_entropy + sent.own


def score(logits: Float[Tensor, "batch cls"], labels: Labels, dtype: torch.dtype) -> Score:
    """CE(classifier(z), y), computed in `dtype`."""
    right = logits.argmax(1) == labels
    return Score(cross_entropy(logits.to(dtype), labels), right.to(dtype).mean())


@dataclass
class ClientObjective:
    """The terms that the client has, and what they need.

    routing: who fits the surrogate's own parameters: its own Adam (on `fit_loss`), the client's optimizer (shared), or
    nobody (frozen; also when it has none). noise, draws: generators of the defence and of the surrogate.
    """

    defense: Defense
    surrogate: Surrogate
    routing: Literal["own", "shared", "frozen"]
    noise: torch.Generator
    draws: torch.Generator

    def terms(self, images: Images, clean: Smashed, labels: Labels, weight: float, with_surrogate: bool) -> Sent:
        """z = corrupt(ẑ), and Σ defence terms + λ · surrogate(ẑ, y) (+ the fit of the surrogate's own parameters).

        weight: λ(t). with_surrogate: whether it is computed; at λ = 0 it then adds nothing but that fit.
        """
        values: dict[str, Tensor] = {}
        z = self.defense.corrupt(watched(clean, "cross_entropy_grad_norm", values), self.noise)
        own = self.defense.penalty(images, watched(clean, "defense_grad_norm", values), labels)
        if own.requires_grad:
            values["defense_penalty"] = own.detach()
        if with_surrogate:
            alias = clean.view_as(clean)
            self.surrogate.take_noise(self.defense.channel.noise_std)
            loss = self._surrogate(images, self.defense.prepare(alias), labels, values, in_graph=weight > 0)
            fit = self._fit(images, self.defense.prepare(clean.detach()), labels, values)
            own = own + weight * loss if weight > 0 else own
            own = own + fit if fit is not None else own
            if loss.requires_grad:
                finite = torch.isfinite(loss) if fit is None else torch.isfinite(loss) & torch.isfinite(fit)
                guard(alias, finite, "surrogate_grad_norm", values)
        return Sent(z, own, values)

    def _surrogate(
        self, images: Images, alias: Smashed, labels: Labels, values: dict[str, Tensor], in_graph: bool
    ) -> Scalar:
        """surrogate(ẑ, y). Its own parameters get no gradient from it unless they share the client's optimizer."""
        with _constant(self.surrogate, keep=self.routing == "shared"), torch.set_grad_enabled(in_graph):
            terms: Terms = self.surrogate(alias, labels, self.draws, **self._seen(images))
        values["intra_class_mse"] = terms.intra_class_mse
        # The bounds are of Gaussian noise: of other noise of the same variance they are none.
        if not isinstance(self.defense.channel.gaussian_std, NotApplicable):
            bounds = {"leakage_nats": terms.leakage_nats, "conditional_nats": terms.conditional_nats}
            values |= {name: value for name, value in bounds.items() if value is not None}
        values["surrogate_loss"] = terms.loss.detach()
        return terms.loss

    def _seen(self, images: Images) -> dict[str, Images]:
        """What a surrogate is told of the images."""
        return {"images": images} if self.surrogate.uses_images else {}

    def _fit(self, images: Images, clean: Smashed, labels: Labels, values: dict[str, Tensor]) -> Scalar | None:
        """What the surrogate's own Adam descends on, at the detached ẑ; None where it has nothing to fit."""
        if self.routing != "own":
            return None
        fit = self.surrogate.fit_loss(clean, labels, self.draws, **self._seen(images))
        if fit is not None:
            values["fit_loss"] = fit.detach()
        return fit


@contextmanager
def _constant(module: nn.Module, keep: bool) -> Iterator[None]:
    """Leave a module's parameters out of the graph, unless `keep`."""
    learned = [] if keep else [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
