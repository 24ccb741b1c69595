"""How far edges are off."""

from cem.metrics.base import AnyImages, comparable
from cem.types import PerImage


def edge_error(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Mean absolute error of the differences between pixels side by side, over both directions and all channels."""
    difference = (lambda pair: pair[0] - pair[1])(comparable(reconstruction, target))
    down, right = difference.diff(dim=2).abs(), difference.diff(dim=3).abs()
    return (down.flatten(1).mean(1) + right.flatten(1).mean(1)) / 2
