"""White box: searches the image that the client's encoder would have turned into what was seen."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from cem.attacks.base import AttackError, Fitted, Knowledge, hold_out
from cem.attacks.decoder import DecoderAttack
from cem.attacks.posterior import (
    ITERATIONS,
    Explainer,
    MostProbable,
    Noise,
    Spectrum,
    noise_of,
    spectrum_images,
)
from cem.attacks.search import Search
from cem.attacks.search_trial import Answer, Look, Trial
from cem.attacks.standard import observed_spread
from cem.config import Optimization
from cem.jobs.interruption import Interrupted
from cem.jobs.state import StateStore
from cem.types import Images, Labels, Smashed

Searches = Float[Tensor, "search channel height width"]  # every restart of every image of a batch
NEAR = 1.1  # times the least held-out error: a way that comes so near, and could come nearer, may be the best
LOOKS = 20  # at the search on held-out images, evenly spaced, beside the one at its start
GREY = 0.5
SPREAD = 0.1  # of z, for which the settings give the weights: an encoder's own is brought to it
# Large steps pass over poor minima, and would leave a decoder's reconstruction.
RATES = {"zero": 0.4, "random": 0.4, "decoder": 0.01}


class OptimizationAttack:
    """Adam on the pixels of each image (see `Search`), or steps to the most probable one (see `MostProbable`).

    start: `zero` is mid-grey, from where Adam ends at half the error or less of one from black; `random` are uniform
    pixels, `restarts` times, the same for all images, and of each image the search that explains z best is kept;
    `decoder` is the reconstruction of one that is fitted first. The most probable image is for images that are Gaussian
    around that reconstruction, with the covariance of its errors; without a decoder, around the mean of the attacker's
    images with theirs, and that is where it starts. Under noise, what explains z best explains the noise, too: there
    the most probable image is closer than the decoder's, and Adam's is not.
    fit: chooses the way (each weight of the total variation, each variance of the noise) and how many of its steps are
    taken, by the squared error on images the attacker holds out. No step at all is a choice, too: a search from a
    decoder is not worse than it, and says where it is no better.
    An image whose search overflows keeps its start; where that happens to a held-out image on the chosen way, the
    attack has failed.
    Adam's weights are of sums over an image, with z rescaled to a spread of 0.1 over the attacker's images: they are
    2σ² times those of a maximum a posteriori estimate under noise of σ, rescaled too.

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
        # Channels last is a quarter faster, on a CPU for many images together above all. Weights stay what they are.
        encoder = knowledge.encoder.to(memory_format=torch.channels_last)
        scale = observed_spread(knowledge, visible=True).by_value().scale.item() / SPREAD
        lr = self.cfg.lr or RATES[self.cfg.start]
        self.search = Search(encoder, self.cfg.steps, lr, self.cfg.range_weight, knowledge.masked, scale)
        decoder = self.decoder.fit(knowledge) if self.decoder else Fitted(parameters=0, held_out_mse=None)
        fit_rows, selected = self._rows(knowledge)
        ways = self._descents(knowledge)
        noise: dict[str, float | bool] = {}
        if self.cfg.posterior:
            assumed = noise_of(knowledge, encoder, knowledge.generator(f"{self.cfg.seed}/noise"))
            noise = assumed.choices
            ways |= self._to_the_most_probable(knowledge, encoder, fit_rows, assumed)
        trials = {name: self._try(name, way, knowledge, selected) for name, way in ways.items()}
        # One that overflows may come closest before it does; it is the answer only where all do.
        chosen, best = min(trials.items(), key=lambda trial: (bool(trial[1].failure), trial[1].error))
        converged = _converged(best, trials.values())
        self.way, self.stop = ways[chosen], best.steps[best.look]
        if not self.stop:
            said = f"no step brings held-out images closer than the start's {best.start_error:.5f}"
            print(f"{self.cfg.id}: the answer is its start: {said}", file=sys.stderr, flush=True)
        told = self.decoder is None or decoder.held_out_mse is not None
        failures = [f"its decoder: {decoder.failure}"] if decoder.failure else []
        failures += [best.failure] if best.failure else []
        failures += [] if self.cfg.steps else ["0 steps: nothing was searched"]
        return Fitted(
            parameters=decoder.parameters,
            held_out_mse=best.error if math.isfinite(best.error) and told else None,
            curve=best.curve,
            converged=converged and decoder.converged if self.decoder else converged,
            choices={"way": chosen, "steps": self.stop, "start_mse": best.start_error}
            | {"held_out_mse": {name: trial.error for name, trial in trials.items()}}
            | noise
            | ({"decoder": decoder.choices} if self.decoder else {}),
            failure="; ".join(failures),
        )

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Raises Interrupted when asked to stop."""
        answers = []
        for part in torch.split(smashed, self._batch_size):
            starts = self.way.starts(part)
            *_, images = self._images(self.way, part, starts, self.stop)
            answers.append(self._answer(images, starts, part).images)
        return torch.cat(answers)

    @property
    def _batch_size(self) -> int:
        """Images at once, so that with all their restarts they are `batch_size`."""
        return max(1, self.cfg.batch_size // self.cfg.restarts)

    def _descents(self, knowledge: Knowledge) -> "dict[str, _Way]":
        """By name: Adam under each weight of the total variation."""
        shape = (self.cfg.restarts, *knowledge.images.shape[1:])
        draws = knowledge.generator(f"{self.cfg.seed}/starts", "cpu")
        fixed = torch.rand(shape, generator=draws) if self.cfg.start == "random" else torch.full(shape, GREY)
        self.starts = fixed.to(knowledge.device)

        def starts(smashed: Smashed) -> Searches:
            if self.decoder is not None:
                return self.decoder.reconstruct(smashed)
            return self.starts.repeat_interleave(len(smashed), dim=0)

        def way(tv: float) -> _Way:
            def images(smashed: Smashed, starts: Searches) -> Iterator[Searches]:
                return self.search.images(_repeated(smashed, starts), starts, tv)

            return _Way(starts, images, self.cfg.steps)

        return {f"tv {tv:g}": way(tv) for tv in self.cfg.tv}

    def _to_the_most_probable(
        self, knowledge: Knowledge, encoder: nn.Module, rows: Int[Tensor, " rows"], noise: Noise
    ) -> "dict[str, _Way]":
        """By name: steps to the most probable image under each variance of the noise. rows: to estimate images from."""
        draws = knowledge.generator(f"{self.cfg.seed}/spectrum")
        order = torch.randperm(len(rows), generator=knowledge.generator(f"{self.cfg.seed}/spectrum rows", "cpu"))
        rows = rows[order[: spectrum_images(knowledge)]]
        targets = knowledge.targets(rows)
        mean = targets.mean(0)

        def centre(smashed: Smashed) -> Images:
            if self.decoder is not None:
                return self.decoder.reconstruct(smashed)
            return mean.expand(len(smashed), *mean.shape)

        parts = torch.split(rows, self._batch_size)
        centres = torch.cat([centre(knowledge.observe(part, draws)) for part in parts])
        spectrum = Spectrum.of((targets - centres).flatten(1))

        def way(variance: float) -> _Way:
            explain = Explainer(encoder, noise.times(variance), knowledge.masked, ITERATIONS)
            search = MostProbable(explain, spectrum)
            steps = min(self.cfg.posterior_steps, self.cfg.steps)
            return _Way(centre, lambda smashed, starts: search.images(smashed, starts, steps), steps, decays=False)

        return {f"posterior {variance:g}": way(variance) for variance in self.cfg.posterior}

    def _images(self, way: "_Way", smashed: Smashed, starts: Searches, stop: int) -> Iterator[Searches]:
        """The searched images before each step up to `stop`, and after it. Raises Interrupted when asked to stop."""
        images = islice(way.images(smashed, starts), stop + 1)
        for current in tqdm(images, self.cfg.id, total=stop + 1, leave=False, disable=not sys.stderr.isatty()):
            if self.store.asked_to_stop():
                raise Interrupted
            yield current

    @torch.no_grad()
    def _answer(self, images: Searches, starts: Searches, smashed: Smashed) -> Answer:
        """Of each image the restart that explains z best, in [0, 1]; its start where a number is not finite."""
        finite = images.isfinite().flatten(1).all(1)
        sound = torch.where(finite.view(-1, 1, 1, 1), images.clamp(0, 1), starts)
        residual = self.search.residual(sound, _repeated(smashed, starts))
        by_restart = residual.nan_to_num(torch.inf).view(-1, len(smashed))
        kept = by_restart.argmin(0) * len(smashed) + torch.arange(len(smashed), device=images.device)
        return Answer(sound[kept], residual[kept], finite[kept])

    def _try(self, name: str, way: "_Way", knowledge: Knowledge, rows: Int[Tensor, " rows"]) -> Trial:
        """The search on held-out images along one way."""
        smashed = knowledge.observe(rows, knowledge.generator(f"{self.cfg.seed}/selection"))
        parts = zip(*(torch.split(part, self._batch_size) for part in (smashed, knowledge.targets(rows))), strict=True)
        trial = Trial.of([self._watch(way, z, target) for z, target in parts], way.looks, way.decays)
        step = trial.steps[trial.look]
        print(f"{self.cfg.id}: {name}, val_mse {trial.error:.5f} after {step} steps", file=sys.stderr, flush=True)
        return trial

    def _rows(self, knowledge: Knowledge) -> tuple[Int[Tensor, " fit_rows"], Int[Tensor, " rows"]]:
        """The attacker's images apart from those to select on; and these, at random, none of them fitted to."""
        fit_rows, held = torch.arange(0), torch.arange(knowledge.num_images)
        if self.cfg.decoder is not None:
            split = knowledge.generator(f"{self.cfg.decoder.seed}/split", "cpu")
            fit_rows, held = hold_out(knowledge.num_images, self.cfg.decoder.held_out, split)
        draws = knowledge.generator(f"{self.cfg.seed}/selection rows", "cpu")
        order = torch.randperm(len(held), generator=draws)
        many = min(self.cfg.selection_images, max(1, len(held) // 2) if self.cfg.decoder is None else len(held))
        return fit_rows if self.cfg.decoder is not None else held[order[many:]], held[order[:many]]

    def _watch(self, way: "_Way", smashed: Smashed, target: Images) -> list[Look]:
        """A whole search, looked at as it goes."""
        starts, looks, began = way.starts(smashed), [], time.perf_counter()
        for step, images in enumerate(self._images(way, smashed, starts, way.steps)):
            if step in way.looks:
                answer = self._answer(images, starts, smashed)
                error = (answer.images - target).square().flatten(1).mean(1)
                looks.append(Look(error, answer.residual, answer.finite, time.perf_counter() - began))
        return looks


@dataclass(frozen=True)
class _Way:
    """A way to search: where some z start, all restarts of the first, …; from there the images of each step, in all.

    decays: its steps get ever smaller, by a schedule.
    """

    starts: Callable[[Smashed], Searches]
    images: Callable[[Smashed, Searches], Iterator[Searches]]
    steps: int
    decays: bool = True

    @property
    def looks(self) -> list[int]:
        """Steps after which the search on held-out images is looked at; the first is 0."""
        return sorted({round(look * self.steps / LOOKS) for look in range(LOOKS + 1)})


def _repeated(smashed: Smashed, starts: Searches) -> Float[Tensor, "search z_channel z_height z_width"]:
    """Each z as often as it is searched from."""
    return smashed.repeat(len(starts) // len(smashed), 1, 1, 1)


def _converged(best: Trial, trials: Iterable[Trial]) -> bool | None:
    """Whether more steps would bring little: on the best way, and on those near it, which might overtake it."""
    others = (trial.converged for trial in trials if trial is not best and trial.error <= NEAR * best.error)
    return best.converged and not any(one is False for one in others)
