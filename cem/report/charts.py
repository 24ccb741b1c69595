"""Charts of numbers: accuracy against error, and what training and attacks did epoch by epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cem.planning.plan import Plan
from cem.report.curves import Drawn, drawn
from cem.report.front_drawing import is_wide
from cem.report.groups import Group
from cem.report.inputs import read_attack, read_history
from cem.report.looks import Look, looks_of
from cem.report.pictures import Picture, empty, finish, marker, new_figure
from cem.report.scores import Scores
from cem.report.statistics import Estimate, over_seeds
from cem.report.threat import ThreatModel
from cem.storage.job_records import AttackRecord

_NOISES = ("--", ":", "-")  # lines of plain noise, which is black in every arena
PANELS = {
    "val_accuracy": "accuracy on val, %",
    "cross_entropy": "cross-entropy, nats",
    "leakage_nats": "leakage bound, nats",
}

# Of the objective, without its weight; and how strongly each pulls at ẑ, with its weight.
TERMS = {
    "surrogate_loss": "surrogate's term, unweighted",
    "defense_penalty": "defences' penalty",
    "fit_loss": "fit of the surrogate itself",
    "cross_entropy_grad_norm": "gradient at ẑ: cross-entropy",
    "surrogate_grad_norm": "gradient at ẑ: surrogate's term",
    "defense_grad_norm": "gradient at ẑ: defences' penalty",
}


def accuracy_against_error(
    groups: list[Group], shown: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores, name: str
) -> Picture:
    """What privacy costs under a threat model: one point a group with its interval, one faint point a run.

    The strengths of a method have one colour and are joined by a line, plain noise is black. shown: the groups whose
    points have their names beside them.
    """
    figure = new_figure(8.2, max(3.8, 0.34 * len(shown) + 1.6))
    axes = figure.add_subplot()
    curves = drawn(groups, results, threat, scores)
    looks = _looks(groups, curves)
    ends: dict[str, tuple[Estimate, Estimate]] = {}
    headlines = []
    for group in groups:
        rows = group.headline(results, threat)
        if rows.empty:
            continue  # every attack failed: there is no error to show
        accuracy, mse = over_seeds(100 * rows["accuracy"]), scores.estimate(rows, "mse")
        hue, mark = looks[group.label]
        style: Any = {"color": hue, "marker": mark, "linestyle": "none"}
        if rows["strongest_bound"].any():
            style["fillstyle"] = "none"
        axes.plot(100 * rows["accuracy"], rows["mse"], **style, alpha=0.35, markersize=4)
        edge = hue if "fillstyle" in style else "white"
        axes.plot(accuracy.mean, mse.mean, **style, markersize=9, markeredgecolor=edge)
        ends[group.label] = accuracy, mse
        headlines.append(rows)
    plain = [curve for curve in curves if curve.plain]
    for curve in curves:
        places = [ends[point.group.label] for point in curve.points]
        path = [accuracy.mean for accuracy, _ in places], [mse.mean for _, mse in places]
        hue, _ = looks[curve.points[-1].group.label]
        line = _NOISES[plain.index(curve) % len(_NOISES)] if curve.plain else "-"
        axes.plot(*path, color=hue, linestyle=line, linewidth=1.2, zorder=1)
    for error in pd.concat(headlines).groupby("dataset")["mse_mean_image"].mean() if headlines else []:
        axes.axhline(error, color="#555555", linewidth=1, linestyle=":")
        axes.annotate("mean image: sees nothing", (0, error), xycoords=("axes fraction", "data"), xytext=(3, 3),
                      textcoords="offset points", fontsize=8, color="#555555")  # fmt: skip
    axes.set_xlabel("test accuracy, %   (right: the task works)")
    axes.set_ylabel("MSE under the strongest attack, Infer\n(up: less is rebuilt)")
    axes.margins(0.12)
    wide = bool(headlines) and is_wide([float(error) for rows in headlines for error in rows["mse"]])
    if wide:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.autoscale(False)  # the intervals of two seeds are wide: they leave the chart before they shrink it
    for label, (accuracy, mse) in ends.items():
        if accuracy.n > 1:
            bars: Any = {"xerr": accuracy.half, "yerr": mse.half, "color": looks[label][0], "capsize": 3}
            axes.errorbar(accuracy.mean, mse.mean, linewidth=0.8, **bars)
    named = {group.label for group in shown}
    labels = [(mse.mean, accuracy.mean, looks[one][0], one) for one, (accuracy, mse) in ends.items() if one in named]
    _label_at_edge(axes, sorted(labels))
    caption = (
        f"Accuracy against reconstruction error under the strongest attack of one threat model ({threat.label}) on "
        "test images. Large points: mean over seeds, bars: 95 % interval (none for one seed; a long one leaves the "
        "chart); small points: single runs. Hollow: an upper limit of the error. A colour is a method, whose strengths "
        "are joined by a line; plain noise is black." + (" The axis of errors is logarithmic." if wide else "")
    )
    told = (f"{label}: {accuracy.mean:.1f} % at MSE {mse.mean:.3g}" for label, (accuracy, mse) in ends.items())
    alt = f"Chart of test accuracy against MSE{' on a logarithmic axis' if wide else ''}. {'; '.join(told)}."
    return finish(figure, name, "svg", caption, alt)


def _looks(groups: list[Group], curves: list[Drawn]) -> dict[str, tuple[str, str]]:
    """Label of a group → colour and marker of its method; of its own where it is on no curve."""
    looks = looks_of(groups)
    places = {point.group.label: 0 if one.plain else one.method + 1 for one in curves for point in one.points}
    last = max(places.values(), default=0)
    others = [label for label in looks if label not in places]
    places |= {label: last + 1 + place for place, label in enumerate(others)}
    return {label: (looks[label].colour, marker(place)) for label, place in places.items()}


def _label_at_edge(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels in a column right of the chart, as near to their points' heights as none covering another allows."""
    gap, height = 1 / len(ends) if len(ends) > 14 else 0.07, -1.0
    left, _ = axes.get_xlim()
    for place, (error, accuracy, hue, label) in enumerate(ends):
        above = len(ends) - 1 - place
        _, own = axes.transAxes.inverted().transform(axes.transData.transform((left, error)))
        height = min(max(float(own), height + gap), 1 - gap * above)
        axes.annotate(
            label, (accuracy, error), xytext=(1.04, height), textcoords="axes fraction", va="center",
            color=hue, fontweight="bold", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": hue, "linewidth": 0.8, "alpha": 0.6, "shrinkB": 6,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def training_curves(plan: Plan, groups: list[Group], looks: dict[str, Look]) -> Picture:
    """Validation accuracy, cross-entropy, and the surrogate's own bound beside the probe's, epoch by epoch."""
    figure = new_figure(10.0, 3.2 + 0.2 * (len(groups) / 3))
    panels = dict(zip(PANELS, figure.subplots(1, len(PANELS)), strict=True))
    drawn: dict[str, list[str]] = {"own": [], "probe": [], "neither": []}
    for group in groups:
        histories = [read_history(plan, run) for run in group.runs]
        for name, axes in panels.items():
            scale = 100 if name == "val_accuracy" else 1
            curves = [scale * _finite(history.set_index("epoch")[name]) for history in histories]
            _draw(axes, curves, looks[group.label], group.label)
        _draw_probes(panels["leakage_nats"], histories, looks[group.label])
        own, probe = (
            any(_finite(one[name]).notna().any() for one in histories)
            for name in ("leakage_nats", "probe_leakage_nats")
        )
        for kind, there in {"own": own, "probe": probe, "neither": not (own or probe)}.items():
            drawn[kind] += [group.label] * there
    for name, axes in panels.items():
        axes.set_title(PANELS[name])
        axes.set_xlabel("epoch")
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            empty(axes, "not measured in training")
    handles, labels = panels["val_accuracy"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(groups)))
    caption = "Training. Strong lines: mean over seeds; faint lines: single runs." + _about_leakage(drawn)
    alt = "Charts over epochs. " + _ends(panels["val_accuracy"], "accuracy on val at the end", "%")
    return finish(figure, "training", "svg", caption, alt)


