"""What results.csv says of attacks whose numbers do not count, for the command line: read without pandas."""

from dataclasses import dataclass

from cem import CemError
from cem.planning.plan import Plan
from cem.report.rows import AGAIN, read_csv

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

    Raises VerdictError when it has no verdicts, StoreError when it is no table.
    """
    path = plan.folder / "results.csv"
    if not path.is_file():
        return []
    planned = {(name, attack.id) for name, run in plan.runs.items() for attack in plan.attacks(run)}
    found = []
    for row in read_csv(path):
        if not {"run", "attack", "scope", "attack_ok", *_MARKS, "attack_verdict"} <= row.keys():
            raise VerdictError(f"{path}: expected the verdict on each attack, found none. {AGAIN}")
        if row["scope"] == "infer" and row["attack_ok"] != "True" and (row["run"], row["attack"]) in planned:
            marks = (mark for column, mark in _MARKS.items() if row[column] == "True")
            found.append(FailedAttack(row["run"], row["attack"], row["attack_verdict"], next(marks, FAILED)))
    return found
