"""White box: searches the image that the client's encoder would have turned into what was seen."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from cem.attacks.base import AttackError, CurveRow, Fitted, Knowledge, hold_out
from cem.attacks.decoder import DecoderAttack
from cem.attacks.search import Search
from cem.attacks.standard import observed_spread
from cem.config import Optimization
from cem.jobs.interruption import Interrupted
from cem.jobs.state import StateStore
from cem.types import Images, Labels, PerImage, Smashed

Searches = Float[Tensor, "search channel height width"]  # every restart of every image of a batch
LOOKS = 20  # at the search on held-out images, evenly spaced, beside the one at its start
MIN_STEPS = 5  # below, a search says nothing about its convergence
LATE = 0.6  # part of the steps after which little may be left to gain
SHARE = 0.05  # part of the whole fall that is little
IMPROVEMENT = 0.02  # part of the error that is little
GREY = 0.5
SPREAD = 0.1  # of z, for which the settings give the weights: an encoder's own is brought to it
# Large steps pass over poor minima, and would leave a decoder's reconstruction.
RATES = {"zero": 0.4, "random": 0.4, "decoder": 0.01}


class OptimizationAttack:
    """Adam on the pixels of all images of a batch, each for itself: see `Search` for what is minimised.

    start: `zero` is mid-grey, from where the search ends at half the error or less of one from black; `random` are
    uniform pixels, `restarts` times, the same for all images, and of each image the search that explains z best is
    kept; `decoder` is the reconstruction of one that is fitted first.
    fit: chooses the weight of the total variation and how many steps of the schedule are taken, by the squared error
    on images the attacker holds out. No step at all is a choice, too: a search from a decoder is not worse than it.
    An image whose search overflows keeps its start; where that happens to a held-out image under the chosen weight, the
    attack has failed.
    The weights are of sums over an image, with z rescaled to a spread of 0.1 over the attacker's images: they are 2σ²
    times those of a maximum a posteriori estimate under noise of σ, rescaled too.

    Sources: Mahendran & Vedaldi 2015 (inversion with a total variation prior); He, Zhang & Lee 2019 (of split models).
    """

    def __init__(self, cfg: Optimization, store: StateStore | None = None) -> None:
        self.cfg, self.store = cfg, store or StateStore()
        self.decoder: DecoderAttack | None = None
        if cfg.decoder is not None:
            self.decoder = DecoderAttack(cfg.decoder, self.store.part("decoder"), name=f"{cfg.id}, decoder")

    def fit(self, knowledge: Knowledge) -> Fitted:
        """Choose on held-out images. Only a decoder's state is saved: the rest is short, and repeats itself."""
        if knowledge.encoder is None:
            raise AttackError("optimization: expected the encoder; found an attacker without. Set encoder: weights.")
        lr = self.cfg.lr or RATES[self.cfg.start]
        # Channels last is a quarter faster, on a CPU for many images together above all. Weights stay what they are.
        encoder = knowledge.encoder.to(memory_format=torch.channels_last)
        scale = observed_spread(knowledge, visible=True).by_value().scale.item() / SPREAD
        self.search = Search(encoder, self.cfg.steps, lr, self.cfg.range_weight, knowledge.masked, scale)
        shape = (self.cfg.restarts, *knowledge.images.shape[1:])
        draws = knowledge.generator(f"{self.cfg.seed}/starts", "cpu")
        starts = torch.rand(shape, generator=draws) if self.cfg.start == "random" else torch.full(shape, GREY)
        self.starts = starts.to(knowledge.device)
        decoder = self.decoder.fit(knowledge) if self.decoder else Fitted(parameters=0, held_out_mse=None)
        trials = self._try_all(knowledge)
        self.tv, best = min(trials.items(), key=lambda trial: trial[1].error)
        self.stop = best.steps[best.look]
        failures = [f"its decoder: {decoder.failure}"] if decoder.failure else []
        failures += [best.failure] if best.failure else []
        failures += [] if self.cfg.steps else ["0 steps: nothing was searched"]
        return Fitted(
            parameters=decoder.parameters,
            held_out_mse=best.error if math.isfinite(best.error) else None,
            curve=best.curve,
            converged=best.converged and decoder.converged if self.decoder else best.converged,
            choices={"tv": self.tv, "steps": self.stop, "start_mse": best.start_error}
            | {"held_out_mse": {str(tv): trial.error for tv, trial in trials.items()}}
            | ({"decoder": decoder.choices} if self.decoder else {}),
            failure="; ".join(failures),
        )

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Raises Interrupted when asked to stop."""
        answers = []
        for part in torch.split(smashed, self._batch_size):
            starts = self._starts_of(part)
            *_, images = self._images(part, starts, self.tv, self.stop)
            answers.append(self._answer(images, starts, part).images)
        return torch.cat(answers)

    @property
    def _batch_size(self) -> int:
        """Images at once, so that with all their restarts they are `batch_size`."""
        return max(1, self.cfg.batch_size // self.cfg.restarts)

    def _starts_of(self, smashed: Smashed) -> Searches:
        """Where the searches of some z start: all images for the first restart, then all for the second, …"""
        if self.decoder is not None:
            return self.decoder.reconstruct(smashed)
        return self.starts.repeat_interleave(len(smashed), dim=0)

    def _images(self, smashed: Smashed, starts: Searches, tv: float, stop: int) -> Iterator[Searches]:
        """The searched images before each step up to `stop`, and after it. Raises Interrupted when asked to stop."""
        repeated = smashed.repeat(self.cfg.restarts, 1, 1, 1)
        images = islice(self.search.images(repeated, starts, tv), stop + 1)
        for current in tqdm(images, self.cfg.id, total=stop + 1, leave=False, disable=not sys.stderr.isatty()):
            if self.store.asked_to_stop():
                raise Interrupted
            yield current

    @torch.no_grad()
    def _answer(self, images: Searches, starts: Searches, smashed: Smashed) -> "_Answer":
        """Of each image the restart that explains z best, in [0, 1]; its start where a number is not finite."""
        finite = images.isfinite().flatten(1).all(1)
        sound = torch.where(finite.view(-1, 1, 1, 1), images.clamp(0, 1), starts)
        residual = self.search.residual(sound, smashed.repeat(self.cfg.restarts, 1, 1, 1))
        by_restart = residual.nan_to_num(torch.inf).view(self.cfg.restarts, -1)
        kept = by_restart.argmin(0) * len(smashed) + torch.arange(len(smashed), device=images.device)
        return _Answer(sound[kept], residual[kept], finite[kept])

    def _try_all(self, knowledge: Knowledge) -> "dict[float, _Trial]":
        """The search on held-out images under each weight of the total variation."""
        rows = self._selection_rows(knowledge)
        smashed = knowledge.observe(rows, knowledge.generator(f"{self.cfg.seed}/selection"))
        targets, trials = knowledge.targets(rows), {}
        for tv in self.cfg.tv:
            parts = zip(*(torch.split(part, self._batch_size) for part in (smashed, targets)), strict=True)
            trial = _Trial.of([self._watch(z, target, tv) for z, target in parts], self._looks)
            step = trial.steps[trial.look]
            print(
                f"{self.cfg.id}: tv {tv:g}, val_mse {trial.error:.5f} after {step} steps", file=sys.stderr, flush=True
            )
            trials[tv] = trial
        return trials

    def _selection_rows(self, knowledge: Knowledge) -> Int[Tensor, " rows"]:
        """Some of the attacker's images at random, none of them fitted to by a decoder."""
        held = torch.arange(knowledge.num_images)
        if self.cfg.decoder is not None:
            split = knowledge.generator(f"{self.cfg.decoder.seed}/split", "cpu")
            held = hold_out(knowledge.num_images, self.cfg.decoder.held_out, split)[1]
        draws = knowledge.generator(f"{self.cfg.seed}/selection rows", "cpu")
        return held[torch.randperm(len(held), generator=draws)[: self.cfg.selection_images]]

    @property
    def _looks(self) -> list[int]:
        """Steps after which the search on held-out images is looked at; the first is 0."""
        return sorted({round(look * self.cfg.steps / LOOKS) for look in range(LOOKS + 1)})

    def _watch(self, smashed: Smashed, target: Images, tv: float) -> "list[_Look]":
        """A whole search, looked at as it goes."""
        starts, looks, began = self._starts_of(smashed), [], time.perf_counter()
        for step, images in enumerate(self._images(smashed, starts, tv, self.cfg.steps)):
            if step in self._looks:
                answer = self._answer(images, starts, smashed)
                error = (answer.images - target).square().flatten(1).mean(1)
                looks.append(_Look(error, answer.residual, answer.finite, time.perf_counter() - began))
        return looks


