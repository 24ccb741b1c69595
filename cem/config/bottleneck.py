"""The bottleneck at the cut, as a study writes it."""

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?P<norelu>noRELU_)?(K(?P<kernel>\d+))?C(?P<channels>\d+)S(?P<stride>\d+)")


@dataclass(frozen=True)
class Bottleneck:
    """A pair of convolutions around the cut: down to `channels` on the client, back up on the server."""

    kernel: int
    channels: int
    stride: int
    relu: bool


def parse_bottleneck(text: str) -> Bottleneck:
    """Read `[noRELU_][Kk]CcSs`: kernel k (odd, default 3), c channels, stride s.

    Raises ValueError when the text is not of that form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"expected [noRELU_][K<kernel>]C<channels>S<stride>, such as noRELU_C8S1; found {text!r}")
    kernel, channels, stride = int(match["kernel"] or 3), int(match["channels"]), int(match["stride"])
    if kernel % 2 == 0 or channels < 1 or stride < 1:
        raise ValueError(f"expected an odd kernel, at least one channel and a stride of at least 1; found {text!r}")
    return Bottleneck(kernel, channels, stride, relu=match["norelu"] is None)
