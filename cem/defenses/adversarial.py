"""An adversary inside the training: a decoder that learns to invert ẑ, and a term that the client pays for it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cem.config import Adversarial
from cem.defenses.base import Mechanism, Place
from cem.metrics import similarity
from cem.models import make_decoder
from cem.models.init import placed
from cem.storage.tensors import Stateful
from cem.types import Images, Labels, Smashed

Scalar = Float[Tensor, ""]
_TINY = 1e-12  # keeps the logarithm finite where the decoder is perfect


def _log_mse(reconstruction: Images, target: Images) -> Scalar:
    return torch.log(mse_loss(reconstruction, target) + _TINY)


# What the decoder minimises, of a batch.
_LOSSES: dict[str, Callable[[Images, Images], Scalar]] = {
    "ssim": lambda reconstruction, target: -similarity(reconstruction, target).mean(),
    "mse": mse_loss,
    "log_mse": _log_mse,
}


class Adversary(nn.Module):
    """The decoder, and how many batches it has been shown."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))  # on the CPU: no step waits for a device


class AdversarialDefense(Mechanism):
    """`weight` times how far the decoder does better than `threshold`. It does not act on z.

    Source: docs/theory.md, "The defences".
    """

    def __init__(self, cfg: Adversarial) -> None:
        self.cfg = cfg
        self._loss = _LOSSES[cfg.score]

    def begin_training(
        self, place: Place, generator: torch.Generator, device: torch.device, dtype: torch.dtype
    ) -> None:
        decoder = placed(make_decoder(self.cfg.net, place.smashed, place.image, generator), device).to(dtype)
        self._adversary = Adversary(decoder.eval().requires_grad_(False))
        self._optimizer = torch.optim.Adam(decoder.parameters(), self.cfg.lr)

    @property
    def training_state(self) -> Stateful:
        return Stateful({"adversary": self._adversary}, {"optimizer": self._optimizer})

    def learn(self, images: Images, clean: Smashed, labels: Labels) -> None:
        due = int(self._adversary.batches) % self.cfg.interval == 0
        self._adversary.batches += 1
        if not due:
            return
        decoder = self._adversary.decoder.train().requires_grad_(True)
        for _ in range(self.cfg.steps):
            self._optimizer.zero_grad()
            self._loss(decoder(clean), images).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        decoder.eval().requires_grad_(False)  # frozen, statistics too, wherever it does not learn

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Scalar:
        loss = self._loss(self._adversary.decoder(clean), images)
        return self.cfg.weight * torch.relu(self.cfg.limit - loss)
