"""A run's defence: the noise, then the mechanisms that its settings list, each in its own place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import DefenseSettings, Run
from cem.defenses.channel import Channel
from cem.defenses.noise import GaussianNoise
from cem.storage.hdf5 import ActivationReader
from cem.storage.tensors import Stateful
from cem.types import Images, Labels, Smashed

Shape = tuple[int, int, int]  # channels, height, width


class Place(NamedTuple):
    """What a defence is trained in: the shapes of an image and of its ẑ, and how many classes there are."""

    image: Shape
    smashed: Shape
    num_classes: int


class Mechanism:
    """One defence. This one does nothing: a defence overrides what it does.

    The implementation of a member of the family is called with its settings and gives an object like this one.

    learned: what it has learned and needs wherever z leaves the client, such as the size of its noise; a part of the
    client, which the client's optimizer trains and which is kept with the model. None: nothing.
    """

    learned: nn.Module | None = None

    def build(self, smashed: Shape, generator: torch.Generator) -> None:
        """Make `learned`, with its initial weights; the generator is on the CPU."""

    def begin_training(
        self, place: Place, generator: torch.Generator, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Make what only training needs, such as an adversary; the generator is on the CPU."""

    @property
    def training_state(self) -> Stateful:
        """What only training needs, so that a resumed one goes on with the same bits."""
        return Stateful()

    def learn(self, images: Images, clean: Smashed, labels: Labels) -> None:
        """A step of what only training needs, once a batch, before the objective. ẑ is detached."""

    @property
    def channel(self) -> Channel | None:
        """The noise that it adds, as it is now; None: it adds none. It `act`s by preparing z and sending it through.

        Noise that learns has one only when it is built.
        """
        return None

    def prepare(self, clean: Smashed) -> Smashed:
        """What it makes of ẑ before the noise; the same of the same ẑ."""
        return clean

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        """What becomes of z, in training and wherever z leaves the client. The generator is on z's device."""
        return smashed

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Float[Tensor, ""] | None:
        """Its term of the objective, weight included; None: it has none."""
        return None


