"""What z says about the image, measured afresh: the statistic `conditional` of a network that no training has met."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cem.config import AttentionSurrogate, Run
from cem.defenses import Defense
from cem.jobs.process import make_generator
from cem.storage.hdf5 import ActivationReader, DatasetReader
from cem.surrogates.attention_conditional import (
    QUANTISATION,
    ConditionalEntropy,
    Moments,
    conditional_nats,
    make_conditional,
)
from cem.surrogates.base import Given
from cem.types import Images, Smashed

MOST_IMAGES = 8192  # of a split
STEPS, EPOCHS, BATCH = 200, 10, 256  # of the fit: so many steps, or passes over few images
CHUNK = 512  # images whose features are held at once
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # in parts of a feature's variance; val chooses
_LR = 2e-3


def measure_conditional(
    run: Run, file: ActivationReader, images: DatasetReader, defense: Defense, device: torch.device
) -> float:
    """A lower bound on I(x; z) − h(x), nats for one image like those of test, of z as it leaves the client.

    A network of its own, and the regression on its features, are fitted to private images; val chooses the ridge, test
    is scored once. The same for every run, whatever it was trained with.
    """
    private, val, test = (_Pairs(run, file, images, split, defense, device) for split in ("private", "val", "test"))
    cfg = AttentionSurrogate(statistic="conditional", residual="coefficients", antithetic=False)
    given = Given(file.smashed_shape, torch.ones(1), noise_std=0.0, seed=run.seed)  # z has its noise already
    module = make_conditional(cfg, given).to(device)
    optimizer = torch.optim.Adam(module.parameters(), _LR)
    for z, x in private.shuffled():
        optimizer.zero_grad()
        labels = torch.zeros(len(z), dtype=torch.int64, device=device)  # which have no part in it
        loss = module.fit_loss(z, labels, private.draws, x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        fitted, chosen, scored = (_moments(module, pairs) for pairs in (private, val, test))

        def nats(on: Moments, ridge: float) -> float:
            errors = on.errors(fitted.regression(ridge))[0]
            return float(conditional_nats(errors + QUANTISATION, private.numbers))

        found = {ridge: nats(chosen, ridge) for ridge in RIDGES}
        finite = [ridge for ridge in RIDGES if math.isfinite(found[ridge])]  # max takes a NaN that comes first
        return nats(scored, max(finite, key=found.__getitem__)) if finite else math.nan


class _Pairs:
    """z of some images of a split, as it leaves the client, and the images. draws: of what acts on z."""

    def __init__(
        self,
        run: Run,
        file: ActivationReader,
        images: DatasetReader,
        split: str,
        defense: Defense,
        device: torch.device,
    ) -> None:
        self.file, self.split, self.defense, self.device = file, split, defense, device
        self.draws = make_generator(run.seed, f"conditional/{split}", device)
        self.order = make_generator(run.seed, f"conditional/{split}/order", torch.device("cpu"))
        self.rows = torch.randperm(file.count(split), generator=self.order)[:MOST_IMAGES].sort().values.numpy()
        self.images = torch.from_numpy(images.images(split)[self.rows])
        self.numbers = self.images[0].numel()

    def read(self, chosen: Tensor) -> tuple[Smashed, Images]:
        """z and images in [0, 1] of these rows."""

        def sent(clean: np.ndarray) -> Smashed:
            return self.defense.corrupt(torch.from_numpy(clean).to(self.device).float(), self.draws)

        z = self.file.read(self.split, self.rows[chosen.numpy()], sent)
        return z, self.images[chosen].to(self.device).float() / 255

    def shuffled(self) -> Iterator[tuple[Smashed, Images]]:
        """Batches of the fit."""
        count = len(self.rows)
        each = max(1, count // BATCH)
        for step in range(min(STEPS, EPOCHS * each)):
            if step % each == 0:
                order = torch.randperm(count, generator=self.order)
            yield self.read(order[step % each * BATCH :][:BATCH])

    def plain(self) -> Iterator[tuple[Smashed, Images]]:
        """All of them, in order."""
        for start in range(0, len(self.rows), CHUNK):
            yield self.read(torch.arange(start, min(start + CHUNK, len(self.rows))))


def _moments(module: ConditionalEntropy, pairs: _Pairs) -> Moments:
    """Of all images, in float64."""
    total, count = None, 0
    for z, x in pairs.plain():
        features, patches = module.rows_of(z, x)
        rows = features.shape[:3].numel()
        found = Moments.of(
            features.double().reshape(1, 1, rows, -1),
            patches.double().reshape(1, rows, -1),
            torch.full((1,), float(rows), dtype=torch.float64, device=z.device),
        )
        sums = [rows * value for value in found]
        total = sums if total is None else [old + new for old, new in zip(total, sums, strict=True)]
        count += rows
    assert total is not None
    return Moments(*(value / count for value in total))
