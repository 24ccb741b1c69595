"""A flow from noise to the images that z leaves possible: one sample is sharp, the mean of many is the best guess."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem.attacks.base import Fitted, Knowledge, Rows, chunks
from cem.attacks.fit_loop import FitLoop, NetworkAttack, descend
from cem.attacks.fit_state import FitState, Readings
from cem.attacks.flow_net import FlowNet, Samples
from cem.attacks.standard import Standardised, observed_spread
from cem.config import Flow, FlowFit, PriorSearch
from cem.jobs.interruption import Interrupted
from cem.jobs.state import StateStore
from cem.models.init import placed
from cem.models.velocity import make_velocity
from cem.types import Images, Labels, Smashed

TOGETHER = 256  # samples that are drawn at once: bounds memory, and how long a request to stop goes unheard


class SamplingAttack(NetworkAttack):
    """Answers z with the mean of samples of a flow; with that of the attacker's images where the flow overflows."""

    net: FlowNet

    def __init__(self, cfg: Flow | PriorSearch, store: StateStore | None = None) -> None:
        self.samples, self.store = cfg.samples, store or StateStore()

    @torch.no_grad()
    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Raises Interrupted when asked to stop."""
        parts = torch.split(smashed, max(1, TOGETHER // self.samples))
        return torch.cat([self.or_mean(self.sample(part, self.samples).mean(1)) for part in parts])

    @torch.no_grad()
    def sample(self, smashed: Smashed, count: int) -> Samples:
        """So many images for each z, in [0, 1]; not finite where the flow overflows. Raises Interrupted."""
        return self.net.eval().sample(smashed, count, self._heed)

    def _heed(self) -> None:
        if self.store.asked_to_stop():
            raise Interrupted


class FlowAttack(SamplingAttack):
    """Conditional flow matching: the answer to z is the mean of `samples` draws from the images that z leaves possible.

    The best epoch is that of the least squared error of what the attack answers, on images that the attacker held out.
    Interruption and divergence: as for DecoderAttack. Source: docs/theory.md, "The attacks".
    """

    def __init__(self, cfg: Flow, store: StateStore | None = None) -> None:
        super().__init__(cfg, store)
        self.cfg = cfg

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.know(knowledge)
        loop = _Loop(self.cfg, knowledge)
        self.net, self.facts = loop.make_flow(self.mean), loop.facts
        return loop.fit(self.net, knowledge.observe, self.store.part("flow"))


class FlowLoop(FitLoop):
    """The fit of a flow: Adam; fresh noise and times in each step."""

    def __init__(self, cfg: FlowFit, knowledge: Knowledge, name: str) -> None:
        super().__init__(cfg, knowledge, name)
        self.flow = cfg

    def fit(
        self, net: FlowNet, observe: Callable[[Rows, torch.Generator], Smashed] | None, store: StateStore
    ) -> Fitted:
        """Fit the flow to the attacker's images, and say how that went. Raises Interrupted when asked to stop.

        observe: gives the z that the flow is told; None: of none.
        """
        generators = self.generators() | {"path": self.generator("path")}
        optimizer = torch.optim.Adam(net.parameters(), lr=self.flow.lr)

        def step(rows: Int[Tensor, " rows"]) -> Readings:
            z = observe(rows, generators["corruption"]) if observe else None
            loss, image_error = net.loss(self.knowledge.targets(rows), z, generators["path"])
            descend(optimizer, loss)
            return {"train_mse": image_error, "train_loss": loss}

        state = FitState({"net": net}, {"net": optimizer}, generators, self.start({"net": net}))
        self.run(state, step, store)
        return self.fitted(state, lr=self.flow.lr)

    def held_out(self) -> Int[Tensor, " rows"]:
        """Some of the held-out images at random, the same every time."""
        order = torch.randperm(len(self.held_rows), generator=self.generator("selection", "cpu"))
        return self.held_rows[order[: self.flow.selection_images]].sort().values

    def draws(self, name: str) -> torch.Generator:
        """The generator of the noise that samples start from."""
        return self.generator(f"sample/{name}", "cpu")


class _Loop(FlowLoop):
    """The fit of a flow from z, judged by its answers."""

    def __init__(self, cfg: Flow, knowledge: Knowledge) -> None:
        super().__init__(cfg, knowledge, cfg.id)
        self.answers = cfg

    def make_flow(self, mean: Float[Tensor, "channel height width"]) -> FlowNet:
        """Its first weights, behind the standardisation of z and of the attacker's images; mean: theirs."""
        spread, masked = observed_spread(self.knowledge, visible=True), self.knowledge.masked
        channels, height, width = spread.mean.shape
        self.smashed_shape = (channels, height, width)
        shape = (2 * channels if masked else channels, height, width)
        velocity, condition = make_velocity(self.flow.net, self.image_shape, shape, self.generator("weights", "cpu"))
        assert condition is not None
        reader, scale = Standardised(condition, spread.by_channel(), masked), image_scale(self.knowledge, mean)
        net = FlowNet(velocity, reader, mean, scale, self.answers.samples, self.answers.steps, self.draws)
        return placed(net, self.knowledge.device)

    @torch.no_grad()
    def held_out_mse(self, net: nn.Module) -> float:
        """Mean squared error of the answers to some held-out images, under the same corruption and noise every time.

        Two samples are drawn of each, however many the answer is the mean of: the error of a mean of n is that of the
        mean of two less (½ − 1/n) of the samples' variance, of which half of their squared difference is an estimate
        without bias.
        """
        assert isinstance(net, FlowNet)
        corruption, rows = self.generator("validation"), self.held_out()
        total = torch.zeros((), dtype=torch.float64, device=self.knowledge.device)
        net.eval()
        for part in torch.split(rows, TOGETHER // 2):
            one, other = net.sample(self.knowledge.observe(part, corruption), 2).unbind(1)
            error = ((one + other) / 2 - self.knowledge.targets(part)).square()
            error = error - (1 / 2 - 1 / self.answers.samples) * (one - other).square() / 2
            total += error.flatten(1).mean(1).sum(dtype=torch.float64)
        return total.item() / len(rows)


def image_scale(knowledge: Knowledge, mean: Float[Tensor, "channel height width"]) -> Float[Tensor, ""]:
    """One standard deviation for all pixels of the attacker's images about their mean image; 1 where nothing varies."""
    squares = [
        (knowledge.targets(rows) - mean).square().sum(dtype=torch.float64) for rows in chunks(knowledge.images.shape)
    ]
    scale = (torch.stack(squares).sum() / knowledge.images.numel()).sqrt().float()
    return torch.where(scale > 0, scale, 1.0)
