"""How many components a class of a given size is fitted with."""

from jaxtyping import Int
from torch import Tensor

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
