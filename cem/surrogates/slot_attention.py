"""Slot attention: a fixed number of slots compete for the tokens of a set."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_EPS = 1e-8  # keeps the average over tokens defined where a slot wins none


class SlotAttention(nn.Module):
    """Learned slots, refined over `iterations` rounds of attention, a GRU and a residual MLP.

    The softmax is over slots, so slots compete for a token; the update is the average over tokens, so a set may have
    any size and order. Source: Locatello et al. 2020, algorithm 1.
    """

    def __init__(self, width: int, slots: int, iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        self.initial = nn.Parameter(torch.empty(slots, width))
        self.norm_tokens, self.norm_slots = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.recurrent = nn.GRUCell(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, tokens: Float[Tensor, "set token feature"], present: Bool[Tensor, "set token"] | None = None
    ) -> Float[Tensor, "set slot feature"]:
        """Slots of each set. `present` is False for tokens that only pad a set."""
        tokens = self.norm_tokens(tokens)
        key, value = self.key(tokens), self.value(tokens)
        slots = self.initial.expand(len(tokens), -1, -1)
        shape = slots.shape
        for _ in range(self.iterations):
            query = self.query(self.norm_slots(slots)) * shape[-1] ** -0.5
            attention = torch.softmax(query @ key.transpose(1, 2), dim=1) + _EPS
            if present is not None:
                attention = attention * present.unsqueeze(1)
            attention = attention / attention.sum(-1, keepdim=True)
            update = attention @ value
            slots = self.recurrent(update.flatten(0, 1), slots.flatten(0, 1)).view(shape)
            slots = slots + self.mlp(slots)
        return slots
