"""What a decoder minimises."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from cem.attacks.base import AttackError
from cem.config import Loss
from cem.metrics import similarity, ssim_possible
from cem.types import Images


def weighted_loss(cfg: Loss, reconstruction: Images, target: Images) -> Float[Tensor, ""]:
    """Sum of the errors that have a weight, each a mean over batch, channels and pixels.

    Raises AttackError for images too small for SSIM's window, where it has a weight.
    """
    total = reconstruction.new_zeros(())
    if cfg.mse:
        total = total + cfg.mse * mse_loss(reconstruction, target)
    if cfg.l1:
        total = total + cfg.l1 * l1_loss(reconstruction, target)
    if cfg.ssim:
        if not ssim_possible(min(target.shape[2:])):
            raise AttackError(
                f"SSIM needs sides of 6 pixels at least; found {tuple(target.shape[2:])}. Set loss.ssim: 0."
            )
        total = total + cfg.ssim * (1 - similarity(reconstruction, target).mean())
    return total
