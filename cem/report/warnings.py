"""What the top of the page warns of: numbers that say less than they seem to."""

from cem.planning.plan import Plan
from cem.report.clipping import clipping_warnings
from cem.report.groups import Group
from cem.report.inputs import read_manifest, read_training
from cem.report.references import references_of


def warnings_of(plan: Plan, groups: list[Group]) -> list[str]:
    """Each in a sentence or more, with what to do where something can be done."""
    warnings = []
    unjudged = [name for name, run in plan.asked.items() if not run.trained and not plan.undefended(run)]
    if unjudged and not all(attack.yardstick for attack in plan.study.attacks):
        warnings.append(
            f"No gate, and no certificate: {', '.join(unjudged)} "
            f"{'is' if len(unjudged) == 1 else 'are'} given without undefended weights on which attacks could show "
            "their strength, so that a weak attack cannot be told from a strong defence. Errors are upper limits: "
            "other attacks may come closer. They say nothing of how well images are protected. Name undefended weights "
            "(model.reference), or let the pipeline train them (training.reference)."
        )
    warnings += dict.fromkeys(one.warning for one in references_of(plan, groups) if one.warning)
    if given := [name for name, run in plan.asked.items() if not run.model.has_network]:
        quiet = [name for name in given if not plan.runs[name].noise_known]
        warnings.append(
            f"Activations without a network: {', '.join(given)}. There is no accuracy, and no attack that holds the "
            "encoder's weights, which might come closer."
            + (
                f" No leakage is told of {', '.join(quiet)}, as nobody says which noise z has. noise_std adds noise to "
                "these z: where they have theirs already, leakage cannot be told."
                if quiet
                else ""
            )
        )
    synthetic = [name for name, dataset in plan.datasets.items() if not dataset.real]
    if synthetic:
        warnings.append(
            f"Synthetic data: {', '.join(synthetic)} is drawn by a generator, not photographed. These numbers test the "
            "pipeline; they say nothing about real images."
        )
    asked = [group for group in groups if not group.reference]
    single = [group for group in asked if len(group.runs) == 1]
    if single:
        warnings.append(
            f"{len(single)} of {len(asked)} rows rest on one training seed: no interval is known, and a difference "
            "from them may be chance."
        )
    if same := [group.label for group in asked if group.one_network and len(group.runs) > 1]:
        warnings.append(
            f"One network: all seeds of {', '.join(same)} have the weights, or the z, that were given: they repeat the "
            "attack, not the training. Their intervals (±) are over these repetitions, of noise and attacks: the same "
            "network trained again may differ by more. No verdict rests on them."
        )
    owned = {
        attack.id: max(read_manifest(plan, run, attack.id).scored["infer"].also_owned_by_attacker for run in runs)
        for attack in plan.study.attacks
        if (runs := [run for run in plan.runs.values() if attack in plan.attacks(run)])
    }
    if any(owned.values()):
        named = ", ".join(f"{attack}: {count}" for attack, count in owned.items() if count)
        warnings.append(
            f"Test images that the attacker owns, byte for byte ({named}): the data set has the same images in two "
            "splits, and such an attacker knows their answer. Keep them in one split."
        )
    warnings += clipping_warnings(plan, plan.runs.values())
    numerics = {read_training(plan, run).numerics for run in plan.runs.values()}
    if len(numerics) > 1:
        warnings.append(
            f"Runs made by versions of the code whose numbers differ ({sorted(numerics)}): rerun the older."
        )
    return warnings
