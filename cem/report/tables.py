"""The report's tables, as rows of text: one source for the page and for LaTeX."""

import math
from dataclasses import dataclass

import pandas as pd

from cem.config import every_metric
from cem.planning.plan import Plan
from cem.report.answer import attack_names
from cem.report.groups import Group, Spread
from cem.report.inputs import SCOPES, metric_columns, read_attack

UNCONVERGED = (
    "† was still improving at the end of its budget in at least one run: a lower bound on the attack, so the MSE is an "
    "upper limit (≤) of what it would reach. So is the strongest's where an attack that is stronger on the undefended "
    "reference was still improving, or broke down."
)
FAILED = (
    "attack failed: it does not invert the undefended reference, or its fit broke down; its numbers say nothing about "
    "a defence, and count nowhere."
)
PART = (
    "§ was scored on the first images only: its numbers are theirs, not to be compared with those of all images. It is "
    "called the strongest where it is better than the others on the same images."
)
NOTHING = "‡ no attack beats answering with the mean image, or the class's mean, which need no z."
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "σ": r"$\sigma$", "λ": r"$\lambda$",
    "∞": r"$\infty$", "−": r"$-$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}", "–": "--",
    "≤": r"$\le$", "≥": r"$\ge$", "×": r"$\times$", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Text cells under a header; the first `text_columns` are words, the rest numbers."""

    name: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    text_columns: int = 1

    def latex(self) -> str:
        """A `tabular` that needs no package."""
        form = "l" * self.text_columns + "r" * (len(self.header) - self.text_columns)
        lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in [self.header, *self.rows]]
        notes = [f"% {note}" for note in self.notes]
        body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
        return "\n".join([*notes, rf"\begin{{tabular}}{{{form}}}", *body, r"\end{tabular}", ""])


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(character, character) for character in text)


def summary_table(plan: Plan, groups: list[Group], results: pd.DataFrame) -> Table:
    """One row a group: accuracy, the strongest attack and its scores, leakage, seconds; mean ± sd over seeds."""
    header = (
        "runs", "strongest attack", "seeds", "accuracy, %", "MSE, Infer", "PSNR, dB", "SSIM", "recognised, %",
        "rank 1, %", "MSE, Train", "leakage ≤, nats", "training, s", "attack, s",
    )  # fmt: skip
    rows = []
    for group in groups:
        infer, train, about = group.headline(results), group.headline(results, "train"), group.about(results)
        failed = "attack failed" if infer.empty else ""
        cells = [
            Spread.of(100 * about["accuracy"]).text(4),
            *(failed or _limit(infer, name) + Spread.of(infer[name]).text() for name in ("mse", "psnr_db", "ssim")),
            *(failed or Spread.of(100 * infer[name]).text() for name in ("victim_accuracy", "rank1")),
            failed or _limit(infer, "mse") + Spread.of(train["mse"]).text(),
            *(Spread.of(about[name]).text() for name in ("leakage_nats", "train_seconds")),
            "–" if failed else Spread.of(infer["attack_seconds"]).text(),
        ]
        rows.append((group.label, failed or _strongest(plan, group, results), str(len(group.runs)), *cells))
    return Table("summary", header, rows, _notes(rows), text_columns=2)


def attacks_table(plan: Plan, groups: list[Group], results: pd.DataFrame) -> Table:
    """One row a group, one column an attack: its MSE on Infer, mean ± sd over seeds."""
    attacks = [attack.id for attack in plan.study.attacks]
    header = ("runs", "seeds", *(f"{one} §" if _in_part(one, results) else one for one in attacks))
    rows = []
    for group in groups:
        infer = group.rows(results).query("scope == 'infer'")
        cells = [_attack_cell(infer[infer["attack"] == attack]) for attack in attacks]
        rows.append((group.label, str(len(group.runs)), *cells))
    return Table("attacks", header, rows, _notes([header, *rows]))


def further_metrics_table(plan: Plan, groups: list[Group], results: pd.DataFrame) -> Table | None:
    """One row per group: the strongest attack by the metrics that the summary has no column for; None where none is."""
    own = {metric.member: metric for metric in every_metric(plan.study.metrics)}
    names = [name for name in metric_columns(plan)[5:] if not results[name].isna().all()]
    if not names:
        return None
    header = ("runs", *(f"{name}, {own[name].unit}".removesuffix(", ") for name in names))
    rows = []
    for group in groups:
        infer = group.headline(results)
        cells = [Spread.of(infer[name]).text() for name in names]
        rows.append((group.label, *(["attack failed"] * len(names) if infer.empty else cells)))
    closer = (f"{name}: a {own[name].better} value says that the reconstruction is closer." for name in names)
    return Table("metrics", header, rows, tuple(closer))


def verdicts_table(groups: list[Group], results: pd.DataFrame) -> Table:
    """One row an attack that does not count on a group, with the reason; no rows where all count."""
    rows: list[tuple[str, ...]] = []
    for group in groups:
        bad = group.rows(results).query("scope == 'infer' and not attack_ok")
        for (attack, why), found in bad.groupby(["attack", "attack_verdict"], sort=False):
            seeds = ", ".join(map(str, sorted(found["seed"])))
            rows.append((group.label, str(attack), str(why), seeds))
    return Table("verdicts", ("runs", "attack", "why its number does not count", "seeds"), rows, text_columns=4)


def budget_table(plan: Plan, results: pd.DataFrame) -> Table:
    """One row an attack: what it knows and is given, what it took (mean over runs), how often it converged."""
    rows: list[tuple[str, ...]] = []
    header = ("attack", "settings", "images", "parameters", "fitting, s", "scoring, s", "memory, MB", "converged")
    for attack in plan.study.attacks:
        about = [read_attack(plan, run, attack.id) for run in plan.runs.values() if attack in plan.attacks(run)]
        known = results.loc[(results["attack"] == attack.id) & (results["scope"] == SCOPES[0]), "converged"].dropna()
        cells = (
            f"{about[0].knowledge.images} {about[0].knowledge.data}",
            _distinct([found.parameters for found in about]),
            f"{sum(found.fit_seconds for found in about) / len(about):.1f}",
            f"{sum(found.score_seconds for found in about) / len(about):.1f}",
            f"{max(found.peak_memory_mb for found in about):.0f}",
            f"{int(known.sum())} of {len(about)} runs" if attack.trained else "needs no training",
        )
        settings = {key: value for key, value in attack.sparse().items() if key not in ("name", "data")}
        settings = {key: value for key, value in settings.items() if value != attack.id}
        rows.append((attack.id, ", ".join(f"{key} {value}" for key, value in settings.items()), *cells))
    return Table("budgets", header, rows, text_columns=2)


def ladder_table(plan: Plan, results: pd.DataFrame) -> Table | None:
    """One row a decoder, smallest first, on each reference: whether more attacker would still help.

    Only decoders that differ in nothing but their network and their name are on a ladder; None without one.
    """
    steps: dict[str, list[str]] = {}
    for attack in plan.study.attacks:
        if attack.on_ladder:
            alike = attack.model_copy(update={"net": "", "name": None, "runs": "all"})
            steps.setdefault(repr(alike), []).append(attack.id)
    ladder = max(steps.values(), key=len, default=[])
    references = [run for run in plan.runs.values() if plan.is_reference(run)]
    if len(ladder) < 2 or not references:
        return None
    rows: list[tuple[str, ...]] = []
    for run in references:
        infer = results.query("scope == 'infer'")
        sizes = sorted((read_attack(plan, run, name).parameters, name) for name in ladder)
        before = math.nan
        for parameters, name in sizes:
            rung = infer[(infer["run"] == run.id) & (infer["attack"] == name)]
            cell = _attack_cell(rung)
            error = math.nan if cell == "attack failed" else float(rung["mse"].iloc[0])
            ratio = error / before  # NaN on the first rung, and beside one that failed
            change = "" if math.isnan(ratio) else f"{100 * (ratio - 1):+.1f}".replace("-", "−")
            rows.append((run.id, name, f"{parameters:,}", cell, change))
            before = error
    header = ("undefended reference", "decoder", "parameters", "MSE, Infer", "change, %")
    note = "change: of the error against the next smaller decoder. A last step far below zero says that a larger "
    notes = (note + "attacker would rebuild more still.", *_notes(rows))
    return Table("ladder", header, rows, notes, text_columns=2)


def costs_table(groups: list[Group], results: pd.DataFrame) -> Table:
    """One row a group: what the jobs that trained it used, all attempts; mean ± sd over seeds."""
    header = ("runs", "counted by", "GPU, s", "CPU, s", "memory, MB", "broken off, s", "attempts", "lost, s")
    names = ("train_gpu_seconds", "train_cpu_seconds", "train_max_rss_mb", "train_lost_seconds")
    rows = []
    for group in groups:
        known = group.rows(results).drop_duplicates("run")
        cells = [
            "unavailable" if known[name].isna().any() else Spread.of(known[name].astype(float)).text()
            for name in (*names, "attempts", "lost_seconds")
        ]
        rows.append((group.label, ", ".join(sorted(set(known["cost_source"]))), *cells))
    notes = (
        "All attempts of the training's job together, counted by a cluster's accounting or by the job itself.",
        "Broken off: time of attempts that ended without a result; lost: the part of their work that no later attempt "
        "could go on from, by the job's own record.",
    )
    return Table("costs", header, rows, notes, text_columns=2)


def _strongest(plan: Plan, group: Group, results: pd.DataFrame) -> str:
    infer = group.headline(results)
    yardsticks = {attack.id for attack in plan.study.attacks if attack.yardstick}
    trivial = all(attack in yardsticks for attack in infer["attack"])
    failed = len(group.runs) - len(infer)
    marks = {"†": infer["strongest_bound"].any(), "‡": trivial}
    marks["§"] = any(_in_part(attack, results) for attack in infer["attack"])
    words = attack_names(infer["attack"]) + "".join(f" {mark}" for mark, holds in marks.items() if holds)
    words += " (sends a constant)" if infer["constant"].any() else ""
    return words + (f" (attack failed in {failed})" if failed else "")


def _in_part(attack: str, results: pd.DataFrame) -> bool:
    """Whether others on the same run were scored on more images."""
    infer = results.query("scope == 'infer'")
    most = infer.groupby("run")["images"].transform("max")
    return bool((infer["images"] < most)[infer["attack"] == attack].any())


def _limit(infer: pd.DataFrame, metric: str) -> str:
    """What a headline that may not be the last word is: an upper limit of an error, a lower one of likeness."""
    if not infer["strongest_bound"].any():
        return ""
    return "≤ " if metric == "mse" else "≥ "


def _attack_cell(rows: pd.DataFrame) -> str:
    """An attack on a group; seeds where it failed are left out, and said to be."""
    if rows.empty:
        return "–"
    works = rows[rows["attack_ok"] | rows["attack_bound"]]
    if works.empty:
        return "attack failed"
    mark = ("≤ ", " †") if works["attack_bound"].any() else ("", "")
    failed = f" (attack failed in {len(rows) - len(works)})" if len(works) < len(rows) else ""
    return Spread.of(works["mse"]).text().join(mark) + failed


def _notes(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    text = "\n".join(cell for row in rows for cell in row[1:])
    notes = {"†": UNCONVERGED, "failed": FAILED, "‡": NOTHING, "§": PART}
    return tuple(note for mark, note in notes.items() if mark in text)


def _distinct(counts: list[int]) -> str:
    return ", ".join(dict.fromkeys(f"{count:,}" for count in counts))
