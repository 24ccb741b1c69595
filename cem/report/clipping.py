"""Where clipping took λ's meaning away."""

from collections.abc import Iterable

from cem.config import Run
from cem.planning.plan import Plan
from cem.report.inputs import read_history

_OFTEN, _HARD = 0.5, 0.5  # share of an epoch's batches, factor that they were scaled by


def clipping_warnings(plan: Plan, runs: Iterable[Run]) -> list[str]:
    """A warning that names the runs whose surrogate pressed harder than `max_grad_norm` lets through, if there are any.

    These runs clipped most of the client's batches to less than half, in at least half of the epochs with λ > 0.
    """
    capped = [run.id for run in runs if run.surrogate.weight > 0 and _capped(plan, run)]
    if not capped:
        return []
    shown = ", ".join(capped[:5]) + (f" and {len(capped) - 5} more" if len(capped) > 5 else "")
    return [
        "The surrogate's weight λ no longer scales what it does: max_grad_norm cut the client's gradient to less than "
        f"half in most batches of {shown}. There a larger λ does not press harder, it only leaves less of the step to "
        "the task. Raise max_grad_norm (or leave it out) and train again, or do not compare these runs by λ."
    ]


def _capped(plan: Plan, run: Run) -> bool:
    history = read_history(plan, run)
    if not {"client_clipped", "client_clip_factor", "weight"} <= set(history.columns):
        return False  # trained by a version that did not record it
    pressed = history[history["weight"] > 0]
    cut = (pressed["client_clipped"] > _OFTEN) & (pressed["client_clip_factor"] < _HARD)
    return bool(cut.mean() >= _OFTEN)  # the mean of no epochs is NaN, which is not
