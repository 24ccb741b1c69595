"""What each cut of an architecture sends, and what it costs the client."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cem.config import MODELS, ModelSettings
from cem.config.errors import describe
from cem.models import parameter_count
from cem.models.split import ImageShape, ModelError, build_split, output_shape

CLASSES = 10  # of the classifier, which no number here depends on


@dataclass(frozen=True)
class Cut:
    """One cut. cut: the setting `cut_layer`, or the module. z: channels, height, width. client_macs: see `count_macs`.

    refused: why it cannot be; empty: it can, and the rest is known.
    """

    arch: str
    cut: int | str
    z: ImageShape | None = None
    client_parameters: int | None = None
    client_macs: int | None = None
    refused: str = ""

    def words(self) -> tuple[str, ...]:
        """As a row of a table."""
        if self.z is None:
            return self.arch, str(self.cut), "-", "-", f"- {self.refused}"
        z = "×".join(map(str, self.z))
        return self.arch, str(self.cut), z, f"{self.client_parameters:,}", f"{self.client_macs:,}"


def catalogue(arch: str, settings: dict[str, Any], image_shape: ImageShape) -> list[Cut]:
    """Every cut of an architecture on images [channels, height, width]; nothing is trained or drawn.

    arch: a member of the family, or `torchvision:<classifier>`, of which `@<module>` names one cut; empty: all that
    need no more to be said. settings: of all cuts, as a study says them. Raises ModelError for an architecture, module
    or setting that does not exist.
    """
    if arch.startswith("torchvision:"):
        from cem.models.torchvision import Classifier  # torchvision takes a while

        arch, at, module = arch.partition("@")
        classifier = Classifier(arch.removeprefix("torchvision:"), CLASSES)
        if at:
            classifier.cut(module)  # which says what is wrong with that one
        return [
            _cut(_made("torchvision", settings | {"arch": f"{arch}@{module}"}), arch, module, image_shape)
            for module in ([module] if at else classifier.modules())
        ]
    complete = [name for name, member in MODELS.members.items() if member.has_network and not _open(member)]
    if arch and arch not in complete:
        choices = [*complete, "torchvision:<classifier>"]
        near = get_close_matches(arch, choices, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ModelError(f"expected one of {', '.join(choices)}; found {arch!r}.{hint}")
    return [cut for name in ([arch] if arch else complete) for cut in _every_cut(name, settings, image_shape)]


@torch.no_grad()
def count_macs(module: nn.Module, image_shape: ImageShape) -> int:
    """Multiplications with addition for one image, of convolutions and matrix products, in a module on meta."""
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(1, *image_shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def _every_cut(arch: str, settings: dict[str, Any], image_shape: ImageShape) -> Iterator[Cut]:
    for cut_layer in range(1, MODELS.members[arch].stages + 1):
        yield _cut(_made(arch, settings | {"cut_layer": cut_layer}), arch, cut_layer, image_shape)


def _open(member: type[ModelSettings]) -> list[str]:
    """Settings that have no default."""
    return [name for name, field in member.model_fields.items() if field.is_required()]


def _made(arch: str, settings: dict[str, Any]) -> ModelSettings:
    member = MODELS.members[arch]
    try:
        return member.model_validate(settings)
    except ValidationError as error:
        raise ModelError(f"{arch}: {describe(error, member)}") from error


def _cut(cfg: ModelSettings, arch: str, cut: int | str, image_shape: ImageShape) -> Cut:
    try:
        encoder, _ = build_split(cfg, image_shape, CLASSES)
    except ValueError as error:
        return Cut(arch, cut, refused=str(error))
    return Cut(
        arch, cut, output_shape(encoder, image_shape), parameter_count(encoder), count_macs(encoder, image_shape)
    )
