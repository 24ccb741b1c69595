"""The answer of an attacker who sees the label alone: the mean of its images of that class."""

import torch
from jaxtyping import Int
from torch import Tensor

from cem.attacks.base import AttackError, ClosedFormAttack, Fitted, Knowledge, chunks
from cem.types import Images, Labels, Smashed


class ClassMeanAttack(ClosedFormAttack):
    """Each image is answered with the mean of its class; a class the attacker has no image of, with that of all."""

    means: Tensor  # [class, channel, height, width]

    def fit(self, knowledge: Knowledge) -> Fitted:
        if knowledge.labels is None:
            raise AttackError("class_mean: expected the classes of the attacker's images; set labels: true.")
        labels = knowledge.labels
        counts = torch.bincount(labels)
        total = torch.zeros(len(counts), *knowledge.images.shape[1:], dtype=torch.int64, device=knowledge.device)
        squares = torch.zeros(len(counts), dtype=torch.int64, device=knowledge.device)
        for rows in chunks(knowledge.images.shape):
            images = knowledge.images[rows].long()
            total.index_add_(0, labels[rows], images)
            squares.index_add_(0, labels[rows], images.square().flatten(1).sum(1))
        overall = total.sum(0).double() / (255 * knowledge.num_images)
        own = total.double() / (255 * counts.clamp_min(1)).reshape(-1, 1, 1, 1)
        means = torch.where((counts > 0).reshape(-1, 1, 1, 1), own, overall)
        self.means = torch.cat([means, overall.unsqueeze(0)]).float()  # the last is for classes beyond the attacker's
        # Of each image from the mean of the others of its class, as in MeanImageAttack; of those with others.
        several = counts > 1
        around = squares.double() - total.double().square().flatten(1).sum(1) / counts.clamp_min(1)
        left_out = around * counts / (counts - 1).clamp_min(1) ** 2 / (255**2 * overall.numel())
        held_out = left_out[several].sum() / counts[several].sum()
        return Fitted(parameters=self.means[:-1].numel(), held_out_mse=held_out.item() if several.any() else None)

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        if labels is None:
            raise AttackError("class_mean: expected the classes of the images that were sent; set labels: true.")
        return self.means[labels.clamp_max(len(self.means) - 1)]
