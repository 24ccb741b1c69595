"""What all attacks by a fitted network share: the loop that fits it, the verdict, its answers."""

import math
import sys
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from cem.attacks.base import Fitted, Knowledge, hold_out
from cem.attacks.budget import GAIN, Auto, budget_of
from cem.attacks.fit_state import FitState, Readings
from cem.attacks.mean_image import MeanImageAttack
from cem.attacks.standard import Standardised, observed_spread
from cem.attacks.weights import Weights, load_weights
from cem.config import DecoderFit, FlowFit, Gan
from cem.jobs.interruption import Checkpoints
from cem.jobs.state import StateStore
from cem.models import parameter_count
from cem.models.decoder import Shape, make_decoder
from cem.models.init import placed
from cem.storage.weights import NetworkFacts, WeightsHeader
from cem.types import Images, Labels, Smashed

Step = Callable[[Int[Tensor, " rows"]], Readings]  # learns from these images, gives `train_mse` and what else it read


class NetworkAttack:
    """Answers z with a network's image; with the mean of the attacker's images where the network overflows.

    No epoch is kept whose held-out error is not finite, so an overflow is of few images if of any, and an attacker sees
    it in its own output: it has nothing better to say of that image than one who sees no z.
    """

    net: nn.Module
    facts: NetworkFacts
    mean: Float[Tensor, "channel height width"]

    def know(self, knowledge: Knowledge) -> None:
        """Keep what the answers need beside the network."""
        mean_image = MeanImageAttack()
        mean_image.fit(knowledge)
        self.mean = mean_image.mean

    def weights(self) -> Weights:
        """What was fitted, for others to start from; after `fit`."""
        return Weights(self.facts, {"net": self.net})

    @torch.no_grad()
    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        return self.or_mean(self.net.eval()(smashed))

    def or_mean(self, images: Images) -> Images:
        """The mean of the attacker's images in place of those that are not finite."""
        finite = images.isfinite().flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(finite, images, self.mean)


