"""What results.csv says of attacks whose numbers do not count, for the command line: read without pandas."""

import csv
from dataclasses import dataclass

from cem import CemError
from cem.planning.plan import Plan


class VerdictError(CemError):
    """Results that are damaged or older than this program."""


@dataclass(frozen=True)
class FailedAttack:
    """An attack on a run whose number does not count. bound: it works, but was still improving."""

    run: str
    attack: str
    why: str
    bound: bool


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
        if not {"attack_ok", "attack_bound", "attack_verdict"} <= {
            key for key, value in row.items() if value is not None
        }:
            raise VerdictError(
                f"{path}: expected the verdict on each attack, found none. Delete it and rerun aggregate."
            )
        if row["scope"] == "infer" and row["attack_ok"] != "True" and (row["run"], row["attack"]) in planned:
            found.append(FailedAttack(row["run"], row["attack"], row["attack_verdict"], row["attack_bound"] == "True"))
    return found
