"""Methods at equal accuracy, from rows of results alone: on curves that are known."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cem.report.equal_accuracy import LESS, MORE, NOTHING, UNTOLD, YARDSTICK, Comparisons, write_frames
from cem.report.equal_tables import equal_tables, markdown
from cem.report.interpolation import monotone
from cem.report.series import SeriesError
from cem.report.statistics import LogErrors

ROOT = Path(__file__).parents[3]
SIGMAS = (0.0, 0.1, 0.2, 0.4, 0.8)
WEIGHTS = (0.1, 0.3, 1.0)

Row = dict[str, object]


def error_at(lost: float) -> float:
    """Of plain noise, by points of accuracy lost: rises fast at first, then slowly."""
    return 0.01 * (1 + lost) ** 0.8


def row(method: str, by: str, strength: float, seed: int, lost: float, error: float, **more: object) -> Row:
    """As results have it; a network's own seed moves its accuracy."""
    reference = 0.95 - 0.01 * seed
    known: Row = {
        "run": f"{method}/{strength:g}/s{seed}", "dataset": "digits", "seed": seed, "arena": "", "arena_id": "a",
        "reference": by == "σ" and not strength, "method_id": method, "method": method, "strength_name": by,
        "strength": strength, "own_network": True, "one_network": False, "reference_accuracy": reference,
        "accuracy": reference - lost / 100, "majority_accuracy": 0.1, "test_images": 1000, "attack": "decoder",
        "scope": "infer", "images": 1000,
        "strongest_of": "shadow, query", "strongest_bound": False, "mse": error, "mse_ratio_to_mean_image": error / 0.1,
    }  # fmt: skip
    return known | more


def noise(seeds: int = 3, sigmas: tuple[float, ...] = SIGMAS) -> list[Row]:
    return [row("plain noise", "σ", one, seed, 10 * one, error_at(10 * one)) for one in sigmas for seed in range(seeds)]


def method(
    factors: tuple[float, ...], label: str = "gmm bound", weights: tuple[float, ...] = WEIGHTS, **more: object
) -> list[Row]:
    """A method that leaves so many times the error of noise, seed by seed; λ costs 7 points."""
    return [
        row(label, "λ", weight, seed, 7 * weight, factor * error_at(7 * weight), **more)
        for weight in weights
        for seed, factor in enumerate(factors)
    ]


def at(frame: pd.DataFrame, label: str, points: float = 2) -> "pd.Series[float]":
    return frame.set_index(["method", "points_below"]).loc[(label, points)]


def test_a_known_curve_is_recovered_between_its_points() -> None:
    """Of an error that is smooth in accuracy, to 2 %; and seeds of other accuracies are held against their own."""
    equal = Comparisons(pd.DataFrame(noise() + method((1.5, 1.5, 1.5)))).equal_accuracy()
    for points in (1, 2, 5):
        assert at(equal, "plain noise", points)["error"] == pytest.approx(error_at(points), rel=0.02)
        assert at(equal, "gmm bound", points)["error"] == pytest.approx(1.5 * error_at(points), rel=0.02)
        assert at(equal, "gmm bound", points)["factor_to_noise"] == pytest.approx(1.5, rel=0.02)
        assert at(equal, "gmm bound", points)["accuracy"] == pytest.approx(0.94 - points / 100)
    assert at(equal, "plain noise")["verdict"] == YARDSTICK


def test_a_straight_line_is_recovered_exactly_and_slopes_give_the_value() -> None:
    accuracy, errors = np.array([0.9, 0.8, 0.5]), np.array([0.01, 0.02, 0.05])
    curve = monotone(accuracy, errors)
    for wanted in (0.9, 0.85, 0.6, 0.5):
        value, slopes = curve(wanted)
        assert value == pytest.approx(0.01 + 0.1 * (0.9 - wanted))
        assert slopes @ errors == pytest.approx(value)
        assert slopes.sum() == pytest.approx(1)


