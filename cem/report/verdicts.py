"""What results.csv says of attacks whose numbers do not count, for the command line: read without pandas."""

import csv
from dataclasses import dataclass

from cem import CemError
from cem.planning.plan import Plan

FAILED = "attack failed"
_MARKS = {"attack_bound": "upper limit", "attack_weak": "weak attack"}  # column of results.csv → what is said


class VerdictError(CemError):
    """Results that are damaged or older than this program."""


@dataclass(frozen=True)
class FailedAttack:
    """An attack on a run whose number does not count.

    mark: `upper limit`: it works, but may do better; `weak attack`: others are known to do better, or nothing is known
    of what they would do; `attack failed`: it says nothing.
    """

    run: str
    attack: str
    why: str
    mark: str


def read_verdicts(plan: Plan) -> list[FailedAttack]:
    """Of the planned runs and attacks, those that results.csv says failed; nothing where it is not made yet.

    Raises VerdictError when it has no verdicts.
    """
    path = plan.folder / "results.csv"
    if not path.is_file():
        return []
    planned = {(name, attack.id) for name, run in plan.runs.items() for attack in plan.attacks(run)}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        if not {"attack_ok", *_MARKS, "attack_verdict"} <= {key for key, value in row.items() if value is not None}:
            raise VerdictError(
                f"{path}: expected the verdict on each attack, found none. Delete it and rerun aggregate."
            )
        if row["scope"] == "infer" and row["attack_ok"] != "True" and (row["run"], row["attack"]) in planned:
            marks = (mark for column, mark in _MARKS.items() if row[column] == "True")
            found.append(FailedAttack(row["run"], row["attack"], row["attack_verdict"], next(marks, FAILED)))
    return found
