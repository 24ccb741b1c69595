"""Studies to begin with, as YAML with comments: what `cem new` writes."""

import math
import os
import re
from enum import StrEnum
from pathlib import Path

import yaml

from cem.config import ConfigError, parse_study, read_settings
from cem.planning.workflow import run_command
from cem.storage.files import write_text


class Template(StrEnum):
    """What a study is to answer."""

    DATA = "data"
    MODEL = "model"
    FRONT = "front"


TEMPLATES = {
    Template.DATA: "your own images, defended and not",
    Template.MODEL: "your own network, trained elsewhere or here, attacked as it is",
    Template.FRONT: "accuracy against reconstruction error along the strength of each defence",
}
_IMAGES, _NETWORK, _CUT = "data/mine", "mynet.py", "features.3"
_SMALL = "{epochs: 14, warmup_epochs: 4, batch_size: 64, lr: 0.02, max_grad_norm: 5.0}"
_FULL = {
    "width": "0.25",
    "seeds": "[0, 1, 2] # fewer than 3 give hardly an interval",
    "attacks": "{panel: quick} # standard and paper take longer, and say more",
}
_QUICK = {  # a report in minutes, which says of itself how little it proves
    "width": "0.125",
    "seeds": "[0] # a first look. [0, 1, 2] gives intervals",
    "attacks": "{panel: quick, max_epochs: 32} # a first look: errors are upper limits (≤). Then: {panel: quick}",
}
_HEAD = """\
# {what}. Written by `cem new`; it is yours. All settings: config/README.md.
#   cem validate {path}                      is it right, and are the files there?
#   cem plan {path}                          which runs, how many jobs, how much time and disk?
#   {run}
name: {name}
"""
_DATASET = """\
# side: every image becomes side × side pixels; fit: crop takes the middle, pad adds borders (docs/data.md).
dataset: {{{source}, side: 32, channels: 3, fit: crop}}
"""
_BODIES = {
    Template.DATA: """\
{dataset}\
# The split model. width: 1.0 is the published one; cut_layer: where z leaves (cem models shows each cut).
model: {{arch: vgg11, width: {width}, cut_layer: 4, bottleneck: noRELU_C8S1, activation: sigmoid}}
noise_std: 0.025 # σ of the noise that is added to z
surrogates: # a run for each, and for each seed
  - {{kind: none}}
  - {{kind: gmm, formula: bound, weight: 1.0}} # weight: λ, more protects more and costs accuracy
seeds: {seeds}
training: {training} # the published: leave this line out (240 epochs)
attacks: {attacks}
""",
    Template.MODEL: """\
{dataset}\
# The file's function build() gives the network; cut: the module whose output the client sends. mean and std: of each
# channel, where the network was trained on (image − mean) / std. weights: of the trained network; reference: of one
# without a defence, which says whether attacks work at all. docs/audit.md
model:
  arch: module
  path: {network}
  make: build
  cut: {cut}
  # weights: weights.safetensors
  # reference: undefended.safetensors
  # mean: [0.5, 0.5, 0.5]
  # std: [0.5, 0.5, 0.5]
training: none # attacked as it is. To train it here: {training}
noise_std: 0.0 # σ of the noise that your client adds to z
seeds: [0]
attacks: {attacks}
""",
    Template.FRONT: """\
{dataset}\
model: {{arch: vgg11, width: {width}, cut_layer: 4, bottleneck: noRELU_C8S1, activation: sigmoid}}
noise_std: 0.025
surrogates: # the curve of a surrogate: grid below varies its weight
  - {{kind: gmm, formula: bound}}
grid:
  surrogate.weight: [0.5, 2.0, 8.0, 32.0]
runs: # further rows: plain noise, which every method has to beat, and a defence along its strength
  - {{surrogate: {{kind: none}}, noise_std: 0.025}}
  - {{surrogate: {{kind: none}}, noise_std: 0.1}}
  - {{surrogate: {{kind: none}}, noise_std: 0.3}}
  - {{surrogate: {{kind: none}}, noise_std: 1.0}}
  - {{surrogate: {{kind: none}}, defenses: [{{kind: nopeek, weight: 1.0}}]}}
  - {{surrogate: {{kind: none}}, defenses: [{{kind: nopeek, weight: 4.0}}]}}
seeds: {seeds}
training: {training} # the published: leave this line out (240 epochs)
attacks: {attacks}
""",
}


def write_study(
    folder: Path,
    name: str,
    template: Template,
    *,
    images: str = "",
    network: str = "",
    cut: str = "",
    quick: bool = False,
) -> Path:
    """Write a study from a template, and give its file. Absent paths are those of an example, to be changed.

    quick: one seed and attacks of few epochs, for a report in minutes. Raises ConfigError where the file is there
    already, or the name or a path is not one that a study can have.
    """
    path = folder / f"{name}.yaml"
    if os.path.lexists(path):  # a link that leads nowhere, too
        raise ConfigError(f"{path}: expected no such file, found one, which stays as it is. Choose another name.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", name):
        raise ConfigError(f"{name}: expected a name of letters, digits and _, at most 64; found {name!r}. Change it.")
    if (network or cut) and template != Template.MODEL:
        raise ConfigError(
            f"--network, --cut: expected with --template model, found with {template}. Leave them out, or change it."
        )
    text = study_text(path, name, template, images=images, network=network, cut=cut, quick=quick)
    write_text(path, text)
    try:
        parse_study(read_settings(path)[0], str(path))
    except ConfigError:
        path.unlink()
        raise
    return path


def study_text(path: Path, name: str, template: Template, *, images: str, network: str, cut: str, quick: bool) -> str:
    """The text of the file."""
    images = images or _IMAGES
    kind = "npz" if images.endswith(".npz") else "image_folder"
    source = f"source: {kind}, name: {_quoted(name)}, path: {_quoted(images)}"
    what = TEMPLATES[template]
    head = _HEAD.format(what=what[0].upper() + what[1:], path=path, name=_quoted(name), run=run_command(path))
    return head + _BODIES[template].format(
        dataset=_DATASET.format(source=source),
        network=_quoted(network or _NETWORK),
        cut=_quoted(cut or _CUT),
        training=_SMALL,
        **(_QUICK if quick else _FULL),
    )


def _quoted(text: str) -> str:
    """As YAML reads it back, in a list, too: plain where that is safe, which no, null and 2024 are not."""
    return str(yaml.safe_dump([text], default_flow_style=True, width=math.inf, allow_unicode=True)).strip()[1:-1]
