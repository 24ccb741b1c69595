"""Originals above what the strongest attack on each group made of them: the worst protected, and the first ones."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.inputs import read_reconstructions
from cem.report.pictures import Picture
from cem.report.threat import ThreatModel

GAP = 2  # white pixels between images
PER_LINE = 10
MOST_BYTES = 1_200_000  # of the strips of one choice of images: beyond, fewer images are in the page than in the file
_WIDE = 1000  # pixels of the file
_TITLE = 20  # pixels of a title in the file


@dataclass(frozen=True)
class Rebuilt:
    """What an attack made of a group's images. originals: None where all groups have the gallery's."""

    label: str
    attack: str
    scores: str
    originals: Picture | None
    reconstructions: Picture


@dataclass(frozen=True)
class Gallery:
    """Of one choice of test images of one data set: the groups, worst protected first; all of it as a file, too.

    title: of the choice. originals: those of all groups, None where they differ. size: width and height of each strip.
    """

    title: str
    caption: str
    originals: Picture | None
    size: tuple[int, int]
    rows: tuple[Rebuilt, ...]
    file: Picture


def galleries(
    plan: Plan, groups: list[Group], results: pd.DataFrame, threat: ThreatModel, suffix: str
) -> list[Gallery]:
    """Two per data set, of the worst protected and of the first test images: a row per group, of its first seed.

    Under one threat model, the names of whose files end with `suffix`. None where every attack failed on every first
    seed.
    """
    found = []
    for dataset in plan.datasets:
        headlines = {one.label: one.headline(results, threat) for one in groups if one.first.dataset.id == dataset}
        shown = [one for one in groups if one.first.seed in headlines.get(one.label, pd.DataFrame()).index]
        best = [headlines[one.label].loc[[one.first.seed]].iloc[0] for one in shown]
        ordered = sorted(zip(shown, best, strict=True), key=lambda pair: float(pair[1]["mse"]))
        for choice in (WORST, FIRST) if ordered else ():
            rows = [_row(plan, group, row, choice) for group, row in ordered]
            found.append(_gallery(rows, choice, f"{dataset}, {threat.label}", f"{choice.name}{suffix}_{dataset}"))
    return found


@dataclass(frozen=True)
class _Choice:
    """Which of the kept test images are shown. place: in reconstructions.h5."""

    place: str
    name: str
    heading: str
    title: str
    caption: str


FIRST = _Choice("infer", "reconstructions", "The first test images", "original test images", "the first test images")
WORST = _Choice(
    "infer/worst",
    "worst_protected",
    "The test images that are protected worst",
    "original test images, worst protected first",
    "the test images that are protected worst, the one with the lowest MSE first",
)
Images = UInt8[np.ndarray, "n c h w"]
Row = tuple[Group, "pd.Series[Any]", Images, Images]


def _row(plan: Plan, group: Group, best: "pd.Series[Any]", choice: _Choice) -> Row:
    pairs = read_reconstructions(plan, group.first, best["attack"], choice.place, plan.study.report.images)
    return (group, best, *pairs)


def _scores(best: "pd.Series[Any]") -> str:
    limits = ("≤ ", "≥ ") if best["strongest_bound"] else ("", "")
    return f"MSE {limits[0]}{best['mse']:.4f}, SSIM {limits[1]}{best['ssim']:.3f}"


def _gallery(rows: list[Row], choice: _Choice, about: str, name: str) -> Gallery:
    first = rows[0][2]
    same = all(np.array_equal(images, first) for _, _, images, _ in rows)
    titled: list[tuple[str, Images]] = [(choice.title, first)] if same else []
    for group, best, images, reconstructions in rows:
        titled += [] if same else [(f"{choice.title} ({group.label})", images)]
        titled.append((f"{group.label}  ·  {best['attack']}  ·  {_scores(best)}", reconstructions))
    count = len(first)
    strips = _strips(rows, count)
    while count > 1 and sum(map(len, {one for pair in strips for one in pair})) > MOST_BYTES:
        count = (count + 1) // 2
        strips = _strips(rows, count)
    caption = (
        f"{about}: {choice.caption}, and what the strongest attack on each group rebuilds of them (first seed of the "
        f"group); the group whose error is least first. Upper line: originals{'' if same else ', each group its own'}; "
        "lower line: what is rebuilt. MSE and SSIM are means over all scored test images of that run, "
        "not only those shown. Pixels are enlarged without smoothing."
    )
    if count < len(first):
        caption += f" Here are {count} of the {len(first)} images; {name}.png has all."
    rebuilt = []
    for place, ((group, best, *_), (originals, answers)) in enumerate(zip(rows, strips, strict=True)):
        seen = f"{count} images that {best['attack']} rebuilt under {group.label}: {_scores(best)}"
        above = None if same else Picture(f"{name}_{place}_originals", originals, "", f"{count} {choice.title}")
        answer = Picture(f"{name}_{place}", answers, "", seen)
        rebuilt.append(Rebuilt(group.label, str(best["attack"]), _scores(best), above, answer))
    shared = Picture(f"{name}_originals", strips[0][0], "", f"{count} {choice.title}") if same else None
    high, wide, _ = strip(first[:count]).shape
    file = Picture(f"{name}.png", _grid(titled), caption, "")
    return Gallery(choice.heading, caption, shared, (wide, high), tuple(rebuilt), file)


def _strips(rows: list[Row], count: int) -> list[tuple[bytes, bytes]]:
    """PNGs of the first `count` originals and reconstructions of each row; equal ones are made once."""
    made: dict[bytes, bytes] = {}

    def png(images: Images) -> bytes:
        key = images.tobytes()
        if key not in made:
            made[key] = _png(Image.fromarray(strip(images)))
        return made[key]

    return [(png(originals[:count]), png(answers[:count])) for _, _, originals, answers in rows]


def _grid(titled: list[tuple[str, Images]]) -> bytes:
    """All strips below each other, each under its title, enlarged by a whole number without smoothing."""
    strips = [Image.fromarray(strip(images)) for _, images in titled]
    times = max(1, _WIDE // max(one.width for one in strips))
    large = [one.resize((one.width * times, one.height * times), Image.Resampling.NEAREST) for one in strips]
    width = max(_WIDE, *(one.width for one in large))
    page = Image.new("RGB", (width, sum(one.height + _TITLE for one in large)), "white")
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 13)
    pen, top = ImageDraw.Draw(page), 0
    for (title, _), image in zip(titled, large, strict=True):
        pen.text((0, top + 2), title, fill="black", font=font)
        page.paste(image, (0, top + _TITLE))
        top += image.height + _TITLE
    return _png(page)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def strip(images: Images) -> UInt8[np.ndarray, "high wide 3"]:
    """Images side by side in colour, PER_LINE in a line, with white gaps."""
    columns = min(len(images), PER_LINE)
    missing = -len(images) % columns
    padded = np.pad(images, ((0, missing), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    colour = np.broadcast_to(padded, (len(padded), 3, *padded.shape[2:]))
    lines = [np.concatenate(list(colour[start : start + columns]), axis=2) for start in range(0, len(colour), columns)]
    return np.ascontiguousarray(np.concatenate(lines, axis=1).transpose(1, 2, 0))
