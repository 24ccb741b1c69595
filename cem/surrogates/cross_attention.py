"""Gated cross-attention: queries read the slots, through gates that start almost closed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_GATE = 0.1  # initial value of both gates, before the tanh


class GatedCrossAttention(nn.Module):
    """y = q + tanh(α_x) · attention(LN q, slots), then y + tanh(α_f) · FFN(LN y); several heads share the width.

    Source: Alayrac et al. 2022 (Flamingo), figure 4; gates start at 0.1: docs/theory.md, "Slots and cross-attention".
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.attention_gate = nn.Parameter(torch.empty(()))
        self.feed_forward_gate = nn.Parameter(torch.empty(()))

    def reset_gates(self) -> None:
        """Set both gates to their initial value."""
        with torch.no_grad():
            self.attention_gate.fill_(_GATE)
            self.feed_forward_gate.fill_(_GATE)

    def forward(
        self, queries: Float[Tensor, "set query feature"], slots: Float[Tensor, "set slot feature"]
    ) -> Float[Tensor, "set query feature"]:
        """What each query makes of the slots of its set."""
        query, key, value = self.query(self.norm(queries)), self.key(slots), self.value(slots)
        split = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        read = scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        y = queries + torch.tanh(self.attention_gate) * self.out(read)
        refined: Tensor = y + torch.tanh(self.feed_forward_gate) * self.feed_forward(y)
        return refined
