"""Shapes that go through the whole system, as jaxtyping aliases."""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]  # in [0, 1]
RawImages = UInt8[Tensor, "batch channel height width"]  # as stored: 0 to 255
# The axes have names of their own: an image and its smashed data of another size occur in one signature.
Smashed = Float[
    Tensor, "batch z_channel z_height z_width"
]  # encoder output; clean (ẑ) or corrupted (z), as the text says
Labels = Int[Tensor, " batch"]
PerImage = Float[Tensor, " batch"]