@dataclass(frozen=True)
class Defense:
    """A channel, then what the mechanisms do in their order; and the penalties that training pays.

    The channel is the noise of `noise_std`; where that is 0, the first mechanism that is one. What acts at inference
    acts in training and in the attack, too. The channel comes first: by data processing, a bound on I(x; z) of what it
    gives then holds for whatever the mechanisms leave of it.
    """

    noise_std: float
    settings: tuple[DefenseSettings, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()

    def prepare(self, clean: Smashed) -> Smashed:
        """What is given to the channel when the encoder's output is ẑ."""
        return clean if self._first is None else self._first.prepare(clean)

    @property
    def prepares(self) -> bool:
        """Whether the channel is given anything but ẑ."""
        return self._first is not None and type(self._first).prepare is not Mechanism.prepare

    @property
    def channel(self) -> Channel:
        """The first noise on the way out, as it is now, for noise may learn; sized 0 where there is none."""
        own = None if self._first is None else self._first.channel
        return GaussianNoise(self.noise_std) if own is None else own

    @cached_property
    def _first(self) -> Mechanism | None:
        """The mechanism that is the channel."""
        if self.noise_std > 0:
            return None
        return next((mechanism for mechanism in self.mechanisms if mechanism.channel is not None), None)

    @property
    def _acting(self) -> list[Mechanism]:
        return [mechanism for mechanism in self.mechanisms if mechanism is not self._first]

    def corrupt(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        """What leaves the client when the encoder's output is ẑ. The generator must be on ẑ's device."""
        first = self._first
        z = self.channel.send(clean, generator) if first is None else first.act(clean, generator)
        for mechanism in self._acting:
            z = mechanism.act(z, generator)
        return z

    @property
    def masks(self) -> bool:
        """Whether it sets values of z to zero: a zero then says that the value is hidden."""
        return any(settings.masks for settings in self.settings)

    @property
    def only_channel(self) -> bool:
        """Whether what leaves the client is what the channel gives: no mechanism acts on it."""
        return all(type(mechanism).act is Mechanism.act for mechanism in self._acting)

    @property
    def only_hides(self) -> bool:
        """Whether all that acts on what the channel gives sets values to zero, and does nothing else."""
        acting = [
            type(mechanism).act is not Mechanism.act and mechanism is not self._first for mechanism in self.mechanisms
        ]
        return all(settings.masks for settings, acts in zip(self.settings, acting, strict=True) if acts)

    def observe(self, clean: Smashed, generator: torch.Generator, times: int) -> Smashed:
        """What an attacker makes of the same ẑ sent several times: the mean of what it saw, hidden values left out.

        A value that was hidden every time is zero.
        """
        if times == 1:
            return self.corrupt(clean, generator)
        total, seen = torch.zeros_like(clean), torch.zeros_like(clean)
        for _ in range(times):
            z = self.corrupt(clean, generator)
            total += z
            seen += (z != 0) if self.masks else 1
        return total / seen.clamp_min(1)

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Float[Tensor, ""]:
        """Sum of the defence's terms of the objective."""
        found = (mechanism.penalty(images, clean, labels) for mechanism in self.mechanisms)
        terms = [term for term in found if term is not None]
        return sum(terms[1:], terms[0]) if terms else clean.new_zeros(())

    def learn(self, images: Images, clean: Smashed, labels: Labels) -> None:
        """Let each mechanism step what only training needs. ẑ is detached."""
        for mechanism in self.mechanisms:
            mechanism.learn(images, clean, labels)

    def build(self, smashed: Shape, generator: torch.Generator, like: Tensor | None = None) -> None:
        """Make what the mechanisms learn, with initial weights; like: of whose device and dtype it is."""
        for mechanism in self.mechanisms:
            mechanism.build(smashed, generator)
        if like is not None:
            self.learned.to(like.device, like.dtype)

    def begin_training(self, place: Place, generator: torch.Generator, like: Tensor) -> None:
        """Make all that a training needs, with initial weights, on the device and in the dtype of `like`."""
        self.build(place.smashed, generator, like)
        for mechanism in self.mechanisms:
            mechanism.begin_training(place, generator, like.device, like.dtype)

    @property
    def learned(self) -> nn.ModuleDict:
        """What the mechanisms have learned and need wherever z leaves the client, by their settings' kind."""
        pairs = zip(self.settings, self.mechanisms, strict=True)
        return nn.ModuleDict({cfg.member: one.learned for cfg, one in pairs if one.learned is not None})

    @property
    def training_state(self) -> Stateful:
        """What only training needs of all mechanisms."""
        modules: dict[str, nn.Module] = {}
        optimizers: dict[str, torch.optim.Optimizer] = {}
        for cfg, mechanism in zip(self.settings, self.mechanisms, strict=True):
            own = mechanism.training_state
            modules |= {f"{cfg.member}_{name}": module for name, module in own.modules.items()}
            optimizers |= {f"{cfg.member}_{name}": optimizer for name, optimizer in own.optimizers.items()}
        return Stateful(modules, optimizers)


def make_defense(noise_std: float, defenses: Iterable[DefenseSettings]) -> Defense:
    """The defence that a run's settings ask for: noise of σ = `noise_std`, then `defenses` in their order."""
    settings = tuple(sorted(defenses, key=lambda cfg: (cfg.order, cfg.member)))
    return Defense(noise_std, settings, tuple(cfg.load()(cfg) for cfg in settings))


def initial_noise_std(run: Run, smashed: Shape) -> float:
    """σ that a run's surrogate is made for: of the channel's noise before anything is learned."""
    defense = make_defense(run.noise_std, run.defenses)
    defense.build(smashed, torch.Generator())
    return defense.channel.noise_std


def load_defense(run: Run, smashed: Shape, learned: Mapping[str, Tensor], device: torch.device) -> Defense:
    """The defence of a trained run, with what it learned, on this device, in evaluation mode."""
    defense = make_defense(run.noise_std, run.defenses)
    defense.build(smashed, torch.Generator())
    part = defense.learned
    part.load_state_dict(learned)
    part.to(device).eval().requires_grad_(False)
    return defense


def defense_of(run: Run, activations: ActivationReader, device: torch.device) -> Defense:
    """The defence of a trained run, with what the file of its activations says that it has learned."""
    learned = {name: torch.from_numpy(values) for name, values in activations.learned.items()}
    return load_defense(run, activations.smashed_shape, learned, device)
