"""Which attack on a run is the strongest of a threat model, and whether it may not be the last word."""

import math
from typing import Any

from cem.planning.plan import Plan
from cem.report.threat import SEPARATOR, ThreatModel, threat_models

Row = dict[str, Any]


def mark_strongest(plan: Plan, rows: list[Row], whole: Plan) -> None:
    """Of each run, scope and threat model, the attack with the least error on images that the attacker held out.

    Adds `strongest_of`, the threat models whose strongest attack it is, and `strongest`, whether there are any. The
    scored images have no say in it: the least of several errors on these would be too low. Only an attack that held out
    none (it cannot ask the encoder, or owns too few images) is taken where they say that it came closer. An attack that
    was still improving counts here: what it rebuilt it rebuilt, and leaving it out would make the run look better
    protected than it is known to be. A weak one does not: see `Gate`. Where all but the yardsticks failed, there is
    none, unless the study asks for yardsticks alone. They need no z, and are within reach of every attacker who owns
    the same images.

    Its error is only an upper limit (`strongest_bound`) where it may do better; where another attack of the threat
    model may that is stronger on the undefended references, or broke down here; where another came closer, be it weak,
    one that fails the gate, or one of an attacker who knows less: what it rebuilt is rebuilt; or where one has no
    result yet: `plan` holds what is there, `whole` all that is planned. See `mark_limited` for what a ladder says.
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
            names = {row["attack"] for row in found}
            candidates = found + [row for row in lent if row["attack"] not in names]
            best = _best(candidates)
            missing = {name for name in planned[run] if models[name] == threat} - {row["attack"] for row in own}
            unsure = [row for row in own if row["attack_bound"] or row["attack_broken"]]
            least = math.inf if best["held_out_mse"] is None else _held_out(best)
            closer = [row for row in own if not row["failure"] and _held_out(row) < least < math.inf]
            # Held-out images are few, and not the same for all: where the scored ones contradict, it is a limit.
            within = [row for row in here if not row["failure"] and threat.includes(models[row["attack"]])]
            closer += [row for row in within + lent if row["images"] == best["images"] and row["mse"] < best["mse"]]
            limit = best["attack_bound"] or bool(missing) or bool(closer)
            limit = limit or any(_stronger(plan, one, best, on_infer) for one in unsure)
            best["strongest"] = True
            best["strongest_bound"] |= limit
            best["strongest_of"] = SEPARATOR.join(filter(None, [best["strongest_of"], threat.label]))


def _best(candidates: list[Row]) -> Row:
    """The least on held-out images; one without such, if its scored images say so. In parts of the mean image's."""
    told = [row for row in candidates if row["held_out_mse"] is not None]
    others = [row for row in candidates if row["held_out_mse"] is None]
    return min([*([min(told, key=_held_out)] if told else []), *others], key=_part)


def _part(row: Row) -> float:
    """Error over that of answering with the mean image, by the scored images."""
    return float(row["mse"]) if row["mse_ratio_to_mean_image"] is None else float(row["mse_ratio_to_mean_image"])


def _stronger(plan: Plan, row: Row, other: Row, on_infer: dict[tuple[str, str], float]) -> bool:
    """Whether an attack is stronger than another on the undefended references; taken to be where that is not known."""
    references = plan.undefended(plan.runs[row["run"]])
    pairs = [[on_infer.get((one.id, found["attack"])) for one in references] for found in (row, other)]
    mine, theirs = ([mse for mse in found if mse is not None] for found in pairs)
    if len(mine) < len(references) or len(theirs) < len(references):
        return True
    return sum(mine) < sum(theirs)


def _held_out(row: Row) -> float:
    """Infinite where none is said: results of an older version, attacks that cannot ask the encoder."""
    return math.inf if row["held_out_mse"] is None else float(row["held_out_mse"])
