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
    """Tiles of samples. Where padding is, `present` is 0 and `rows` point one past the last sample.

    rows: where each sample is in its source, so that `out[tiles.rows] = values` puts results of samples in its order.
    """

    points: Float[Tensor, "tile row d"]
    rows: Int[Tensor, "tile row"]
    cls: Int[Tensor, " tile"]
    present: Float[Tensor, "tile row"]

    def groups(self) -> Iterator["Tiles"]:
        """The same tiles, some at a time: bounds the memory of what is computed from them."""
        limit = _GROUP_BYTES.get(self.points.device.type, _GROUP_BYTES_ELSEWHERE)
        size = max(1, limit // max(1, self.points[:1].nbytes))
        parts = (torch.split(t, size) for t in (self.points, self.rows, self.cls, self.present))
        return (Tiles(*part) for part in zip(*parts, strict=True))

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
    smashed: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, *, first_row: int = 0, total: int
) -> Tiles:
    """Cut a chunk, whose first sample is row `first_row` of a source of `total` samples, into tiles.

    A tile has a quarter of the samples of an average class, within limits: balanced or not, padding stays a small part.
    """
    n, device = len(labels), labels.device
    counts = torch.bincount(labels, minlength=classes)
    rows = min(_MOST_ROWS, max(_LEAST_ROWS, -(-n // (4 * max(1, int((counts > 0).sum()))))))
    order = torch.argsort(labels, stable=True)
    own = labels[order]
    place = torch.arange(n, device=device) - (torch.cumsum(counts, 0) - counts)[own]
    tiles = (counts + rows - 1) // rows
    at = ((torch.cumsum(tiles, 0) - tiles)[own] + place // rows, place % rows)
    cls = torch.repeat_interleave(torch.arange(len(counts), device=device), tiles)
    source = torch.full((len(cls), rows), -1, device=device)
    source[at] = order
    present = source >= 0
    points = smashed.index_select(0, source.clamp_min(0).flatten()).view(*source.shape, smashed.shape[1])
    return Tiles(points, torch.where(present, source + first_row, total), cls, present.to(smashed.dtype))
