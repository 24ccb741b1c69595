"""What the page says of a data set."""

import math
from typing import Any

import numpy as np

from cem.planning.plan import Plan
from cem.report.inputs import read_manifest
from cem.storage.hdf5 import SPLITS, DatasetReader, open_dataset


def about_data(plan: Plan, name: str) -> dict[str, Any]:
    """Of a data set of the plan, by its id: where it comes from, its sizes, its classes, and what was left out."""
    with open_dataset(plan.data(plan.datasets[name])) as reader:
        sizes = {split: len(reader.dataset(f"{split}/images")) for split in SPLITS}
        return {
            "name": name,
            "synthetic": not plan.datasets[name].real,
            "description": reader.attrs["description"],
            "sha256": reader.attrs["source_sha256"],
            "shape": "×".join(map(str, reader.image_shape)),
            "sizes": sizes,
            "log_private": f"{math.log(sizes['private']):.1f}",
            "classes": ", ".join(_numbered(reader.class_names)),
            "shadow_classes": ", ".join(reader.shadow_class_names),
            "counts": _class_counts(reader),
            "original_sizes": reader.attrs.get("original_sizes"),  # files of cem 0.1.0 do not say them
            "fit": reader.attrs.get("fit"),
            "notes": reader.notes,
            "evaluator": _about_evaluator(plan, name),
        }


def _about_evaluator(plan: Plan, name: str) -> str:
    """What judged the reconstructions, and how good it is; empty where none did."""
    run = next(run for run in plan.runs.values() if run.dataset.id == name)
    attacks = plan.attacks(run)
    facts = read_manifest(plan, run, attacks[0].id).evaluator if attacks else None
    if facts is None or facts.unavailable:
        return ""
    fitted = f"a classifier fitted to {facts.images} {facts.split} images"
    if facts.held_out_accuracy is None:
        return fitted
    return f"{fitted}; right on {100 * facts.held_out_accuracy:.1f} % of {facts.held_out_images} others"


def _class_counts(reader: DatasetReader) -> list[tuple[str, list[int]]]:
    """Name and images in each split, of each class."""
    names = [*reader.class_names, *reader.shadow_class_names]
    counts = [np.bincount(reader.labels(split), minlength=len(names)) for split in SPLITS]
    return [(name, [int(count[label]) for count in counts]) for label, name in enumerate(names)]


def _numbered(names: list[str]) -> list[str]:
    """Class names with their numbers, unless they are these."""
    return [name if name == str(number) else f"{number}: {name}" for number, name in enumerate(names)]
