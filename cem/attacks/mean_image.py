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
        images, count = knowledge.images, knowledge.num_images
        total = torch.zeros(images.shape[1:], dtype=torch.int64, device=knowledge.device)
        squares = torch.zeros((), dtype=torch.int64, device=knowledge.device)
        for rows in chunks(images.shape):
            total += images[rows].sum(0, dtype=torch.int64)
            squares += images[rows].long().square().sum()
        self.mean = (total.double() / (255 * count)).float()
        # Of each image from the mean of the others, whose deviation is n/(n − 1) times that from the mean of all.
        around = squares.double() - total.double().square().sum() / count
        left_out = around * count / (count - 1) ** 2 / (255**2 * total.numel())
        return Fitted(self.mean.numel(), held_out_mse=left_out.item())

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        return self.mean.expand(len(smashed), *self.mean.shape)