def test_slopes_say_how_the_error_moves_with_those_of_the_strengths() -> None:
    accuracy, errors = np.array([0.9, 0.87, 0.88, 0.7]), np.array([0.01, 0.03, 0.035, 0.06])
    value, slopes = monotone(accuracy, errors)(0.8)
    for place, slope in enumerate(slopes):
        moved, _ = monotone(accuracy, errors + 1e-5 * (np.arange(4) == place))(0.8)
        assert moved - value == pytest.approx(1e-5 * slope, rel=0.01)


def test_by_chance_a_stronger_setting_has_more_accuracy_and_the_curve_stays_monotone() -> None:
    accuracy, errors = np.array([0.9, 0.85, 0.86, 0.7]), np.array([0.01, 0.031, 0.029, 0.06])
    curve = monotone(accuracy, errors)
    assert (np.diff([curve(wanted)[0] for wanted in np.linspace(0.9, 0.7, 50)]) >= 0).all()
    assert curve(0.855)[0] == pytest.approx(0.03)


def test_of_strengths_that_cost_nothing_the_strongest_counts() -> None:
    """Noise is often free at first: at that accuracy, and a little below it, its error is that of the most noise."""
    curve = monotone(np.array([0.9, 0.9, 0.9, 0.8]), np.array([0.01, 0.02, 0.04, 0.05]))
    assert curve(0.9)[0] == pytest.approx(0.04)
    assert curve(0.85)[0] == pytest.approx(0.045)


def test_outside_its_points_a_curve_has_no_error() -> None:
    curve, single = monotone(np.array([0.9, 0.8]), np.array([0.1, 0.2])), monotone(np.array([0.9]), np.array([0.1]))
    assert [math.isnan(curve(wanted)[0]) for wanted in (0.91, 0.85, 0.79)] == [True, False, True]
    assert (single(0.9)[0], math.isnan(single(0.89)[0])) == (0.1, True)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((1.5, 1.55, 1.45), "leaves more error than noise"),
        ((0.7, 0.72, 0.69), "leaves less error than noise"),
        ((1.01, 0.98, 1.02), NOTHING),
        ((0.8, 1.3, 1.1), UNTOLD),
        ((1.5,), "no verdict: 1 seed"),
    ],
)
def test_what_is_said_follows_the_interval_over_seeds(factors: tuple[float, ...], words: str) -> None:
    equal = Comparisons(pd.DataFrame(noise(3) + method(factors))).equal_accuracy()
    found = at(equal, "gmm bound")
    assert found["verdict"] == words
    if len(factors) > 1:
        logs = np.log(factors)
        half = 4.302652729749464 * logs.std(ddof=1) / 3**0.5  # Student's t with two degrees of freedom
        assert math.log(found["factor_to_noise_low"]) == pytest.approx(logs.mean() - half, abs=0.02)


def test_of_one_network_that_is_given_no_verdict_is_told() -> None:
    rows = [one | {"one_network": True} for one in noise() + method((1.5, 1.55, 1.45))]
    found = at(Comparisons(pd.DataFrame(rows)).equal_accuracy(), "gmm bound")
    assert found["verdict"] == "no verdict: one network, given"


def test_what_a_curve_does_not_span_is_not_reached() -> None:
    rows = noise() + method((1.5, 1.5, 1.5), weights=(0.1, 0.3)) + method((2.0,) * 3, "vib", weights=(1.0,))
    equal = Comparisons(pd.DataFrame(rows)).equal_accuracy()
    assert at(equal, "gmm bound", 0.5)["verdict"] == "not reached: it loses 0.7 to 2.1 points"
    assert at(equal, "gmm bound", 5)["verdict"] == "not reached: it loses 0.7 to 2.1 points"
    assert at(equal, "vib", 5)["verdict"] == "not reached: its only strength loses 7.0 points"
    assert math.isnan(at(equal, "vib", 5)["error"])
    late = [one | {"accuracy": one["accuracy"] + 0.002} if one["seed"] == 2 else one for one in rows]
    words = at(Comparisons(pd.DataFrame(late)).equal_accuracy(), "gmm bound")["verdict"]
    assert words == "not reached in 1 of 3 seeds: it loses 0.6 to 2.0 points"


