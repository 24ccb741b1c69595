"""The samples a mixture is fitted to: read in chunks, pass after pass, or held in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cem import CemError
from cem.mixture.tiles import Tiles, tile

Chunks = Callable[[], Iterable[tuple[Tensor, Tensor]]]  # each call: all (smashed [n, d], labels [n]), in one order

_FLOOR_SHARE = 1e-6  # of the samples' own scale: amplitudes of 1e-4 are fitted as those of 1 are
_SMALLEST = 1e-28  # where all samples of a class coincide; its reciprocal is a float32, too


class MixtureError(CemError):
    """A mixture that cannot be fitted."""


class Samples:
    """Samples of all classes, each centred on its class.

    Centred, since differences of large squares would lose small variances in float32. What is kept for each sample is
    its label and a few numbers; the samples themselves are read again in each pass, unless they are held.
    Raises MixtureError when there are none, a class is empty, a label is no class, or a value is not finite.
    """

    labels: Int[Tensor, " n"]
    counts: Int[Tensor, " cls"]
    centre: Float[Tensor, "cls d"]
    _held: list[Tiles] | None

    def __init__(self, chunks: Chunks, num_classes: int | None = None, *, in_memory: bool = False) -> None:
        self.chunks = chunks
        parts = [labels for _, labels in chunks()]
        if not sum(map(len, parts)):
            raise MixtureError(
                "there are no samples, so no mixture can be fitted: the split is empty. Look at the data set's split "
                "sizes, or delete the activations and rerun extract_activations."
            )
        self.labels = torch.cat(parts).long()
        classes = num_classes if num_classes is not None else int(self.labels.max()) + 1
        self.counts = torch.bincount(self.labels, minlength=classes)
        self._check_labels(classes)
        self._in_memory, self._held = in_memory, None
        self.centre = self._centre()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_prior(self) -> Float[Tensor, " cls"]:
        """Share of each class."""
        return (self.counts / self.counts.sum()).to(self.centre.dtype)

    def hold(self) -> None:
        """Keep them sorted, if they are in memory anyway: this takes as long as a few passes, and speeds up others."""
        if self._in_memory and self._held is None:
            self._held = [replace(group, points=group.points.clone()) for group in self.groups()]

    def groups(self, classes: Bool[Tensor, " cls"] | None = None) -> Iterator[Tiles]:
        """One pass over the samples (of some classes), a group of tiles at a time, which ends with the next."""
        if self._held is not None:
            yield from (part for group in self._held if (part := group.of(classes)) is not None)
            return
        for group in self._read(classes):
            group.points.sub_(self.centre[group.cls].unsqueeze(1))  # in place: nothing else uses them
            yield group

    @cached_property
    def norms(self) -> Float[Tensor, " n"]:
        """Squared length of each sample."""
        found = self.centre.new_empty(len(self) + 1)
        for group in self.groups():
            found[group.rows] = group.points.square().sum(-1)
        return found[:-1]

    @cached_property
    def variance_floor(self) -> float:
        """Least variance of a dimension: a small share of the mean variance around the classes' centres."""
        mean = float(self.norms.double().mean()) / self.centre.shape[1]
        return max(_FLOOR_SHARE * mean, _SMALLEST)

    def squared_distances(self, points: Float[Tensor, "cls k d"]) -> Float[Tensor, "n k"]:
        """From each sample to the points of its class."""
        found = self.centre.new_empty(len(self) + 1, points.shape[1])
        square = points.square().sum(-1).unsqueeze(1)
        for group in self.groups():
            found[group.rows] = torch.baddbmm(
                square[group.cls], group.points, points[group.cls].transpose(1, 2), alpha=-2
            )
        return (found[:-1] + self.norms.unsqueeze(1)).clamp_min(0)

    def largest(self, score: Float[Tensor, " n"], many: int) -> Int[Tensor, "cls many"]:
        """Rows of the samples of each class with the largest scores; the last is repeated where a class has fewer."""
        padded = torch.cat([score, score.new_full((1,), -torch.inf)])[self._by_class]
        place = padded.topk(min(many, padded.shape[1]), dim=1).indices
        last = torch.minimum(torch.arange(many, device=score.device), self.counts.unsqueeze(1) - 1)
        return self._by_class.gather(1, place.gather(1, last))

    @cached_property
    def _by_class(self) -> Int[Tensor, "cls most"]:
        """Rows of the samples of each class; one past the last sample where a class has fewer."""
        order = torch.argsort(self.labels, stable=True)
        most = torch.arange(int(self.counts.max()), device=order.device)
        first = (torch.cumsum(self.counts, 0) - self.counts).unsqueeze(1)
        rows: Tensor = torch.where(
            most < self.counts.unsqueeze(1), order[(first + most).clamp_max(len(self) - 1)], len(self)
        )
        return rows

    def draw(self, many: Int[Tensor, " cls"], generator: torch.Generator) -> Bool[Tensor, " n"]:
        """True for `many` samples of each class, drawn without replacement in the order of the source."""
        keys = torch.rand(len(self), generator=generator, device=self.labels.device)
        rows = self.largest(keys, int(many.max()))
        drawn = torch.zeros_like(self.labels, dtype=torch.bool)
        drawn[rows[torch.arange(rows.shape[1], device=rows.device) < many.unsqueeze(1)]] = True
        return drawn

    def take(self, rows: Int[Tensor, "cls many"]) -> Float[Tensor, "cls many d"]:
        """The samples of the given rows; those of a class are its own."""
        wanted, place = rows.flatten().sort()
        found = self.centre.new_empty(len(wanted), self.centre.shape[1])
        start = 0
        for smashed, _ in self.chunks():
            inside = (wanted >= start) & (wanted < start + len(smashed))
            found[place[inside]] = smashed[wanted[inside] - start]
            start += len(smashed)
        return found.view(*rows.shape, -1) - self.centre.unsqueeze(1)

    def split(self, held_out: Bool[Tensor, " n"]) -> tuple["Samples", Chunks]:
        """Samples without the ones held out, and chunks of those."""
        rest, held = _choose(self.chunks, ~held_out), _choose(self.chunks, held_out)
        kept = list(rest()) if self._in_memory else None
        return Samples(lambda: rest() if kept is None else kept, len(self.counts), in_memory=self._in_memory), held

    def _read(self, classes: Bool[Tensor, " cls"] | None = None) -> Iterator[Tiles]:
        start = 0
        for smashed, labels in self.chunks():
            yield from tile(smashed, labels, len(self.counts), first_row=start, total=len(self), wanted=classes)
            start += len(labels)
        if start != len(self):
            raise MixtureError(
                f"the source gave {len(self)} samples in one pass and {start} in another, so it cannot be read twice. "
                "Give a function that starts from the first chunk at every call, and do not change the file meanwhile."
            )

    def _centre(self) -> Float[Tensor, "cls d"]:
        sums, dtype = torch.zeros((), device=self.labels.device), torch.float32
        for group in self._read():
            part, dtype = torch.bmm(group.present.unsqueeze(1), group.points).squeeze(1), group.points.dtype
            zero = part.new_zeros(len(self.counts), part.shape[1], dtype=torch.float64)
            sums = sums + zero.index_add_(0, group.cls, part.double())
        if not bool(torch.isfinite(sums).all()):
            raise MixtureError(
                "the smashed data hold values that are not finite, so the encoder diverged. Look at the run's "
                "history.csv, lower the learning rate or the surrogate's weight, or set max_grad_norm, and train again."
            )
        return (sums / self.counts.unsqueeze(1)).to(dtype)

    def _check_labels(self, classes: int) -> None:
        if len(self.counts) > classes:
            raise MixtureError(
                f"expected labels below {classes}, the number of classes, found {len(self.counts) - 1}: labels and "
                "classes are of different data sets. Give the number of classes of the data, or delete the "
                "activations and rerun extract_activations."
            )
        smallest = int(self.counts.argmin())
        if not int(self.counts[smallest]):
            raise MixtureError(
                f"class {smallest} has no samples, so it has no mixture: the split misses a class or labels are not "
                "0, 1, …. Use more private images, a stratified split, or drop the class."
            )


def _choose(chunks: Chunks, mask: Bool[Tensor, " n"]) -> Chunks:
    """The samples of the rows where `mask` is true."""

    def chosen() -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for smashed, labels in chunks():
            part = mask[start : start + len(labels)]
            yield smashed[part], labels[part]
            start += len(labels)

    return chosen
