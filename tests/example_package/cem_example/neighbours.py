"""The mean of the nearest images."""

import torch
from jaxtyping import Int
from torch import Tensor

from cem.attacks import Fitted, Knowledge
from cem.jobs.state import StateStore
from cem.types import Images, Labels, Smashed
from cem_example.settings import Neighbours


class NeighboursAttack:
    """Keeps one z of each of the attacker's images; answers with the mean of the images of the nearest ones."""

    def __init__(self, cfg: Neighbours, store: StateStore | None = None) -> None:
        self.cfg = cfg

    def fit(self, knowledge: Knowledge) -> Fitted:
        """Learn; only what `knowledge` grants is within reach."""
        self.knowledge = knowledge
        everything = slice(0, knowledge.num_images)
        self.keys = knowledge.observe(everything, knowledge.generator("corruption")).flatten(1)
        own = torch.arange(knowledge.num_images, device=knowledge.device)
        others = self.reconstruct(knowledge.observe(everything, knowledge.generator("selection")), own)
        return Fitted(parameters=0, held_out_mse=(others - knowledge.targets(everything)).square().mean().item())

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Images in [0, 1]; the scored image itself, where the attacker owns it, is no answer."""
        distance = torch.cdist(smashed.flatten(1), self.keys)
        if own is not None:
            known = own >= 0
            distance[known, own[known]] = torch.inf
        nearest = distance.topk(min(self.cfg.count, len(self.keys) - 1), largest=False).indices
        return torch.stack([self.knowledge.targets(rows).mean(0) for rows in nearest])
