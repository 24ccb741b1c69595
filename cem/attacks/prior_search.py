"""White box: samples the images that explain z, with a prior of the attacker's own images and the encoder itself."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem.attacks.base import AttackError, Fitted, Knowledge, chunks
from cem.attacks.fit_loop import NetworkAttack
from cem.attacks.flow import FlowLoop, image_scale
from cem.attacks.flow_net import FlowNet, Samples, at_time, integrate
from cem.attacks.posterior import SPECTRUM_IMAGES, Explainer, Spectrum
from cem.attacks.standard import observed_spread
from cem.config import PriorSearch
from cem.jobs.interruption import Interrupted
from cem.jobs.state import StateStore
from cem.models.velocity import make_velocity
from cem.types import Images, Labels, Smashed

TOGETHER = 128  # samples that are searched at once
LEAST_NOISE = 0.01  # part of z's spread that stands in for a smaller σ: the encoder is a line over so short a way only


class PriorSearchAttack(NetworkAttack):
    """A flow from noise to the attacker's images, steered so that what it ends at explains z.

    On the way from noise to an image, at time t, the prior's guess is E[x|x_t] = x_t + (1 − t) · v. Steered towards
    E[x|x_t, z], the flow ends at samples of x given z. That mean is taken as if x were Gaussian around the guess, with
    the covariance that Gaussian images with the covariance of the attacker's have given x_t, and the encoder a line:
    exact for Gaussian images and a linear encoder, and asked anew with each look at the velocity.

    The best epoch of the prior, and whether it converged, is by the error of its guesses on images that the attacker
    held out, at fixed draws: `val_mse`. That of the answers is `held_out_mse` of the choices. Interruption and
    divergence: as for DecoderAttack. Source: docs/theory.md, "The attacks".
    """

    net: FlowNet

    def __init__(self, cfg: PriorSearch, store: StateStore | None = None) -> None:
        self.cfg, self.store = cfg, store or StateStore()

    def fit(self, knowledge: Knowledge) -> Fitted:
        encoder = knowledge.encoder
        if encoder is None:
            raise AttackError("prior_search: expected the encoder; found an attacker without. Set encoder: weights.")
        self.know(knowledge)
        loop = _PriorLoop(self.cfg, knowledge, self.cfg.id)
        self.net = net = loop.make_prior(self.mean, self.cfg.samples, self.cfg.steps)
        fitted = loop.fit(net, None, self.store.part("prior"))
        rows = torch.randperm(knowledge.num_images, generator=loop.generator("spectrum", "cpu"))[:SPECTRUM_IMAGES]
        self.spectrum = Spectrum.of(((knowledge.targets(rows) - net.mean) / net.scale).flatten(1))
        measured = measured_noise(knowledge, encoder, loop.generator("noise"))
        assumed = max(measured, LEAST_NOISE * observed_spread(knowledge, visible=True).by_value().scale.item())
        self.explain = Explainer(
            lambda x: encoder(net.mean + net.scale * x), assumed, knowledge.masked, self.cfg.iterations
        )
        held = loop.held_out()
        answers = self.reconstruct(knowledge.observe(held, loop.generator("validation")))
        error = (answers - knowledge.targets(held)).square().mean().item()
        found = {"held_out_mse": error, "noise_std": measured, "assumed_noise_std": assumed}
        return replace(fitted, choices=fitted.choices | found)

    @torch.no_grad()
    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Raises Interrupted when asked to stop."""
        parts = torch.split(smashed, max(1, TOGETHER // self.cfg.samples))
        images = torch.cat([self.sample(part, self.cfg.samples).mean(1) for part in parts])
        finite = images.isfinite().flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(finite, images, self.mean)

    @torch.no_grad()
    def sample(self, smashed: Smashed, count: int) -> Samples:
        """So many images for each z, in [0, 1]; not finite where something overflows. Raises Interrupted."""
        noise, seen, net = self.net.noise(smashed, count), smashed.repeat_interleave(count, dim=0), self.net.eval()

        def velocity(x: Images, time: float) -> Images:
            if self.store.asked_to_stop():
                raise Interrupted
            guess = net.possible(x + (1 - time) * net.velocity(x, at_time(x, time)))
            explained = self.explain(guess, seen, lambda change: self.spectrum.unknown(change, time))
            return (net.possible(explained) - x) / (1 - time)

        return net.images(integrate(velocity, noise.flatten(0, 1), self.cfg.steps)).view_as(noise)


class _PriorLoop(FlowLoop):
    """The fit of a flow that is told no z, judged by the images it points to."""

    def make_prior(self, mean: Float[Tensor, "channel height width"], samples: int, steps: int) -> FlowNet:
        """Its first weights, behind the standardisation of the attacker's images; mean: theirs."""
        velocity, _ = make_velocity(self.flow.net, self.image_shape, None, self.generator("weights", "cpu"))
        scale = image_scale(self.knowledge, mean)
        return FlowNet(velocity, None, mean, scale, samples, steps, self.draws).to(self.knowledge.device)

    @torch.no_grad()
    def held_out_mse(self, net: nn.Module) -> float:
        """Mean squared error of E[x|x_t] on the held-out images, at the same noise and times every time."""
        assert isinstance(net, FlowNet)
        path, total = self.generator("validation"), 0.0
        net.eval()
        for rows in torch.split(self.held_rows, self.flow.batch_size):
            total += len(rows) * net.loss(self.knowledge.targets(rows), None, path)[1].item()
        return total / len(self.held_rows)


def measured_noise(knowledge: Knowledge, encoder: nn.Module, generator: torch.Generator) -> float:
    """Standard deviation of what the client's z has beside F(x), over the visible values of the attacker's images."""
    square, count = 0.0, 0
    with torch.no_grad():
        for rows in chunks(knowledge.images.shape):
            z = knowledge.observe(rows, generator)
            seen = z != 0 if knowledge.masked else torch.ones_like(z, dtype=torch.bool)
            square += torch.where(seen, z - encoder(knowledge.targets(rows)), 0.0).double().square().sum().item()
            count += int(seen.sum())
    return math.sqrt(square / max(1, count))
