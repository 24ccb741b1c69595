"""The attacker's own image whose z is nearest."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.attacks.base import ClosedFormAttack, Fitted, Knowledge, chunks, hold_out
from cem.types import Images, Labels, Smashed

HELD_OUT = 0.1
KEYS_AT_ONCE = 8192  # of the attacker's z that a chunk of queries is compared with


class NearestAttack(ClosedFormAttack):
    """Euclidean nearest neighbour among one z of each of the attacker's images."""

    knowledge: Knowledge
    centre: Float[Tensor, " dim"]
    scale: Float[Tensor, ""]  # the largest deviation from it; 1 where there is none
    keys: Float[Tensor, "n dim"]  # (z − centre) / scale
    half_norms: Float[Tensor, " n"]

    def fit(self, knowledge: Knowledge) -> Fitted:
        generator = knowledge.generator("corruption")
        rows = chunks(knowledge.images.shape)
        self.knowledge = knowledge
        self.keys = torch.cat([knowledge.observe(part, generator).flatten(1) for part in rows])
        # The order of distances does not change with origin and scale, but their rounding does: what all z share would
        # drown the rest, and the squares of small numbers vanish.
        self.centre = self.keys.mean(0)
        self.keys -= self.centre
        largest = self.keys.abs().max()
        self.scale = torch.where(largest > 0, largest, 1.0)
        self.keys /= self.scale
        self.half_norms = self.keys.square().sum(1) / 2
        return Fitted(parameters=0, held_out_mse=self._left_out_mse())

    def _left_out_mse(self) -> float:
        """Of some of the attacker's images, each without itself among the keys."""
        knowledge = self.knowledge
        rows = hold_out(knowledge.num_images, HELD_OUT, knowledge.generator("split", "cpu"))[1].to(knowledge.device)
        generator = knowledge.generator("selection")
        total = torch.zeros((), dtype=torch.float64, device=knowledge.device)
        for part in chunks((len(rows), *knowledge.images.shape[1:])):
            answers = self.reconstruct(knowledge.observe(rows[part], generator), own=rows[part])
            total += (answers - knowledge.targets(rows[part])).square().flatten(1).mean(1).sum(dtype=torch.float64)
        return total.item() / len(rows)

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        return self.knowledge.targets(self.search(smashed, own))

    def search(self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None) -> Int[Tensor, " batch"]:
        """Rows of the nearest images, never `own`; the first of equals, or where z is not a number the first of all."""
        queries = (smashed.flatten(1) - self.centre) / self.scale
        best = torch.full((len(queries),), torch.inf, device=queries.device)
        nearest = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        nearest += 0 if own is None else own == 0
        for start in range(0, len(self.keys), KEYS_AT_ONCE):
            stop = start + KEYS_AT_ONCE
            # ½‖q − k‖² without ½‖q‖², which does not depend on the key
            distance = self.half_norms[start:stop] - queries @ self.keys[start:stop].T
            if own is not None:
                inside = (own >= start) & (own < start + distance.shape[1])
                distance[inside, own[inside] - start] = torch.inf
            value, row = distance.min(1)
            better = value < best
            best = torch.where(better, value, best)
            nearest = torch.where(better, row + start, nearest)
        return nearest
