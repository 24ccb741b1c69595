"""How a row looks in every chart of a page: the colour of its method, and a line and a marker of its strength."""

from dataclasses import dataclass

from cem.report.curves import groups_by_method
from cem.report.groups import Group
from cem.report.pictures import LINES, PLAIN, marker, method_colour

_LINES = LINES[:-1]  # dots are the probe's


@dataclass(frozen=True)
class Look:
    """As matplotlib calls them."""

    colour: str
    line: str
    marker: str


def looks_of(groups: list[Group]) -> dict[str, Look]:
    """Label of each group of a study → its look. Noise alone is black; a method's strengths start with the least.

    Beyond three strengths of a method lines start again, and its markers tell them.
    """
    found: dict[str, Look] = {}
    methods = plain = 0
    for members in groups_by_method(groups):
        for one in members:
            hue = PLAIN if one.plain else method_colour(methods)
            start = plain if one.plain else 0
            for place, group in enumerate(one.groups, start):
                found[group.label] = Look(hue, _LINES[place % len(_LINES)], marker(place))
            methods, plain = methods + (not one.plain), plain + len(one.groups) * one.plain
    for group in groups:
        if group.label not in found:  # another network's reference, which is in no curve
            found[group.label] = Look(method_colour(methods), _LINES[0], marker(0))
            methods += 1
    return found
