"""A judge of reconstructions that is not the victim: a classifier fitted once to a data set's shadow images.

What leads the victim's own network to a class need not look like it: a search through that network ends at images that
it alone takes for the class. One that never had a part in the run is not misled by that.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from cem import ATTACK_NUMERICS, NUMERICS
from cem.config import DatasetSettings
from cem.data.loader import OnDeviceLoader
from cem.jobs.process import device_name, make_generator, set_up_process
from cem.models import parameter_count
from cem.models.evaluator import EvaluatorNet, make_evaluator
from cem.storage.files import StoreError
from cem.storage.hdf5 import DatasetReader, open_dataset
from cem.storage.manifest_records import EvaluatorFacts, EvaluatorRecord
from cem.storage.records import write_record
from cem.storage.tensors import load_checkpoint, save_checkpoint
from cem.types import Images, Labels

SPLIT = "shadow"  # the images it is fitted to: neither the defender's nor those that are scored
OTHER_CLASSES = f"split.by: identity: the {SPLIT} images, which the evaluator is fitted to, are of other persons"
HELD_OUT = 0.1  # part of each class that says how good it is
EPOCHS, MOST_STEPS, BATCH_SIZE = 60, 1000, 128
LR, WEIGHT_DECAY, WARM_UP = 4e-3, 0.05, 0.2  # of AdamW: the highest rate; the part of the steps in which it rises
THREADS = 1  # the file serves every study on the data set, whatever these ask for


@dataclass(frozen=True)
class Evaluator:
    """A fitted evaluator. net: None where there is none, for the reason that the facts give."""

    facts: EvaluatorFacts
    net: EvaluatorNet | None

    def check_source(self, data: DatasetReader) -> None:
        """Raise StoreError unless it was fitted to the shadow images of this data set."""
        found = _digests(data)
        if found != (self.facts.images_sha256, self.facts.labels_sha256):
            raise StoreError(
                f"{data.path}: expected the {SPLIT} images that the evaluator was fitted to, found others. Delete the "
                "evaluator's file beside it and rerun fit_evaluator."
            )

    @torch.no_grad()
    def judge(self, reconstruction: Images, target: Images, labels: Labels) -> dict[str, Tensor]:
        """Columns: whether it says the class of each reconstruction, and of its image; how alike it finds the two.

        Nothing where there is no network, and no classes where it was fitted to others than those that are scored. The
        likeness is the cosine of the two embeddings, from −1 to 1.
        """
        if self.net is None:
            return {}
        rebuilt, original = self.net.embed(reconstruction), self.net.embed(target)
        found = {"embedding_similarity": cosine_similarity(rebuilt, original)}
        if self.facts.classes_unknown:
            return found
        return {
            "recognised": self.net.head(rebuilt).argmax(1) == labels,
            "recognised_original": self.net.head(original).argmax(1) == labels,
        } | found


def fit_evaluator(dataset: DatasetSettings, data: Path, model: Path, record: Path) -> None:
    """The job of the rule fit_evaluator: fit a data set's evaluator, write it and what is to be said of it.

    It sees the shadow images alone, with the data set's own augmentation: equal ones give equal bytes on one kind of
    device. Where these are of one class there is nothing to tell apart: no network is written, but why.
    """
    device = set_up_process(THREADS)
    with open_dataset(data) as reader:
        facts, net = _fit(reader, dataset, device)
    about = EvaluatorRecord(
        facts=facts,
        numerics=[NUMERICS, ATTACK_NUMERICS],
        torch=str(torch.__version__),
        device=device_name(device),
        threads=THREADS,
    )
    save_checkpoint(model, "evaluator", {} if net is None else net.state_dict(), {"facts": facts.model_dump()})
    write_record(record, about)


def load_evaluator(path: Path, data: DatasetReader, device: torch.device) -> Evaluator:
    """The evaluator of a data set, ready to judge.

    Raises CheckpointError when its file is absent or damaged, StoreError when it is of other images.
    """
    tensors, header = load_checkpoint(path, "evaluator")
    facts = EvaluatorFacts.model_validate(header["facts"])
    net = None
    if not facts.unavailable:
        net = make_evaluator(data.image_shape, _classes(data)[1], torch.Generator())
        net.load_state_dict(tensors)
        net.to(device).eval().requires_grad_(False)
    found = Evaluator(facts, net)
    found.check_source(data)
    return found


def _fit(
    data: DatasetReader, dataset: DatasetSettings, device: torch.device
) -> tuple[EvaluatorFacts, EvaluatorNet | None]:
    first, num_classes = _classes(data)
    labels = torch.from_numpy(data.labels(SPLIT)).long() - first
    fit_rows, held_rows = _divide(labels)
    images_sha256, labels_sha256 = _digests(data)
    facts = EvaluatorFacts(
        split=SPLIT, images=len(fit_rows), images_sha256=images_sha256, labels_sha256=labels_sha256,
        held_out_images=len(held_rows), classes_unknown=OTHER_CLASSES if first else "",
    )  # fmt: skip
    classes = int((torch.bincount(labels) > 0).sum())
    if classes < 2:
        why = f"the {SPLIT} images are of {classes} class{'' if classes == 1 else 'es'}: there is nothing to tell apart"
        return facts.model_copy(update={"unavailable": why}), None
    images = torch.from_numpy(data.images(SPLIT)).to(device)
    labels = labels.to(device)
    net = make_evaluator(data.image_shape, num_classes, make_generator(0, "evaluator/weights", "cpu")).to(device)
    batches = make_generator(0, "evaluator/batches", device)
    own = fit_rows.to(device)
    loader = OnDeviceLoader(images[own], labels[own], BATCH_SIZE, dataset.augmentation, batches)
    steps = _train(net, loader)
    accuracy = _accuracy(net, images, labels, held_rows.to(device)) if len(held_rows) else None
    said = "no class has enough to hold some out" if accuracy is None else f"{accuracy:.4f} of {len(held_rows)}"
    print(f"evaluator: {len(own)} images, {steps} steps; held-out accuracy: {said}", file=sys.stderr)
    known = {"held_out_accuracy": accuracy, "steps": steps, "parameters": parameter_count(net)}
    return facts.model_copy(update=known), net


def _classes(data: DatasetReader) -> tuple[int, int]:
    """The first label of the split, and how many classes it has."""
    others = len(data.shadow_class_names)
    return (data.num_classes, others) if others else (0, data.num_classes)


def _divide(labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " fitted"], Int[Tensor, " held"]]:
    """Rows to fit on, and rows held out: HELD_OUT of each class, rounded down, so that none is lost to the fit."""
    order = torch.randperm(len(labels), generator=make_generator(0, "evaluator/held out", "cpu"))
    held = []
    for label in range(int(labels.max()) + 1):
        own = order[labels[order] == label]
        held.append(own[: int(HELD_OUT * len(own))])
    rows = torch.cat(held)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[rows] = False
    return kept.nonzero().flatten(), rows.sort().values


def _train(net: EvaluatorNet, loader: OnDeviceLoader) -> int:
    """Fit by AdamW, its rate rising and falling once; how many steps it took."""
    steps = min(EPOCHS * loader.steps, MOST_STEPS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = OneCycleLR(optimizer, LR, total_steps=steps, pct_start=WARM_UP)
    net.train()
    for _, rows in zip(range(steps), _batches(loader), strict=False):
        images, labels = loader.batch(rows)
        loss = cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    _settle(net, loader)
    return steps


@torch.no_grad()
def _settle(net: EvaluatorNet, loader: OnDeviceLoader) -> None:
    """Put the statistics of all batches in place of the running ones, which a short fit leaves near their start."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the mean over what follows
    rows = torch.arange(loader.steps * loader.batch_size, device=loader.images.device)
    for batch in torch.split(rows, loader.batch_size):
        net(loader.images[batch].float() / 255)
    net.eval()


def _batches(loader: OnDeviceLoader) -> Iterator[Int[Tensor, " batch"]]:
    """Rows of one batch after the other, without end."""
    while True:
        order = loader.order()
        yield from torch.split(order[: loader.steps * loader.batch_size], loader.batch_size)


@torch.no_grad()
def _accuracy(net: EvaluatorNet, images: Tensor, labels: Labels, rows: Int[Tensor, " held"]) -> float:
    right = 0
    for part in torch.split(rows, BATCH_SIZE):
        hits: Bool[Tensor, " batch"] = net(images[part].float() / 255).argmax(1) == labels[part]
        right += int(hits.sum())
    return right / len(rows)


def _digests(data: DatasetReader) -> tuple[str, str]:
    found = (data.images(SPLIT), data.labels(SPLIT))
    images, labels = (hashlib.sha256(np.ascontiguousarray(values).data).hexdigest() for values in found)
    return images, labels