def _about_leakage(drawn: dict[str, list[str]]) -> str:
    """What the right-hand panel of the training shows. drawn: the rows of which it has which kind of line."""
    if not drawn["own"] and not drawn["probe"]:
        return ""
    own = "each surrogate's own estimate on the batches it trained on, not comparable between surrogates"
    probe = "the probe's: a mixture fitted to the private images and scored on val, the same for all"
    lines = [f"lines are {own}"] * bool(drawn["own"]) + [f"dotted lines are {probe}"] * bool(drawn["probe"])
    text = f" In the right-hand panel, {'; '.join(lines)}."
    if set(drawn["own"]) & set(drawn["probe"]):
        text += " A surrogate that fools itself shows as a gap between its two curves."
    if drawn["neither"]:
        text += f" Not drawn there, since no finite leakage was measured in training: {', '.join(drawn['neither'])}."
    return text


def term_curves(plan: Plan, groups: list[Group], looks: dict[str, Look]) -> Picture | None:
    """A panel for each term of the objective beside the cross-entropy, and for each term's gradient; None without."""
    histories = {run.id: read_history(plan, run).set_index("epoch") for group in groups for run in group.runs}
    measured = [
        name for name in TERMS if any(name in one and _finite(one[name]).notna().any() for one in histories.values())
    ]
    if not {"surrogate_loss", "defense_penalty"} & set(measured):
        return None
    rows = -(-len(measured) // 3)
    figure = new_figure(10.0, 2.6 * rows + 0.2 * (len(groups) / 3) + 0.5)
    panels = np.ravel(figure.subplots(rows, 3, squeeze=False))
    for name, axes in zip(measured, panels, strict=False):
        for group in groups:
            known = [histories[run.id] for run in group.runs if name in histories[run.id]]
            if curves := [curve for one in known if (curve := _finite(one[name])).notna().any()]:
                _draw(axes, curves, looks[group.label], group.label)
        axes.set_title(TERMS[name])
        axes.set_xlabel("epoch")
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    handles = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(3, len(handles)))
    caption = (
        "Training, term by term: what each term of the objective beside the cross-entropy was, without its weight, and "
        "how long its gradient at ẑ was, with it. Mean over a phase's batches; strong lines: mean over seeds. A "
        "term whose gradient is far shorter than that of the cross-entropy hardly acts."
    )
    alt = f"Charts over epochs of: {', '.join(TERMS[name] for name in measured)}. "
    return finish(figure, "terms", "svg", caption, alt + _ends(panels[0], f"{TERMS[measured[0]]} at the end", ""))


