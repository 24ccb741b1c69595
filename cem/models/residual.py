"""The residual block of the published system's ResNets."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu


class BasicBlock(nn.Module):
    """Convolution-BN-ReLU-convolution-BN, added to its input, then ReLU; the first convolution has the stride.

    The shortcut has no parameters: positions are left out, and channels that are new are zero. Source: He, Zhang, Ren &
    Sun 2016 (arXiv 1512.03385), section 4.2, "option A".
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, after - before
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(
        self, x: Float[Tensor, "batch before height width"]
    ) -> Float[Tensor, "batch after new_height new_width"]:
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        out: Tensor = relu(self.body(x) + shortcut)
        return out
