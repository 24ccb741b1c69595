"""Weights of an attacker's networks: what a fit leaves for others, and how a network starts from such a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from cem import __version__
from cem.attacks.base import Fitted
from cem.config import AttackSettings, Run, load
from cem.models import smashed_shape_of
from cem.storage.manifest_records import KnownImages
from cem.storage.tensors import load_checkpoint, save_checkpoint, subset
from cem.storage.weights import KIND, NetworkFacts, WeightsError, WeightsHeader, check_facts, read_header


@dataclass(frozen=True)
class Weights:
    """Fitted networks by name, `net` first among them, and what they are."""

    facts: NetworkFacts
    nets: Mapping[str, nn.Module]


@runtime_checkable
class HasWeights(Protocol):
    """An attack whose networks others may start from."""

    def weights(self) -> Weights:
        """After `fit`."""


def save_weights(
    path: Path, weights: Weights, fitted: Fitted, knowledge: KnownImages | None, started_from: list[str]
) -> None:
    """Write the networks of a fit, whole or not at all. Equal fits give equal bytes."""
    header = WeightsHeader(
        **weights.facts.model_dump(),
        kind=KIND,
        version=1,
        cem=__version__,
        converged=fitted.converged,
        held_out_mse=fitted.held_out_mse,
        knowledge=knowledge,
        started_from=started_from,
    )
    tensors = {
        f"{name}.{key}": tensor for name, net in weights.nets.items() for key, tensor in net.state_dict().items()
    }
    save_checkpoint(path, KIND, tensors, header.model_dump(mode="json"))


def load_weights(path: str, facts: NetworkFacts, nets: Mapping[str, nn.Module]) -> WeightsHeader:
    """Give the networks, which are as `facts` say, the weights of a file.

    Raises WeightsError where it is absent, damaged or of another network.
    """
    header = read_header(path)
    check_facts(path, header, facts)
    tensors, _ = load_checkpoint(path, KIND)
    for name, net in nets.items():
        found, expected = subset(tensors, name), net.state_dict()
        for key in sorted(found.keys() | expected.keys()):
            shapes = [tuple(one[key].shape) if key in one else "no such tensor" for one in (expected, found)]
            if shapes[0] != shapes[1]:
                raise WeightsError(
                    f"{path}: expected {name}.{key} to be {shapes[0]}, found {shapes[1]}. It is not what its header "
                    "says: export it again."
                )
        net.load_state_dict(found)
    return header


def check_starts(run: Run, attack: AttackSettings) -> None:
    """Raise WeightsError where a file that an attack on a run starts from is absent, or of another network."""
    image = (run.dataset.channels, run.dataset.side, run.dataset.side)
    if not attack.starts:
        return
    if run.model.has_network:
        z = smashed_shape_of(run.model, image)
    else:
        z = load("cem.data.sources.pairs:smashed_shape_of_pairs")(run.dataset)
    for start in attack.starts:
        expected = NetworkFacts(
            network=start.network,
            net=start.net,
            smashed_shape=z if start.of_z else None,
            masked=start.of_z and any(defense.masks for defense in run.defenses),
            image_shape=image,
        )
        check_facts(start.path, read_header(start.path), expected)
