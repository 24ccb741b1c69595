"""Whether a reconstruction identifies its own original among other images."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cem.metrics.base import AnyImages, MetricError, in_unit_interval
from cem.types import RawImages

OTHERS = (99, 999)  # images beside its own that a reconstruction is compared with: rank 1 of 100, and of 1,000
_VALUES_AT_ONCE = 2**23  # of the images compared with at once, where they are not kept
_VALUES_KEPT = 2**28  # of a block: 2 GB
_TIE = 1e-3  # squared grey levels: more than float64 rounds by, far less than one grey level of one pixel


class Pools:
    """For each image of a split `others` different ones, never itself, that its reconstruction is compared with.

    Drawn at random once. Images of neighbouring rows have mostly the same others: to compare a batch is then one small
    product. Each block of rows has its own others, so that a rate over a split does not depend on one draw.
    """

    def __init__(self, num_images: int, generator: torch.Generator, others: int) -> None:
        """Draw, on the generator's device. Raises MetricError for a split that is too small."""
        if num_images <= others:
            raise MetricError(
                f"Expected more than {others} images, to compare each reconstruction with {others} others; found "
                f"{num_images}. Enlarge the split, or leave identification out."
            )
        blocks = range(0, num_images, others + 1)
        # One too many, for rows that are not drawn. Cloned: a slice would keep the whole draw.
        draws = (torch.randperm(num_images, generator=generator, device=generator.device) for _ in blocks)
        self.drawn = torch.stack([draw[: others + 1].clone() for draw in draws])

    def rows(self, own: Int[Tensor, " n"]) -> Int[Tensor, "n others"]:
        """The rows that the reconstructions of the images in these rows are compared with."""
        drawn = self.drawn[own // self.drawn.shape[1]]
        return drawn[~self.left_out(own)].reshape(len(own), -1)

    def left_out(self, own: Int[Tensor, " n"]) -> Bool[Tensor, "n drawn"]:
        """Which of the rows drawn for its block each row leaves out: itself, or the last one."""
        left_out = self.drawn[own // self.drawn.shape[1]] == own[:, None]
        left_out[:, -1] |= ~left_out.any(1)
        return left_out


class Gallery:
    """The images of a split, of which each reconstruction is compared with its own and those of its pool.

    A block's images are converted once and kept, unless they are too large for that.
    """

    def __init__(self, images: RawImages, generator: torch.Generator, others: int) -> None:
        """The generator, on the CPU, draws the pools. Raises MetricError for a split that is too small."""
        self.images, self.pools = images, Pools(len(images), generator, others)
        self.pools.drawn = self.pools.drawn.to(images.device)
        self._kept: tuple[int, Tensor, Tensor] | None = None  # block, its images, their squared norms

    def identified(self, reconstruction: AnyImages, own: Int[Tensor, " _"]) -> Bool[Tensor, " _"]:
        """As `identified`, for reconstructions of the images in these rows, which ascend."""
        width = self.pools.drawn.shape[1]
        if width * self.images[0].numel() > _VALUES_KEPT:
            return identified(reconstruction, self.images, own, self.pools.rows(own))
        grey = in_unit_interval(reconstruction, "reconstructions").flatten(1).double() * 255
        blocks = own // width
        here = [(block, blocks == block) for block in sorted(set(blocks.tolist()))]
        return torch.cat([self._in_block(block, grey[rows], own[rows]) for block, rows in here])

    def _in_block(self, block: int, grey: Float[Tensor, "n values"], own: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        if self._kept is None or self._kept[0] != block:
            self._kept = None  # before the next is made
            images = self.images[self.pools.drawn[block]].flatten(1).double()
            self._kept = block, images, torch.linalg.vecdot(images, images)
        _, images, norms = self._kept
        mine = self.images[own].flatten(1).double()
        others = norms - 2 * grey @ images.T  # without ‖reconstruction‖², which is equal for all
        nearest = others.masked_fill(self.pools.left_out(own), torch.inf).amin(1)
        found: Tensor = nearest - torch.linalg.vecdot(mine - 2 * grey, mine) > _TIE
        return found


def identified(
    reconstruction: AnyImages, images: RawImages, own: Int[Tensor, " _"], pool: Int[Tensor, "_ _"]
) -> Bool[Tensor, " _"]:
    """Whether each reconstruction is strictly nearer to its own image than to every other of its pool.

    reconstruction: in [0, 1]. images: of the split, 0 to 255. own: rows of the originals. pool: rows to compare with,
    those of `Pools`; all on one device. Nearness is by mean squared error. An equal distance is no identification:
    with a copy of the original among the others, nothing is identified.

    Time grows with the number of different rows in `pool`, not with its size; memory is bounded. Squared distances are
    expanded, in float64 and in grey levels: squared norms of the originals are then whole numbers, so that images that
    are almost equal stay apart. Raises MetricError for other shapes and for values outside [0, 1].
    """
    if reconstruction.shape[1:] != images.shape[1:] or not len(reconstruction) == len(own) == len(pool):
        raise MetricError(
            f"Expected reconstructions of images {tuple(images.shape[1:])}, a row of the original and a row of a pool "
            f"for each; found {tuple(reconstruction.shape)}, {tuple(own.shape)} and {tuple(pool.shape)}."
        )
    rows, column = torch.unique(torch.cat([own[:, None], pool], 1), return_inverse=True)
    grey = in_unit_interval(reconstruction, "reconstructions").flatten(1).double() * 255
    parts = torch.split(rows, max(1, _VALUES_AT_ONCE // grey.shape[1]))
    distance = torch.cat([_to_compare(grey, images[part]) for part in parts], 1).gather(1, column)
    return distance[:, 1:].amin(1) - distance[:, 0] > _TIE


def _to_compare(grey: Float[Tensor, "n values"], images: RawImages) -> Float[Tensor, "n _"]:
    """Squared distances to each image, all without the same ‖reconstruction‖²."""
    candidates = images.flatten(1).double()
    return candidates.square().sum(1) - 2 * grey @ candidates.T
