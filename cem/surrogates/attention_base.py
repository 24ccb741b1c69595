"""What the two statistics with slots share: tokens, slots, cross-attention, thresholds, counters."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import AttentionSurrogate
from cem.mixture import label_entropy
from cem.surrogates.base import NOISE_VARIANCE_FLOOR, Surrogate, SurrogateError, class_rows
from cem.surrogates.cross_attention import GatedCrossAttention
from cem.surrogates.slot_attention import SlotAttention
from cem.surrogates.thresholds import VarianceThreshold
from cem.types import Labels, Smashed


class SlotCrossAttentionCEM(Surrogate):
    """Slot attention over tokens of ẑ, read by gated cross-attention; a subclass makes a statistic of it.

    Tokens: `spatial`, the positions of ẑ, C numbers each; `linear`, ẑ reduced to `reduced` numbers; `flat`, ẑ itself.
    Raises SurrogateError when the heads cannot share a flat token. Source: docs/theory.md,
    "Slots and cross-attention".
    """

    def __init__(
        self,
        cfg: AttentionSurrogate,
        shape: tuple[int, int, int],
        class_prior: Float[Tensor, " cls"],
        noise_std: float,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.cfg = cfg
        self.prior_entropy = label_entropy(class_prior)
        self.dimensions = math.prod(shape)
        spatial = cfg.tokens == "spatial"
        self.positions, self.token_size = (height * width, channels) if spatial else (1, self.dimensions)
        self.width = self.dimensions if cfg.tokens == "flat" else cfg.width
        if self.width % cfg.heads:
            raise SurrogateError(f"flat tokens of {self.width} numbers cannot be divided among {cfg.heads} heads")
        self.embed = nn.Identity() if cfg.tokens == "flat" else nn.Linear(self.token_size, self.width)
        self.slots = SlotAttention(
            self.width, cfg.slots, cfg.iterations, temperature=cfg.temperature, slot_init=cfg.slot_init
        )
        self.read = GatedCrossAttention(self.width, cfg.heads)
        self.threshold = VarianceThreshold(cfg.threshold, noise_std)
        self.take_noise(noise_std)
        self.register_buffer("lone", torch.zeros((), dtype=torch.int64))
        self.lone: Tensor  # samples of the epoch that were alone with their class in a batch

    def tokens(self, smashed: Smashed) -> Float[Tensor, "batch position number"]:
        """What attention sees of ẑ, before it is embedded."""
        if self.cfg.tokens == "spatial":
            return smashed.flatten(2).transpose(1, 2)
        return smashed.flatten(1).unsqueeze(1)

    def measure_threshold(self, smashed: Smashed, labels: Labels) -> None:
        self.threshold.measure(smashed.flatten(1), labels)

    def take_noise(self, noise_std: float) -> None:
        self.noise_std, self.threshold.noise_std = noise_std, noise_std
        self.noise_variance = max(noise_std**2, NOISE_VARIANCE_FLOOR)

    def begin_epoch(self, progress: float) -> None:
        """Move a scheduled threshold; count lone samples anew."""
        self.threshold.begin_epoch(progress)
        self.lone.zero_()

    def monitor(self) -> dict[str, float]:
        """Gates after their tanh, entropy of the slots' shares in nats, lone samples, the threshold if there is one."""
        values = {
            "attention_gate": float(torch.tanh(self.read.attention_gate.detach())),
            "feed_forward_gate": float(torch.tanh(self.read.feed_forward_gate.detach())),
            "slot_usage_entropy": float(torch.special.entr(self.slots.usage).sum()),
            "lone_samples": int(self.lone),
        }
        threshold = self.threshold.value()
        return values if threshold is None else values | {"threshold": threshold}

    def _count_lone(self, labels: Labels) -> None:
        self.lone += (class_rows(labels)[1] == 1).sum()


def check_size(module: SlotCrossAttentionCEM, shape: tuple[int, int, int]) -> None:
    """Raise SurrogateError, with the count, when a module has more parameters than its settings allow."""
    count = sum(parameter.numel() for parameter in module.parameters())
    if count > module.cfg.max_parameters:
        size = "×".join(map(str, shape))
        raise SurrogateError(
            f"attention with {module.cfg.tokens} tokens has {count:,} parameters for z of {size}; at most "
            f"{module.cfg.max_parameters:,} are allowed. Choose tokens spatial, or raise max_parameters."
        )


def initialise(module: SlotCrossAttentionCEM, seed: int) -> None:
    """Fill all parameters from one generator, and give buffers their first values."""
    draw_parameters(module, torch.Generator().manual_seed(seed))
    module.lone.zero_()
    module.slots.usage.fill_(1 / module.slots.slots)
    module.threshold.reset()


def draw_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Xavier for matrices, 0.02·N(0, 1) for embeddings, gates at 0.1."""
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if isinstance(child, nn.LayerNorm):
                nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight"):
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.normal_(parameter, std=0.02, generator=generator)
        if isinstance(child, GatedCrossAttention):
            child.reset_gates()