def test_at_its_own_accuracy_every_strength_is_held_against_noise() -> None:
    front = Comparisons(pd.DataFrame(noise() + method((1.5,) * 3, weights=(0.3,)))).front()
    mine = front[front["method"] == "gmm bound"].iloc[0]
    assert mine["factor_to_noise"] == pytest.approx(1.5, rel=0.02)
    assert mine["points_lost"] == pytest.approx(2.1)
    assert mine["on_front"] == "yes"


def test_a_strength_of_which_less_is_more() -> None:
    """ε of a local DP: the largest one costs the least accuracy."""
    rows = [
        row("local_dp", "epsilon", epsilon, seed, 10 / epsilon, 2 * error_at(10 / epsilon))
        for epsilon in (2.0, 4.0, 10.0)
        for seed in range(3)
    ]
    found = at(Comparisons(pd.DataFrame(noise() + rows)).equal_accuracy(), "local_dp")
    assert found["strengths"] == "10, 4, 2"
    assert found["factor_to_noise"] == pytest.approx(2, rel=0.02)


def test_an_error_that_is_a_limit_marks_what_rests_on_it_and_no_more() -> None:
    rows = noise() + method((1.5,) * 3)
    for one in rows:
        one["strongest_bound"] = one["method"] == "gmm bound" and one["strength"] == 1.0 and one["seed"] == 1
    equal = Comparisons(pd.DataFrame(rows)).equal_accuracy()
    assert at(equal, "gmm bound", 5)["limit"]
    assert not at(equal, "plain noise", 5)["limit"]
    front = Comparisons(pd.DataFrame(rows)).front().set_index(["method", "strength"])
    assert front["limit"].to_dict() == {key: key == ("gmm bound", 1.0) for key in front.index}


def test_seeds_without_every_strength_are_left_out_and_rows_of_other_scopes_and_attacks_too() -> None:
    rows = noise() + method((1.5, 1.5, 9.0))
    rows = [one for one in rows if one["run"] != "gmm bound/0.3/s2"]
    rows += [one | {"scope": "train", "mse": 1.0} for one in rows]
    rows += [one | {"attack": "linear", "strongest_of": "", "mse": 1.0} for one in rows]
    found = at(Comparisons(pd.DataFrame(rows)).equal_accuracy(), "gmm bound")
    assert found["seeds"] == 2
    assert found["factor_to_noise"] == pytest.approx(1.5, rel=0.02)


def test_references_of_another_network_are_no_method_and_threat_models_stay_apart() -> None:
    rows = noise() + method((1.5,) * 3, "adversarial, another network (extra_conv 16)", own_network=False)
    rows += [one | {"method": "x", "method_id": "x", "own_network": False} for one in noise(sigmas=(0.0,))]
    rows = [one | {"strongest_of": "shadow, query; private, query"} for one in rows]
    equal = Comparisons(pd.DataFrame(rows)).equal_accuracy()
    assert set(equal["method"]) == {"plain noise", "adversarial, another network (extra_conv 16)"}
    assert set(equal["threat_model"]) == {"shadow, query", "private, query"}


def test_networks_that_are_compared_apart_are_told_apart() -> None:
    rows = [
        one | {"arena": f"cut {cut}", "arena_id": str(cut)} for cut in (3, 4) for one in noise() + method((2.0,) * 3)
    ]
    comparisons = Comparisons(pd.DataFrame(rows))
    assert comparisons.paired()["arena"].unique().tolist() == ["cut 3", "cut 4"]
    (table, *_) = equal_tables(comparisons.frames(), "shadow, query").values()
    assert {row[1].partition(" (")[0] for row in table.rows} == {
        f"cut {cut}: {name}" for cut in (3, 4) for name in ("plain noise", "gmm bound")
    }
    assert "Data: digits, cut 3." in markdown(comparisons)


