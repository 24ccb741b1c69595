"""A map of the smashed data by class: its first two principal components."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.pictures import Picture, finish, new_figure
from cem.storage.hdf5 import open_activations, open_dataset

# Paul Tol's "muted" scheme: ten colours that colour-blind readers can tell apart.
_CLASSES = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip
MOST_NAMES = 20  # more classes than these are not named on a map
COLUMNS = 2
SEED = 0

Points = Float[np.ndarray, "n 2"]


def smashed_maps(plan: Plan, groups: list[Group], of: int) -> Picture:
    """A panel a group: test images of its first seed's encoder (clean ẑ), coloured and named by class.

    of: how many rows the study has, of which these have a map.
    """
    rows = -(-len(groups) // COLUMNS)
    figure = new_figure(10.0, 3.6 * rows)
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    shares = []
    for group, panel in zip(groups, panels, strict=False):
        smashed, labels = _sample(plan, group)
        points, explained = principal_components(smashed)
        scatter(panel, points, labels, _names(_class_names(plan, group)))
        shares.append(100 * explained)
        panel.set_title(f"{group.label} ({shares[-1]:.0f} % of the variance)")
    for panel in panels[len(groups) :]:
        panel.remove()
    caption = (
        f"Smashed data of {plan.study.report.map_samples} test images (all, if there are fewer) by class, before the "
        "noise; first seed of each group. The axes are those along which they vary most (principal components): classes"
        " that lie on one another here may be apart along others. A number stands for a class listed under Data."
    )
    if len(groups) < of:
        which = "along the front of accuracy and error, or the first where no attack counts"
        caption += f" Of {of} rows {len(groups)} have a map: {which}."
    alt = "Points of test images on their first two principal components, coloured by class: " + "; ".join(
        f"{group.label} (they hold {share:.0f} % of the variance)" for group, share in zip(groups, shares, strict=True)
    )
    return finish(figure, "smashed", "png", caption, f"{alt}.")


def _class_names(plan: Plan, group: Group) -> list[str]:
    """Names of the classes of a group's data set."""
    with open_dataset(plan.data(group.first.dataset)) as data:
        return data.class_names


def principal_components(points: Float[np.ndarray, "n d"]) -> tuple[Points, float]:
    """Coordinates along the first two axes (zero where the points have fewer), and their share of the variance."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(len(spread))])  # LAPACKs differ in the signs
    coordinates = np.zeros((len(points), 2))
    coordinates[:, : len(spread)] = (left * spread)[:, :2]
    variances = spread**2
    return coordinates, float(variances[:2].sum() / max(variances.sum(), np.finfo(float).tiny))


def scatter(axes: Axes, points: Points, labels: Int[np.ndarray, " n"], names: list[str]) -> None:
    """Points by class; each class is named at its median."""
    axes.set_xticks([])
    axes.set_yticks([])
    for label in np.unique(labels):
        mine = points[labels == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, color=_CLASSES[label % len(_CLASSES)], alpha=0.75, linewidths=0)
        if len(names) <= MOST_NAMES:
            x, y = np.median(mine, axis=0)
            halo = [withStroke(linewidth=3, foreground="white")]
            axes.text(x, y, names[label], ha="center", va="center", fontweight="bold", path_effects=halo)


def _sample(plan: Plan, group: Group) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """The same test images for every group on the same data, drawn without order."""
    with open_activations(plan.run(group.first) / "activations.h5") as activations:
        count = activations.count("test")
        chosen = min(count, plan.study.report.map_samples)
        rows = np.sort(np.random.default_rng(SEED).choice(count, chosen, replace=False))
        smashed = activations.read("test", rows, corrupt=lambda clean: clean)
        return smashed.reshape(chosen, -1).astype(np.float32), activations.labels("test")[rows].astype(np.int64)


def _names(names: list[str]) -> list[str]:
    """Short names that any font can print; the class's number for the others."""
    plain = [name for name in names if name.isascii() and name.isprintable() and 0 < len(name) <= 12]
    return [name if name in plain else str(number) for number, name in enumerate(names)]
