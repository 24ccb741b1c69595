"""Scoring an attack: every image of both scopes once, a number per image, and some reconstructions to look at."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm import tqdm

from cem import metrics
from cem.attacks import Attack
from cem.attacks.base import chunks
from cem.attacks.class_mean import ClassMeanAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.config import AttackSettings, ClassMean, MetricSettings, every_metric
from cem.evaluation.evaluator import Evaluator
from cem.evaluation.victim import Victim
from cem.jobs.interruption import Checkpoints, Interrupted
from cem.jobs.process import make_generator
from cem.jobs.state import StateStore
from cem.storage.tensors import Stateful, subset
from cem.types import Images, Labels, PerImage

SCOPES = {"train": "private", "infer": "test"}  # scope → the split it scores
KEPT = ("first", "worst")
# Column → how many other images a reconstruction is compared with; absent where a split has too few for it.
GALLERIES = dict(zip(("identified", "identified_of_1000"), metrics.OTHERS, strict=True))
# Columns beside those of the metrics; the first three are absent without an evaluator.
BESIDE = (
    "recognised", "recognised_original", "embedding_similarity", *GALLERIES, "mse_mean_image", "mse_class_mean",
)  # fmt: skip
Metric = Callable[[Images, Images], PerImage]


class Yardsticks:
    """What the attacker's images alone would answer: their mean, and their mean within the class."""

    def __init__(self, victim: Victim, cfg: AttackSettings) -> None:
        knowledge = victim.knowledge(ClassMean(data=cfg.data, data_size=cfg.data_size))
        self.attacks: dict[str, MeanImageAttack | ClassMeanAttack] = {
            "mse_mean_image": MeanImageAttack(),
            "mse_class_mean": ClassMeanAttack(),
        }
        for attack in self.attacks.values():
            attack.fit(knowledge)
        # By identity the attacker has no image of any class that is scored, so that there is no mean of one.
        self.no_class_mean = cfg.data == "shadow" and bool(victim.data.shadow_class_names)

    def errors(self, target: Images, labels: Labels) -> dict[str, PerImage]:
        """Squared error of each yardstick on each image; NaN where there is none."""
        found = {
            name: metrics.mse(attack.reconstruct(target, labels=labels), target)
            for name, attack in self.attacks.items()
        }
        return (
            found | {"mse_class_mean": torch.full_like(found["mse_mean_image"], math.nan)}
            if self.no_class_mean
            else found
        )


class Crowd:
    """The images of a split that a reconstruction is compared with, to see whether it gives its own away."""

    def __init__(self, victim: Victim, split: str) -> None:
        self.images = torch.from_numpy(victim.data.images(split)).to(victim.device)
        self.galleries: dict[str, metrics.Gallery] = {}
        for name, others in GALLERIES.items():
            if len(self.images) > others:
                purpose = f"crowd/{split}" if name == "identified" else f"crowd/{name}/{split}"
                draws = make_generator(victim.seed, purpose, "cpu")
                self.galleries[name] = metrics.Gallery(self.images, draws, others)

    def identified(self, reconstruction: Images, rows: slice) -> dict[str, Bool[Tensor, " batch"]]:
        """The columns of `GALLERIES` that the split is large enough for."""
        own = torch.arange(rows.start, rows.stop, device=self.images.device)
        return {name: gallery.identified(reconstruction, own) for name, gallery in self.galleries.items()}


@dataclass
class ScopeScores:
    """What is scored of a scope so far: columns, and kept images with their indices; as bytes, `worst` by their mse.

    first: the first images. worst: those that the attack came nearest to, the worst protected ones, worst first.
    """

    row: int = 0
    columns: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def add(self, columns: dict[str, Tensor], reconstruction: Images, num_images: int) -> None:
        """Take in the scores and reconstructions of the next rows."""
        rows = torch.arange(self.row, self.row + len(reconstruction))
        pixels = (reconstruction * 255).round().byte().cpu()
        for name, values in columns.items():
            self.columns[name] = torch.cat([self.columns.get(name, values[:0].cpu()), values.cpu()])
        errors = self.columns["mse"]
        for name in KEPT:
            index = torch.cat([self.kept.get(f"{name}_index", rows[:0]), rows])
            images = torch.cat([self.kept.get(f"{name}_images", pixels[:0]), pixels])
            order = torch.argsort(errors[index], stable=True) if name == "worst" else torch.arange(len(index))
            self.kept[f"{name}_index"] = index[order[:num_images]]
            self.kept[f"{name}_images"] = images[order[:num_images]]
        self.row += len(reconstruction)


def pair_metrics(side: int, chosen: Sequence[MetricSettings], device: torch.device) -> dict[str, Metric]:
    """Column → metric of a reconstruction and its image: those that every study has, where this side allows, and those
    that are chosen.

    Raises MetricError for a chosen one that needs larger images, or lacks what it needs.
    """
    found: dict[str, Metric] = {}
    for cfg in every_metric(tuple(chosen)):
        if side >= cfg.smallest_side:
            found[cfg.member] = cfg.make(device)
        elif not cfg.always:
            raise metrics.MetricError(
                f"{cfg.member}: expected images with sides of {cfg.smallest_side} pixels at least, found {side}. Leave "
                "the metric out, or enlarge the data set's side."
            )
    return found