def test_pairs_of_methods_are_compared_seed_by_seed_with_p_values_for_the_family() -> None:
    """Seeds move both methods alike: each by itself differs tenfold, their factor does not."""
    rows = noise() + method((1, 3, 9), "a") + method((2, 6.1, 18.3), "b") + method((1.1, 2.9, 9.2), "c")
    paired = Comparisons(pd.DataFrame(rows), points=(2.0,)).paired()
    found = paired.set_index(["method", "other"])
    assert set(found.index) == {("a", "b"), ("a", "c"), ("b", "c"), *((name, "plain noise") for name in "abc")}
    assert found.loc[("a", "b"), "factor"] == pytest.approx(0.5, rel=0.03)
    assert found.loc[("a", "b"), "factor_high"] < 0.6
    methods = paired[paired["other"] != "plain noise"].sort_values("p")
    ordered = methods["p"].tolist()
    expected = np.maximum.accumulate([min(1, (3 - rank) * p) for rank, p in enumerate(ordered)])
    assert methods["p_holm"].tolist() == pytest.approx(expected)


def test_of_many_pairs_those_told_apart_best_are_shown_and_the_rest_is_in_a_file() -> None:
    rows = noise() + [one for each in range(8) for one in method((1 + each, 1.1 + each, 1 + 1.2 * each), f"m{each}")]
    frames = Comparisons(pd.DataFrame(rows), points=(1.0, 2.0, 5.0)).frames()
    table = equal_tables(frames, "shadow, query")["paired"]
    pairs = frames["paired"].query("other != 'plain noise'")
    assert (len(pairs), len(table.rows)) == (84, 60)
    assert table.notes[0].startswith("60 of 84 pairs")
    told = {(row[0], row[1], row[2]) for row in table.rows}
    left = [one for one in pairs.itertuples() if (f"{one.points_below:g}", one.method, one.other) not in told]
    assert min(one.p_holm for one in left) >= pairs["p_holm"].sort_values().iloc[59]


def test_with_single_images_their_choice_widens_the_interval() -> None:
    """And the middle stays where it was, but for the mean over images."""
    random = np.random.default_rng(0)
    results = pd.DataFrame(noise() + method((1.5, 1.55, 1.45)))
    hard = random.gamma(2, 0.5, 400)  # for the method alone
    errors = dict(zip(results["run"], results["mse"], strict=True))

    def images(run: str, attack: str) -> np.ndarray:
        assert attack == "decoder"
        spread = hard if run.startswith("gmm") else np.ones(400)
        return errors[run] * spread / spread.mean()

    without, crossed = (at(Comparisons(results, given).equal_accuracy(), "gmm bound") for given in (None, images))
    assert crossed["factor_to_noise"] == pytest.approx(without["factor_to_noise"])
    assert crossed["factor_to_noise_high"] > 1.005 * without["factor_to_noise_high"]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_two_methods_that_are_alike_few_differ(seeds: int) -> None:
    """Paired by seed and image: images are hard for both, and each method's seeds move it up and down."""
    random, found = np.random.default_rng(seeds), []
    for _ in range(4000):
        image = random.gamma(4, 0.25, 60)
        errors = image * np.exp(random.normal(0, 0.1, (2, seeds, 1))) * random.gamma(10, 0.1, (2, seeds, 60))
        mine, other = (LogErrors.of(list(seeds)) for seeds in errors)
        found.append((mine - other).estimate())
    assert 0.03 < np.mean([one.low > 0 or one.high < 0 for one in found]) <= 0.06
    some = [(one.p_value, one.low > 0 or one.high < 0) for one in found[:300]]
    assert all((p < 0.05) == differs for p, differs in some)  # a p value and its interval say the same
    assert np.mean([p < 0.5 for p, _ in some]) == pytest.approx(0.5, abs=0.1)


