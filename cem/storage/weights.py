"""Weights of an attacker's networks in a file of safetensors, whose header says of what networks. No torch in here.

An attack leaves such a file beside its results, `cem attack export` copies it, and another attack starts from it.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from cem.storage.files import StoreError
from cem.storage.manifest_records import KnownImages
from cem.storage.records import Part, findings

KIND: Literal["attack weights"] = "attack weights"
VERSION = 1
NAME = "weights.safetensors"  # of the file beside attack.json
Shape = tuple[int, int, int]  # channels, height, width


class WeightsError(StoreError):
    """A file of weights that an attack cannot start from."""


class NetworkFacts(Part):
    """What has to be equal for one network to take the weights of another.

    network: the kind (decoder, gan, flow, prior). net: its size, as settings say it. smashed_shape: of z; None: it is
    told none. masked: it is told which values of z a defence hides.
    """

    network: str
    net: str
    smashed_shape: Shape | None
    masked: bool
    image_shape: Shape

    @property
    def text(self) -> str:
        """In words."""
        told = "" if self.smashed_shape is None else f" from z {_times(self.smashed_shape)}"
        mask = " under a defence that masks" if self.masked else ""
        return f"{self.network} {self.net}{told}{mask} to images {_times(self.image_shape)}"


class WeightsHeader(NetworkFacts):
    """What a file says of itself. version: of its format. cem: the version that wrote it.

    converged and held_out_mse: as the fit said. knowledge: of the attacker who fitted it; None: the file does not say.
    started_from: SHA-256 of the files that this fit started from itself.
    """

    kind: Literal["attack weights"]
    version: Literal[1]
    cem: str
    converged: bool | None = None
    held_out_mse: float | None = None
    knowledge: KnownImages | None = None
    started_from: list[str] = []


def read_header(path: str | Path) -> WeightsHeader:
    """The header of a file of weights, whose numbers are finite.

    Raises WeightsError where it is absent, not of safetensors, not of an attack, or holds a number that is not finite.
    """
    expected = f"{path}: expected weights that `cem attack export` wrote"
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("cem")
            broken = [name for name in file.keys() if not np.isfinite(file.get_tensor(name)).all()]  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(
            f"{expected}, found no file. Correct the path, which is relative to the working folder, or make the file."
        ) from None
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a number format that NumPy lacks
        raise WeightsError(f"{expected}; cannot read it as safetensors: {error}. Export it again.") from None
    if text is None:
        raise WeightsError(
            f"{expected}; found safetensors that do not say of what network they are (no metadata `cem`)."
        )
    try:
        said = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{expected}; its metadata are no JSON: {error}. Export it again.") from None
    if isinstance(said, dict) and said.get("kind") != KIND:
        raise WeightsError(f"{expected}; found a file of kind {said.get('kind')!r}. Take one that it wrote.")
    try:
        header = WeightsHeader.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(
            f"{expected}, version {VERSION}; {findings(error)}. Export it again with this cem."
        ) from None
    if broken:
        raise WeightsError(f"{expected}; found numbers in {broken[0]} that are not finite. Take another file.")
    return header


def check_facts(path: str | Path, found: NetworkFacts, expected: NetworkFacts) -> None:
    """Raise WeightsError, with what to do, where a file is of another network than the one that is to start from it."""
    remedies = {
        "network": "Take a file of that kind of attack",
        "net": f"Set net: {found.net}, or take a file of {expected.net}",
        "image_shape": "Take a file of images of this size, or give the data set that side and those channels",
        "masked": "Take a file of a run whose defences mask as this run's do",
        "smashed_shape": "Take a file of a run with the same cut, bottleneck and width",
    }
    for name, remedy in remedies.items():
        if getattr(found, name) != getattr(expected, name):
            raise WeightsError(f"{path}: expected weights of {expected.text}; found those of {found.text}. {remedy}.")


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