class FitLoop:
    """Epochs of fresh corruption in shuffled batches; the best epoch on images that the attacker held out.

    No augmentation: z of a changed image would need the encoder. origin: the header of the file that the network starts
    from; None: it starts from random weights. smashed_shape: of z, once the network is made; None: it is told none.
    """

    origin: WeightsHeader | None = None
    smashed_shape: Shape | None = None

    def __init__(self, cfg: DecoderFit | FlowFit | Gan, knowledge: Knowledge, name: str) -> None:
        self.cfg, self.knowledge, self.name = cfg, knowledge, name
        self.budget = budget_of(cfg)
        self.fit_rows, self.held_rows = hold_out(knowledge.num_images, cfg.held_out, self.generator("split", "cpu"))
        self.batch_size = min(cfg.batch_size, len(self.fit_rows))
        self.steps = len(self.fit_rows) // self.batch_size  # an incomplete last batch is left out

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width of the attacker's images."""
        return _shape(self.knowledge.images)

    @property
    def facts(self) -> NetworkFacts:
        """What the network is, for a file of its weights; once it is made."""
        return NetworkFacts(
            network=self.cfg.network,
            net=self.cfg.net,
            smashed_shape=self.smashed_shape,
            masked=self.cfg.of_z and self.knowledge.masked,
            image_shape=self.image_shape,
        )

    def start(self, nets: Mapping[str, nn.Module]) -> float:
        """Give the networks the weights of the file that settings name, and the held-out error of `net` with these.

        Where the fit goes on from there, z is still standardised as this run's is, or an encoder that sends smaller
        values than the file's would seem to hide something. The error is infinite where settings name no file, or
        where it is not finite: any epoch is then better than the first weights.
        Raises WeightsError where the file is of another network.
        """
        if (path := self.cfg.weights_file) is None:
            return math.inf
        standards = {name: _standard(net) for name, net in nets.items()}
        self.origin = load_weights(path, self.facts, nets)
        if self.cfg.epochs != 0:
            for name, net in nets.items():
                net.load_state_dict(standards[name], strict=False)
        error = self.held_out_mse(nets["net"])
        return error if math.isfinite(error) else math.inf

    def generator(self, purpose: str, device: str | None = None) -> torch.Generator:
        """One of this fit's generators, at its start."""
        return self.knowledge.generator(f"{self.cfg.seed}/{purpose}", device)

    def generators(self) -> dict[str, torch.Generator]:
        """Those that every fit draws from, at their start."""
        return {"shuffle": self.generator("shuffle", "cpu"), "corruption": self.generator("corruption")}

    def make_net(self) -> nn.Module:
        """The attacker's network with its first weights, behind the standardisation of z."""
        spread, masked = observed_spread(self.knowledge, visible=True), self.knowledge.masked
        channels, height, width = spread.mean.shape
        self.smashed_shape = (channels, height, width)
        shape = (2 * channels if masked else channels, height, width)
        net = make_decoder(self.cfg.net, shape, self.image_shape, self.generator("weights", "cpu"))
        return placed(Standardised(net, spread.by_channel(), masked), self.knowledge.device)

    def run(self, state: FitState, step: Step, store: StateStore, epochs: int | None = None) -> None:
        """Fit from where the state or an earlier attempt stands to the end, and give the net its best weights.

        The end is the budget's, or a number that is not finite. epochs: stop after so many, to be gone on from there;
        the net then keeps the weights that it has. Raises Interrupted when asked to stop.
        """
        if not state.curve and state.restore(store) and not self._over(state):
            place = f"epoch {len(state.curve) + 1}, batch {state.step}"
            print(f"{self.name}: going on from {store.place}: {place}", file=sys.stderr)
        while not self._over(state) and (epochs is None or len(state.curve) < epochs):
            if not len(state.order):
                self._begin_epoch(state)
            self._epoch(state, step, store)
            # Of the last batch, which an earlier attempt may have done.
            state.set_rate(self._rate(state, self.steps - 1))
            state.end_epoch(self.held_out_mse(state.net))
            state.save(store)
            if not sys.stderr.isatty():
                self._print_line(state)
        if self._over(state):
            state.net.load_state_dict(state.best)

    def held_out_mse(self, net: nn.Module) -> float:
        """Mean squared error on the held-out images, under the same corruption every time."""
        corruption = self.generator("validation")
        total = torch.zeros((), dtype=torch.float64, device=self.knowledge.device)
        net.eval()
        with torch.no_grad():
            for rows in torch.split(self.held_rows, self.cfg.batch_size):
                error = net(self.knowledge.observe(rows, corruption)) - self.knowledge.targets(rows)
                total += error.square().flatten(1).mean(1).sum(dtype=torch.float64)
        return total.item() / len(self.held_rows)

    def fitted(self, state: FitState, **choices: object) -> Fitted:
        """What is to be said of a fit that is at its end. choices: those beside the epoch.

        Of a network that was taken from a file as it is, nothing says whether a fit to this run would make it better,
        so `converged` is None; but one that is told no z is of no run, and it is as its own fit said. Where no epoch
        came near the file's network, the fit to this run has not succeeded: it has not converged. What the file's own
        fit saw may be among the images that are held out here, so their error says nothing that others' do.
        """
        converged = False if state.failure else self.budget.converged(state.curve)
        if self.origin is not None and self.cfg.of_z and state.curve and not state.best_epoch:
            reached = min(row["val_mse"] for row in state.curve)
            converged = converged and reached <= (1 + GAIN) * state.best_mse
        failure = state.failure
        if not state.curve and not failure:
            if self.origin is None:
                failure = "0 epochs: nothing was fitted"
            elif math.isinf(state.best_mse):
                failure = "the answers of the network from the file are not finite on the attacker's images"
            elif not self.cfg.of_z:
                converged = self.origin.converged
        return Fitted(
            parameters=sum(parameter_count(net) for net in state.nets.values()),
            held_out_mse=state.best_mse if self.origin is None and math.isfinite(state.best_mse) else None,
            curve=state.curve,
            ladder=self.budget.rungs(state.curve) if isinstance(self.budget, Auto) else [],
            converged=converged,
            choices={"epoch": state.best_epoch, **choices},
            failure=failure,
        )

    def _over(self, state: FitState) -> bool:
        return bool(state.failure) or (not len(state.order) and self.budget.is_over(state.curve))

    def _rate(self, state: FitState, step: int) -> float:
        return self.budget.rate(state.curve, step / self.steps)

    def _begin_epoch(self, state: FitState) -> None:
        """Draw the order of the images; from where a cool-down begins, and back to there when it is behind."""
        if isinstance(self.budget, Auto):
            place = self.budget.place(len(state.curve))
            if place.begins_cooling:
                state.mark_trunk()
            elif place.begins_stable and state.curve:
                state.return_to_trunk()
        shuffle = torch.randperm(len(self.fit_rows), generator=state.generators["shuffle"])
        state.order = self.fit_rows[shuffle]

    def _epoch(self, state: FitState, step: Step, store: StateStore) -> None:
        """What is left of a pass over the images."""
        state.net.train()
        batches = torch.split(state.order[: self.steps * self.batch_size], self.batch_size)
        checkpoints = Checkpoints(store, lambda: state.save(store))
        rest = tqdm(
            batches[state.step :], f"{self.name} {len(state.curve) + 1}/{self.budget.until(state.curve)}", leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for rows in rest:
            state.set_rate(self._rate(state, state.step))
            state.end_batch(step(rows))
            checkpoints.after_batch()

    def _print_line(self, state: FitState) -> None:
        if state.failure:
            print(f"{self.name}: {state.failure}", file=sys.stderr, flush=True)
            return
        row, done, epochs = state.curve[-1], len(state.curve), self.budget.until(state.curve[:-1])
        left = sum(row["seconds"] for row in state.curve) / done * (epochs - done)
        print(
            f"{self.name}: epoch {done}/{epochs}, train_mse {row['train_mse']:.5f}, "
            f"val_mse {row['val_mse']:.5f}, {row['seconds']:.1f} s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """One step along the gradient."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _standard(net: nn.Module) -> dict[str, Tensor]:
    """How a network standardises z, by the names that its state has for it."""
    found: dict[str, Tensor] = {}
    for name, part in net.named_modules():
        if isinstance(part, Standardised):
            prefix = f"{name}." if name else ""
            found |= {f"{prefix}{key}": getattr(part, key).clone() for key in ("centre", "scale")}
    return found


def _shape(batch: Tensor) -> Shape:
    _, channels, height, width = batch.shape
    return channels, height, width
