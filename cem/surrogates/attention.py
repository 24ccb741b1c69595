"""The attention surrogate, in two statistics: a density that is scored, and the first version's variance."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem.config import AttentionSurrogate
from cem.mixture import noise_entropy
from cem.surrogates.base import NOISE_VARIANCE_FLOOR, Surrogate, Terms, intra_class_mse, label_entropy
from cem.surrogates.cross_attention import GatedCrossAttention
from cem.surrogates.slot_attention import SlotAttention
from cem.surrogates.thresholds import hinge, threshold_value
from cem.types import Labels, Smashed

_LOG_VARIANCE_RANGE = 6.0  # a component's log-variance stays within ± this of the support's
_SUPPORT_VARIANCE_FLOOR = 1e-6
_ENHANCED_OFFSET = 1e-3  # the first version's threshold is τσ² + this


def initialise(module: nn.Module, seed: int) -> None:
    """Fill all parameters from one generator: Xavier for matrices, 0.02·N(0, 1) for embeddings, gates at 0.1."""
    generator = torch.Generator().manual_seed(seed)
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


class MixtureAttention(Surrogate):
    """Predicts the density of one half of the batch from the other half, and scores it there.

    Tokens are the positions of ẑ: C numbers each. Slots summarise the support half; a query for each (class, position)
    reads them, and heads give the weights, means and log-variances of a token's mixture. Since the parameters of the
    density never depend on the sample they score, −E log q(z|y) + H(y) − h(ε) is an upper bound on I(x; z) for any
    weights of the module: training only tightens it. Source: REFERENCE §1, facts (i) and (ii).
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
        self.noise_std, self.components, self.channels = noise_std, cfg.components, channels
        self.noise_variance = max(noise_std**2, NOISE_VARIANCE_FLOOR)
        self.prior_entropy = label_entropy(class_prior)
        self.embed = nn.Linear(channels, cfg.embedding)
        self.position = nn.Parameter(torch.empty(height * width, cfg.embedding))
        self.class_embedding = nn.Parameter(torch.empty(len(class_prior), cfg.embedding))
        self.slots = SlotAttention(cfg.embedding, cfg.slots, cfg.iterations)
        self.read = GatedCrossAttention(cfg.embedding, cfg.heads)
        self.head = nn.Sequential(
            nn.LayerNorm(cfg.embedding), nn.Linear(cfg.embedding, cfg.components * (1 + 2 * channels))
        )

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch; its noise comes from `generator`. Raises ValueError for fewer than two samples."""
        nll = self.fit_loss(smashed, labels, generator)
        dimensions = smashed[0].numel()
        constant = self.prior_entropy - noise_entropy(dimensions, math.sqrt(self.noise_variance))
        loss = nll + constant / dimensions
        leakage = loss.detach() * dimensions if self.noise_std > 0 else torch.full_like(loss, math.inf)
        return Terms(loss, leakage, intra_class_mse(smashed, labels))

    def fit_loss(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Negative log-likelihood of each half under the density that the other half predicts, nats per dimension."""
        if len(labels) < 2:
            raise ValueError("the attention surrogate scores one half of a batch under the other: it needs two samples")
        noise = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype)
        noisy = smashed + math.sqrt(self.noise_variance) * noise
        clean_tokens, noisy_tokens = (z.flatten(2).transpose(1, 2) for z in (smashed, noisy))
        half = len(labels) // 2
        first, second = slice(0, half), slice(half, None)
        scores = [
            self._log_density(clean_tokens[a], labels[a], noisy_tokens[b], labels[b]).sum()
            for a, b in ((first, second), (second, first))
        ]
        return -torch.stack(scores).sum() / smashed.numel()

    def _log_density(
        self,
        support: Float[Tensor, "support token channel"],
        support_labels: Int[Tensor, " support"],
        scored: Float[Tensor, "scored token channel"],
        scored_labels: Int[Tensor, " scored"],
    ) -> Float[Tensor, "scored token"]:
        """log q(token | class, position), under the mixture convolved with the noise."""
        classes, row = torch.unique(scored_labels, return_inverse=True)
        centre = support.mean((0, 1))
        spread = support.var((0, 1), unbiased=False).clamp_min(_SUPPORT_VARIANCE_FLOOR)
        tokens = self.embed((support - centre) / spread.sqrt()) + self.position
        tokens = tokens + self.class_embedding[support_labels].unsqueeze(1)
        slots = self.slots(tokens.flatten(0, 1).unsqueeze(0))
        queries = self.class_embedding[classes].unsqueeze(1) + self.position
        read = self.read(queries.flatten(0, 1).unsqueeze(0), slots)
        heads = self.head(read).view(len(classes), -1, self.components, 1 + 2 * self.channels)
        logits, mean, log_variance = heads.split((1, self.channels, self.channels), dim=-1)
        log_weight = torch.log_softmax(logits.squeeze(-1), dim=-1)
        mean = centre + spread.sqrt() * mean
        bounded = _LOG_VARIANCE_RANGE * torch.tanh(log_variance / _LOG_VARIANCE_RANGE)
        variance = spread * bounded.exp() + self.noise_variance
        log_norm = log_weight - 0.5 * (math.log(2 * math.pi) + variance.log()).sum(-1)
        distance = ((scored.unsqueeze(2) - mean[row]).square() / variance[row]).sum(-1)
        return torch.logsumexp(log_norm[row] - 0.5 * distance, dim=-1)


