"""What is measured of a model between epochs; nothing here draws from a generator that training uses."""

import sys

import torch
from torch import nn

from cem.config import MixtureFit, Run, Training
from cem.data.loader import OnDeviceLoader
from cem.defenses import Defense
from cem.jobs.process import make_generator
from cem.mixture import Background, Family, MixtureError, Scored, fit_mixture_as

_BATCH = 512
_PROBE = MixtureFit(components=3, covariance="diag", fit="em")


def measure_accuracy(
    encoder: nn.Module, classifier: nn.Module, defense: Defense, loader: OnDeviceLoader, seed: int
) -> float:
    """Share of images classified rightly from what leaves the client. Each call draws the same noise."""
    device = loader.images.device
    generator = make_generator(seed, "evaluation noise", device)
    encoder.eval()
    defense.learned.eval()
    classifier.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    with torch.no_grad():
        for images, labels in loader.plain(_BATCH):
            logits = classifier(defense.corrupt(encoder(images), generator))
            right += (logits.argmax(1) == labels).sum()
    return int(right) / len(loader.labels)


def clean_smashed(encoder: nn.Module, defense: Defense, loader: OnDeviceLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """What is given to the channel of every image in order, in evaluation mode, and the labels."""
    encoder.eval()
    defense.learned.eval()
    with torch.no_grad():
        smashed = torch.cat([defense.prepare(encoder(images)) for images, _ in loader.plain(_BATCH)])
    return smashed, loader.labels


def probe_due(cfg: Training, epoch: int) -> bool:
    """Whether the leakage is probed after an epoch (from 0).

    After those whose number (from 1) `probe_every` divides, the shared warm-up's last and the last of all; not before.
    """
    number = epoch + 1
    if not cfg.probe_every or number < cfg.warmup_epochs:
        return False
    return number in (cfg.warmup_epochs, cfg.epochs) or number % cfg.probe_every == 0


def probe_leakage(
    encoder: nn.Module, defense: Defense, run: Run, epoch: int, private: OnDeviceLoader, val: OnDeviceLoader
) -> float | None:
    """An upper bound on I(x; z), z of the channel, in which no surrogate has a part, nats per image; None: none.

    A diagonal mixture, one member of the family that measures the trained run, is fitted to the clean ẑ of `private`
    and scored at z on `val`, for images like those of val. There is none without noise, nor when ẑ is not finite.
    """
    channel = defense.channel
    if channel.noise_std == 0:
        return None
    generator = make_generator(run.seed, f"probe/{epoch}", private.images.device)
    smashed, labels = clean_smashed(encoder, defense, private)
    held_out, held_out_labels = clean_smashed(encoder, defense, val)
    with torch.no_grad():
        try:
            mixture = fit_mixture_as(_PROBE, smashed.flatten(1), labels, generator, noise_std=channel.noise_std)
        except MixtureError as error:
            print(f"epoch {epoch + 1}: the leakage was not probed: {error}", file=sys.stderr)
            return None
        family = Family({"probe": mixture}, Background.of([(smashed.flatten(1), labels)]))
        scored = Scored(lambda: [(held_out.flatten(1), held_out_labels)], held_out_labels)
        leakage = family.information(["probe"], scored, channel, generator)["probe"]
    return float(leakage.mean())
