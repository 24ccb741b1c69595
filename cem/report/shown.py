"""Which groups have pictures: all of a small study; of a large one, some along the front of accuracy and error."""

import numpy as np
import pandas as pd

from cem.report.groups import Group
from cem.report.threat import ThreatModel

MOST_IN_PICTURES = 40  # more rows than these cannot be told apart in a picture, and take minutes to draw
MOST_MAPS = 6  # a map takes a second, more than all else of a row together
FROM_FRONT, MAPS_OF_FRONT = 5, 3


def mapped_groups(groups: list[Group], shown: list[Group], results: pd.DataFrame, threat: ThreatModel) -> list[Group]:
    """Those that have a map: all of a few groups; of more, some of those with pictures, along the front.

    Where no attack counts there is no front, and the first ones have a map.
    """
    if len(groups) <= MOST_MAPS:
        return groups
    return _along_front(shown, results, threat, MAPS_OF_FRONT) or groups[:MAPS_OF_FRONT]


def shown_groups(groups: list[Group], results: pd.DataFrame, threat: ThreatModel) -> list[Group]:
    """All groups; where these are more than MOST_IN_PICTURES, at most FROM_FRONT of the front under a threat model.

    On the front are the groups that no other one beats in both mean accuracy and mean error of the strongest attack;
    of these, the ends and others between them, as evenly along the front as can be. In the study's order. Where no
    attack counts there is no front, and the first ones have pictures.
    """
    if len(groups) <= MOST_IN_PICTURES:
        return groups
    return _along_front(groups, results, threat, FROM_FRONT) or groups[:FROM_FRONT]


def _along_front(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, most: int) -> list[Group]:
    points: list[tuple[float, float, int]] = []
    for index, group in enumerate(groups):
        rows = group.headline(results, threat)
        if not rows.empty:
            points.append((float(rows["accuracy"].mean()), float(rows["mse"].mean()), index))
    front: list[int] = []
    highest = -np.inf
    for _, error, index in sorted(points, key=lambda point: (-point[0], -point[1])):
        if error > highest:
            front.append(index)
            highest = error
    places = np.linspace(0, len(front) - 1, min(most, len(front))).round().astype(int)
    return [groups[index] for index in sorted({front[place] for place in places})]


def shown_note(groups: list[Group], shown: list[Group]) -> str:
    """Which rows have pictures and why not all; empty where all have."""
    if len(shown) == len(groups):
        return ""
    names = "; ".join(group.label for group in shown)
    return (
        f"Pictures of {len(groups)} rows could not be told apart. Those of training, attacks, reconstructions and "
        f"smashed data, and the names in the chart's file, are of {len(shown)} rows spread along the front, which "
        "holds the rows that no other one beats in both accuracy and error (the first rows, where no attack counts): "
        f"{names}. Tables and the chart are of all "
        "rows; a timeline of so many jobs is left out."
    )
