"""The answer of an attacker who sees nothing: the mean of its images."""

import torch
from jaxtyping import Int
from torch import Tensor

from cem.attacks.base import ClosedFormAttack, Fitted, Knowledge, chunks
from cem.types import Images, Labels, Smashed


class MeanImageAttack(ClosedFormAttack):
    """Every z gets the mean image, which has the least mean squared error of all constant answers."""

    mean: Tensor

    def fit(self, knowledge: Knowledge) -> Fitted:
        total = torch.zeros(knowledge.images.shape[1:], dtype=torch.int64, device=knowledge.device)
        for rows in chunks(knowledge.images.shape):
            total += knowledge.images[rows].sum(0, dtype=torch.int64)
        self.mean = (total.double() / (255 * knowledge.num_images)).float()
        return Fitted(parameters=self.mean.numel())

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        return self.mean.expand(len(smashed), *self.mean.shape)
