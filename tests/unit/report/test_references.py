"""What the gate of a given network rests on is told, and warned of where it is weak; its seeds are repetitions."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cem.planning.plan import Plan
from cem.report.groups import group_plan
from cem.report.references import references_of
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.tables import attacks_table
from cem.report.warnings import warnings_of
from cem.storage.files import write_json

from .conftest import write_study
from .test_curves import GIVEN

NAMED = GIVEN.replace("WEIGHTS", ", weights: w.pt, reference: plain.pt")
TRAINED = GIVEN.replace("WEIGHTS", ", weights: w.pt").replace("none\nruns", "{epochs: 0, reference: {epochs: 3}}\nruns")


def made(folder: Path, text: str, given: float, reference: float) -> Plan:
    """A study whose networks have these accuracies; always naming the most frequent of its classes has a third."""
    plan = write_study(folder, text)
    for name, run in plan.runs.items():
        path = plan.run(run) / "train.json"
        told = {"accuracy_test": given if name in plan.asked else reference, "epochs": 3 * run.trained}
        write_json(path, json.loads(path.read_text()) | told)
    return plan


@pytest.mark.parametrize(
    ("text", "kind"),
    [(NAMED, "(weights that model.reference names)"), (TRAINED, "(trained for it, 3 epochs, 3 seeds)")],
)
def test_what_the_gate_rests_on_stands_below_the_attacks(tmp_path: Path, text: str, kind: str) -> None:
    plan = made(tmp_path, text, 0.9, 0.85)
    results, _ = gather(plan)
    notes = attacks_table(plan, group_plan(plan), results, Scores(plan)).notes
    first, second, third = (note for note in notes if note.startswith("The gate of "))
    assert f"rests on an undefended reference {kind} with a test accuracy of 85.0 %" in first
    assert first.endswith("the network that was given has 90.0 %.")
    assert [label in note for label, note in (("σ 0 ", first), ("σ 0.1", second), ("σ 0.2", third))] == [True] * 3
    assert not any("weak reference" in text for text in warnings_of(plan, group_plan(plan)))


@pytest.mark.parametrize(
    ("given", "reference", "why"),
    [
        (0.9, 0.79, "more than 10 points below the network that was given"),
        (0.4, 0.35, "near chance"),
        (0.9, 0.81, ""),
        (0.5, 0.95, ""),  # noise and defences cost the one that is given its accuracy
    ],
)
@pytest.mark.parametrize(
    ("text", "remedy"), [(NAMED, "(model.reference)"), (TRAINED, "(training.reference)")], ids=["named", "trained"]
)
def test_a_weak_reference_is_warned_of(
    tmp_path: Path, text: str, remedy: str, given: float, reference: float, why: str
) -> None:
    plan = made(tmp_path, text, given, reference)
    found = [text for text in warnings_of(plan, group_plan(plan)) if text.startswith("A weak reference")]
    assert len(found) == (3 if why else 0)
    assert all(why in text and remedy in text for text in found)


def test_a_network_that_is_trained_has_the_training_of_its_reference(tmp_path: Path) -> None:
    plan = write_study(tmp_path)
    assert not list(references_of(plan, group_plan(plan)))


@pytest.mark.parametrize(("text", "called"), [(NAMED, "repetitions on one network"), (TRAINED, "seeds")])
def test_the_gates_interval_over_one_network_is_of_repetitions(tmp_path: Path, text: str, called: str) -> None:
    plan = made(tmp_path, text, 0.9, 0.9)
    for number, run in enumerate(plan.references.values()):
        path = plan.attack(run, "decoder") / "metrics.parquet"
        pd.read_parquet(path).assign(mse=0.01 + 0.01 * number).to_parquet(path, index=False)
    results, _ = gather(plan)
    (why,) = set(results.query("attack == 'decoder'")["attack_verdict"])
    assert "does not surely invert the undefended reference" in why
    assert f"by its interval over 3 {called})" in why