class Scoring:
    """Scores one attack on one run, in chunks of images; what is done is saved, and gone on from, between chunks.

    The corruption that is scored is the same for every attack that sees z as often.
    """

    def __init__(
        self,
        victim: Victim,
        cfg: AttackSettings,
        num_images: int,
        store: StateStore,
        pair: Mapping[str, Metric],
        evaluator: Evaluator | None = None,
    ) -> None:
        """Pair: the metrics of reconstruction and image, by column."""
        self.victim, self.cfg, self.num_images, self.store, self.pair = victim, cfg, num_images, store, pair
        self.evaluator = evaluator
        self.scopes = {scope: ScopeScores() for scope in SCOPES}
        self.generators = {
            f"scoring/{scope}": make_generator(victim.seed, f"scoring/{scope}", victim.device) for scope in SCOPES
        }
        saved = store.load()
        if saved is not None:
            tensors, header = saved
            Stateful(generators=self.generators).unpack(tensors, header)
            for scope, row in header["rows"].items():
                parts = (subset(tensors, f"{scope}.{name}") for name in ("column", "kept"))
                self.scopes[scope] = ScopeScores(row, *parts)

    def run(self, attack: Attack) -> None:
        """Score what is not scored yet. Raises Interrupted, with all that is done saved, when asked to stop."""
        yardsticks = Yardsticks(self.victim, self.cfg)
        checkpoints = Checkpoints(self.store, self._save)
        for scope, split in SCOPES.items():
            crowd = Crowd(self.victim, split)
            shape = self.victim.data.dataset(f"{split}/images").shape
            parts = chunks((min(shape[0], self.cfg.scored or shape[0]), *shape[1:]))
            left = [part for part in parts if part.start >= self.scopes[scope].row]
            for rows in tqdm(left, f"{self.cfg.id} {scope}", leave=False, disable=not sys.stderr.isatty()):
                before = {name: generator.get_state() for name, generator in self.generators.items()}
                try:
                    self._score(attack, yardsticks, crowd, scope, rows)
                except Interrupted:
                    for name, state in before.items():
                        self.generators[name].set_state(state)
                    self._save()
                    raise
                checkpoints.after_batch()

    def _score(self, attack: Attack, yardsticks: Yardsticks, crowd: "Crowd", scope: str, rows: slice) -> None:
        victim, split = self.victim, SCOPES[scope]
        target = torch.from_numpy(victim.data.dataset(f"{split}/images")[rows]).to(victim.device).float() / 255
        labels = torch.from_numpy(victim.data.dataset(f"{split}/labels")[rows]).to(victim.device).long()
        z = victim.observe(split, self.cfg.observations)(rows, self.generators[f"scoring/{scope}"])
        own = self._owned(rows) if split == self.cfg.data else None
        reconstruction = attack.reconstruct(z, own, labels if self.cfg.labels else None)
        columns = {name: metric(reconstruction, target) for name, metric in self.pair.items()}
        if self.evaluator is not None:
            columns |= self.evaluator.judge(reconstruction, target, labels)
        columns |= crowd.identified(reconstruction, rows) | yardsticks.errors(target, labels)
        self.scopes[scope].add(columns, reconstruction, self.num_images)

    def _owned(self, rows: slice) -> Int[Tensor, " batch"]:
        """For each row of the attacker's split its row among the attacker's images; −1 for those it does not own."""
        own = self.victim.owned(self.cfg)
        place = torch.full((max(rows.stop, int(own[-1]) + 1),), -1)
        place[own] = torch.arange(len(own))
        return place[rows].to(self.victim.device)

    def _save(self) -> None:
        tensors = {f"{scope}.column": scores.columns for scope, scores in self.scopes.items()}
        tensors |= {f"{scope}.kept": scores.kept for scope, scores in self.scopes.items()}
        values = {"rows": {scope: scores.row for scope, scores in self.scopes.items()}}
        self.store.save(*Stateful(generators=self.generators).pack(values, tensors))

    def table(self) -> pd.DataFrame:
        """One row per image."""
        tables = []
        for scope, split in SCOPES.items():
            count = self.scopes[scope].row
            table = pd.DataFrame(
                {"scope": scope, "index": np.arange(count), "label": self.victim.data.labels(split)[:count]}
            )
            for name in (name for name in (*self.pair, *BESIDE) if name in self.scopes[scope].columns):
                table[name] = self.scopes[scope].columns[name].numpy()
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def images(self) -> dict[str, np.ndarray]:
        """Kept images by their place in the file: `{scope}/…` the first, `{scope}/worst/…` the worst protected."""
        found: dict[str, np.ndarray] = {}
        for scope, split in SCOPES.items():
            for name in KEPT:
                place = f"{scope}/worst" if name == "worst" else scope
                index = self.scopes[scope].kept[f"{name}_index"].numpy()
                originals = self.victim.data.images(split)[index]
                found |= {f"{place}/index": index, f"{place}/images": originals}
                found[f"{place}/reconstructions"] = self.scopes[scope].kept[f"{name}_images"].numpy()
        return found