@dataclass(frozen=True)
class _Answer:
    """What a search says at some step: images in [0, 1], how much of z they leave unexplained, which are finite."""

    images: Images
    residual: PerImage
    finite: Bool[Tensor, " batch"]


@dataclass(frozen=True)
class _Look:
    """At held-out images, after some step: squared error and residual of each, and whether it is finite."""

    error: PerImage
    residual: PerImage
    finite: Bool[Tensor, " batch"]
    seconds: float


@dataclass(frozen=True)
class _Trial:
    """The search on held-out images under one weight, looked at after some of its steps."""

    steps: list[int]
    errors: Float[Tensor, "look image"]
    residuals: Float[Tensor, "look image"]
    finite: Bool[Tensor, "look image"]
    seconds: list[float]  # since the search began

    @classmethod
    def of(cls, parts: list[list[_Look]], steps: list[int]) -> "_Trial":
        """Of a search that went over the images in parts."""

        def joined(values: Callable[[_Look], Tensor]) -> Tensor:
            return torch.cat([torch.stack([values(look) for look in part]) for part in parts], dim=1).cpu()

        seconds = [sum(looks) for looks in zip(*([look.seconds for look in part] for part in parts), strict=True)]
        return cls(
            steps,
            joined(lambda look: look.error),
            joined(lambda look: look.residual),
            joined(lambda look: look.finite),
            seconds,
        )

    @property
    def look(self) -> int:
        """The one with the least error."""
        return int(self.errors.mean(1).argmin())

    @property
    def error(self) -> float:
        return self.errors.mean(1)[self.look].item()

    @property
    def start_error(self) -> float:
        return self.errors[0].mean().item()

    @property
    def curve(self) -> list[CurveRow]:
        """Rows with the step as `epoch`, as reports call what goes on to the right; residual: median over images."""
        began = [0.0, *self.seconds]
        return [
            {
                "epoch": step,
                "val_mse": self.errors[look].mean().item(),
                "residual": self.residuals[look].median().item(),
                "seconds": self.seconds[look] - began[look],
            }
            for look, step in enumerate(self.steps)
        ]

    @property
    def converged(self) -> bool | None:
        """Whether the last two fifths of the steps, a tenth of the way by the learning rate, had little left to do.

        Little is at most 5 % of the whole fall of the residual, and of the error at most that or 2 % of what is left.
        (At the very end a cosine lets nothing fall any more, however far it is from done.) True where the search is
        best stopped before its end. None below MIN_STEPS steps.
        """
        if self.steps[-1] < MIN_STEPS:
            return None
        if self.look < len(self.steps) - 1:
            return True
        late = next(look for look, step in enumerate(self.steps) if step >= LATE * self.steps[-1])
        falls = [(v[0] - v[-1], v[late] - v[-1], v[late]) for v in (self.residuals.mean(1), self.errors.mean(1))]
        (explained, explained_late, _), (whole, whole_late, left) = falls
        residual_done = explained_late <= SHARE * explained
        error_done = whole_late <= SHARE * whole or whole_late <= IMPROVEMENT * left
        return bool(residual_done and error_done)

    @property
    def failure(self) -> str:
        """Whether the search overflows, be it after the step it is best stopped at."""
        lost = int((~self.finite[-1]).sum())
        if not lost:
            return ""
        count = self.finite.shape[1]
        return f"{lost} of {count} held-out images are not finite after {self.steps[-1]} steps: lower lr"
