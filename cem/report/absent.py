"""Metrics that a study has no number of, and why."""

import pandas as pd

from cem.config import every_metric
from cem.planning.plan import Plan
from cem.report.inputs import RANKS, read_manifest

# Why reconstructions are not judged whose manifest names no evaluator.
NO_EVALUATOR = "scored without an evaluator, by an older version of cem: run the workflow again"


def absent_metrics(plan: Plan, results: pd.DataFrame) -> dict[str, str]:
    """Metrics that no run has, or some runs do not have, and why."""
    chosen = {metric.member for metric in plan.study.metrics}
    lacking = {
        f"Rank 1 of {size:,}": f"in a split of fewer than {size:,} images."
        for name, size in zip(RANKS, (100, 1000), strict=True)
        if results[name].isna().any()
    }
    unlike = results["embedding_similarity"].isna()
    if why := _why_not_judged(plan, results[unlike]):
        lacking["Recognised, embedding similarity"] = why
    if why := _why_not_judged(plan, results[results["recognised"].isna() & ~unlike]):
        lacking["Recognised"] = why
    if (results["mse_class_mean"].isna()).any():
        lacking["MSE of the class's mean"] = (
            "split.by: identity: the attacker has no image of the persons that are scored."
        )
    reasons = {
        metric.member: (metric.member, f"it needs images of {metric.smallest_side} pixels per side.")
        for metric in every_metric(())
    }
    if "lpips" not in chosen:
        reasons["lpips"] = ("LPIPS", "no weights were given (metrics: [{kind: lpips, trunk: …}]).")
    return lacking | {name: reason for column, (name, reason) in reasons.items() if results[column].isna().all()}


def _why_not_judged(plan: Plan, results: pd.DataFrame) -> str:
    """Why the evaluator did not judge these; empty where there are none."""
    pairs = dict.fromkeys(zip(results["run"], results["attack"], strict=True))
    facts = [read_manifest(plan, plan.runs[run], attack).evaluator for run, attack in pairs]
    why = dict.fromkeys(NO_EVALUATOR if one is None else one.unavailable or one.classes_unknown for one in facts)
    return "; ".join(why) + "." if why else ""
