"""Samples sorted by class and cut into tiles of one class each, so that one batched product serves all classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_MOST_ROWS, _LEAST_ROWS = 1024, 16  # of a tile
_GROUP_BYTES = {"cpu": 2 << 20}  # of samples worked on at once: on a CPU, what stays in its cache
_GROUP_BYTES_ELSEWHERE = 256 << 20


@dataclass(frozen=True)
class Tiles:
    """Tiles of samples. For padding, `present` is 0, `rows` point one past the last sample, `points` repeat a sample.

    rows: where each sample is in its source, so that `out[tiles.rows] = values` puts results of samples in its order.
    """

    points: Float[Tensor, "tile row d"]
    rows: Int[Tensor, "tile row"]
    cls: Int[Tensor, " tile"]
    present: Float[Tensor, "tile row"]

    def of(self, classes: Bool[Tensor, " cls"] | None) -> "Tiles | None":
        """The tiles of some classes; None when there are none."""
        if classes is None:
            return self
        wanted = classes[self.cls]
        if bool(wanted.all()):
            return self
        if not bool(wanted.any()):
            return None
        return Tiles(self.points[wanted], self.rows[wanted], self.cls[wanted], self.present[wanted])


def tile(
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    classes: int,
    *,
    first_row: int = 0,
    total: int,
    wanted: Bool[Tensor, " cls"] | None = None,
) -> Iterator[Tiles]:
    """Cut a chunk, whose first sample is row `first_row` of a source of `total` samples, into tiles; some at a time.

    A tile has a quarter of the samples of an average class, within limits: whether classes are balanced or not, padding
    stays a small part.
    The next tiles overwrite the memory of the points, unless they need gradients. wanted: the classes whose tiles are
    given; absent: all.
    """
    device = labels.device
    counts = torch.bincount(labels, minlength=classes)
    rows = min(_MOST_ROWS, max(_LEAST_ROWS, -(-len(labels) // (4 * max(1, int((counts > 0).sum()))))))
    tiles = (counts + rows - 1) // rows
    if wanted is not None:
        tiles = torch.where(wanted, tiles, 0)
    cls = torch.repeat_interleave(torch.arange(len(counts), device=device), tiles)
    number = torch.arange(len(cls), device=device) - (torch.cumsum(tiles, 0) - tiles)[cls]
    place = number.unsqueeze(1) * rows + torch.arange(rows, device=device)
    count = counts[cls].unsqueeze(1)
    first = (torch.cumsum(counts, 0) - counts)[cls].unsqueeze(1)
    source = torch.argsort(labels, stable=True)[first + torch.minimum(place, count - 1)]
    present = place < count
    size = max(1, _GROUP_BYTES.get(device.type, _GROUP_BYTES_ELSEWHERE) // max(1, rows * smashed[:1].nbytes))
    parts = (source, torch.where(present, source + first_row, total), cls, present.to(smashed.dtype))
    # New memory for each group costs as much again.
    scratch = None if smashed.requires_grad else smashed.new_empty(min(size, len(cls)) * rows, smashed.shape[1])
    for part, *others in zip(*(torch.split(t, size) for t in parts), strict=True):
        out = None if scratch is None else scratch[: part.numel()]
        points = torch.index_select(smashed, 0, part.flatten(), out=out)
        yield Tiles(points.view(*part.shape, smashed.shape[1]), *others)
