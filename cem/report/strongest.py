"""Which attack on a run is the strongest of a threat model, and whether it may not be the last word."""

from typing import Any

from cem.planning.plan import Plan
from cem.report.inputs import read_metrics
from cem.report.threat import SEPARATOR, ThreatModel, threat_models

Row = dict[str, Any]


def mark_strongest(plan: Plan, rows: list[Row], whole: Plan) -> None:
    """Of each run, scope and threat model, the attack with the lowest mse among those that count, on the same images.

    Adds `strongest_of`, the threat models whose strongest attack it is, and `strongest`, whether there are any. An
    attack that was still improving counts here: what it rebuilt it rebuilt, and leaving it out would make the run look
    better protected than it is known to be. Where all but the yardsticks failed, there is none, unless the study asks
    for yardsticks alone. They need no z, and are within reach of every attacker who owns the same images.

    Its error is only an upper limit (`strongest_bound`) where it may do better; and where another attack of the threat
    model may that is stronger on the undefended references, or broke down here; or where one has no result yet: `plan`
    holds what is there, `whole` all that is planned.
    """
    on_infer = {(row["run"], row["attack"]): row["mse"] for row in rows if row["scope"] == "infer"}
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        row["strongest"], row["strongest_bound"], row["strongest_of"] = False, False, ""
        places.setdefault((row["run"], row["scope"]), []).append(row)
    models = {attack.id: ThreatModel.of(attack) for attack in plan.study.attacks}
    yardsticks = {attack.id for attack in plan.study.attacks if attack.yardstick}
    threats = threat_models(whole)
    planned = {name: [attack.id for attack in whole.attacks(run)] for name, run in plan.runs.items()}
    for (run, _), here in places.items():
        for threat in threats:
            own = [row for row in here if models[row["attack"]] == threat]
            lent = [row for row in here if row["attack"] in yardsticks and threat.allows(models[row["attack"]])]
            found = [row for row in own if row["attack_ok"] or row["attack_bound"]]
            if not found:
                continue
            best = _lowest(plan, found + [row for row in lent if row not in found])
            missing = {name for name in planned[run] if models[name] == threat} - {row["attack"] for row in own}
            unsure = [row for row in own if row["attack_bound"] or row["attack_broken"]]
            limit = best["attack_bound"] or bool(missing) or any(_stronger(plan, one, best, on_infer) for one in unsure)
            best["strongest"] = True
            best["strongest_bound"] |= limit
            best["strongest_of"] = SEPARATOR.join(filter(None, [best["strongest_of"], threat.label]))


def _stronger(plan: Plan, row: Row, other: Row, on_infer: dict[tuple[str, str], float]) -> bool:
    """Whether an attack is stronger than another on the undefended references; taken to be where that is not known."""
    references = plan.undefended(plan.runs[row["run"]])
    pairs = [[on_infer.get((one.id, found["attack"])) for one in references] for found in (row, other)]
    mine, theirs = ([mse for mse in found if mse is not None] for found in pairs)
    if len(mine) < len(references) or len(theirs) < len(references):
        return True
    return sum(mine) < sum(theirs)


def _lowest(plan: Plan, found: list[Row]) -> Row:
    """The lowest mse of those scored on all images; one scored on the first of them must beat it on these."""
    found = sorted(found, key=lambda row: (-row["images"], row["mse"]))
    best = found[0]
    for row in found[1:]:
        if row["images"] < best["images"] and row["mse"] < _mse_on_those_of(plan, best, row):
            best = row
    return best


def _mse_on_those_of(plan: Plan, row: Row, other: Row) -> float:
    """The mse of a row's attack on the images that another row's was scored on."""
    mine, theirs = (read_metrics(plan, plan.runs[row["run"]], one["attack"]) for one in (row, other))
    mine, theirs = (found[found["scope"] == row["scope"]].set_index("index")["mse"] for found in (mine, theirs))
    return float(mine.loc[theirs.index].astype(float).mean())
