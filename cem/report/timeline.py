"""When the jobs of a study ran: a bar an attempt, by machine, with what was lost."""

from datetime import datetime
from typing import Any

from cem.planning.plan import Plan
from cem.report.inputs import read_attack, read_training
from cem.report.pictures import COLOURS, Picture, finish, new_figure
from cem.storage.job_records import Attempt

_KINDS = {"training": COLOURS[0], "attack": COLOURS[1], "ended without a result": COLOURS[3]}


def timeline(plan: Plan) -> Picture | None:
    """Of all trainings and attacks whose attempts are recorded; None where none is."""
    jobs: list[tuple[str, Attempt]] = []
    for run in plan.runs.values():
        jobs += [("training", attempt) for attempt in read_training(plan, run).attempts]
        for attack in plan.attacks(run):
            jobs += [("attack", attempt) for attempt in read_attack(plan, run, attack.id).attempts]
    if not jobs:
        return None
    clock = [datetime.fromisoformat(attempt.started) for _, attempt in jobs]
    started = [(at - min(clock)).total_seconds() / 3600 for at in clock]
    lanes = _lanes([(at, attempt.seconds / 3600) for at, (_, attempt) in zip(started, jobs, strict=True)])
    figure = new_figure(10.0, min(6.0, 1.5 + 0.14 * (max(lanes) + 1)))
    axes = figure.add_subplot()
    for kind, colour in _KINDS.items():
        for at, lane, (own, attempt) in zip(started, lanes, jobs, strict=True):
            if kind == (own if attempt.ended in ("done", "") else "ended without a result"):
                style: Any = {"color": colour, "height": 0.8, "linewidth": 0}
                axes.barh(lane, attempt.seconds / 3600, left=at, **style)
        axes.barh(0, 0, color=colour, label=kind)  # in the legend, whether there is one or not
    axes.set_xlabel(f"hours since {min(clock).isoformat()}")
    axes.set_yticks([])
    axes.set_ylabel("jobs at a time")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    hours = sum(attempt.seconds for _, attempt in jobs) / 3600
    lost = sum(attempt.lost_seconds for _, attempt in jobs) / 3600
    most = max(lanes) + 1
    total = (
        f"{len(jobs)} attempts of trainings and attacks took {hours:.3g} hours together, of which {lost:.3g} were lost"
    )
    caption = (
        f"Timeline of jobs, by their own clocks: {total}. Jobs that ran at the same time are above each other; data, "
        "warm-ups and leakage are not among them."
    )
    return finish(figure, "timeline", "svg", caption, f"Bars over time: {total}; at most {most} at a time.")


def _lanes(spans: list[tuple[float, float]]) -> list[int]:
    """For each start and length the lowest lane that is free."""
    free: list[float] = []
    lanes = [0] * len(spans)
    for place in sorted(range(len(spans)), key=lambda one: spans[one]):
        start, length = spans[place]
        lane = next((number for number, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [start + length]
        lanes[place] = lane
    return lanes
