"""Gathering: one row per run, attack and scope, and which attack on a run is the strongest of its threat model."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cem.config import AttackSettings, Run
from cem.planning.plan import Plan
from cem.report.costs import cost_of
from cem.report.gate import Gate
from cem.report.groups import Group
from cem.report.inputs import (
    EXPECTED,
    LEAKAGE,
    METRICS,
    SCOPES,
    UNSATURATED,
    Leakage,
    metric_columns,
    read_attack,
    read_leakage,
    read_metrics,
    read_test,
    read_training,
)
from cem.report.ladder import mark_limited
from cem.report.methods import METHOD_COLUMNS, methods_of
from cem.report.scores import STORED
from cem.report.strongest import mark_strongest
from cem.report.threat import SEPARATOR, ThreatModel
from cem.storage.files import whole_or_absent

Row = dict[str, Any]
NO_NOISE = (
    "leakage_nats: z is given, and nobody says which noise it has. noise_std adds noise to these z, so that where they "
    "have theirs already, leakage cannot be told"
)
NO_METRICS = ("scope", "index", "label")  # columns of a table of scores

# Of the job that trained the run, as the cluster counted, else itself: all attempts; lost: those without a result.
COST_COLUMNS = ("cost_source", "train_gpu_seconds", "train_cpu_seconds", "train_max_rss_mb", "train_lost_seconds")
_EXPECTED = (*EXPECTED, "entropy_power", "not_applicable")
COLUMNS = (
    "run", "dataset", "arch", "cut_layer", "noise_std", "defense", "surrogate", "formula", "weight", "seed",
    "accuracy", "attack", "knowledge", "scope", "mse", "psnr_db", "ssim", "mse_ratio_to_mean_image", "attack_ok",
    "leakage_nats", "train_seconds", "attack_seconds", "mse_image_sem", "leakage_nats_sem", "images", "converged",
    "strongest", "attempts", "lost_seconds", *COST_COLUMNS, *METRICS[3:], "mse_mean_image", "mse_class_mean",
    "attack_bound", "attack_verdict", "reference", "strongest_bound", "threat_model", "strongest_of",
    "majority_accuracy", "test_images", *LEAKAGE[2:], "leakage_masked", *UNSATURATED, "constant",
    *_EXPECTED,
    "attack_weak", "held_out_mse", "channel_noise_std", *METHOD_COLUMNS,
)  # fmt: skip


def aggregate(plan: Plan, parquet: str | Path, csv: str | Path, runs_csv: str | Path) -> None:
    """Write the study's results: `parquet` and `csv` with a row per run, attack and scope; `runs_csv` with one per run
    and threat model.

    Metrics are means over a scope's images; mse_image_sem is their standard error over these images alone, not over
    seeds. Equal inputs give equal bytes.
    Raises ReportError or StoreError naming the file and the rule that makes it when one is absent or damaged.
    """
    results, runs = gather(plan)
    with whole_or_absent(parquet) as temporary:
        results.to_parquet(temporary, index=False)
    write_tables(results, runs, csv, runs_csv)


def gather(plan: Plan, whole: Plan | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of runs, attacks and scopes, and that of runs and threat models. Raises as `aggregate` does.

    whole: what the study plans, where `plan` is only what is there of it.
    """
    test = {name: read_test(plan, dataset) for name, dataset in plan.datasets.items()}
    rows = [row for run in plan.runs.values() for row in _rows_of_run(plan, run, *test[run.dataset.id])]
    _add_methods(plan, whole or plan, rows)
    _pass_gate(plan, rows)
    mark_strongest(plan, rows, whole or plan)
    # Said, not guessed: a column may be all empty.
    floats = (
        "accuracy",
        "mse_ratio_to_mean_image",
        "held_out_mse",
        "reference_accuracy",
        *LEAKAGE[:4],
        LEAKAGE[6],
        *UNSATURATED[:3],
        *EXPECTED,
        "entropy_power",
        "channel_noise_std",
        *COST_COLUMNS[1:],
        *metric_columns(plan)[3:],
    )
    types = dict.fromkeys(floats, "float64") | dict.fromkeys(("converged", "leakage_lower_saturated"), "boolean")
    columns = dict.fromkeys((*COLUMNS, *metric_columns(plan)))
    results = pd.DataFrame(rows, columns=list(columns)).astype(types)
    mark_limited(plan, rows, results)
    results["strongest_bound"] = [row["strongest_bound"] for row in rows]
    of_run: dict[str, list[Row]] = {name: [] for name in plan.runs}
    for row in rows:
        of_run[row["run"]].append(row)
    runs = [row for name, run in plan.runs.items() for row in _rows_of_runs(plan, run, of_run[name])]
    return results, pd.DataFrame(runs)


def write_tables(results: pd.DataFrame, runs: pd.DataFrame, csv: str | Path, runs_csv: str | Path) -> None:
    """Write the two tables as text."""
    for path, table in ((csv, results), (runs_csv, runs)):
        with whole_or_absent(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")


def _rows_of_run(plan: Plan, run: Run, majority: float, test_images: int, pixels: int) -> list[Row]:
    training = read_training(plan, run)
    cost = cost_of(training)
    about_run: Row = {
        "run": run.id,
        "dataset": run.dataset.name,
        "arch": run.model.label,
        "cut_layer": run.model.cut_layer,
        "noise_std": run.noise_std,
        "defense": "+".join(defense.label for defense in run.defenses),
        "surrogate": run.surrogate.member,
        "formula": run.surrogate.formula,
        "weight": run.surrogate.weight,
        "seed": run.seed,
        "accuracy": training.accuracy_test,
        "majority_accuracy": majority,
        "test_images": test_images,
        "train_seconds": training.seconds,
        "attempts": len(training.attempts),
        "lost_seconds": training.lost_seconds,
        **dict(zip(COST_COLUMNS, (cost.source, cost.gpu_s, cost.cpu_s, cost.max_rss_mb, cost.lost_s), strict=True)),
    }
    about_run["reference"] = plan.is_reference(run)
    read = read_leakage(plan, run)

    def leakage(observations: int) -> Row:
        found = read(observations)
        if not run.noise_known:
            found |= dict.fromkeys((*LEAKAGE, *UNSATURATED, "channel_noise_std")) | {"not_applicable": NO_NOISE}
        found["leakage_masked"] = any(defense.masks for defense in run.defenses)
        nats = found["leakage_nats"]
        return found | {"entropy_power": None if nats is None else entropy_power(float(nats), pixels)}

    return [about_run | scores for attack in plan.attacks(run) for scores in _scores(plan, run, attack, leakage)]


def entropy_power(nats: float, pixels: int) -> float:
    """exp(−2I/d_x): the entropy power of an image given z over that of the image, 1 where z says nothing.

    Of an upper bound on I it is a lower one. An estimate below 0 counts as 0.
    """
    return math.exp(-2 * max(nats, 0.0) / pixels)


def _scores(plan: Plan, run: Run, attack: AttackSettings, leakage: Leakage) -> list[Row]:
    """An attack's rows, one per scope. The leakage is of the channel that it sees: z once, or several times."""
    about, metrics = read_attack(plan, run, attack.id), read_metrics(plan, run, attack.id)
    shared: Row = {
        "attack": attack.id,
        "knowledge": about.knowledge.label,
        "threat_model": ThreatModel.of(attack).label,
        **leakage(attack.observations),
        "attack_seconds": about.fit_seconds + about.score_seconds,
        "converged": about.converged,
        "held_out_mse": about.held_out_mse,
        "failure": about.failure,
        "constant": about.constant,
    }
    scopes = metrics["scope"].to_numpy()
    # Stored in single precision. Arrays: pandas would take three times as long for a study's thousands of tables.
    columns = {str(name): metrics[name].astype(float).to_numpy() for name in metrics if name not in NO_METRICS}
    rows = []
    for scope in SCOPES:
        here = scopes == scope
        means: Row = {STORED.get(name, name): _mean(values[here]) for name, values in columns.items()}
        count = int(here.sum())
        means["mse_image_sem"] = float(columns["mse"][here].std(ddof=1)) / count**0.5 if count > 1 else math.nan
        means["mse_ratio_to_mean_image"] = means["mse"] / means["mse_mean_image"] if means["mse_mean_image"] else None
        rows.append(shared | means | {"scope": scope, "images": count})
    return rows


def _mean(values: Float[np.ndarray, " images"]) -> float:
    """Of what is there (not NaN); NaN where nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan


def _add_methods(plan: Plan, whole: Plan, rows: list[Row]) -> None:
    """Add what each run is an instance of, by all that is planned: it stays the same while results come in."""
    methods = methods_of(whole.asked.values(), whole.references.values())
    accuracy = {row["run"]: row["accuracy"] for row in rows}
    of_seed: dict[tuple[str, int], float | None] = {}
    for name, method in methods.items():  # runs that are added to the plan come last
        run = whole.runs[name]
        if method.plain and run.noise_std == 0:
            of_seed[method.arena, run.seed] = accuracy.get(name)
    for row in rows:
        method = methods[row["run"]]
        told = (method.setting, method.arena, method.id, method.label, method.by, method.strength, method.inside)
        one_network = Group("", (whole.runs[row["run"]],)).one_network
        reference = of_seed.get((method.arena, row["seed"]))
        row |= dict(zip(METHOD_COLUMNS, (*told, one_network, reference), strict=True))


def _pass_gate(plan: Plan, rows: list[Row]) -> None:
    """Add the verdict on each row's attack."""
    gate = Gate(plan, {(row["run"], row["attack"], row["scope"]): row for row in rows})
    attacks = {attack.id: attack for attack in plan.study.attacks}
    for row in rows:
        verdict = gate.judge(plan.runs[row["run"]], attacks[row["attack"]])
        row |= {"attack_ok": verdict.ok, "attack_bound": verdict.bound, "attack_weak": verdict.weak}
        row["attack_verdict"] = verdict.why
        if row["constant"]:
            row["attack_verdict"] = "; ".join(filter(None, [verdict.why, "the encoder sends a constant"]))
        row["attack_broken"] = verdict.broken


def _rows_of_runs(plan: Plan, run: Run, rows: list[Row]) -> list[Row]:
    """A run's rows, one a threat model; one without a threat model where none of its attacks counts."""
    infer = [row for row in rows if row["scope"] == "infer"]
    best = {threat: row for row in infer for threat in row["strongest_of"].split(SEPARATOR) if threat}
    kept = ("accuracy", "majority_accuracy", "train_seconds", "attempts", "lost_seconds", *COST_COLUMNS, "reference")
    settings = _flat(run.model_dump(mode="json"))
    known = {"run": run.id} | settings | {name: infer[0][name] for name in kept}
    return [known | _headline(plan, *one) for one in best.items()] or [known | _headline(plan, "", {})]


def _headline(plan: Plan, threat: str, best: Row) -> Row:
    scores = {"threat_model": threat, "strongest_attack": best.get("attack", "")}
    scores |= {"infer_bound": best.get("strongest_bound")}
    scores |= {
        name: best.get(name) for name in (*LEAKAGE, "leakage_masked", *UNSATURATED, *_EXPECTED, "channel_noise_std")
    }
    return scores | {f"infer_{name}": best.get(name) for name in metric_columns(plan)}


def _flat(settings: dict[str, Any], prefix: str = "") -> Row:
    """Nested settings under dotted names; lists as JSON."""
    flat: Row = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat
