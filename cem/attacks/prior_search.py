"""White box: samples the images that explain z, with a prior of the attacker's own images and the encoder itself."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.attacks.base import AttackError, Fitted, Knowledge
from cem.attacks.flow import FlowLoop, SamplingAttack, image_scale
from cem.attacks.flow_net import Field, FlowNet
from cem.attacks.posterior import Explainer, Spectrum, noise_of, spectrum_images
from cem.config import PriorSearch
from cem.jobs.state import StateStore
from cem.models.init import placed
from cem.models.velocity import make_velocity
from cem.types import Images, Smashed


class SteeredFlow(FlowNet):
    """A flow to the attacker's images, steered so that what it ends at explains z.

    On the way from noise to an image, at time t, the flow points to E[x|x_t] = x_t + (1 − t) · v. One that points to
    E[x|x_t, z] ends at samples of x given z. That mean is taken as if x were Gaussian around E[x|x_t], with the
    covariance that Gaussian images with the covariance of the attacker's have once x_t is known, and as if the encoder
    were linear: exact for Gaussian images and a linear encoder, and asked anew at each look.
    """

    spectrum: Spectrum
    explain: Explainer

    def field(self, smashed: Smashed, count: int) -> Field:
        seen = smashed.repeat_interleave(count, dim=0)

        def steered(x: Images, time: float) -> Images:
            guess = self.possible(x + (1 - time) * self.at(x, time))
            explained = self.explain(guess, seen, lambda change: self.spectrum.unknown(change, time))
            return (self.possible(explained) - x) / (1 - time)

        return steered


class PriorSearchAttack(SamplingAttack):
    """Fits a flow from noise to its own images, and steers it through the encoder: see `SteeredFlow`.

    The best epoch of the prior, and whether it converged, is by the error of its guesses E[x|x_t] on images that the
    attacker held out, at fixed draws: `val_mse`. That of the answers is `held_out_mse`. σ is measured on
    the attacker's own images; where it is below a hundredth of z's spread, that stands in. Where the channel says that
    it differs from number to number, each has its own. Interruption and divergence:
    as for DecoderAttack. Source: docs/theory.md, "The attacks".
    """

    net: SteeredFlow

    def __init__(self, cfg: PriorSearch, store: StateStore | None = None) -> None:
        super().__init__(cfg, store)
        self.cfg = cfg

    def fit(self, knowledge: Knowledge) -> Fitted:
        encoder = knowledge.encoder
        if encoder is None:
            raise AttackError("prior_search: expected the encoder; found an attacker without. Set encoder: weights.")
        self.know(knowledge)
        loop = _Loop(self.cfg, knowledge, self.cfg.id)
        self.net = net = loop.make_prior(self.mean, self.cfg)
        self.facts = loop.facts
        fitted = loop.fit(net, None, self.store.part("prior"))
        order = torch.randperm(len(loop.fit_rows), generator=loop.generator("spectrum", "cpu"))
        rows = loop.fit_rows[order[: spectrum_images(knowledge)]]  # none of those that its answers are judged on
        net.spectrum = Spectrum.of(((knowledge.targets(rows) - net.mean) / net.scale).flatten(1))
        noise = noise_of(knowledge, encoder, loop.generator("noise"))
        net.explain = Explainer(
            lambda x: encoder(net.mean + net.scale * x),
            noise,
            knowledge.masked,
            self.cfg.iterations,
        )
        held = loop.held_out()
        answers = self.reconstruct(knowledge.observe(held, loop.generator("validation")))
        error = (answers - knowledge.targets(held)).square().mean().item()
        held_out = error if math.isfinite(error) and loop.origin is None else None  # see FitLoop.fitted
        return replace(fitted, held_out_mse=held_out, choices=fitted.choices | noise.choices)


class _Loop(FlowLoop):
    """The fit of a flow that is told no z, judged by the images it points to."""

    def make_prior(self, mean: Float[Tensor, "channel height width"], cfg: PriorSearch) -> SteeredFlow:
        """Its first weights, behind the standardisation of the attacker's images; mean: theirs."""
        velocity, _ = make_velocity(self.flow.net, self.image_shape, None, self.generator("weights", "cpu"))
        scale = image_scale(self.knowledge, mean)
        net = SteeredFlow(velocity, None, mean, scale, cfg.samples, cfg.steps, self.draws)
        return placed(net, self.knowledge.device)

    @torch.no_grad()
    def held_out_mse(self, net: nn.Module) -> float:
        """Mean squared error of E[x|x_t] on the held-out images, at the same noise and times every time."""
        assert isinstance(net, FlowNet)
        path, total = self.generator("validation"), 0.0
        net.eval()
        for rows in torch.split(self.held_rows, self.flow.batch_size):
            total += len(rows) * net.loss(self.knowledge.targets(rows), None, path)[1].item()
        return total / len(self.held_rows)
