"""What several tables say alike: cells, and the notes that explain the marks in them."""

import pandas as pd

from cem.report.groups import Group
from cem.report.scores import Scores
from cem.report.statistics import over_seeds

LIMIT = (
    "† may do better than this in at least one run (see the reasons below the table of attacks), so that the MSE is an "
    "upper limit (≤), and a likeness a lower one (≥). So is the strongest's where an attack that is stronger on the "
    "undefended references may do better, broke down, or has no result yet."
)
FAILED = (
    "attack failed: it does not invert the undefended references, or its fit broke down; its numbers say nothing about "
    "a defence, and count nowhere."
)
PART = (
    "§ was scored on the first images only: its numbers are theirs, not to be compared with those of all images. Which "
    "attack is the strongest is decided on other images, which the attackers held out."
)
WEAK = (
    "weak: it works, but an attacker who knows as much is known to come closer, or nothing is known of what one could "
    "do (see the reasons below the table of attacks). It is no run's strongest attack, and says nothing of a defence."
)
NOTHING = "‡ no attack beats answering with the mean image, or the class's mean, which need no z."
LARGER = (
    "¶ the largest network of the ladder still brought more than 3 %; a larger one would come closer, so the errors of "
    "this run are upper limits of what such an attacker leaves."
)
ONE_SEED = "1 seed: no interval can be given, and no difference from another row be called one."
ONE_NETWORK = (
    "one network: it was given, and all seeds have it. They repeat the attack, not the training: ± is over these "
    "repetitions, of noise and attacks, and no interval over training seeds."
)
INTERVAL = (
    "±: half the 95 % interval over training seeds (Student's t of the seed means, n − 1), for scores together with "
    "that over test images, which all seeds share. Of two seeds it is 12.7 standard errors, and may reach beyond what "
    "is possible."
)


def seeds_text(group: Group) -> str:
    """How many; one is said in words, as no interval comes of it. Of a network that is given they are repetitions."""
    count = "1 seed" if len(group.runs) == 1 else str(len(group.runs))
    if not group.one_network:
        return count
    return f"{count}, one network" if len(group.runs) == 1 else f"{count} repetitions, one network"


def working(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of attacks that rebuilt something: those that did not fail."""
    return rows[rows["attack_ok"] | rows["attack_bound"] | rows["attack_weak"]]


def attack_cell(rows: pd.DataFrame, scores: Scores) -> str:
    """An attack on a group; seeds where it failed are left out, and said to be."""
    if rows.empty:
        return "–"
    works = working(rows)
    if works.empty:
        return "attack failed"
    mark = ("≤ ", " †") if works["attack_bound"].any() else ("", "")
    weak = " (weak)" if works["attack_weak"].any() else ""
    failed = f" (attack failed in {len(rows) - len(works)})" if len(works) < len(rows) else ""
    return scores.estimate(works, "mse").text().join(mark) + weak + failed


def lower_text(rows: pd.DataFrame, prefix: str = "") -> str:
    """The lower bound of runs; marked as saturated where it says no more than that it is about log K in any of them."""
    values = rows[f"{prefix}leakage_lower_nats"]
    if values.isna().any():
        return "not measured"
    if not prefix and rows["leakage_lower_saturated"].fillna(False).any():
        return f"≥ {values.mean():.2f} (saturated)"  # no ±: what chance does to it is cut off at log K
    return over_seeds(values).text()


def notes_of(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    """What the marks and words in a table's cells mean; a row's first cell is its name."""
    text = "\n".join(cell for row in rows for cell in row[1:])
    notes = {"±": INTERVAL, "†": LIMIT, "failed": FAILED, "weak": WEAK, "‡": NOTHING, "§": PART, "¶": LARGER}
    notes |= {"1 seed": ONE_SEED, "one network": ONE_NETWORK}
    return tuple(note for mark, note in notes.items() if mark in text)