class EnhancedVariance(Surrogate):
    """The statistic of the first attention version, kept so that it can be compared.

    For each class of the batch: its samples, reduced linearly, are tokens; each sample reads the slots of its class;
    the loss is relu(log(v + σ²) − log(thr + σ²)) of the class's variance after reading, classes weighted by their
    share. Its leakage is the capacity of a Gaussian with that variance: **no bound**, since the module computes what it
    is judged by. Source: REFERENCE §3.
    """

    def __init__(
        self,
        cfg: AttentionSurrogate,
        shape: tuple[int, int, int],
        class_prior: Float[Tensor, " cls"],
        noise_std: float,
    ) -> None:
        super().__init__()
        self.cfg, self.noise_std = cfg, noise_std
        self.noise_variance = max(noise_std**2, NOISE_VARIANCE_FLOOR)
        self.prior_entropy = label_entropy(class_prior)
        self.reduce = nn.Linear(math.prod(shape), cfg.embedding, bias=False)
        self.slots = SlotAttention(cfg.embedding, cfg.slots, cfg.iterations)
        self.read = GatedCrossAttention(cfg.embedding, cfg.heads)

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch; `generator` is not used."""
        variance, share = self._class_variances(smashed, labels)
        threshold = threshold_value(self.cfg.threshold, self.noise_std**2)
        if threshold is None:
            loss = (share * 0.5 * torch.log1p(variance / self.noise_variance).mean(1)).sum()
        else:
            loss = (share * hinge(variance, threshold + _ENHANCED_OFFSET, self.noise_variance).mean(1)).sum()
        if self.noise_std > 0:
            capacity = (share * 0.5 * torch.log1p(variance.detach() / self.noise_std**2).mean(1)).sum()
            leakage = capacity * smashed[0].numel() + self.prior_entropy
        else:
            leakage = torch.full_like(loss.detach(), math.inf)
        return Terms(loss, leakage, intra_class_mse(smashed, labels))

    def fit_loss(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The loss itself: this module has nothing else to be fitted to, which is what is wrong with it."""
        return self.forward(smashed, labels).loss

    def _class_variances(
        self, smashed: Smashed, labels: Labels
    ) -> tuple[Float[Tensor, "present feature"], Float[Tensor, " present"]]:
        """Variance of the enhanced samples of each class that is present, and the class's share of the batch."""
        tokens = self.reduce(smashed.flatten(1))
        _, row, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        order = torch.argsort(row, stable=True)
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
        present = torch.zeros(len(counts), int(counts.max()), dtype=torch.bool, device=row.device)
        present = present.index_put((row[order], place), torch.ones_like(place, dtype=torch.bool))
        sets = tokens.new_zeros(*present.shape, tokens.shape[1]).index_put((row[order], place), tokens[order])
        enhanced = self.read(sets, self.slots(sets, present))
        mask, size = present.unsqueeze(-1).to(tokens.dtype), counts.view(-1, 1)
        mean = (enhanced * mask).sum(1) / size
        variance = ((enhanced - mean.unsqueeze(1)).square() * mask).sum(1) / size
        return variance, counts / len(labels)
