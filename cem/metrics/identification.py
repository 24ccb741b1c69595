"""Whether a reconstruction identifies its own original among other images."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cem.metrics.base import AnyImages, MetricError, in_unit_interval
from cem.types import RawImages

OTHERS = 99  # images beside its own that a reconstruction is compared with: rank 1 of 100
_TIE = 1e-3  # squared grey levels: more than float64 rounds by, far less than one grey level of one pixel


def draw_pool(num_images: int, generator: torch.Generator, others: int = OTHERS) -> Int[Tensor, "n others"]:
    """For each image of a split, the rows of `others` different ones that its reconstruction is compared with.

    Drawn at random, never the image itself, on the generator's device. Images of neighbouring rows have mostly the same
    others: to compare a batch is then one small product. Each block of rows has its own others, so that a rate over a
    split does not depend on one draw. Raises MetricError for a split that is too small.
    """
    if num_images <= others:
        raise MetricError(
            f"Expected more than {others} images, to compare each reconstruction with {others} others; found "
            f"{num_images}. Enlarge the split, or leave identification out."
        )
    device = generator.device
    found = []
    for own in torch.split(torch.arange(num_images, device=device), others + 1):
        drawn = torch.randperm(num_images, generator=generator, device=device)[: others + 1].expand(len(own), -1)
        dropped = drawn == own[:, None]
        dropped[:, -1] |= ~dropped.any(1)  # one too many was drawn, for rows that do not hold themselves
        found.append(drawn[~dropped].reshape(len(own), others))
    return torch.cat(found)


def identified(
    reconstruction: AnyImages, images: RawImages, own: Int[Tensor, " _"], pool: Int[Tensor, "_ _"]
) -> Bool[Tensor, " _"]:
    """Whether each reconstruction is strictly nearer to its own image than to every other of its pool.

    reconstruction: in [0, 1]. images: of the split, 0 to 255. own: rows of the originals. pool: rows to compare with,
    those of `draw_pool`; all on one device. Nearness is by mean squared error. An equal distance is no identification:
    with a copy of the original among the others, nothing is identified.

    Memory grows with the number of different rows in `pool`, not with its size. Squared distances are expanded, in
    float64 and in grey levels: squared norms of the originals are then whole numbers, so that images that are almost
    equal stay apart. Raises MetricError for other shapes and for values outside [0, 1].
    """
    if reconstruction.shape[1:] != images.shape[1:] or not len(reconstruction) == len(own) == len(pool):
        raise MetricError(
            f"Expected reconstructions of images {tuple(images.shape[1:])}, a row of the original and a row of a pool "
            f"for each; found {tuple(reconstruction.shape)}, {tuple(own.shape)} and {tuple(pool.shape)}."
        )
    rows, column = torch.unique(torch.cat([own[:, None], pool], 1), return_inverse=True)
    grey = in_unit_interval(reconstruction, "reconstructions").flatten(1).double() * 255
    candidates = images[rows].flatten(1).double()
    distance = candidates.square().sum(1) - 2 * grey @ candidates.T  # without ‖reconstruction‖², which is equal for all
    distance = distance.gather(1, column)
    return distance[:, 1:].amin(1) - distance[:, 0] > _TIE
