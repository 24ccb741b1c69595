"""One run in a terminal: settings, curves, scores and where its files are."""

import json
import math
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from cem.cli import main
from cem.planning.plan import Plan
from cem.report.results import gather, write_tables
from cem.report.show import BARS, WIDTH, draw


@pytest.fixture
def shown(plan: Plan, monkeypatch, capsys):
    """Run `cem show` where a study has its results: exit code, standard output, standard error."""
    for run in plan.runs.values():
        header = json.dumps({"kind": "model", "version": 1, "settings": run.sparse()})
        save_file({"w": np.zeros(1, np.float32)}, plan.run(run) / "model.safetensors", {"cem": header})
    monkeypatch.chdir(plan.root.parent)

    def show(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["show", *words])
        return done.value.code, *capsys.readouterr()

    return show


def gmm(plan: Plan) -> str:
    return next(name for name, run in plan.runs.items() if run.surrogate.kind == "gmm")


def test_a_run_is_shown_by_a_part_of_its_id(shown, plan):
    code, out, err = shown(gmm(plan)[-6:])
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{gmm(plan)} of fake"
    lines = {line.split("  ")[1].strip(): line.split() for line in out.splitlines() if line.startswith("  ")}
    assert lines["surrogate.kind"][-1] == "gmm"
    assert lines["accuracy_test"][-1] == "0.97"
    assert lines["≤ (" + plan.leakage(plan.runs[gmm(plan)]).stem + ")"][-1] == "200"
    decoder = next(line for line in out.splitlines() if line.startswith("decoder") and " infer " in line)
    assert decoder.split()[2:5] == ["0.03", "13", "0.5"]
    assert "val_accuracy" in out
    assert "0.7 → 0.9" in out  # of the history
    assert f"results/fake/runs/{gmm(plan)}/attacks/decoder/reconstructions.h5" in out


def test_verdicts_are_those_of_the_results(shown, plan):
    assert "not known before aggregate" in shown(gmm(plan))[1]
    results, runs = gather(plan)
    write_tables(results, runs, plan.folder / "results.csv", plan.folder / "runs.csv")
    out = shown(gmm(plan))[1]
    assert "not known before aggregate" not in out
    assert "mse there" in out.lower() or "counts" in out


def test_an_attack_that_the_results_lack_is_said_to_be_in_no_table(shown, plan):
    """It is older than they are: no workflow will put it there."""
    results, runs = gather(plan)
    results = results[results["attack"] != "decoder"]
    write_tables(results, runs, plan.folder / "results.csv", plan.folder / "runs.csv")
    assert "in no table: no longer planned" in shown(gmm(plan))[1]
    os.utime(plan.folder / "results.csv", (1, 1))
    out = shown(gmm(plan))[1]
    assert "in no table" not in out
    assert "not known before aggregate" in out


def test_a_part_that_several_have_or_none_is_refused_with_the_choices(shown, plan):
    code, out, err = shown("gmm")
    assert (code, out) == (2, "")
    assert "found 'gmm' in 2" in err
    assert gmm(plan) in err
    assert "found none for 'nothing'" in shown("nothing")[2]
    assert "expected the folder of a run" in shown("results")[2]


def test_what_is_not_made_yet_is_named(shown, plan):
    folder = plan.run(plan.runs[gmm(plan)])
    for name in ("model.safetensors", "train.json", "history.csv"):
        (folder / name).unlink()
    code, out, _ = shown(gmm(plan))
    assert code == 0
    assert out.splitlines()[-1] == "not made yet: model, curves, training"


def test_a_damaged_model_is_named(shown, plan):
    (plan.run(plan.runs[gmm(plan)]) / "model.safetensors").write_bytes(b"no")
    code, _, err = shown(gmm(plan))
    assert code == 2
    assert "model.safetensors: expected a model as train writes it" in err


def test_programs_get_json_without_infinities(shown, plan):
    run = next(run for run in plan.runs.values() if run.noise_std == 0)
    code, out, _ = shown(run.id, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["run"] == run.id
    assert found["settings"]["noise_std"] == 0
    assert list(found["leakage"].values()) == [None]  # infinite
    assert {one["name"] for one in found["attacks"]} == {"mean_image", "linear", "nearest", "decoder"}


def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value():
    assert draw([0.0, 1.0, 2.0, 7.0]) == BARS[0] + BARS[1] + BARS[2] + BARS[7]
    assert draw([3.0, 3.0]) == BARS[0] * 2
    assert draw([0.0, math.nan, 1.0, math.inf]) == f"{BARS[0]} {BARS[-1]} "
    assert draw([math.nan]) == " "
    long = draw(list(map(float, range(1000))))
    assert len(long) == WIDTH
    assert long[0] == BARS[0]
    assert long[-1] == BARS[-1]
    assert list(long) == sorted(long)
