"""What a study takes: epochs, hours of one GPU and disk, from throughput that was measured. It needs no torch."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cem.config import Adversarial, DatasetSettings, ModelSettings, Run, parse_bottleneck, parse_decoder
from cem.config.decoder import grid_of
from cem.config.presets import IMAGES, published_dataset
from cem.data.check import check_files, count_prepared
from cem.data.sources import DataError
from cem.planning.plan import Plan

MEASURED_ON = "one NVIDIA H100, VGG-11 of width 1 cut at layer 4 (benchmarks/README.md)"
# Side → surrogate → images per second of a training step there; None: of any other surrogate.
STEPS = {
    32: {"none": 7949, "gmm": 6929, None: 2588},
    48: {"none": 10194, "gmm": 9519, None: 3663},
    64: {"none": 5614, "gmm": 5400, None: 2532},
}
DECODER = 15069  # images per second of fitting res_normN8C64 from z of 8×8 to images of 32×32, there
_DECODER_SHAPE = ("res_normN8C64", 8, 32)
NOT_COUNTED = ["what defences add (adversarial is)", "searches", "scoring", "measuring leakage", "waiting"]
UNET_BLOCKS = 4  # a U-Net takes as long as a decoder of so many blocks (120 and 116 ms a step, docs/attacks.md)
_SCORE_BYTES = 100  # of an attack's scores of one image
_MODEL_MB = 40  # of a VGG-11 of width 1, the largest network of the paper
_FLOAT = 4
_SPLITS = ("private", "val", "shadow", "test")


class UnknownSize(Exception):
    """Data whose number of images is not known: not here, and not of the paper."""


@dataclass(frozen=True)
class Forecast:
    """Of a plan. images: private ones of every data set, where the user says how many; None: as they are known.

    rate: images per second of a training step without a surrogate on the user's GPU, which is taken to be as much
    faster or slower in all else; None: as measured.
    """

    plan: Plan
    images: int | None = None
    rate: float | None = None

    def lines(self) -> list[str]:
        """In words; what cannot be known is said, with what to do."""
        try:
            return [self._shared(), self._space(), *self._duration()]
        except UnknownSize as unknown:
            return [f"what it takes is not known: {unknown}. Say --images N, the private images of each data set"]

    def _shared(self) -> str:
        shared = self._warmups()
        return (
            f"warm-ups: {shared['count']}, shared by {shared['runs']} runs: {shared['epochs_saved']} epochs saved, "
            f"{_time(shared['gpu_seconds_saved'])} of one GPU"
        )

    def _warmups(self) -> dict[str, Any]:
        runs, warmups = list(self.plan.runs.values()), list(self.plan.warmups.values())
        epochs = sum(run.training.warmup_epochs for run in runs) - sum(run.training.warmup_epochs for run in warmups)
        saved = sum(self._warming(run) for run in runs) - sum(self._warming(run) for run in warmups)
        return {"count": len(warmups), "runs": len(runs), "epochs_saved": epochs, "gpu_seconds_saved": float(saved)}

    def as_json(self) -> dict[str, Any]:
        """For programs: seconds of one GPU and bytes of disk, by what takes them, what warm-ups save, and what it rests
        on; why they are not known, where so."""
        basis = {"measured_on": MEASURED_ON, "images_per_second": self.rate, "not_counted": NOT_COUNTED}
        try:
            known = {"gpu_seconds": self.seconds(), "disk_bytes": self.bytes(), "warm_ups": self._warmups()}
        except UnknownSize as unknown:
            return {"unknown": str(unknown), "basis": basis}
        return known | {"basis": basis}

    def seconds(self) -> dict[str, float]:
        """Of one GPU, by stage. Raises UnknownSize."""
        training = sum(self._warming(run) for run in self.plan.warmups.values())
        training += sum(self._training(run) for run in self.plan.runs.values())
        attacks = sum(self._attacking(run) for run in self.plan.runs.values())
        return {"training": float(training), "attacks": float(attacks)}

    def bytes(self) -> dict[str, int]:
        """Of disk, by what is kept there. Raises UnknownSize."""
        activations = sum(self._activations(run) for run in self.plan.runs.values())
        bases = {path.parent: run for run in self.plan.runs.values() if (path := self.plan.start_mixture(run))}
        activations += sum(self._activations(run) for run in bases.values())
        models = round(sum(_MODEL_MB * 1e6 * run.model.width**2 for run in self.plan.trained.values()))
        scores = sum(self._scores(run) for run in self.plan.runs.values())
        data = sum(
            sum(self._counts[name].values()) * dataset.channels * dataset.side**2
            for name, dataset in self.plan.datasets.items()
        )
        return {"activations": activations, "models": models, "attacks": scores, "images": data}

    def _duration(self) -> list[str]:
        parts = self.seconds()
        said = f", times what {self.rate:g} images/s are to that" if self.rate else ""
        return [
            f"time of one GPU: {_time(sum(parts.values()))}: "
            + ", ".join(f"{stage} {_time(taken)}" for stage, taken in parts.items()),
            f"  by the throughput of {MEASURED_ON}{said}; another GPU: --images-per-second N, of a training step",
            f"  without a surrogate. Not counted: {', '.join(NOT_COUNTED)}",
        ]

    def _space(self) -> str:
        parts = self.bytes()
        return f"disk: {_gigabytes(sum(parts.values()))}: " + ", ".join(
            f"{name} {_gigabytes(size)}" for name, size in parts.items()
        )

    @cached_property
    def _counts(self) -> dict[str, dict[str, int]]:
        """Id of a data set → split → images."""
        return {name: self._count(dataset) for name, dataset in self.plan.datasets.items()}

    def _count(self, dataset: DatasetSettings) -> dict[str, int]:
        if self.images is not None:
            if dataset.split.by == "identity":
                raise UnknownSize(f"{dataset.name} is divided by persons, who differ in their images")
            return _beside(dataset, self.images)
        path = self.plan.data(dataset)
        here = all(os.path.exists(file) for file in dataset.files())  # noqa: PTH110
        try:
            known = count_prepared(path) if path.exists() else check_files(dataset) if here else None
        except DataError as error:
            raise UnknownSize(f"the images of {dataset.name} cannot be counted: {error}") from None
        if known is not None:
            return {split: int(known.counts[split].sum()) for split in _SPLITS}
        if dataset.split.by == "identity":
            raise UnknownSize(f"{dataset.name} is divided by persons, and not here yet")
        published = IMAGES.get(published_dataset(dataset.name) or "")
        if published is None:
            raise UnknownSize(f"the images of {dataset.name} are not here yet")
        return _divided(dataset, *published)

    def _private(self, run: Run) -> int:
        return self._counts[run.dataset.id]["private"]

    def _faster(self, run: Run) -> float:
        """How many times as fast as the measured one the user's GPU is."""
        return 1.0 if self.rate is None else self.rate * _step(run, "none")

    def _warming(self, run: Run) -> float:
        return self._private(run) * run.training.warmup_epochs * _step(run, "none") / self._faster(run)

    def _training(self, run: Run) -> float:
        """After the warm-up."""
        epochs = run.training.epochs - run.training.warmup_epochs
        image = _step(run, run.surrogate.member) + _adversary(run)
        return self._private(run) * epochs * image / self._faster(run)

    def _attacking(self, run: Run) -> float:
        seconds = 0.0
        for attack in self.plan.attacks(run):
            owned = attack.data_size or self._counts[run.dataset.id][attack.data]
            for fit in attack.fits:
                z = run.dataset.side if fit.at_image else _side_of_z(run)
                work = _multiplications(fit.net, z, run.dataset.side) / _multiplications(*_DECODER_SHAPE)
                seconds += owned * fit.passes * work / DECODER
        return seconds / self._faster(run)

    def _activations(self, run: Run) -> int:
        channels = _channels_of_z(run.model)
        return sum(self._counts[run.dataset.id].values()) * channels * _side_of_z(run) ** 2 * _FLOAT

    def _scores(self, run: Run) -> int:
        """Scores of attacks, and the weights of what they fit."""
        counts, size = self._counts[run.dataset.id], 0
        for attack in self.plan.attacks(run):
            size += _SCORE_BYTES * sum(
                min(counts[split], attack.scored or counts[split]) for split in ("private", "test")
            )
            size += sum(_parameters(fit.net) * _FLOAT for fit in attack.fits)
        return size


