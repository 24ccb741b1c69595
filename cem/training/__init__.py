"""Training: the loop, the routing of gradients, the schedule, and a state that survives interruption."""

from cem.jobs.interruption import SAVED
from cem.training.given import take_as_given
from cem.training.leakage import measure_mixture
from cem.training.pairs import import_activations
from cem.training.ranks import ranks_for
from cem.training.stages import extract_activations, train, warm_up

__all__ = [
    "SAVED",
    "extract_activations",
    "import_activations",
    "measure_mixture",
    "ranks_for",
    "take_as_given",
    "train",
    "warm_up",
]
