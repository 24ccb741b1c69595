"""What all defences share: what acts on z before it leaves the client, or on the encoder's objective."""

from typing import ClassVar

from cem.config.model_base import ModelSettings
from cem.config.registry import Member


class DefenseSettings(Member):
    """What all defences share. They act in ascending `order`, after the noise, however a study lists them.

    masks: whether it sets values of z to zero, so that a zero says that the value is hidden. adds_noise: whether it is
    the noise itself, in place of `noise_std`. in_encoder: a layer, as `module:name`, that it puts between the encoder's
    bottleneck and activation, called with the settings and the number of channels; empty: none. needs_training: whether
    it does nothing for a network that is taken as it is given. strength: the setting by which it is made stronger or
    weaker, along which the report joins its runs; empty: none. meaning: what the report says of what it promises;
    empty: nothing.
    """

    order: ClassVar[int]
    masks: ClassVar[bool] = False
    adds_noise: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    strength: ClassVar[str] = ""
    in_encoder: ClassVar[str] = ""

    @property
    def meaning(self) -> str:
        return ""

    @property
    def label(self) -> str:
        """Short and path-safe: part of a run's id."""
        raise NotImplementedError

    def pruned(self, model: ModelSettings) -> ModelSettings:
        """The network that a training with it ends with."""
        return model

    def prunes_at(self, epochs: int) -> int | None:
        """Epoch (from 0) before which it makes the network smaller, of so many; None: it never does."""
        return None

    def check_model(self, model: ModelSettings, side: int) -> None:
        """Raise ValueError where settings tell that it cannot act on this network and images of this side."""
        if not model.needs_network:
            self.check_z(model, model.side_of_z(side), side)

    def check_size(self, numbers: int, batch: int) -> None:
        """Raise ValueError where it cannot act on a z of so many numbers, sent in batches of so many images."""

    def check_z(self, model: ModelSettings, z: int, side: int) -> None:
        """Raise ValueError where it cannot act on this network, whose z have side `z` for images of this side."""
