"""How many components a class of a given size is fitted with."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from cem.mixture.samples import MixtureError

_SAMPLES_EACH = 2  # a component of one sample has no variance: it remembers the sample and describes nothing


def components_of(counts: Int[Tensor, " cls"], components: int) -> Int[Tensor, " cls"]:
    """Components that each class is fitted with: those asked for, or one for every two of its samples; at least one."""
    return (counts // _SAMPLES_EACH).clamp(1, components)


def fewer_note(counts: Int[Tensor, " cls"], components: int) -> tuple[str, ...]:
    """What a result says of the classes that were fitted with fewer components; empty where there are none."""
    numbers = components_of(counts, components)
    few = (numbers < components).nonzero().flatten().tolist()
    if not few:
        return ()
    listed = ", ".join(f"class {c} ({int(counts[c])} images): {int(numbers[c])}" for c in few[:5])
    more = f", and {len(few) - 5} more" if len(few) > 5 else ""
    return (f"fitted with fewer than {components} components, for want of images: {listed}{more}",)


def require_components(counts: Sequence[int], components: int, names: Sequence[str] | None = None) -> None:
    """Raise MixtureError unless every class is large enough to be fitted with all components.

    counts: private images of each class. names: of the classes. For who would rather know before training than find a
    fit with fewer components in the result.
    """
    numbers = components_of(torch.tensor(counts), components).tolist()
    few = [c for c, number in enumerate(numbers) if number < components]
    if few:
        smallest = min(few, key=lambda c: counts[c])
        name = f"class {smallest}" + (f" ({names[smallest]!r})" if names else "")
        raise MixtureError(
            f"expected at least {_SAMPLES_EACH * components} private images of every class, {_SAMPLES_EACH} for each "
            f"of {components} components; {name} has {counts[smallest]}"
            + (f", and {len(few) - 1} more classes have too few" if len(few) > 1 else "")
            + f". Use at most {max(1, numbers[smallest])} components, a larger private split, or drop the class."
        )
