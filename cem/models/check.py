"""What can be known of a network before any job starts, but not from its settings alone."""

from collections.abc import Iterable

from cem.config import AttackSettings, Run
from cem.models import smashed_shape_of
from cem.models.split import ModelError


def check_model(run: Run, attacks: Iterable[AttackSettings]) -> None:
    """Raise ModelError when a run's network cannot be built for its images, or a defence or attack not run on its z."""
    side = run.dataset.side
    try:
        z = smashed_shape_of(run.model, (run.dataset.channels, side, side))
        for defense in run.defenses:
            defense.check_z(run.model, z[1], side)
        for attack in attacks:
            attack.check_z(run.model, z[1], side)
    except ValueError as error:
        raise ModelError(f"{run.model.label}: {error}") from error
