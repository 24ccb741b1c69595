"""A trained run as its attackers meet it: what each of them is given, and nothing else."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cem import CemError
from cem.attacks import AttackError, Knowledge, Server
from cem.attacks.base import Rows
from cem.config import AttackSettings, DefenseSettings, ModelSettings, Run
from cem.defenses import Defense, NotApplicable
from cem.jobs.process import make_generator
from cem.models import make_split
from cem.storage.hdf5 import ActivationReader, DatasetReader
from cem.storage.tensors import check_files, load_checkpoint, subset
from cem.types import Images, Smashed

CHECKED_ROWS = 4096  # activations looked at at once
Observe = Callable[[Rows, torch.Generator], Smashed]


class EvaluationError(CemError):
    """Activations that no attack can be judged on."""


@dataclass(frozen=True)
class Network:
    """The trained split model, frozen and in evaluation mode."""

    model: ModelSettings
    encoder: nn.Module
    classifier: nn.Module
    defenses: tuple[DefenseSettings, ...] = ()


def load_network(path: Path, run: Run, data: DatasetReader, device: torch.device) -> Network:
    """A run's model from its file.

    Raises CheckpointError when that is absent, damaged or of another kind, or the code it belongs to is another now.
    """
    tensors, header = load_checkpoint(path, "model")
    check_files(path, header, run.model.files)
    model = run.trained_model
    parts = make_split(model, data.image_shape, data.num_classes, defenses=run.defenses)
    for part, name in zip(parts, ("encoder", "classifier"), strict=True):
        part.load_state_dict(subset(tensors, name))
        part.to(device).eval().requires_grad_(False)
    return Network(model, *parts, run.defenses)


@dataclass(frozen=True)
class Victim:
    """A trained run. seed: of its attackers' generators, and, in streams apart, of the corruption that is scored."""

    data: DatasetReader
    activations: ActivationReader
    defense: Defense
    network: Network | None  # None: z is given, and no attacker has more than pairs
    seed: int
    device: torch.device

    def observe(self, split: str, times: int) -> Observe:
        """Access to what the client sends for one split's images, seen so many times, and to nothing else."""

        def observed(rows: Rows, generator: torch.Generator) -> Smashed:
            def corrupted(clean: np.ndarray) -> Smashed:
                smashed = torch.from_numpy(clean.astype(np.float32)).to(self.device)
                return self.defense.observe(smashed, generator, times)

            return self.activations.read(split, rows if isinstance(rows, slice) else rows.cpu().numpy(), corrupted)

        return observed

    def owned(self, cfg: AttackSettings) -> Tensor:
        """Rows of the attacker's split that are its own, ascending. A larger set holds every smaller one."""
        count = len(self.data.dataset(f"{cfg.data}/labels"))
        if cfg.data_size is None:
            return torch.arange(count)
        if cfg.data_size > count:
            raise AttackError(
                f"{cfg.id}: data_size is {cfg.data_size}, but {cfg.data} has {count} images. Lower it, or enlarge the "
                "split."
            )
        draws = make_generator(self.seed, "attacker/images", "cpu")
        return torch.randperm(count, generator=draws)[: cfg.data_size].sort().values

    def seen(self, cfg: AttackSettings) -> Smashed:
        """What the client sent of as many private images as the attacker has seen z of, in random order.

        Drawn once: nobody can wait for new noise on the same z.
        """
        draws = make_generator(self.seed, "attacker/seen images", "cpu")
        rows = torch.randperm(self.activations.count("private"), generator=draws)[: cfg.seen_images]
        noise = make_generator(self.seed, "attacker/seen", self.device)
        return self.observe("private", cfg.observations)(rows, noise)

    def knowledge(self, cfg: AttackSettings) -> Knowledge:
        """What an attacker knows: what its settings grant. It holds copies, so it can change nothing of the run's."""
        own, channel = self.owned(cfg), self.defense.channel
        images, labels = self.data.images(cfg.data)[own.numpy()], self.data.labels(cfg.data)[own.numpy()]
        sent = self.observe(cfg.data, cfg.observations)

        def ask(rows: Rows, generator: torch.Generator) -> Smashed:
            return sent(own[rows if isinstance(rows, slice) else rows.cpu()], generator)

        def refuse(rows: Rows, generator: torch.Generator) -> Smashed:
            raise AttackError(f"{cfg.id}: this attacker cannot ask the encoder. Set encoder: query.")

        def corrupt(clean: Smashed, generator: torch.Generator) -> Smashed:
            return self.defense.observe(clean, generator, cfg.observations)

        return Knowledge(
            images=torch.from_numpy(images).to(self.device),
            labels=torch.from_numpy(labels).to(self.device) if cfg.labels else None,
            observe=refuse if cfg.encoder == "none" else ask,
            seed=self.seed,
            device=self.device,
            masked=self.defense.masks,
            corrupt=corrupt,
            stds=channel.stds if isinstance(channel.white_std, NotApplicable) else None,
            encoder=self._weights() if cfg.encoder == "weights" else None,
            server=self._server(cfg) if cfg.encoder == "none" else None,
            seen=self.seen(cfg) if cfg.seen_images else None,
        )

    def _server(self, cfg: AttackSettings) -> Server | None:
        """A copy of the classifier; none where there is no network, and the attacker is a yardstick that needs none."""
        if self.network is None:
            return None
        network = self.network
        return Server(deepcopy(network.classifier), network.model, self.data.num_classes, network.defenses)

    def _weights(self) -> nn.Module:
        """A copy of the encoder, up to where the noise is added."""
        if self.network is None:
            raise EvaluationError("expected a network whose encoder the attacker holds; z is given without any")
        encoder = deepcopy(self.network.encoder)
        return Prepared(encoder, self.defense) if self.defense.prepares else encoder


class Prepared(nn.Module):
    """An encoder, and what the defence makes of its output before the noise."""

    def __init__(self, encoder: nn.Module, defense: Defense) -> None:
        super().__init__()
        self.encoder, self.defense = encoder, defense

    def forward(self, images: Images) -> Smashed:
        return self.defense.prepare(self.encoder(images))


def sends_a_constant(activations: ActivationReader, splits: Iterable[str]) -> bool:
    """Whether every image of these splits has the same ẑ: an encoder that collapsed, which is a result.

    Raises EvaluationError when a value is not finite, which is none.
    """
    ends = [_extremes(activations, split) for split in splits]
    low = np.min([low for low, _ in ends], axis=0)
    high = np.max([high for _, high in ends], axis=0)
    return bool((low == high).all())


def _extremes(activations: ActivationReader, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest of each value of ẑ. Raises EvaluationError when one is not finite."""
    lows, highs = [], []
    for start in range(0, activations.count(split), CHECKED_ROWS):
        low, high = activations.read(split, slice(start, start + CHECKED_ROWS), _ends)
        lows.append(low)
        highs.append(high)
    # The smallest and largest of numbers are finite only if all are; NaN spreads within a read, not between reads.
    if not np.isfinite([*lows, *highs]).all():
        raise EvaluationError(
            f"{activations.path}: expected finite activations of {split}, found values that are not. The training of "
            "this run diverged: lower its lr or weight, and train again. (Or they exceed what float16 holds, where "
            "the study asks for smashed_dtype: float16; then leave that out.)"
        )
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _ends(clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return clean.min(0), clean.max(0)
