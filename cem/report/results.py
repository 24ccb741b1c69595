"""Gathering: one row per run, attack and scope, and which attack on a run is the strongest."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cem.config import AttackSettings, Run
from cem.planning.plan import Plan
from cem.report.costs import cost_of
from cem.report.gate import judge
from cem.report.inputs import METRICS, SCOPES, metric_columns, read_attack, read_leakage, read_metrics, read_training
from cem.storage.files import whole_or_absent

Row = dict[str, Any]

# Of the job that trained the run, as the cluster counted, else itself: all attempts; lost: those without a result.
COST_COLUMNS = ("cost_source", "train_gpu_seconds", "train_cpu_seconds", "train_max_rss_mb", "train_lost_seconds")
STORED = {"recognised": "victim_accuracy", "identified": "rank1"}  # an attack's column of yes and no → its mean
COLUMNS = (
    "run", "dataset", "arch", "cut_layer", "noise_std", "defense", "surrogate", "formula", "weight", "seed",
    "accuracy", "attack", "knowledge", "scope", "mse", "psnr_db", "ssim", "mse_ratio_to_mean_image", "attack_ok",
    "leakage_nats", "train_seconds", "attack_seconds", "mse_sem", "leakage_nats_sem", "images", "converged",
    "strongest", "attempts", "lost_seconds", *COST_COLUMNS, *METRICS[3:], "mse_mean_image", "mse_class_mean",
    "attack_bound", "attack_verdict", "reference", "strongest_bound", "constant",
)  # fmt: skip


def aggregate(plan: Plan, parquet: str | Path, csv: str | Path, runs_csv: str | Path) -> None:
    """Write the study's results: `parquet` and `csv` with a row per run, attack and scope; `runs_csv` with one a run.

    Metrics are means over a scope's images. Equal inputs give equal bytes.
    Raises ReportError or StoreError naming the file and the rule that makes it when one is absent or damaged.
    """
    rows = [row for run in plan.runs.values() for row in _rows_of_run(plan, run)]
    _pass_gate(plan, rows)
    _mark_strongest(plan, rows)
    # Said, not guessed: a column may be all empty.
    types = {"converged": "boolean", "mse_ratio_to_mean_image": "float64"}
    types |= dict.fromkeys((*COST_COLUMNS[1:], *metric_columns(plan)[3:]), "float64")
    columns = dict.fromkeys((*COLUMNS, *metric_columns(plan)))
    results = pd.DataFrame(rows, columns=list(columns)).astype(types)
    runs = pd.DataFrame([_row_of_runs(plan, run, rows) for run in plan.runs.values()])
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
        "surrogate": run.surrogate.member,
        "formula": run.surrogate.formula,
        "weight": run.surrogate.weight,
        "seed": run.seed,
        "accuracy": training.accuracy_test,
        "leakage_nats": leakage,
        "leakage_nats_sem": leakage_sem,
        "train_seconds": training.seconds,
        "attempts": len(training.attempts),
        "lost_seconds": training.lost_seconds,
        **dict(zip(COST_COLUMNS, (cost.source, cost.gpu_s, cost.cpu_s, cost.max_rss_mb, cost.lost_s), strict=True)),
    }
    about_run["reference"] = plan.is_reference(run)
    return [about_run | scores for attack in plan.attacks(run) for scores in _scores(plan, run, attack)]


def _scores(plan: Plan, run: Run, attack: AttackSettings) -> list[Row]:
    """An attack's rows, one a scope."""
    about, metrics = read_attack(plan, run, attack.id), read_metrics(plan, run, attack.id)
    shared: Row = {
        "attack": attack.id,
        "knowledge": attack.knowledge_label,
        "attack_seconds": about.fit_seconds + about.score_seconds,
        "converged": about.converged,
        "failure": about.failure,
        "constant": about.constant,
    }
    rows = []
    for scope in SCOPES:
        images = metrics[metrics["scope"] == scope].drop(columns="scope").astype(float)  # stored in single precision
        means: Row = {
            STORED.get(name, name): float(images[name].mean())
            for name in map(str, images)
            if name not in ("index", "label")
        }
        means["mse_sem"] = float(images["mse"].std()) / len(images) ** 0.5
        means["mse_ratio_to_mean_image"] = means["mse"] / means["mse_mean_image"] if means["mse_mean_image"] else None
        rows.append(shared | means | {"scope": scope, "images": len(images)})
    return rows


def _pass_gate(plan: Plan, rows: list[Row]) -> None:
    """Add the verdict on each row's attack."""
    table = {(row["run"], row["attack"], row["scope"]): row for row in rows}
    attacks = {attack.id: attack for attack in plan.study.attacks}
    for row in rows:
        verdict = judge(plan, plan.runs[row["run"]], attacks[row["attack"]], table)
        row |= {"attack_ok": verdict.ok, "attack_bound": verdict.bound, "attack_verdict": verdict.why}
        if row["constant"]:
            row["attack_verdict"] = "; ".join(filter(None, [verdict.why, "the encoder sends a constant"]))
        row["attack_broken"] = verdict.broken


def _mark_strongest(plan: Plan, rows: list[Row]) -> None:
    """Of each run and scope, the attack with the lowest mse among those that count, on the same images.

    One that was still improving counts here: what it rebuilt it rebuilt, and leaving it out would make the run look
    better protected than it is known to be. Where all but the yardsticks failed, there is none, unless the study asks
    for yardsticks alone.

    Its error is but an upper limit (`strongest_bound`) where it was still improving; and where an attack that is
    stronger on the undefended reference was, or broke down here, so that this one leads for want of a better.
    """
    yardsticks = {attack.id for attack in plan.study.attacks if attack.yardstick}
    only_yardsticks = len(yardsticks) == len(plan.study.attacks)
    on_infer = {(row["run"], row["attack"]): row["mse"] for row in rows if row["scope"] == "infer"}
    unsure = [row for row in rows if row["attack_bound"] or row["attack_broken"]]
    contenders: dict[tuple[str, str], list[Row]] = {}

    def stronger(row: Row, other: Row) -> bool:
        """On the undefended reference of their run."""
        reference = plan.reference(plan.runs[row["run"]])
        assert reference is not None  # the yardsticks alone need none, and are never still improving
        return bool(on_infer[reference.id, row["attack"]] < on_infer[reference.id, other["attack"]])

    for row in rows:
        row["strongest"] = row["strongest_bound"] = False
        if row["attack_ok"] or row["attack_bound"]:
            contenders.setdefault((row["run"], row["scope"]), []).append(row)
    for place, found in contenders.items():
        if only_yardsticks or any(row["attack"] not in yardsticks for row in found):
            best = _strongest(plan, found)
            unknown = [row for row in unsure if (row["run"], row["scope"]) == place]
            best["strongest"] = True
            best["strongest_bound"] = best["attack_bound"] or any(stronger(row, best) for row in unknown)


def _strongest(plan: Plan, found: list[Row]) -> Row:
    """The least mse of those scored on all images; one scored on the first of them must beat it on these."""
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


def _row_of_runs(plan: Plan, run: Run, rows: list[Row]) -> Row:
    own = [row for row in rows if row["run"] == run.id and row["scope"] == "infer"]
    best: Row = next((row for row in own if row["strongest"]), {})  # none where every attack failed
    kept = ("accuracy", "leakage_nats", "leakage_nats_sem", "train_seconds", "attempts", "lost_seconds", *COST_COLUMNS)
    scores = {"strongest_attack": best.get("attack", ""), "infer_bound": best.get("strongest_bound")}
    scores |= {f"infer_{name}": best.get(name) for name in metric_columns(plan)}
    settings = _flat(run.model_dump(mode="json"))
    return {"run": run.id} | settings | {name: own[0][name] for name in (*kept, "reference")} | scores


def _flat(settings: dict[str, Any], prefix: str = "") -> Row:
    """Nested settings under dotted names; lists as JSON."""
    flat: Row = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat
