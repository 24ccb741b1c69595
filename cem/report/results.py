"""Gathering: one row per run, attack and scope, and which attack on a run is the strongest."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cem.config import Attack, Run, Study
from cem.plan import Plan
from cem.report.costs import cost_of
from cem.report.inputs import METRICS, SCOPES, read_attack, read_leakage, read_metrics, read_training
from cem.store import whole_or_absent

Row = dict[str, Any]

# Of the job that trained the run, as the cluster counted, else itself: all attempts; lost: those without a result.
COST_COLUMNS = ("cost_source", "train_gpu_seconds", "train_cpu_seconds", "train_max_rss_mb", "train_lost_seconds")
COLUMNS = (
    "run", "dataset", "arch", "cut_layer", "noise_std", "defense", "surrogate", "formula", "weight", "seed",
    "accuracy", "attack", "knowledge", "scope", "mse", "psnr_db", "ssim", "mse_ratio_to_mean_image", "attack_ok",
    "leakage_nats", "train_seconds", "attack_seconds", "mse_sem", "leakage_nats_sem", "images", "converged",
    "strongest", "attempts", "lost_seconds", *COST_COLUMNS,
)  # fmt: skip


def aggregate(plan: Plan, parquet: str | Path, csv: str | Path, runs_csv: str | Path) -> None:
    """Write the study's results: `parquet` and `csv` with a row per run, attack and scope; `runs_csv` with one a run.

    Metrics are means over a scope's images. Equal inputs give equal bytes.
    Raises ReportError or StoreError naming the file and the rule that makes it when one is absent or damaged.
    """
    rows = [row for run in plan.runs.values() for row in _rows_of_run(plan, run)]
    _compare_to_mean_image(plan, rows)
    _mark_strongest(rows)
    # Said, not guessed: a column may be all empty.
    types = {"attack_ok": "boolean", "converged": "boolean", "mse_ratio_to_mean_image": "float64"}
    types |= dict.fromkeys(COST_COLUMNS[1:], "float64")
    results = pd.DataFrame(rows, columns=list(COLUMNS)).astype(types)
    runs = pd.DataFrame([_row_of_runs(run, rows) for run in plan.runs.values()])
    with whole_or_absent(parquet) as temporary:
        results.to_parquet(temporary, index=False)
    for path, table in ((csv, results), (runs_csv, runs)):
        with whole_or_absent(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")


def _rows_of_run(plan: Plan, run: Run) -> list[Row]:
    training = read_training(plan, run)
    cost = cost_of(training)
    leakage, leakage_sem = read_leakage(plan, run)
    about_run: Row = {
        "run": run.id,
        "dataset": run.dataset.name,
        "arch": run.model.arch,
        "cut_layer": run.model.cut_layer,
        "noise_std": run.noise_std,
        "defense": "+".join(defense.label for defense in run.defenses),
        "surrogate": run.surrogate.kind,
        "formula": run.surrogate.formula,
        "weight": run.surrogate.weight,
        "seed": run.seed,
        "accuracy": training["accuracy_test"],
        "leakage_nats": leakage,
        "leakage_nats_sem": leakage_sem,
        "train_seconds": training["seconds"],
        "attempts": len(training["attempts"]),
        "lost_seconds": training["lost_seconds"],
        **dict(zip(COST_COLUMNS, (cost.source, cost.gpu_s, cost.cpu_s, cost.max_rss_mb, cost.lost_s), strict=True)),
    }
    return [about_run | scores for attack in plan.study.attacks for scores in _scores(plan, run, attack)]


def _scores(plan: Plan, run: Run, attack: Attack) -> list[Row]:
    """An attack's rows, one a scope."""
    about, metrics = read_attack(plan, run, attack.id), read_metrics(plan, run, attack.id)
    shared: Row = {
        "attack": attack.id,
        "knowledge": attack.data,
        "attack_seconds": about["fit_seconds"] + about["score_seconds"],
        "converged": about["converged"],
    }
    rows = []
    for scope in SCOPES:
        images = metrics.loc[metrics["scope"] == scope, list(METRICS)].astype(float)  # stored in single precision
        means = {metric: float(images[metric].mean()) for metric in METRICS}
        means["mse_sem"] = float(images["mse"].std()) / len(images) ** 0.5
        rows.append(shared | means | {"scope": scope, "images": len(images)})
    return rows


def _compare_to_mean_image(plan: Plan, rows: list[Row]) -> None:
    """Add each row's mse relative to the mean image's, and whether its attack works at all.

    A first gate: an attack that cannot beat the mean image where nothing hinders it (the run of the same base without a
    surrogate) says nothing about a defence, so `attack_ok` is False on every run of that base.
    """
    mse = {(row["run"], row["attack"], row["scope"]): row["mse"] for row in rows}
    attacks = {attack.id: attack for attack in plan.study.attacks}
    unhindered = {run.base: run.id for run in plan.runs.values() if run.surrogate.kind == "none"}
    for row in rows:
        attack = attacks[row["attack"]]
        reference = _mean_image(plan.study, attack)
        there = unhindered.get(plan.runs[row["run"]].base)
        row["mse_ratio_to_mean_image"] = row["attack_ok"] = None
        if reference is not None and mse[row["run"], reference, row["scope"]] > 0:
            row["mse_ratio_to_mean_image"] = row["mse"] / mse[row["run"], reference, row["scope"]]
        if attack.kind == "mean_image":
            row["attack_ok"] = True
        elif reference is not None and there is not None:
            row["attack_ok"] = mse[there, attack.id, "infer"] < mse[there, reference, "infer"]


def _mean_image(study: Study, attack: Attack) -> str | None:
    """Id of the mean_image attack with the same images as `attack`, else of the first; None when there is none."""
    means = [other for other in study.attacks if other.kind == "mean_image"]
    same = [other for other in means if other.data == attack.data]
    return next((other.id for other in [*same, *means]), None)


def _mark_strongest(rows: list[Row]) -> None:
    """Of each run and scope, the attack with the lowest mse among those that work or are not known to fail."""
    lowest: dict[tuple[str, str], Row] = {}
    for row in rows:
        row["strongest"] = False
        best = lowest.get((row["run"], row["scope"]))
        if row["attack_ok"] is not False and (best is None or row["mse"] < best["mse"]):
            lowest[row["run"], row["scope"]] = row
    for row in lowest.values():
        row["strongest"] = True


def _row_of_runs(run: Run, rows: list[Row]) -> Row:
    best = next(row for row in rows if row["run"] == run.id and row["scope"] == "infer" and row["strongest"])
    kept = ("accuracy", "leakage_nats", "leakage_nats_sem", "train_seconds", "attempts", "lost_seconds", *COST_COLUMNS)
    scores = {"strongest_attack": best["attack"]} | {f"infer_{metric}": best[metric] for metric in METRICS}
    settings = _flat(run.model_dump(mode="json"))
    return {"run": run.id} | settings | {name: best[name] for name in kept} | scores


def _flat(settings: dict[str, Any], prefix: str = "") -> Row:
    """Nested settings under dotted names; lists as JSON."""
    flat: Row = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat
