"""The report's tables."""

import pandas as pd

from cem.config import every_metric
from cem.planning.plan import Plan
from cem.report.answer import Answer, attack_names
from cem.report.cells import attack_cell, lower_text, notes_of, seeds_text
from cem.report.compare import Comparison
from cem.report.costs import cost_of, hours
from cem.report.groups import Group
from cem.report.inputs import JUDGED, PIXELS, RANKS, SCOPES, metric_columns, read_attack, read_training
from cem.report.ladder import larger_helps
from cem.report.references import references_of
from cem.report.scores import Scores
from cem.report.statistics import over_seeds, p_text
from cem.report.table import Table
from cem.report.threat import ThreatModel
from cem.storage.job_records import JobRecord

_SECONDS = ("elapsed_s", "cpu_s", "gpu_s", "lost_s")  # of a Cost


def summary_table(plan: Plan, groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> Table:
    """One row per group: accuracy, the strongest attack of a threat model and its scores, leakage, seconds."""
    header = (
        "runs", "strongest attack", "seeds", "accuracy, %", "most frequent class, %", "MSE, Infer", "PSNR, dB", "SSIM",
        "recognised, % (originals)", "embedding similarity", "rank 1 of 100, %", "rank 1 of 1,000, %", "MSE, Train",
        *(f"leakage {side}, nats{_seen(threat)}" for side in "≤≥"),
        "training, s", "attack, s",
    )  # fmt: skip
    partial = {attack.id for attack in plan.study.attacks if _in_part(attack.id, results)}
    rows = []
    for group in groups:
        infer, train = (group.headline(results, threat, scope) for scope in ("infer", "train"))
        about = group.about(results)
        failed = _without(group, results, threat) if infer.empty else ""
        helps = larger_helps(plan, group, results, threat)
        cells = [
            over_seeds(100 * about["accuracy"]).text(4),
            f"{100 * about['majority_accuracy'].iloc[0]:.1f}",
            *(failed or _limit(infer, name) + scores.estimate(infer, name).text() for name in PIXELS),
            failed or _recognised(infer, scores),
            failed or _score(infer, "embedding_similarity", scores),
            *(failed or _score(infer, name, scores, 100.0) for name in RANKS),
            failed or _limit(infer, "mse") + scores.estimate(train, "mse").text(),
            *("–" if failed else text(group, infer) for text in (_upper, _lower)),
            over_seeds(about["train_seconds"]).text(),
            "–" if failed else over_seeds(infer["attack_seconds"]).text(),
        ]
        rows.append((group.label, failed or _strongest(plan, group, infer, partial, helps), seeds_text(group), *cells))
    return Table("summary", header, rows, notes_of(rows), text_columns=2)


def comparisons_table(answer: Answer) -> Table:
    """One row per comparison at equal accuracy, with the factor of the errors and whether something can be said."""
    header = (
        "method",
        "held against",
        "how accuracies are equal",
        "can be said",
        "accuracy, %",
        "error, times",
        "p",
        "seeds",
    )
    rows: list[tuple[str, ...]] = [
        (one.method, one.other, one.how, _can_be_said(one), one.accuracy.percent_text(),
         one.log.factor_text(), p_text(one.p), str(one.log.n))
        for one in answer.comparisons
    ]  # fmt: skip
    note = "error: factor of the strongest attacks' MSE, paired by seed (mean of logarithms), 95 % interval in brackets"
    several = "; each interval by itself. p: after Holm, for all comparisons with plain noise, or for all others"
    return Table("comparisons", header, rows, (note + several + ".",), text_columns=4)


def _can_be_said(one: Comparison) -> str:
    why = "; ".join(dict.fromkeys(reason.partition(" (≤; ")[0] for reason, _ in one.why))
    return f"no: {why}" if why else "yes"


def attacks_table(plan: Plan, groups: list[Group], results: pd.DataFrame, scores: Scores) -> Table:
    """One row per group, one column per attack: its MSE on Infer."""
    attacks = [attack.id for attack in plan.study.attacks]
    header = ("runs", "seeds", *(f"{one} §" if _in_part(one, results) else one for one in attacks))
    rows = []
    for group in groups:
        infer = group.infer(results)
        cells = [attack_cell(infer[infer["attack"] == attack], scores) for attack in attacks]
        rows.append((group.label, seeds_text(group), *cells))
    gates = tuple(one.text for one in references_of(plan, groups))
    return Table("attacks", header, rows, (*gates, *notes_of([header, *rows])))


def further_metrics_table(
    plan: Plan, groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores
) -> Table | None:
    """One row per group: the strongest attack by the metrics that the summary has no column for; None where none is."""
    own = {metric.member: metric for metric in every_metric(plan.study.metrics)}
    shown = (*PIXELS, *JUDGED, *RANKS)
    names = [name for name in metric_columns(plan) if name not in shown and not results[name].isna().all()]
    if not names:
        return None
    header = ("runs", "seeds", *(f"{name}, {own[name].unit}".removesuffix(", ") for name in names))
    rows = []
    for group in groups:
        infer = group.headline(results, threat)
        signs = [_sign(infer, larger_is_closer=own[name].better == "higher") for name in names]
        cells = [sign + scores.estimate(infer, name).text() for sign, name in zip(signs, names, strict=True)]
        rows.append((group.label, seeds_text(group), *(["attack failed"] * len(names) if infer.empty else cells)))
    closer = (f"{name}: a {own[name].better} value says that the reconstruction is closer." for name in names)
    return Table("metrics", header, rows, tuple(closer))


def reasons_table(groups: list[Group], results: pd.DataFrame, bound: bool) -> Table:
    """One row per attack whose number does not count on a group (or, `bound`, is a limit), with the reason."""
    rows: list[tuple[str, ...]] = []
    for group in groups:
        infer = group.infer(results)
        bad = infer[~infer["attack_ok"] & (infer["attack_bound"] == bound)]
        for (attack, why), found in bad.groupby(["attack", "attack_verdict"], sort=False):
            seeds = ", ".join(map(str, sorted(found["seed"])))
            rows.append((group.label, str(attack), str(why), seeds))
    name, title = ("limits", "why it is a limit") if bound else ("failures", "why it does not count")
    return Table(name, ("runs", "attack", title, "seeds"), rows, text_columns=4)


def budget_table(plan: Plan, results: pd.DataFrame) -> Table:
    """One row per attack: what it knows and is given, what it took (mean over runs), how often it converged."""
    rows: list[tuple[str, ...]] = []
    header = (
        "attack", "settings", "threat model", "images", "parameters", "runs", "fitting, s (mean)", "scoring, s (mean)",
        "memory, MB (most)", "converged",
    )  # fmt: skip
    for attack in plan.study.attacks:
        about = [read_attack(plan, run, attack.id) for run in plan.runs.values() if attack in plan.attacks(run)]
        if not about:
            continue  # nothing of it is finished
        known = results.loc[(results["attack"] == attack.id) & (results["scope"] == SCOPES[0]), "converged"].dropna()
        files = {f"started from weights {one.sha256[:8]}" for found in about for one in found.started_from}
        cells = (
            "; ".join([ThreatModel.of(attack).label, *sorted(files)]),
            str(about[0].knowledge.images),
            _distinct([found.parameters for found in about]),
            str(len(about)),
            f"{sum(found.fit_seconds for found in about) / len(about):.1f}",
            f"{sum(found.score_seconds for found in about) / len(about):.1f}",
            f"{max(found.peak_memory_mb for found in about):.0f}",
            f"{int(known.sum())} of {len(about)} runs" if attack.trained else "needs no training",
        )
        known_by_threat = ("name", "data", "data_size", "encoder", "observations", "labels")
        settings = {key: value for key, value in attack.sparse().items() if key not in known_by_threat}
        settings = {key: value for key, value in settings.items() if value != attack.id}
        rows.append((attack.id, ", ".join(f"{key} {value}" for key, value in settings.items()), *cells))
    return Table("budgets", header, rows, text_columns=3)


def costs_table(groups: list[Group], results: pd.DataFrame) -> Table:
    """One row per group: what the jobs that trained it used, all attempts; means over seeds with intervals."""
    header = (
        "runs", "counted by", "seeds", "epochs, s", "GPU, s", "CPU, s", "memory, MB", "broken off, s", "attempts",
        "lost, s",
    )  # fmt: skip
    names = ("train_seconds", "train_gpu_seconds", "train_cpu_seconds", "train_max_rss_mb", "train_lost_seconds")
    rows = []
    for group in groups:
        known = group.rows(results).drop_duplicates("run")
        cells = [
            "unavailable" if known[name].isna().any() else over_seeds(known[name].astype(float)).text()
            for name in (*names, "attempts", "lost_seconds")
        ]
        rows.append((group.label, ", ".join(sorted(set(known["cost_source"]))), seeds_text(group), *cells))
    notes = (
        "All attempts of the training's job together, counted by a cluster's accounting or by the job itself. "
        "epochs: wall time of the run's epochs alone, without the job's start and the warm-up it shares; CPU and GPU: "
        "of the whole job.",
        "Broken off: time of attempts that ended without a result; lost: the part of their work that no later attempt "
        "could go on from, by the job's own record.",
    )
    return Table("costs", header, rows, notes, text_columns=2)


def totals_table(plan: Plan) -> Table:
    """One row for all trainings, one for each attack, one for all together: what their jobs used, all attempts."""
    jobs: dict[str, list[JobRecord]] = {"trainings": [], **{f"attack {one.id}": [] for one in plan.study.attacks}}
    for run in plan.runs.values():
        jobs["trainings"].append(read_training(plan, run))
        for attack in plan.attacks(run):
            jobs[f"attack {attack.id}"].append(read_attack(plan, run, attack.id))
    jobs["together"] = [record for records in jobs.values() for record in records]
    header = ("jobs", "counted", "wall, h", "CPU, h", "GPU, h", "memory, MB", "broken off, h")
    rows: list[tuple[str, ...]] = []
    for name, records in jobs.items():
        costs = [cost_of(record) for record in records if record.attempts or record.costs]
        wall, cpu, gpu, lost = (hours(getattr(cost, part) for cost in costs) for part in _SECONDS)
        most = max((cost.max_rss_mb for cost in costs if cost.max_rss_mb is not None), default=None)
        memory = "unavailable" if most is None else f"{most:.0f}"
        rows.append((name, f"{len(costs)} of {len(records)}", wall, cpu, gpu, memory, lost))
    notes = (
        "Of the jobs that are counted, all attempts together. ≥: of some of them it is not known. Data, evaluator, "
        "warm-ups, activations and leakage are not in it. Attacks that need no training share a job: each counts its "
        "own part of it, without the job's start. Those of an older version of cem are not counted.",
    )
    return Table("totals", header, rows, notes)


def _seen(threat: ThreatModel) -> str:
    return "" if threat.observations == 1 else f" at σ/√{threat.observations}"


def _upper(_: Group, infer: pd.DataFrame) -> str:
    """Of the channel that this threat model's attacks see."""
    return "not measured" if infer["leakage_nats"].isna().any() else over_seeds(infer["leakage_nats"]).text()


def _lower(group: Group, infer: pd.DataFrame) -> str:
    """It is of ẑ + ε, of which a mask sends less."""
    return "not measured behind the mask" if group.masked else lower_text(infer)


def _strongest(plan: Plan, group: Group, infer: pd.DataFrame, partial: set[str], helps: bool) -> str:
    """partial: attacks that are scored on the first images only. helps: whether a larger attacker would come closer."""
    yardsticks = {attack.id for attack in plan.study.attacks if attack.yardstick}
    trivial = all(attack in yardsticks for attack in infer["attack"])
    failed = len(group.runs) - len(infer)
    marks = {"†": infer["strongest_bound"].any(), "‡": trivial}
    marks["§"] = any(attack in partial for attack in infer["attack"])
    marks["¶"] = helps
    words = attack_names(infer["attack"]) + "".join(f" {mark}" for mark, holds in marks.items() if holds)
    words += " (sends a constant)" if infer["constant"].any() else ""
    return words + (f" (attack failed in {failed})" if failed else "")


def _without(group: Group, results: pd.DataFrame, threat: ThreatModel) -> str:
    """What stands where no attack of a threat model on a group counts."""
    rows = group.rows(results)
    return "weak attacks only" if rows["attack_weak"][rows["threat_model"] == threat.label].any() else "attack failed"


def _in_part(attack: str, results: pd.DataFrame) -> bool:
    """Whether others on the same run were scored on more images."""
    infer = results[results["scope"] == "infer"]
    most = infer.groupby("run")["images"].transform("max")
    return bool((infer["images"] < most)[infer["attack"] == attack].any())


def _limit(infer: pd.DataFrame, metric: str) -> str:
    """What a headline that may not be the last word is: an upper limit of an error, a lower one of likeness."""
    return _sign(infer, larger_is_closer=metric != "mse")


def _sign(infer: pd.DataFrame, larger_is_closer: bool) -> str:
    if not infer["strongest_bound"].any():
        return ""
    return "≥ " if larger_is_closer else "≤ "


def _score(infer: pd.DataFrame, metric: str, scores: Scores, scale: float = 1.0) -> str:
    """A score that some attacks do not have; where one of these leads in a seed, there is none of the row."""
    if infer[metric].isna().any():
        return "not available"
    return _limit(infer, metric) + scores.estimate(infer, metric, scale).text()


def _recognised(infer: pd.DataFrame, scores: Scores) -> str:
    """How many reconstructions the evaluator recognises, in percent; in brackets, how many of the images themselves."""
    found = _score(infer, "recognised", scores, 100.0)
    if infer["recognised_original"].isna().any():
        return found
    return f"{found} ({100 * infer['recognised_original'].mean():.1f})"


def _distinct(counts: list[int]) -> str:
    return ", ".join(dict.fromkeys(f"{count:,}" for count in counts))
