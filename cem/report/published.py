"""The published numbers beside ours: of the runs that have the settings of a row of the paper's tables."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from cem.config import AttackSettings, Run
from cem.config.attack import ATTACKS as ATTACK_CLASSES
from cem.config.model import MODELS
from cem.config.paths import at, dotted, put
from cem.config.presets import (
    ASSUMED,
    ATTACKS,
    CEM,
    CEM_ELSEWHERE,
    IMAGES,
    PRESETS,
    SHARED,
    preset_settings,
    published_dataset,
)
from cem.config.strict import validate
from cem.planning.plan import Plan
from cem.report.cells import attack_cell, notes_of, seeds_text, working
from cem.report.groups import Group
from cem.report.scores import Scores
from cem.report.statistics import over_seeds
from cem.report.table import Table
from cem.storage.hdf5 import open_dataset

SOURCE = "Xia et al. (CVPR; arXiv 2503.00383)"
NOTE = (
    f"In brackets what {SOURCE} reports: one run and one score, without spread; its models and attacks were selected "
    "on test images, ours are not. It does not say of which images its SSIM and PSNR are; they stand beside Infer's."
)
# What an attacker knows. One who knows other than the paper's has no number beside it.
_KNOWN = ("data", "data_size", "encoder", "observations", "labels", "scored")
# Of attacks: names, seeds, what is chosen on (the paper does that on test images), and what `_open` says.
_OF_NO_MATTER = (
    "name",
    "seed",
    "runs",
    "held_out",
    "budget",
    "max_epochs",
    "tune",
    "lr_sweep",
    "loss_sweep",
    "net_sweep",
)
# The net of a GAN's first decoder is the GAN's.
_UNCOMPARED: dict[str, Any] = dict.fromkeys(_OF_NO_MATTER, True) | {"decoder": {"net", *_OF_NO_MATTER}}
_IGNORED = ("seed", "training.threads", "training.probe_every")  # do not act on what is compared


@dataclass(frozen=True)
class Row:
    """A row of the tables. scores: its numbers by the columns of published.csv; those that it lacks are absent."""

    dataset: str
    preset: str
    cem: bool
    scores: dict[str, float]

    @property
    def label(self) -> str:
        return f"{self.preset} with CEM" if self.cem else self.preset


@cache
def rows() -> tuple[Row, ...]:
    """All rows of the tables, in their order."""
    with files("cem.report").joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#")
    names = [name for name in table.columns if name not in ("dataset", "defense", "cem")]
    return tuple(
        Row(
            line["dataset"], line["defense"], bool(line["cem"]), {name: line[name] for name in names if line[name] >= 0}
        )
        for line in table.to_dict("records")
    )


@cache
def as_published(dataset: str, preset: str, cem: bool) -> Run:
    """The run of a row of the tables, as far as that is known. What is not known is at its default.

    Of the data set only the name and what SHARED says of it are the paper's. Made once for each row: a study may have
    thousands of runs.
    """
    surrogate = CEM | CEM_ELSEWHERE.get(dataset, {}) if cem else {"kind": "none"}
    settings: dict[str, Any] = {"dataset": {"source": "synthetic", "name": dataset}, "surrogate": surrogate}
    for path, value in SHARED[dataset].items():
        put(settings, path, value)
    return validate(Run, settings).as_preset(preset)


def row_of(run: Run) -> Row | None:
    """The row whose data set, defences, noise, bottleneck and surrogate a run has; None where it is of none.

    A network that is given, or cut at a module, is of none: the tables are of trained networks with a bottleneck.
    """
    dataset = published_dataset(run.dataset.name)
    if dataset is None or not run.trained or run.model.needs_network:
        return None
    return next((row for row in rows() if row.dataset == dataset and _can_run(row) and _is_of(run, row)), None)


def _can_run(row: Row) -> bool:
    """Whether this program has the row's preset, and the published network the settings that it stands for."""
    if row.preset not in PRESETS:
        return False
    network = MODELS.members[SHARED[row.dataset]["model.arch"]]
    own = (path.partition(".") for path in preset_settings(row.preset, row.dataset))
    return all(name in network.model_fields for head, _, name in own if head == "model")


def _is_of(run: Run, row: Row) -> bool:
    published = as_published(row.dataset, row.preset, row.cem)
    alike = published.surrogate.label == run.surrogate.label
    return alike and all(at(run, path) == at(published, path) for path in preset_settings(row.preset, row.dataset))


def differences(run: Run, row: Row) -> list[str]:
    """What a run has other than the published one, each with the published value in brackets."""
    theirs, ours = (_in_force(one) for one in (as_published(row.dataset, row.preset, row.cem), run))
    if run.model.arch != SHARED[row.dataset]["model.arch"]:  # which is named; what only one of the two has says no more
        only = {path for path in ours.keys() ^ theirs.keys() if path.startswith("model.")}
        theirs, ours = ({path: one[path] for path in one if path not in only} for one in (theirs, ours))
    apart = [path for path in ours | theirs if ours.get(path) != theirs.get(path) and _is_published(path, row.dataset)]
    return [f"{path} {_said(ours.get(path))} ({_said(theirs.get(path))})" for path in apart]


def _is_published(path: str, dataset: str) -> bool:
    """Whether a setting is the paper's: of the data set only some are, and others do not act on what is compared."""
    if path.startswith("dataset."):
        known = ("dataset.name", "dataset.split.by", *SHARED[dataset])
        return any(f"{path}.".startswith(f"{one}.") for one in known)
    return path not in _IGNORED


def _in_force(run: Run) -> dict[str, Any]:
    """Settings by dotted path; the augmentation as it is, said or not."""
    dataset = run.dataset.model_copy(update={"augment": run.dataset.augmentation})
    return dotted(run.model_copy(update={"dataset": dataset}).model_dump(mode="json"))


def published_table(plan: Plan, groups: list[Group], results: pd.DataFrame, scores: Scores) -> Table | None:
    """One row per group and attack that the tables have numbers of; None where no group is a row of the tables."""
    header = (
        "runs", "row of the paper", "attack", "differs, too", "seeds", "accuracy, %", "MSE, Train", "MSE, Infer",
        "SSIM", "PSNR, dB",
    )  # fmt: skip
    matched = [(group, row) for group in groups if (row := row_of(group.first)) is not None]
    if not matched:
        return None
    apart = [_apart(plan, group, row) for group, row in matched]
    shown = [
        (group, row, attack, [*of_group, *([] if attack is None else attack_differences(attack))])
        for (group, row), of_group in zip(matched, apart, strict=True)
        for attack in _attacks(plan, group)
    ]
    common = [what for what in shown[0][-1] if all(what in other for *_, other in shown)]
    lines = []
    for group, row, attack, all_of_it in shown:
        own = "; ".join(what for what in all_of_it if what not in common) or "–"
        accuracy = over_seeds(100 * group.about(results)["accuracy"]).text(4)
        accuracy += _published(row, "accuracy_pct", ".2f")
        cells = _cells(group, row, attack, results, scores)
        name = "–" if attack is None else attack.id
        lines.append((group.label, row.label, name, own, seeds_text(group), accuracy, *cells))
    everywhere = (f"All rows differ from the paper in: {'; '.join(common)}.",) if common else ()
    return Table("published", header, lines, (NOTE, *everywhere, *notes_of(lines)), text_columns=4)


def _apart(plan: Plan, group: Group, row: Row) -> list[str]:
    """What is known to differ in a group: settings, the number of images, and what the paper does not say."""
    found = differences(group.first, row)
    with open_dataset(plan.data(group.first.dataset)) as reader:
        have = [len(reader.dataset(f"{split}/images")) for split in ("private", "test")]
    for what, ours, theirs in zip(("training", "test"), have, IMAGES.get(row.dataset, have), strict=True):
        found += [f"{ours:,} {what} images ({theirs:,})"] if ours != theirs else []
    return [*found, ASSUMED[row.preset]] if row.preset in ASSUMED else found


def _attacks(plan: Plan, group: Group) -> list[AttackSettings] | list[None]:
    """Those of the tables' kinds whose attacker knows what the paper's does; else [None]."""
    return [attack for attack in plan.attacks(group.first) if is_published(attack)] or [None]


@cache
def _published_attack(kind: str) -> AttackSettings:
    return validate(ATTACK_CLASSES.members[kind], ATTACKS[kind])


def is_published(attack: AttackSettings) -> bool:
    """Whether it is of one of the tables' kinds, and knows what the paper's attacker does."""
    if attack.member not in ATTACKS or attack.starts:
        return False
    return all(getattr(attack, name) == getattr(_published_attack(attack.member), name) for name in _KNOWN)


def attack_differences(attack: AttackSettings) -> list[str]:
    """What an attack of the tables' kinds has other than the paper's, each with the published value in brackets."""
    theirs, ours = (
        dotted(one.model_dump(mode="json", exclude=_UNCOMPARED)) for one in (_published_attack(attack.member), attack)
    )
    settings = attack.model_dump(mode="json")
    ours |= _open(settings)
    if settings.get("decoder"):  # of a GAN that starts from one; that another does not is said by `start`
        ours |= {f"decoder.{name}": value for name, value in _open(settings["decoder"]).items()}
    apart = [name for name in theirs if name in ours and ours[name] != theirs[name]]
    return [f"{attack.member}.{name} {_said(ours[name])} ({_said(theirs[name])})" for name in apart]


def _open(settings: dict[str, Any]) -> dict[str, Any]:
    """Of an attack, the settings that are found or chosen in the pipeline, in words; a single choice by its value."""
    found: dict[str, Any] = {}
    if settings.get("epochs", ...) is None:
        found["epochs"] = f"found, at most {settings['max_epochs']}"
    if settings["lr"] is None:
        found["lr"] = _choice([1e-3] if settings["tune"] == "none" else settings["lr_sweep"])
    if settings.get("net_sweep"):
        found["net"] = _choice(settings["net_sweep"])
    if settings.get("loss_sweep"):
        found["loss.mse"] = "set by loss_sweep"
    return found


def _choice(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else f"chosen from {', '.join(map(_said, values))}"


def _cells(
    group: Group, row: Row, attack: AttackSettings | None, results: pd.DataFrame, scores: Scores
) -> tuple[str, ...]:
    if attack is None:
        return ("–",) * 4
    mine = group.rows(results).query("attack == @attack.id")
    train, infer = (mine[mine["scope"] == scope] for scope in ("train", "infer"))
    works, kind = working(infer), attack.member
    likeness = (
        ("–" if works.empty else scores.estimate(works, name).text()) + _published(row, f"{kind}_{name}", form)
        for name, form in (("ssim", ".3f"), ("psnr_db", ".2f"))
    )
    return (
        attack_cell(train, scores) + _published(row, f"{kind}_mse_train", ".4f"),
        attack_cell(infer, scores) + _published(row, f"{kind}_mse_infer", ".4f"),
        *likeness,
    )


def _published(row: Row, column: str, form: str) -> str:
    return f" ({row.scores[column]:{form}})" if column in row.scores else ""


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value in (None, []) else str(value)
