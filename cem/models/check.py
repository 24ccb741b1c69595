"""What can be known of a network before any job starts, but not from its settings alone."""

from collections.abc import Iterable

from cem.config import AttackSettings, Run, load
from cem.models.graph import Part
from cem.models.split import ModelError, build_split, output_shape

CLASSES = 2  # of the classifier where those of the data are not known: z has the same size for any number


def check_model(run: Run, attacks: Iterable[AttackSettings], num_classes: int | None = None) -> None:
    """Raise ModelError when a run's network cannot be built for its images, or a defence or attack not run on its z.

    num_classes: of the data set; None: not known yet. Where it is, weights of files are checked, too.
    """
    side = run.dataset.side
    image_shape = run.dataset.channels, side, side
    try:
        if not run.model.has_network:
            z = load("cem.data.sources.pairs:smashed_shape_of_pairs")(run.dataset)
            for attack in attacks:
                attack.check_z(run.model, z[1], side)
            return
        encoder, classifier = build_split(run.model, image_shape, num_classes or CLASSES)
        reasons = [one.eval_only for one in (*encoder, *classifier) if isinstance(one, Part) and one.eval_only]
        if run.trained and reasons:
            raise ModelError(reasons[0])
        z = output_shape(encoder, image_shape)[1]
        for defense in run.defenses:
            defense.check_z(run.model, z, side)
        for attack in attacks:
            attack.check_z(run.model, z, side)
        if num_classes is not None:
            run.model.check_weights(image_shape, num_classes)
    except ValueError as error:
        raise ModelError(f"{run.model.label}: {error}") from error
