"""A map of the smashed data by class: PCA, and t-SNE for what PCA cannot show."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.pictures import Picture, empty, finish, new_figure
from cem.storage.hdf5 import open_activations, open_dataset

# Paul Tol's "muted" scheme: ten colours that colour-blind readers can tell apart.
_CLASSES = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip
MOST_NAMES = 20  # more classes than these are not named on a map
FEWEST_FOR_TSNE = 5
ITERATIONS = 500  # twice what it needs for the clusters to be apart; the usual 1,000 move them no more
ANGLE = 0.7  # how coarse far points are summed; the usual 0.5 takes half as long again, and looks the same
SEED = 0

Points = Float[np.ndarray, "n 2"]


def smashed_maps(plan: Plan, groups: list[Group], of: int) -> Picture:
    """Two panels a group: test images of its first seed's encoder (clean ẑ), coloured and named by class.

    of: how many rows the study has, of which these have a map.
    """
    figure = new_figure(10.0, 3.6 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    shares = []
    for group, (left, right) in zip(groups, panels, strict=True):
        smashed, labels = _sample(plan, group)
        names = _names(_class_names(plan, group))
        reduced, explained = principal_components(smashed, 50)
        scatter(left, reduced[:, :2], labels, names)
        shares.append(100 * explained[:2].sum())
        left.set_title(f"{group.label}: PCA ({shares[-1]:.0f} % of the variance)")
        right.set_title(f"{group.label}: t-SNE")
        if len(smashed) < FEWEST_FOR_TSNE:
            empty(right, f"{len(smashed)} images are too few for t-SNE")
        else:
            scatter(right, tsne(reduced), labels, names)
    caption = (
        f"Smashed data of {plan.study.report.map_samples} test images (all, if there are fewer) by class, before the "
        "noise; first seed of each group. PCA keeps distances as far as two axes can; t-SNE keeps neighbourhoods only: "
        "sizes of its clusters and distances between them mean nothing. A number stands for a class listed under Data."
    )
    if len(groups) < of:
        caption += f" Of {of} rows {len(groups)} have a map, spread along the front of accuracy and error."
    alt = "Points of test images in two dimensions, coloured by class. By PCA and by t-SNE: " + "; ".join(
        f"{group.label} (two axes hold {share:.0f} % of the variance)"
        for group, share in zip(groups, shares, strict=True)
    )
    return finish(figure, "smashed", "png", caption, f"{alt}.")


def _class_names(plan: Plan, group: Group) -> list[str]:
    """Names of the classes of a group's data set."""
    with open_dataset(plan.data(group.first.dataset)) as data:
        return data.class_names


def principal_components(
    points: Float[np.ndarray, "n d"], most: int
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " k"]]:
    """Coordinates along the first axes (at least two, zero where the points have no more), and shares of variance."""
    found = min(most, len(points) - 1, points.shape[1])
    coordinates, shares = np.zeros((len(points), max(2, found)), np.float32), np.zeros(max(2, found))
    if found >= 1 and np.ptp(points, axis=0).any():
        pca = PCA(found, random_state=SEED).fit(points)
        coordinates[:, :found], shares[:found] = pca.transform(points), pca.explained_variance_ratio_
    return coordinates, shares


def tsne(points: Float[np.ndarray, "n d"]) -> Points:
    """Neighbourhoods in two dimensions, seeded, started from the first two axes, safe for few or equal points."""
    perplexity = min(30.0, (len(points) - 1) / 3)
    scale = points[:, :2].std() or 1.0
    start = points[:, :2] / scale * 1e-4
    seeded = TSNE(
        perplexity=perplexity, init=start, learning_rate="auto", max_iter=ITERATIONS, angle=ANGLE, random_state=SEED
    )
    embedded: Points = seeded.fit_transform(points)
    return embedded


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
