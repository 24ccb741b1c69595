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
        for rows in chunks(knowledge.images.shape):
            total.index_add_(0, labels[rows], knowledge.images[rows].long())
        overall = total.sum(0).double() / (255 * knowledge.num_images)
        own = total.double() / (255 * counts.clamp_min(1)).reshape(-1, 1, 1, 1)
        means = torch.where((counts > 0).reshape(-1, 1, 1, 1), own, overall)
        self.means = torch.cat([means, overall.unsqueeze(0)]).float()  # the last is for classes beyond the attacker's
        return Fitted(parameters=self.means[:-1].numel())

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        if labels is None:
            raise AttackError("class_mean: expected the classes of the images that were sent; set labels: true.")
        return self.means[labels.clamp_max(len(self.means) - 1)]
