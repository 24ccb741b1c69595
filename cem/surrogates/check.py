"""What can be known of a surrogate before any job starts."""

from cem.config import Run
from cem.defenses import initial_noise_std
from cem.models import smashed_shape_of
from cem.surrogates import make_surrogate


def check_surrogate(run: Run) -> None:
    """Raise SurrogateError when the run's surrogate cannot be made for its smashed data, such as one too large."""
    image = (run.dataset.channels, run.dataset.side, run.dataset.side)
    shape = smashed_shape_of(run.model, image)
    noise_std = initial_noise_std(run, shape)
    make_surrogate(run.surrogate, smashed_shape=shape, num_classes=2, noise_std=noise_std)
