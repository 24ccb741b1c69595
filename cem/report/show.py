"""One run in a terminal: what `cem show` says of it. From its own files alone: it need not be finished."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.parquet import ParquetFile
from safetensors import SafetensorError, safe_open

from cem import CemError
from cem.config.paths import dotted
from cem.planning.steps import LOGS
from cem.planning.text import aligned
from cem.report.inputs import SCOPES
from cem.report.rows import AGAIN, read_csv
from cem.storage.files import StoreError
from cem.storage.hdf5 import Reader
from cem.storage.job_records import AttackRecord, TrainRecord
from cem.storage.records import read_record

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48  # characters of a curve at most
CURVES = ("cross_entropy", "train_accuracy", "val_accuracy", "leakage_nats", "probe_leakage_nats")  # of history.csv
_SCORES = ("mse", "psnr_db", "ssim")
_LEAKAGE = {"leakage_nats": "≤", "leakage_lower_nats": "≥"}


class ShowError(CemError):
    """A folder that is no run's."""


@dataclass(frozen=True)
class ShownAttack:
    """scores: scope → metric → mean over its images. curve: of the error on the attacker's held-out images."""

    name: str
    converged: bool | None
    failure: str
    verdict: str
    scores: dict[str, dict[str, float]]
    curve: list[float]


