"""The report's tables, as rows of text: one source for the page and for LaTeX."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cem.plan import Plan
from cem.report.answer import attack_names
from cem.report.groups import Group, Spread
from cem.report.inputs import SCOPES, read_attack

UNCONVERGED = (
    "† had not converged within its budget in at least one run: a lower bound on what the attack can do, which given "
    "more epochs may rebuild more."
)
FAILED = (
    "attack failed: without a surrogate, where nothing hinders it, this attack does no better than the mean image; its "
    "numbers say nothing about a defence and count nowhere."
)
NOTHING = "‡ no other attack works on these runs: what is shown is the mean image, which needs no z."
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "σ": r"$\sigma$", "λ": r"$\lambda$",
    "∞": r"$\infty$", "−": r"$-$", "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--",
    "≤": r"$\le$", "×": r"$\times$", "\N{NO-BREAK SPACE}": "~",
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


def summary_table(groups: list[Group], results: pd.DataFrame) -> Table:
    """One row a group: accuracy, the strongest attack and its scores, leakage, seconds; mean ± sd over seeds."""
    header = (
        "runs", "strongest attack", "seeds", "accuracy, %", "MSE, Infer", "PSNR, dB", "SSIM", "MSE, Train",
        "leakage ≤, nats", "training, s", "attack, s",
    )  # fmt: skip
    rows = []
    for group in groups:
        infer, train = group.headline(results), group.headline(results, "train")
        cells = [
            Spread.of(100 * infer["accuracy"]).text(4),
            *(Spread.of(infer[name]).text() for name in ("mse", "psnr_db", "ssim")),
            Spread.of(train["mse"]).text(),
            *(Spread.of(infer[name]).text() for name in ("leakage_nats", "train_seconds", "attack_seconds")),
        ]
        rows.append((group.label, _strongest(group, results), str(len(infer)), *cells))
    return Table("summary", header, rows, _notes(rows), text_columns=2)


def attacks_table(plan: Plan, groups: list[Group], results: pd.DataFrame) -> Table:
    """One row a group, one column an attack: its MSE on Infer, mean ± sd over seeds."""
    attacks = [attack.id for attack in plan.study.attacks]
    rows = []
    for group in groups:
        infer = group.rows(results).query("scope == 'infer'")
        cells = [_attack_cell(infer[infer["attack"] == attack]) for attack in attacks]
        rows.append((group.label, str(len(group.runs)), *cells))
    return Table("attacks", ("runs", "seeds", *attacks), rows, _notes(rows))


def budget_table(plan: Plan, results: pd.DataFrame) -> Table:
    """One row an attack: what it knows and is given, what it took (mean over runs), how often it converged."""
    rows: list[tuple[str, ...]] = []
    header = ("attack", "settings", "images", "parameters", "fitting, s", "scoring, s", "memory, MB", "converged")
    for attack in plan.study.attacks:
        about = [read_attack(plan, run, attack.id) for run in plan.runs.values()]
        known = results.loc[(results["attack"] == attack.id) & (results["scope"] == SCOPES[0]), "converged"].dropna()
        memory = [found["peak_memory_mb"] for found in about if found.get("peak_memory_mb") is not None]
        cells = (
            _images(about[0]["knowledge"]),
            _distinct([found["parameters"] for found in about]),
            *(f"{sum(found[name] for found in about) / len(about):.1f}" for name in ("fit_seconds", "score_seconds")),
            f"{max(memory):.0f}" if memory else "–",
            f"{int(known.sum())} of {len(known)} runs" if len(known) else "needs no training",
        )
        settings = {key: value for key, value in attack.model_dump(mode="json").items() if key not in ("name", "data")}
        settings = {key: value for key, value in settings.items() if value != attack.id}
        rows.append((attack.id, ", ".join(f"{key} {value}" for key, value in settings.items()), *cells))
    return Table("budgets", header, rows, text_columns=2)


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


def _strongest(group: Group, results: pd.DataFrame) -> str:
    infer = group.headline(results)
    mark = " †" if (infer["converged"] == False).any() else ""  # noqa: E712 (missing is not False)
    trivial = (infer["mse_ratio_to_mean_image"] == 1).all()
    others = group.rows(results).query("scope == 'infer' and not strongest")["attack_ok"].dropna()
    return attack_names(infer["attack"]) + mark + (" ‡" if trivial and len(others) and not others.any() else "")


def _attack_cell(rows: pd.DataFrame) -> str:
    """An attack on a group; seeds where it failed are left out, and said to be."""
    works = rows[rows["attack_ok"].fillna(True)]
    if works.empty:
        return "attack failed"
    mark = " †" if (works["converged"] == False).any() else ""  # noqa: E712 (missing is not False)
    failed = f" (failed in {len(rows) - len(works)})" if len(works) < len(rows) else ""
    return Spread.of(works["mse"]).text() + mark + failed


def _notes(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    text = "\n".join(cell for row in rows for cell in row[1:])
    notes = {"†": UNCONVERGED, "failed": FAILED, "‡": NOTHING}
    return tuple(note for mark, note in notes.items() if mark in text)


def _images(knowledge: dict[str, Any]) -> str:
    return f"{knowledge.get('images', '?')} {knowledge.get('data', '')}".strip()


def _distinct(values: list[Any]) -> str:
    texts = [f"{value:,}" if isinstance(value, int) else json.dumps(value) for value in values if value is not None]
    return ", ".join(dict.fromkeys(texts)) or "–"
