"""`cem audit`: from a network that was trained elsewhere to a report; it writes the study and runs it."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cem.config import DATASETS, ConfigError, parse_study
from cem.data.catalog import SETS
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start
from cem.planning.workflow import find_workflow, run_command
from cem.storage.files import write_text

WRITTEN = "# Written by `cem audit`, which may write it anew: under another name it is yours.\n"
ACTIVATIONS = (".npz", ".h5", ".hdf5")  # how files of these end

Settings = dict[str, Any]
Weights = Annotated[
    list[str] | None,
    typer.Option(help="file of weights, or {path: …, entry: …, keys: {…}}; may be given several times"),
]


def audit(
    network: Annotated[
        str,
        typer.Argument(help="mynet.py, an architecture (torchvision:resnet18@layer1), or activations (z.npz)"),
    ],
    data: Annotated[str, typer.Option(help="an .npz file, a folder of images, a source's name, or {source: …}")] = "",
    cut: Annotated[str, typer.Option(help="of mynet.py: the module whose output the client sends")] = "",
    make: Annotated[str, typer.Option(help="of mynet.py: the function that gives the network; absent: build")] = "",
    weights: Weights = None,
    reference: Weights = None,
    train_reference: Annotated[int, typer.Option(min=0, help="epochs to train an undefended reference; 0: none")] = 0,
    mean: Annotated[str, typer.Option(help="of each channel, as 0.5,0.5,0.5: see std")] = "",
    std: Annotated[str, typer.Option(help="the network was trained on (image − mean) / std")] = "",
    noise: Annotated[float, typer.Option(min=0, help="σ of the Gaussian noise that the client adds")] = 0.0,
    attacks: Annotated[str, typer.Option(help="quick, standard, paper, or a list [{kind: …}]")] = "quick",
    side: Annotated[int | None, typer.Option(help="images become side × side pixels; absent: the data set's")] = None,
    fit: Annotated[str, typer.Option(help="how images of several shapes become square: crop, pad, stretch")] = "",
    channels: Annotated[int | None, typer.Option(help="1: grey; 3: colour; absent: the data set's")] = None,
    name: Annotated[str, typer.Option(help="of the study, and of the folder of its results")] = "audit",
    cores: Annotated[str, typer.Option(help="CPU cores, or all")] = "all",
    run: Annotated[bool, typer.Option("--run/--write-only", help="run the study, or only write and check it")] = True,
) -> None:
    """Attack a network that was trained elsewhere: write NAME.yaml, check it and run it to results/NAME/report.html.

    The Python file is run: name none that you would not run. docs/audit.md shows all of it.
    """
    of_file = {"cut": cut, "make": make, "mean": mean, "std": std, "weights": weights, "reference": reference}
    _check_options(network, [option for option, value in of_file.items() if value])
    dataset = _activations(network, data) if network.lower().endswith(ACTIVATIONS) else _dataset(data)
    asked = {"side": side, "fit": fit or None, "channels": channels}
    dataset |= {key: value for key, value in asked.items() if value is not None}
    study: Settings = {"name": name, "dataset": dataset, "model": _model(network, cut, make, mean, std)}
    files = {"weights": weights, "reference": reference}
    study["model"] |= {key: [_read(one, key) for one in named] for key, named in files.items() if named}
    study["training"] = {"epochs": 0, "reference": {"epochs": train_reference}} if train_reference else "none"
    study["noise_std"] = noise
    study["attacks"] = _read(attacks, "attacks") if attacks.startswith(("[", "{")) else {"panel": attacks}
    planned = Plan(parse_study(study, "cem audit"))  # before a file is named by what is not checked yet
    path = Path(f"{name}.yaml")
    _write(path, study)
    for note in check_before_start(planned):
        typer.echo(note)
    runs = f"{len(planned.runs)} run{'s' if len(planned.runs) > 1 else ''}"
    typer.echo(f"{path}: {runs}, {planned.jobs().total()} jobs", err=True)
    if not run:
        typer.echo(f"to run it: {run_command(path)}")
    else:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(find_workflow()), "--configfile", str(path)]
        sys.stdout.flush()
        # It takes this program's place, so that signals reach it directly.
        os.execv(command[0], [*command, "--cores", cores])  # noqa: S606  no shell is wanted


def _check_options(network: str, of_file: list[str]) -> None:
    """Raise ConfigError for options of a Python file where the network comes from none."""
    if of_file and not network.endswith(".py"):
        options = ", ".join(f"--{option}" for option in of_file)
        raise ConfigError(
            f"{network}: found {options}, expected only with the Python file of a network, such as mynet.py. Leave "
            f"{'it' if len(of_file) == 1 else 'them'} out"
        )


def _activations(path: str, data: str) -> Settings:
    if data:
        raise ConfigError(f"{path}: activations have their images with them. Leave --data out")
    return {"source": "activations", "name": _name(path), "path": path}


def _name(path: str) -> str:
    """Of a data set, from its file."""
    return re.sub(r"[^A-Za-z0-9_]", "_", Path(path).stem)[:64].lstrip("_") or "own"


def _model(network: str, cut: str, make: str, mean: str, std: str) -> Settings:
    if network.lower().endswith(ACTIVATIONS):
        return {"arch": "activations"}
    if not network.endswith(".py"):
        return {"arch": network, "bottleneck": None, "activation": "none"}
    model: Settings = {"arch": "module", "path": network, "cut": cut} | ({"make": make} if make else {})
    if not cut:
        raise ConfigError(f"{network}: expected --cut MODULE, the module whose output the client sends; found none")
    return model | {key: _numbers(key, text) for key, text in (("mean", mean), ("std", std)) if text}


def _dataset(data: str) -> Settings:
    if data.startswith("{"):
        found: Settings = _read(data, "data")
        return found
    if not data:
        raise ConfigError("expected --data: an .npz file, a folder of images, or a known set; found none")
    path = Path(data)
    own = _name(data)
    if path.suffix.lower() == ".npz":
        return {"source": "npz", "name": own, "path": data}
    if path.is_dir():
        return {"source": "image_folder", "name": own, "path": data}
    if data in DATASETS.members:
        return {"source": data}
    sets = {one.name: one.study for one in SETS}
    if data in sets:
        known: Settings = yaml.safe_load(sets[data])
        return known
    raise ConfigError(
        f"--data: expected an .npz file, a folder of images, one of {', '.join([*sets, *DATASETS.members])}, or "
        f"{{source: …}} with its settings; found {data!r}. `cem data` shows the known sets"
    )


def _read(text: str, option: str) -> Any:
    """What an option says in YAML; other words as they are."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{option}: not valid YAML: {error}") from None


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{option}: expected numbers such as 0.5,0.5,0.5; found {text!r}") from None


def _write(path: Path, study: Settings) -> None:
    try:
        if path.exists() and not path.read_bytes().startswith(WRITTEN.encode()):
            raise ConfigError(f"{path}: is there, and not written by cem audit. Choose another --name")
        text = yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=110)
        write_text(path, WRITTEN + text)
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()}: cannot write the study: {error.strerror}. Work in a folder where you may write, or "
            "choose another --name"
        ) from None