def test_results_that_cannot_be_compared_are_refused_with_what_to_do() -> None:
    results = pd.DataFrame(noise())
    with pytest.raises(SeriesError, match=r"missing: method, strength\. .*run `cem report`"):
        Comparisons(results.drop(columns=["method", "strength"]))
    twin = results.assign(run=results["run"] + "-x", mse=2 * results["mse"])
    with pytest.raises(SeriesError, match="expected one run per seed and strength, found plain noise/0"):
        Comparisons(pd.concat([results, twin]))
    both = Comparisons(pd.concat([results, results])).equal_accuracy()  # one study's results, twice
    assert both.equals(Comparisons(results).equal_accuracy())


def test_without_noise_without_reference_and_without_anything() -> None:
    lone = Comparisons(pd.DataFrame(method((1.5,) * 3))).equal_accuracy()
    assert at(lone, "gmm bound")["verdict"] == "no verdict: there is no plain noise"
    unknown = [one | {"reference_accuracy": math.nan} for one in noise()]
    found = at(Comparisons(pd.DataFrame(unknown)).equal_accuracy(), "plain noise")
    assert found["verdict"] == "not reached: no undefended network of the same seeds"
    nothing = Comparisons(pd.DataFrame(noise()).assign(strongest_of=""))
    assert all(frame.empty for frame in (nothing.equal_accuracy(), nothing.front(), nothing.paired()))