def _step(run: Run, surrogate: str) -> float:
    """Seconds of one image in a training step, as measured at the next smaller side, and by the number of pixels."""
    side = max((side for side in STEPS if side <= run.dataset.side), default=min(STEPS))
    return (run.dataset.side / side) ** 2 / STEPS[side].get(surrogate, STEPS[side][None])


def _adversary(run: Run) -> float:
    """Seconds of one image in a training step for the decoder that adversarial training fits and the client meets."""
    seconds = 0.0
    for defense in run.defenses:
        if isinstance(defense, Adversarial):
            work = _multiplications(defense.net, _side_of_z(run), run.dataset.side) / _multiplications(*_DECODER_SHAPE)
            seconds += (defense.steps / defense.interval + 1) * work / DECODER
    return seconds


def _divided(dataset: DatasetSettings, train: int, test: int) -> dict[str, int]:
    """How a data set with a test part of its own is divided, as `cem.data.splits` does it."""

    def amount(of: int | float, whole: int) -> int:
        return of if isinstance(of, int) else int(of * whole)

    split = dataset.split
    counts = {name: amount(getattr(split, name), train) for name in ("val", "shadow")}
    rest = train - sum(counts.values())
    private = rest if split.private is None else amount(split.private, train)
    return counts | {"private": private, "test": test if split.test is None else amount(split.test, test)}


