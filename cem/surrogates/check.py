"""What can be known of a surrogate before any job starts."""

import torch

from cem.config import Run
from cem.models import make_split, smashed_shape
from cem.surrogates import make_surrogate


def check_surrogate(run: Run) -> None:
    """Raise SurrogateError when the run's surrogate cannot be made for its smashed data, such as one too large."""
    image = (run.dataset.channels, run.dataset.side, run.dataset.side)
    with torch.device("meta"):
        encoder, _ = make_split(run.model, image, num_classes=2)  # z has the same size for any number
    make_surrogate(run.surrogate, smashed_shape=smashed_shape(encoder, image), num_classes=2, noise_std=run.noise_std)