def test_frames_are_files(tmp_path: Path) -> None:
    write_frames(Comparisons(pd.DataFrame(noise() + method((1.5, 1.6, 1.5)))).frames(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"equal_accuracy.csv", "paired.csv", "front.csv"}
    assert at(pd.read_csv(tmp_path / "equal_accuracy.csv"), "gmm bound")["factor_to_noise"] == pytest.approx(
        1.53, abs=0.03
    )


def test_the_page_of_docs_comes_from_a_csv_and_again_from_what_is_kept_of_it(tmp_path: Path) -> None:
    rows = noise() + method((1.5, 1.6, 1.5)) + method((1.02, 0.97, 1.01), "dropout|x")
    results, kept = tmp_path / "results.csv", tmp_path / "kept.csv"
    pd.DataFrame(rows).to_csv(results, index=False)

    def printed(*arguments: object) -> str:
        command = [sys.executable, str(ROOT / "benchmarks/defenses.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    text = printed(results, "--keep", kept)
    lines = text.splitlines()
    assert any(one.startswith("| 2 | gmm bound (λ 0.1, 0.3, 1) | leaves more error than noise | 92.") for one in lines)
    assert any(one.startswith(r"| 2 | dropout\|x (λ 0.1, 0.3, 1) | buys nothing over noise | ") for one in lines)
    assert any(one.startswith("| gmm bound | λ 0.3 | decoder | leaves more error than noise | yes | ") for one in lines)
    assert any(one.startswith("| 5 | plain noise (σ 0, 0.1, 0.2, 0.4, 0.8) | the yardstick | ") for one in lines)
    assert printed(kept) == text
    assert "| 3 |" in printed(kept, "--points", 3)


def test_what_one_interval_alone_tells_apart_is_not_told_among_many() -> None:
    """One of ten methods has a p below 0.05 that is above it after Holm."""
    alike = [row for place in range(9) for row in method((0.8, 1.3, 1.1), f"alike {place}")]
    for factors, alone, among in (((1.2, 1.5, 1.3), MORE, UNTOLD), ((0.7, 0.85, 0.8), LESS, NOTHING)):
        rows = noise() + method(factors)
        assert at(Comparisons(pd.DataFrame(rows)).equal_accuracy(), "gmm bound")["verdict"] == alone
        found = at(Comparisons(pd.DataFrame(rows + alike)).equal_accuracy(), "gmm bound")
        assert found["p"] < 0.05 < found["p_holm"]
        assert found["verdict"] == among


def test_errors_of_different_images_have_no_factor() -> None:
    rows = noise() + method((1.5, 1.55, 1.45), images=100)
    comparisons = Comparisons(pd.DataFrame(rows))
    found = at(comparisons.equal_accuracy(), "gmm bound")
    assert found["verdict"] == "no verdict: scored on different images (100 and 1000)"
    assert math.isnan(found["factor_to_noise"])
    (doubt,) = comparisons.paired()["doubt"].unique()
    assert doubt == "scored on different images (100 and 1000)"
    told = set(comparisons.front()["verdict"])
    assert told == {"no verdict: scored on different images (100 and 1000)", YARDSTICK}


@pytest.mark.parametrize(("whose", "change", "why"), [
    ("plain noise", {"one_network": True}, "one network, given"),
    ("gmm bound", {"majority_accuracy": 0.9}, "near chance"),
])  # fmt: skip
def test_what_stands_against_either_side_stands_against_the_words(whose: str, change: Row, why: str) -> None:
    rows = [one | (change if one["method"] == whose else {}) for one in noise() + method((1.5, 1.55, 1.45))]
    comparisons = Comparisons(pd.DataFrame(rows))
    found = at(comparisons.equal_accuracy(), "gmm bound", 5)
    assert found["verdict"] == f"no verdict: {why}"
    assert math.isnan(found["p_holm"])
    assert set(comparisons.paired().query("points_below == 5")["doubt"]) == {why}


def test_a_limit_of_noise_alone_leaves_the_methods_error_a_number() -> None:
    rows = [one | {"strongest_bound": one["method"] == "plain noise"} for one in noise() + method((1.5, 1.55, 1.45))]
    comparisons = Comparisons(pd.DataFrame(rows))
    found = at(comparisons.equal_accuracy(), "gmm bound")
    assert (found["limit"], found["own_limit"]) == (True, False)
    tables = equal_tables(comparisons.frames(), "shadow, query")
    (mine,) = [row for row in tables["equal_accuracy"].rows if row[0] == "2" and row[1].startswith("gmm")]
    assert mine[2].endswith("(≤)")
    assert not mine[4].startswith("≤")
    cells = {row[0]: row[2] for row in tables["hypervolume"].rows}
    assert cells["plain noise"].startswith("≤ ")
    assert not cells["gmm bound"].startswith("≤")


def test_a_limit_puts_nothing_off_the_front() -> None:
    """The method is better in both than all noise but the undefended; its errors are upper limits."""
    rows = noise() + method((3.0,) * 3, strongest_bound=True)
    front = Comparisons(pd.DataFrame(rows)).front()
    told = {name: set(rows["on_front"]) for name, rows in front.groupby("method")}
    assert told == {"plain noise": {"yes"}, "gmm bound": {"not known"}}


def test_all_data_of_a_threat_model_are_one_family() -> None:
    rows = [one | {"dataset": name} for name in ("digits", "shirts") for one in noise() + method((1.3, 1.5, 1.4))]
    equal = Comparisons(pd.DataFrame(rows)).equal_accuracy().query("method == 'gmm bound' and points_below == 2")
    assert equal["p_holm"].tolist() == pytest.approx([2 * p for p in equal["p"]])


def test_a_strength_is_held_against_noise_by_all_seeds_that_have_it() -> None:
    rows = [one for one in noise() + method((1.5, 1.55, 1.45)) if one["run"] != "gmm bound/1/s2"]
    front = Comparisons(pd.DataFrame(rows)).front().set_index(["method", "strength"])
    assert front.loc[("gmm bound", 0.1), ["seeds", "factor_to_noise_seeds"]].tolist() == [3, 3]
    assert front.loc[("gmm bound", 1.0), ["seeds", "factor_to_noise_seeds"]].tolist() == [2, 2]


def test_where_no_attack_counts_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    pd.DataFrame(noise()).assign(strongest_of="").to_csv(file, index=False)
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/defenses.py", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "No attack counts on any run, so that nothing is compared.\n")
