"""A decoder trained against a critic that tells its images from real ones, and towards the image."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cem.attacks.base import Fitted, Knowledge
from cem.attacks.decoder import DecoderAttack
from cem.attacks.fit_loop import FitLoop, NetworkAttack, descend
from cem.attacks.fit_state import FitState, Readings
from cem.attacks.weights import Weights
from cem.config import Gan
from cem.jobs.state import StateStore
from cem.models.critic import make_critic
from cem.types import Images

BETAS = (0.5, 0.999)


class GanAttack(NetworkAttack):
    """WGAN-GP with the squared error beside the critic's verdict, the best epoch on images the attacker held out.

    The critic learns from every batch, the generator from every `critic_steps`-th of the whole fit. Where it starts
    from a decoder, fitted on the attacker's own images, that decoder is kept unless an epoch is better (epoch 0 of
    `choices`). Interruption and divergence: as for DecoderAttack. Source: docs/theory.md,
    "The attacks".
    """

    def __init__(self, cfg: Gan, store: StateStore | None = None) -> None:
        self.cfg, self.store = cfg, store or StateStore()

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.know(knowledge)
        loop = FitLoop(self.cfg, knowledge, self.cfg.id)
        start = self._fit_start(loop)
        self.critic = make_critic(loop.image_shape, loop.generator("critic", "cpu")).to(knowledge.device)
        nets = {"net": self.net, "critic": self.critic}
        self.facts = loop.facts
        start_mse = loop.held_out_mse(self.net) if start else loop.start(nets)
        rates = {"net": self.cfg.lr, "critic": self.cfg.critic_lr}
        state = FitState(
            nets,
            {name: torch.optim.Adam(net.parameters(), lr=rates[name], betas=BETAS) for name, net in nets.items()},
            loop.generators() | {"between": loop.generator("between")},
            start_mse=start_mse,
        )
        loop.run(state, _Game(self.cfg, loop, state).step, self.store.part("gan"))
        fitted = loop.fitted(state, lr=self.cfg.lr)
        if start is None:
            return fitted
        of_start = f"its decoder: {start.failure}" if start.failure else ""
        return replace(
            fitted,
            held_out_mse=None if start.held_out_mse is None else fitted.held_out_mse,
            choices=fitted.choices | {"decoder": start.choices},
            failure=fitted.failure or of_start,
            converged=fitted.converged if state.best_epoch else start.converged,  # of the network that is kept
        )

    def weights(self) -> Weights:
        """The critic's are those that it ended with; the generator's, as ever, those of the best epoch."""
        return Weights(self.facts, {"net": self.net, "critic": self.critic})

    def _fit_start(self, loop: FitLoop) -> Fitted | None:
        """Make the generator; fit it where it starts as a decoder, and give what that has to say."""
        if self.cfg.decoder is None:
            self.net = loop.make_net()
            return None
        decoder = DecoderAttack(self.cfg.decoder, self.store.part("decoder"), f"{self.cfg.id}'s decoder")
        fitted = decoder.fit(loop.knowledge)
        self.net, loop.smashed_shape = decoder.net, decoder.weights().facts.smashed_shape
        return fitted


@dataclass(frozen=True)
class _Game:
    """The steps of critic and generator."""

    cfg: Gan
    loop: FitLoop
    state: FitState

    def step(self, rows: Int[Tensor, " rows"]) -> Readings:
        """Learn from a batch."""
        state, (net, critic) = self.state, self.state.nets.values()
        z = self.loop.knowledge.observe(rows, state.generators["corruption"])
        real = self.loop.knowledge.targets(rows)
        with torch.no_grad():
            fake = net(z)
        distance = critic(real).mean() - critic(fake).mean()
        penalty = gradient_penalty(critic, real, fake, state.generators["between"])
        descend(state.optimizers["critic"], self.cfg.gradient_penalty * penalty - distance)
        if (len(state.curve) * self.loop.steps + state.step + 1) % self.cfg.critic_steps == 0:
            self._move_generator(net, critic, z, real)
        return {"train_mse": mse_loss(fake, real), "critic": distance}

    def _move_generator(self, net: nn.Module, critic: nn.Module, z: Tensor, real: Images) -> None:
        fake = net(z)
        descend(self.state.optimizers["net"], self.cfg.mse_weight * mse_loss(fake, real) - critic(fake).mean())


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Images, fake: Images, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean of (‖∂critic/∂x‖ − 1)² over points x drawn between each real image and its fake.

    Source: Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville 2017 (arXiv 1704.00028), eq. 3.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=generator, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty
