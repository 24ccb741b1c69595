"""What the report reads of a run: one function a file, each refusing by name what is absent or not as it should be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from pyarrow.parquet import ParquetFile

from cem import CemError
from cem.config import Dataset, Run
from cem.planning.plan import Plan
from cem.report.methods import METHOD_COLUMNS
from cem.storage.hdf5 import Reader, open_dataset
from cem.storage.job_records import AttackRecord, TrainRecord
from cem.storage.manifest_records import Manifest
from cem.storage.records import read_record

SCOPES = ("train", "infer")
PIXELS = ("mse", "psnr_db", "ssim")
JUDGED = ("recognised", "recognised_original", "embedding_similarity")  # by the evaluator
RANKS = ("rank1", "rank1_of_1000")
METRICS = (*PIXELS, *JUDGED, *RANKS, "ms_ssim", "lpips")  # as results name them
_STORED = (*PIXELS, "mse_mean_image", "mse_class_mean")  # of every attack


def metric_columns(plan: Plan) -> tuple[str, ...]:
    """The columns of `METRICS`, then those of the study's own metrics."""
    return tuple(dict.fromkeys((*METRICS, *(metric.member for metric in plan.study.metrics))))


# Of I(x; z), nats per image: an upper bound and a lower one, each with its standard error over images; whether the
# lower one is near the most that it can say, and that; which density gave the upper one.
LEAKAGE = (
    "leakage_nats", "leakage_nats_sem", "leakage_lower_nats", "leakage_lower_nats_sem", "leakage_lower_saturated",
    "leakage_member", "leakage_lower_ceiling",
)  # fmt: skip
# The same at the σ, the run's or a larger one, where the lower bound is not saturated.
UNSATURATED = tuple(
    f"unsaturated_{name}" for name in ("noise_std", "leakage_nats", "leakage_lower_nats", "leakage_member")
)
# What is expected without an attacker: the least linear error and its lower side; Fisher information, its standard
# error, and what it leaves an unbiased attacker; the slope of the leakage over what I-MMSE says, and its error; a lower
# bound on the leakage, relative to h(x).
EXPECTED = ("lmmse", "lmmse_low", "dfil", "dfil_sem", "dfil_floor", "i_mmse", "i_mmse_sem", "conditional_nats")
_OF_THE_RUN = EXPECTED[5:]  # at its own σ, however often z is seen
Leakage = Callable[[int], dict[str, Any]]  # how often z is seen → these; None for what is not measured


class ReportError(CemError):
    """A result that is absent, damaged or of something else."""


def read_training(plan: Plan, run: Run) -> TrainRecord:
    """What `train` says of a run."""
    path = plan.run(run) / "train.json"
    training = read_record(path, TrainRecord, "train")
    if training.run != run.id:
        raise ReportError(f"{path}: expected run {run.id}, found {training.run}. Delete it and rerun train.")
    return training


def read_history(plan: Plan, run: Run) -> pd.DataFrame:
    """A run's training, one row per epoch."""
    path = plan.run(run) / "history.csv"
    expected = ("epoch", "phase", "cross_entropy", "val_accuracy", "leakage_nats", "probe_leakage_nats")
    return _read_table(path, "train", expected)


def read_leakage(plan: Plan, run: Run) -> Leakage:
    """The measured bounds on I(x; z), given how often the attacker sees z of an image.

    Infinite, without a standard error, when σ = 0. Not measured (None) for a number of observations that the mixture
    was not scored at: the channel is then another, with noise σ/√n. channel_noise_std is of one look: the root mean
    square over the numbers of z of the noise, be it that of noise_std or a defence's. What is expected without an
    attacker comes with them, and in `not_applicable` why some of it is not.
    """
    path = plan.leakage(run)
    with Reader(path, maker="fit_mixture", kind="mixture") as reader:
        _require(path, "fit_mixture", ("leakage_nats",), reader.attrs)
        attrs = reader.attrs
    reasons: dict[str, str] = json.loads(attrs.get("not_applicable", "{}"))  # files of cem 0.1.0 do not say

    def leakage(observations: int) -> dict[str, Any]:
        suffix = "" if observations == 1 else f"_seen{observations}"
        found = {name: attrs.get(name + suffix) for name in LEAKAGE}
        found |= {name: attrs.get(name) for name in UNSATURATED}
        found["channel_noise_std"] = attrs.get("noise_std")
        found |= {name: attrs.get(name if name in _OF_THE_RUN else name + suffix) for name in EXPECTED}
        found["not_applicable"] = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        value = found["leakage_nats"]
        return found if value is not None and np.isfinite(value) else found | {"leakage_nats_sem": None}

    return leakage


