"""What can be known of a network before any job starts, but not from its settings alone."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn

from cem.config import AttackSettings, Run, load
from cem.models.graph import Part
from cem.models.init import allocate
from cem.models.split import ModelError, build_split, output_shape

CLASSES = 2  # of the classifier where those of the data are not known: z has the same size for any number


def _check_draws(run: Run, parts: Iterable[nn.Module]) -> None:
    """Raise ModelError where what the network's own code draws is not what it seems to be, of networks of a user's."""
    own = [part for part in parts if isinstance(part, Part)]
    if not own:
        return
    first, second = ([_drawn(part, seed) for part in own] for seed in (1, 2))
    for one, other in zip(first, second, strict=True):
        kept = one.state_dict()
        for name, buffer in one.named_buffers():
            if name not in kept and not torch.equal(buffer, other.get_buffer(name)):
                raise ModelError(
                    f"the buffer {name} is drawn at random and not kept with the weights (persistent=False), so that "
                    "no other job would have the same network. Register it with persistent=True"
                )
    learned = [pair for one, other in zip(first, second, strict=True) for pair in _pairs(one, other)]
    same = bool(learned) and all(torch.equal(mine, theirs) for mine, theirs in learned)
    if same and not (run.trained or run.model.fixed):
        raise ModelError(
            "its code gives the same weights at every call: it brings them itself, so that seeds would be one network "
            "and count as several. Save them to a file, and name it: weights: FILE"
        )


def _drawn(part: Part, seed: int) -> nn.Module:
    allocate(part, "cpu")
    part.draw(torch.Generator().manual_seed(seed))
    return deepcopy(part.inner)


def _pairs(one: nn.Module, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The parameters of both that may be drawn: a norm's start as ones and zeros in every network."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return [(mine, theirs) for mine, theirs in pairs if mine.ndim > 1]


def check_model(run: Run, attacks: Sequence[AttackSettings], num_classes: int | None = None) -> None:
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
        if reasons and (trains := next((one.id for one in attacks if one.trains_encoder), "")):
            raise ModelError(
                f"{trains} trains an encoder like the client's, and cannot: {reasons[0]}. Leave {trains} out"
            )
        shape = output_shape(encoder, image_shape)
        z = shape[1]
        for defense in run.defenses:
            defense.check_size(prod(shape), run.training.batch_size)
            defense.check_z(run.model, z, side)
        for attack in attacks:
            attack.check_z(run.model, z, side)
        _check_draws(run, (*encoder, *classifier))
        if num_classes is not None:
            run.model.check_weights(image_shape, num_classes)
    except ValueError as error:
        raise ModelError(f"{run.model.label}: {error}") from error