@dataclass(frozen=True)
class ShownRun:
    """What is there of a run. settings: those that differ from the program's defaults. absent: what is not made yet."""

    folder: Path
    study: str
    run: str
    settings: dict[str, Any]
    training: dict[str, Any]
    curves: dict[str, list[float]]
    leakage: dict[str, float]
    attacks: list[ShownAttack]
    files: dict[str, list[str]]
    absent: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs: null stands for what is no finite number."""
        found: dict[str, Any] = _finite(asdict(self) | {"folder": str(self.folder)})
        return found

    def text(self) -> str:
        """For people."""
        parts = [f"{self.run} of {self.study}", _pairs("settings", dotted(self.settings))]
        parts += [_pairs("training", self.training), _pairs("leakage, nats", self.leakage)]
        curves = self.curves | {f"{one.name}: held-out MSE": one.curve for one in self.attacks}
        drawn = [(name, draw(values), _ends(values)) for name, values in curves.items() if len(values) > 1]
        parts += ["curves, first to last\n" + aligned(drawn)] if drawn else []
        parts += [self._scores()] if self.attacks else []
        parts += [_pairs("files", {kind: "\n".join(paths) for kind, paths in self.files.items() if paths})]
        parts += [f"not made yet: {', '.join(self.absent)}"] if self.absent else []
        return "\n\n".join(part for part in parts if part)

    def _scores(self) -> str:
        header = ("attack", "scope", "MSE", "PSNR, dB", "SSIM", "converged", "verdict")
        rows = [
            (
                one.name,
                scope,
                *(_number(means.get(metric)) for metric in _SCORES),
                {True: "yes", False: "no", None: "-"}[one.converged],
                one.failure or one.verdict,
            )
            for one in self.attacks
            for scope, means in one.scores.items()
        ]
        return aligned([header, *rows])


def show_run(folder: Path) -> ShownRun:
    """What is there of the run in a folder. Raises ShowError where it is none of a run, StoreError when damaged."""
    place = folder if len(folder.parts) > 5 else folder.absolute()
    if len(place.parts) < 6 or place.parents[3].name != "runs":
        raise ShowError(
            f"{folder}: expected the folder of a run, results/STUDY/runs/…, found another. Give a run's id."
        )
    run, study = "/".join(place.parts[-4:]), place.parents[4]
    files = {
        "report": _there(study / "report.html"),
        "figures": sorted(map(str, study.glob("figures/*"))),
        "reconstructions": sorted(map(str, folder.glob("attacks/*/reconstructions.h5"))),
        "logs": sorted(str(path) for place in ("", "runs") for path in (LOGS / study.name / place / run).glob("*.log")),
    }
    makers = {"model.safetensors": "model", "history.csv": "curves", "train.json": "training"}
    absent = [what for name, what in makers.items() if not (folder / name).is_file()]
    attacks, verdicts = sorted(folder.glob("attacks/*/attack.json")), _verdicts(study / "results.csv", run)
    made = (study / "results.csv").stat().st_mtime if (study / "results.csv").is_file() else 0.0
    return ShownRun(
        folder,
        study.name,
        run,
        _settings(folder / "model.safetensors"),
        _training(folder / "train.json"),
        _curves(folder / "history.csv"),
        _leakage(folder),
        [_attack(path, verdicts, made) for path in attacks],
        files,
        absent + ([] if attacks else ["attacks"]),
    )


def draw(values: list[float], width: int = WIDTH) -> str:
    """A curve as one line of bars, from its lowest to its highest value; a space for what is no finite number.

    Of more values than `width`, each bar is the mean of its share.
    """
    if len(values) > width:
        shares = np.array_split(np.array(values), width)
        values = [float(share[np.isfinite(share)].mean()) if np.isfinite(share).any() else math.nan for share in shares]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, high = min(finite), max(finite)
    step = (high - low) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((value - low) / step)] if math.isfinite(value) else " " for value in values)


def _there(path: Path) -> list[str]:
    return [str(path)] if path.is_file() else []


def _settings(model: Path) -> dict[str, Any]:
    """As the model's header says them."""
    if not model.is_file():
        return {}
    try:
        with safe_open(model, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("cem", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(
            f"{model}: expected a model as train writes it; cannot read it: {error}. Delete it and rerun train."
        ) from None
    return dict(header.get("settings", {}))


def _training(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_record(path, TrainRecord, "train")
    names = ("accuracy_test", "accuracy_val", "best_epoch", "epochs", "seconds", "lost_seconds", "device")
    return {name: getattr(found, name) for name in names} | {"attempts": len(found.attempts)}


def _curves(path: Path) -> dict[str, list[float]]:
    """What was measured in every epoch; an epoch without a value is left out."""
    if not path.is_file():
        return {}
    rows = read_csv(path, "Delete it and rerun train.")
    try:
        curves = {name: [float(row[name]) for row in rows if row.get(name)] for name in CURVES}
    except ValueError as error:
        raise StoreError(f"{path}: expected numbers: {error}. Delete it and rerun train.") from None
    return {name: values for name, values in curves.items() if values}


def _leakage(folder: Path) -> dict[str, float]:
    """As its mixtures measured it, those of one study."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("mixture-*.h5")):
        with Reader(path, maker="fit_mixture", kind="mixture") as reader:
            attrs = reader.attrs
        known = {sign: attrs.get(name) for name, sign in _LEAKAGE.items()}
        said = {"before the mask": attrs.get("masked"), "saturated": attrs.get("leakage_lower_saturated")}
        lower = "".join(f", {words}" for words, holds in said.items() if holds)
        found |= {
            f"{sign} ({path.stem}{lower if sign == '≥' else ''})": value
            for sign, value in known.items()
            if isinstance(value, float)
        }
    return found


def _verdicts(path: Path, run: str) -> dict[str, str]:
    """Attack → what the results say of whether its number counts; none before they are made."""
    if not path.is_file():
        return {}
    rows = read_csv(path)
    if rows and not {"run", "scope", "attack", "attack_verdict"} <= rows[0].keys():
        raise StoreError(f"{path}: expected the verdict on each attack, found none. {AGAIN}")
    mine = [row for row in rows if row["run"] == run and row["scope"] == "infer"]
    return {row["attack"]: row["attack_verdict"] or "counts" for row in mine}


def _attack(path: Path, verdicts: dict[str, str], made: float) -> ShownAttack:
    """made: when the verdicts were."""
    about, scored = read_record(path, AttackRecord, "attack"), path.with_name("metrics.parquet")
    scores: dict[str, dict[str, float]] = {}
    if scored.is_file():
        try:
            table = ParquetFile(scored).read(columns=["scope", *_SCORES]).to_pydict()
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{scored}: expected scores; cannot read them: {error}. Delete it, rerun attack."
            ) from None
        scopes = np.array(table["scope"])
        for scope in (one for one in SCOPES if (scopes == one).any()):
            scores[scope] = {name: float(np.array(table[name], float)[scopes == scope].mean()) for name in _SCORES}
    curve = [float(point["val_mse"]) for point in about.curve if "val_mse" in point]
    absent = "in no table: no longer planned, or its run is unfinished"
    verdict = verdicts.get(about.attack, absent if path.stat().st_mtime <= made else "not known before aggregate")
    return ShownAttack(about.attack, about.converged, about.failure, verdict, scores, curve)


def _ends(values: list[float]) -> str:
    """First, last, and the range."""
    finite = [value for value in values if math.isfinite(value)]
    span = f", from {_number(min(finite))} to {_number(max(finite))}" if finite else ""
    return f"{_number(values[0])} → {_number(values[-1])}{span}"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:.4g}"
    return str(value)


def _pairs(title: str, values: dict[str, Any]) -> str:
    """Names and values under a title; empty where there are none. A value of several lines goes on below itself."""
    rows = [
        ("" if number else f"  {name}", line)
        for name, value in values.items()
        for number, line in enumerate(_number(value).split("\n"))
    ]
    return f"{title}\n{aligned(rows)}" if rows else ""


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
