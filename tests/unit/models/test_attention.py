"""torch's own attention layers, differentiated forward and twice."""

import pytest
import torch
from torch import nn

from cem.models.attention import plain_attention


class Attends(nn.Module):
    """[n, 6, 8] → the same shape."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = (
            self.layer(x, x, x, need_weights=False)[0]
            if isinstance(self.layer, nn.MultiheadAttention)
            else self.layer(x)
        )
        return out


@pytest.fixture(params=["attention", "encoder"])
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "attention": nn.MultiheadAttention(8, 2, batch_first=True),
        "encoder": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    }
    return Attends(layers[request.param]).double().eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # of torch itself
def test_slopes_in_a_direction_and_of_slopes_are_right(net: nn.Module) -> None:
    draws = torch.Generator().manual_seed(1)
    x, along = (torch.randn(2, 6, 8, generator=draws, dtype=torch.float64) for _ in range(2))
    with plain_attention(), torch.no_grad():
        _, pushed = torch.func.jvp(net, (x,), (along,))
    step = 1e-6
    torch.testing.assert_close(
        pushed, (net(x + step * along) - net(x - step * along)) / (2 * step), rtol=1e-5, atol=1e-8
    )
    with plain_attention():  # J·v as the slope of Jᵀw in w: what the search by linear steps does
        x.requires_grad_()
        out = net(x)
        weight = torch.zeros_like(out).requires_grad_()
        (pulled,) = torch.autograd.grad(out, x, weight, create_graph=True)
        (again,) = torch.autograd.grad(pulled, weight, along)
    torch.testing.assert_close(again, pushed)


def test_what_was_set_before_is_set_after() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(KeyError), plain_attention():
        raise KeyError
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == before