def _draw_probes(axes: Axes, histories: list[pd.DataFrame], look: Look) -> None:
    """The held-out leakage, mean over seeds, at the epochs that have one."""
    probes = [_finite(history.set_index("epoch")["probe_leakage_nats"]).dropna() for history in histories]
    mean = pd.concat(probes, axis=1).mean(axis=1)
    axes.plot(mean.index, mean, color=look.colour, linestyle=":", marker=look.marker, linewidth=1.2)


def attack_curves(plan: Plan, groups: list[Group], looks: dict[str, Look]) -> list[Picture]:
    """One picture a learned attack: the error on the attacker's own held-out images, by budget or epoch by epoch."""
    return [picture for attack in plan.learned if (picture := _attack_curve(plan, groups, looks, attack)) is not None]


def _attack_curve(plan: Plan, groups: list[Group], looks: dict[str, Look], attack: str) -> Picture | None:
    found = {
        run.id: read_attack(plan, run, attack)
        for group in groups
        for run in group.runs
        if attack in plan.learned_on(run)
    }
    by_budget = any(record.ladder for record in found.values())
    curves = {name: _ladder(record) if by_budget else _curve(record) for name, record in found.items()}
    if not any(curve.notna().any() for curve in curves.values()):
        return None
    figure = new_figure(8.2, 3.4)
    axes = figure.add_subplot()
    undrawn = []
    for group in groups:
        own = {run.seed: curves[run.id] for run in group.runs if run.id in curves}
        if seen := [curve for curve in own.values() if curve.notna().any()]:
            _draw(axes, seen, looks[group.label], group.label, shared=by_budget)
        undrawn += [f"{group.label}, seed {seed}" for seed, curve in own.items() if not curve.notna().any()]
    axes.set_xlabel("budget of the attack, epochs" if by_budget else "epoch of the attack")
    axes.set_ylabel("MSE on held-out images")
    if by_budget:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    when = "at the end of each budget that it tried" if by_budget else "while its network trains"
    caption = (
        f"Attack {attack}: error on images the attacker holds out of its own, {when}. Curves that still fall at the "
        "end are attacks that a larger budget would make stronger."
    )
    if undrawn:
        why = "tried no budgets" if by_budget else "have no such error"
        caption += f" Not drawn, as they {why}: {'; '.join(undrawn)}."
    alt = f"Chart of the error of {attack} against its {'budget' if by_budget else 'epochs'}. "
    return finish(figure, f"attack_{attack}", "svg", caption, alt + _ends(axes, "MSE at the end", ""))


def _ends(axes: Axes, what: str, unit: str) -> str:
    """In words where each group's curve ends."""
    curves = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axes.lines}
    ends = (f"{name} {y[-1]:.3g} {unit}".rstrip() for name, y in curves.items() if y.size and not name.startswith("_"))
    return f"{what[0].upper()}{what[1:]}: {'; '.join(ends)}."


def _curve(record: AttackRecord) -> pd.Series:
    return _finite(pd.Series({row["epoch"]: row["val_mse"] for row in record.curve}, dtype=float))


def _ladder(record: AttackRecord) -> pd.Series:
    return _finite(pd.Series({rung.epochs: rung.val_mse for rung in record.ladder}, dtype=float))


def _finite(values: pd.Series) -> pd.Series:
    """Infinities (a leakage without noise) left out, as what is not measured is."""
    return pd.to_numeric(values).astype(float).replace([np.inf, -np.inf], np.nan)


def _draw(axes: Axes, curves: list[pd.Series], look: Look, label: str, shared: bool = False) -> None:
    """A group's curves and their mean. shared: it ends where the first of them does, as a mean of fewer would jump."""
    style: Any = {"color": look.colour, "linestyle": look.line}
    if len(curves) > 1:
        for curve in curves:
            axes.plot(curve.index, curve, **style, alpha=0.3, linewidth=0.8)
    together = pd.concat(curves, axis=1)
    mean = (together.dropna() if shared else together).mean(axis=1)
    dots: Any = {"marker": look.marker, "markersize": 4} if len(mean) < 25 else {}
    axes.plot(mean.index, mean, **style, **dots, linewidth=1.8, label=label)
