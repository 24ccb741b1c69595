"""A whole study in which one encoder collapses: its run is a result, and the report is that of all runs.

The stages are called one after the other in this process, as the workflow's scripts call them.
"""

import re

import numpy as np
import pandas as pd
import pytest

from cem.config import parse_study
from cem.data.prepare import prepare_data
from cem.evaluation import attack_run
from cem.planning.plan import Plan
from cem.report.page import write_report
from cem.report.results import aggregate
from cem.storage.hdf5 import SPLITS, open_activations
from cem.training import extract_activations, measure_mixture, train, warm_up

PRESSED = {"kind": "gmm", "weight": 1e6}  # the first steps leave no unit of the encoder's last layer alive
STUDY = {
    "name": "tiny",
    "dataset": {"source": "synthetic", "images": 300, "classes": 3, "channels": 1},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1", "activation": "relu"},
    "training": {"epochs": 3, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02, "milestones": [], "probe_every": 2},
    "surrogates": [{"kind": "none"}, PRESSED],
    "attacks": [
        {"kind": "mean_image"},
        {"kind": "linear"},
        {"kind": "nearest"},
        {"kind": "decoder", "net": "res_normN0C4", "epochs": 60, "batch_size": 16, "lr": 0.01},
        {"kind": "optimization", "steps": 5, "scored": 20, "selection_images": 10},
    ],
    "report": {"images": 2, "map_samples": 20},
}


def make_study(plan: Plan) -> None:
    """Everything up to the report."""
    for dataset in plan.datasets.values():
        prepare_data(dataset, plan.data(dataset))
    for base, run in plan.warmups.items():
        place, data = plan.folder / "warmup" / base, plan.data(run.dataset)
        warm_up(run, data, place / "model.safetensors", place / "history.csv", plan.root)
        model = place / "model.safetensors"
        extract_activations(run, data, model, "warm_up", plan.study.smashed_dtype, place / "activations.h5")
    for run in plan.runs.values():
        place, warm, data = plan.run(run), plan.warmup(run), plan.data(run.dataset)
        start = plan.start_mixture(run)
        if start is not None and not start.exists():
            measure_mixture(run, run.surrogate.mixture, warm / "activations.h5", start)
        train(run, data, warm / "model.safetensors", warm / "history.csv", start, place, plan.root)
        model, activations = place / "model.safetensors", place / "activations.h5"
        extract_activations(run, data, model, "model", plan.study.smashed_dtype, activations)
        measure_mixture(run, plan.study.leakage, activations, plan.leakage(run), data=data, model=model)
        attack_run(
            run, plan.attacks(run), activations=activations, data=data, model=model, folder=place / "attacks",
            num_images=2, results=plan.root,
        )  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("collapsed")
    made = Plan(parse_study(STUDY, "test"), folder / "results")
    make_study(made)
    tables = [made.folder / name for name in ("results.parquet", "results.csv", "runs.csv")]
    aggregate(made, *tables)
    write_report(made, tables[0], made.report)
    return made


def test_the_encoder_did_collapse(plan: Plan) -> None:
    for run in plan.asked.values():
        with open_activations(plan.run(run) / "activations.h5") as file:
            parts = [file.read(split, slice(0, 1000), np.asarray) for split in SPLITS]
        assert (np.ptp(np.concatenate(parts), axis=0).max() == 0) == (run.surrogate.kind == "gmm")


def test_it_is_a_result_that_protects_nothing_and_leaks_nothing(plan: Plan) -> None:
    results = pd.read_csv(plan.folder / "results.csv")
    assert set(results["run"]) == set(plan.runs)
    assert results["mse"].notna().all()
    constant = results[results["surrogate"] == "gmm"]
    assert constant["constant"].all()
    assert not results.loc[results["surrogate"] != "gmm", "constant"].any()
    assert constant["leakage_nats"].to_numpy() == pytest.approx(0, abs=0.01)
    assert constant["leakage_lower_nats"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert (constant["accuracy"] <= constant["majority_accuracy"] + 1e-9).all()


def test_the_report_is_there_and_says_it(plan: Plan) -> None:
    page = " ".join(re.sub("<[^>]+>", " ", plan.report.read_text()).split())
    assert "sends a constant" in page
    assert "near chance: gmm-bound-w1e+06" in page
