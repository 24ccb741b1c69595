"""Slot attention: a fixed number of slots compete for the tokens of a set."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SlotAttention(nn.Module):
    """Slots, refined over `iterations` rounds of attention, a GRU and a residual MLP.

    attention = softmax over slots of ⟨q(LN slot), k(LN token)⟩ / (√width · temperature), so slots compete for a token;
    a slot's update is the average of the values v(LN token) that it won, so a set may have any size and order.
    Slots start from learned vectors, or from draws of a learned Gaussian. Source: Locatello et al. 2020, algorithm 1.

    eps: added to the attention, so that a slot which wins nothing still has an average.
    """

    usage: Float[Tensor, " slot"]  # share of the tokens that each slot won in the last call; sums to 1

    def __init__(
        self,
        width: int,
        slots: int,
        iterations: int,
        *,
        temperature: float = 1.0,
        slot_init: Literal["learned", "gaussian"] = "learned",
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.slots, self.iterations, self.eps = slots, iterations, eps
        self.scale = 1 / (width**0.5 * temperature)
        self.slot_init = slot_init
        self.register_buffer("usage", torch.full((slots,), 1 / slots))
        self.initial = nn.Parameter(torch.empty(slots if slot_init == "learned" else 1, width))
        if slot_init == "gaussian":
            self.initial_log_std = nn.Parameter(torch.empty(1, width))
        self.norm_tokens, self.norm_slots = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.recurrent = nn.GRUCell(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(
        self,
        tokens: Float[Tensor, "set token width"],
        present: Bool[Tensor, "set token"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "set slot width"]:
        """Slots of each set. `present` is False for tokens that only pad a set; `generator` draws Gaussian slots."""
        tokens = self.norm_tokens(tokens)
        key, value = self.key(tokens), self.value(tokens)
        slots = self._start(tokens, generator)
        shape = slots.shape
        for _ in range(self.iterations):
            query = self.query(self.norm_slots(slots)) * self.scale
            attention = torch.softmax(query @ key.transpose(1, 2), dim=1)
            won = attention if present is None else attention * present.unsqueeze(1)
            kept = won + self.eps if present is None else won + self.eps * present.unsqueeze(1)
            update = (kept / kept.sum(-1, keepdim=True)) @ value
            slots = self.recurrent(update.flatten(0, 1), slots.flatten(0, 1)).view(shape)
            slots = slots + self.mlp(slots)
        mass = won.detach().sum((0, 2))
        self.usage = mass / mass.sum()
        return slots

    def _start(self, tokens: Tensor, generator: torch.Generator | None) -> Float[Tensor, "set slot width"]:
        shape = (len(tokens), self.slots, tokens.shape[-1])
        if self.slot_init == "learned":
            return self.initial.expand(shape)
        draws = torch.randn(shape, generator=generator, device=tokens.device, dtype=tokens.dtype)
        return self.initial + self.initial_log_std.exp() * draws