def read_test(plan: Plan, dataset: Dataset) -> tuple[float, int, int]:
    """Of test: the share of the most frequent class, which is the accuracy of always naming it; how many images are
    there, and of how many numbers each."""
    with open_dataset(plan.data(dataset)) as reader:
        counts = np.bincount(reader.labels("test"), minlength=reader.num_classes)
        pixels = int(np.prod(reader.image_shape))
    return float(counts.max() / counts.sum()), int(counts.sum()), pixels


def read_attack(plan: Plan, run: Run, attack: str) -> AttackRecord:
    """What an attack says of itself."""
    return read_record(plan.attack(run, attack) / "attack.json", AttackRecord, _rule(plan, attack))


def read_manifest(plan: Plan, run: Run, attack: str) -> Manifest:
    """What an attack's number rests on."""
    return read_record(plan.attack(run, attack) / "manifest.json", Manifest, _rule(plan, attack))


def read_metrics(plan: Plan, run: Run, attack: str) -> pd.DataFrame:
    """An attack's scores, one row per image. Raises ReportError when a scope is absent or an error is not finite."""
    path, rule = plan.attack(run, attack) / "metrics.parquet", _rule(plan, attack)
    metrics = _read_table(path, rule, ("scope", *_STORED))
    if "recognised_original" not in metrics:  # what an older version called recognised was by the run's own classifier
        metrics = metrics.drop(columns="recognised", errors="ignore")
    scopes, all_errors = metrics["scope"].to_numpy(), metrics["mse"].to_numpy(float)
    for scope in SCOPES:
        errors = all_errors[scopes == scope]
        if not len(errors) or not np.isfinite(errors).all():
            bad = f"{int((~np.isfinite(errors)).sum())} of {len(errors)}" if len(errors) else "no images at all"
            raise ReportError(
                f"{path}: expected a finite mse for every image of scope {scope}; found {bad} without. "
                f"Delete it and rerun {rule}."
            )
    return metrics


def read_reconstructions(
    plan: Plan, run: Run, attack: str, place: str, count: int
) -> tuple[UInt8[np.ndarray, "n c h w"], UInt8[np.ndarray, "n c h w"]]:
    """The first `count` originals and what the attack made of them (fewer when fewer are stored).

    place: a scope, for its first images; `{scope}/worst` for those that the attack came nearest to, nearest first.
    """
    path = plan.attack(run, attack) / "reconstructions.h5"
    with Reader(path, maker=_rule(plan, attack), kind="reconstructions") as reader:
        images = reader.dataset(f"{place}/images")[:count]
        return images, reader.dataset(f"{place}/reconstructions")[:count]


def read_results(plan: Plan, parquet: str | Path) -> pd.DataFrame:
    """The aggregated results. Raises ReportError unless they are of exactly the planned runs and attacks."""
    verdict = ("attack_ok", "attack_bound", "attack_weak")
    marks = ("strongest", "strongest_of", "strongest_bound", *verdict, "threat_model", "constant")
    expected = ("run", "attack", "scope", *marks, "majority_accuracy", *METHOD_COLUMNS, *metric_columns(plan))
    results = _read_table(Path(parquet), "aggregate", expected)
    planned = {(name, attack.id) for name, run in plan.runs.items() for attack in plan.attacks(run)}
    found = set(zip(results["run"], results["attack"], strict=True))
    if found != planned:
        raise ReportError(
            f"{parquet}: expected {len(planned)} pairs of run and attack, as planned; {len(planned - found)} are "
            f"missing and {len(found - planned)} are not of this study. Delete it and rerun aggregate."
        )
    return results


def _rule(plan: Plan, attack: str) -> str:
    return "baseline_attacks" if attack in plan.baselines else "attack"


def _read_table(path: Path, rule: str, expected: tuple[str, ...]) -> pd.DataFrame:
    try:
        # pandas' own reading of Parquet opens a data set of many files first, which takes longer than to read one.
        table = ParquetFile(path).read().to_pandas() if path.suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise ReportError(f"{path}: expected a file, found none. Run {rule}.") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: expected a table; cannot read it: {error}. Delete it and rerun {rule}.") from None
    _require(path, rule, expected, table.columns)
    return table


def _require(path: Path, rule: str, expected: tuple[str, ...], found: Any) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise ReportError(
            f"{path}: expected {', '.join(expected)}; missing: {', '.join(missing)}. Delete it and rerun {rule}."
        )
