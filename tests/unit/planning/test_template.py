"""Studies to begin with are right as they are written, and replace nothing."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cem.cli import main
from cem.config import Decoder, load_study
from cem.planning.plan import Plan
from cem.planning.workflow import WORKFLOW


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            main(["new", *words])
        except SystemExit as done:
            code = done.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["", "quick"])
@pytest.mark.parametrize("template", ["data", "model", "front"])
def test_a_template_is_a_study_with_comments(new, template, quick):
    code, out, err = new("mine", "--template", template, "--images", "my images", *quick)
    assert (code, err) == (0, "")
    assert "cem validate config/mine.yaml" in out
    study = load_study("config/mine.yaml")
    assert (study.name, study.dataset.name) == ("mine", "mine")
    assert Path(study.dataset.path) == Path("my images")
    assert Plan(study).runs
    assert Path("config/mine.yaml").read_text().count("#") > 5


@pytest.mark.parametrize("template", ["data", "model", "front"])
def test_a_first_look_has_one_seed_and_attacks_of_few_epochs(new, template):
    new("quick", "--template", template, "--quick")
    new("whole", "--template", template)
    quick, whole = (load_study(f"config/{name}.yaml") for name in ("quick", "whole"))
    assert quick.seeds == (0,)
    assert len(Plan(quick).runs) <= len(Plan(whole).runs)
    few, many = ([one.max_epochs for one in study.attacks if isinstance(one, Decoder)] for study in (quick, whole))
    assert few == [32] * len(many)
    assert min(many) > 32


def test_the_command_that_runs_it_is_for_the_folder_one_is_in(new, tmp_path):
    _, out, _ = new("mine", "--template", "data")
    there = f"snakemake --snakefile {shlex.quote(str(WORKFLOW))} --cores all --configfile config/mine.yaml"
    assert f"  {there}\n" in out
    assert f"#   {there}\n" in Path("config/mine.yaml").read_text()
    for folder in ("profiles/local", "workflow/rules"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "workflow/rules/common.smk").touch()
    _, out, _ = new("other", "--template", "data")
    assert "  snakemake --profile profiles/local --configfile config/other.yaml\n" in out


def test_a_front_has_plain_noise_and_strengths_to_join(new):
    new("mine", "--template", "front")
    runs = Plan(load_study("config/mine.yaml")).asked.values()
    plain = {run.noise_std for run in runs if not run.defenses and not run.surrogate.adds_term}
    assert len(plain) >= 3
    assert len({run.surrogate.weight for run in runs if run.surrogate.adds_term}) >= 3


def test_the_paths_of_an_own_network_are_taken(new):
    assert new("mine", "--template", "model", "--network", "a: b.py", "--cut", "layer1.0", "--images", "x.npz")[0] == 0
    study = load_study("config/mine.yaml")
    assert (study.model.path, study.model.cut, study.dataset.source) == ("a: b.py", "layer1.0", "npz")


def test_no_file_is_replaced(new):
    make = Path("config/mine.yaml")
    make.parent.mkdir()
    make.write_text("name: precious\n")
    code, _, err = new("mine", "--template", "data")
    assert code == 2
    assert "config/mine.yaml: expected no such file, found one" in err
    assert make.read_text() == "name: precious\n"


@pytest.mark.parametrize("words", [("../mine", "--template", "data"), ("a b", "--template", "front"),
                                   ("mine", "--template", "data", "--cut", "layer1")])  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(new, words, tmp_path):
    assert new(*words)[0] == 2
    assert list(tmp_path.rglob("*.yaml")) == []


def test_a_template_is_written_without_torch(tmp_path):
    program = (
        "import sys\nfrom cem.cli import main\ntry: main()\nexcept SystemExit as done: code = done.code\n"
        "print(code, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    words = [sys.executable, "-c", program, "new", "mine", "--template", "data"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False False"


@pytest.mark.parametrize("name", ["2024", "null", "no", "0x10", "1e3"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(new, name):
    code, _, err = new(name, "--template", "data", "--images", "no")
    assert (code, err) == (0, "")
    study = load_study(f"config/{name}.yaml")
    assert (study.name, study.dataset.name, study.dataset.path) == (name, name, "no")