def _beside(dataset: DatasetSettings, private: int) -> dict[str, int]:
    """How many images the other splits have, where of private ones there are so many.

    Without a number for the test, it is taken as a fifth of everything, as where a source has no test part of its own.
    """
    split = dataset.split
    others = {"val": split.val, "shadow": split.shadow}
    counts = sum(of for of in others.values() if isinstance(of, int))
    if isinstance(split.private, float):
        train = private / split.private
    else:
        left = 1 - sum(of for of in others.values() if isinstance(of, float))
        if left <= 0:
            raise UnknownSize(f"split of {dataset.name}: val and shadow leave nothing for the private images")
        train = (private + counts) / left
    test = 0.2 if split.test is None else split.test
    amounts = {name: of if isinstance(of, int) else round(of * train) for name, of in others.items()}
    return amounts | {"private": private, "test": test if isinstance(test, int) else round(test * train / (1 - test))}


def _side_of_z(run: Run) -> int:
    """Where only the network knows, a quarter of the image's."""
    return run.dataset.side // 4 if run.model.needs_network else run.model.side_of_z(run.dataset.side)


def _channels_of_z(model: ModelSettings) -> int:
    return model.channels_at_cut if model.bottleneck is None else parse_bottleneck(model.bottleneck).channels


def _multiplications(net: str, z: int, side: int) -> int:
    """Of a decoder for one image, from z of this side: blocks of two convolutions there, one at each doubling."""
    blocks, channels = parse_decoder(net)
    z, times = grid_of(min(z, side), side)
    doublings = sum((z << time) ** 2 for time in range(times))
    return 9 * channels**2 * (2 * (UNET_BLOCKS if blocks is None else blocks) * z**2 + doublings)


def _parameters(net: str) -> int:
    blocks, channels = parse_decoder(net)
    return 9 * channels**2 * (2 * (UNET_BLOCKS if blocks is None else blocks) + 2)


def _time(seconds: int | float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _gigabytes(size: int | float) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"
