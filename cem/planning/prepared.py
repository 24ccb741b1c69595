"""The prepared data sets in a results folder, and which studies use them: what `cem data` says of them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cem.config import ConfigError, load_study
from cem.planning.plan import Plan
from cem.storage.hdf5 import SPLITS, open_dataset


@dataclass(frozen=True)
class PreparedSet:
    """shape: of an image, channels first. counts: images of each split. sha256: of the raw images. studies: by name."""

    name: str
    path: str
    shape: tuple[int, ...]
    classes: list[str]
    counts: dict[str, int]
    sha256: str
    studies: list[str]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """A row of the terminal's table."""
        shape, counts = "×".join(map(str, self.shape)), " + ".join(str(count) for count in self.counts.values())
        return (self.name, shape, str(len(self.classes)), counts, self.sha256[:12], ", ".join(self.studies) or "none")


HEADER = ("prepared", "image", "classes", " + ".join(SPLITS), "raw images' SHA-256", "used by the studies")


def prepared_sets(results: Path, files: Iterable[Path]) -> tuple[list[PreparedSet], list[str]]:
    """Of each prepared data set what it is, and the studies among `files` that use it; and which files were not read.

    Raises StoreError where a data set is damaged.
    """
    users, unread = _users(files)
    found = []
    for path in sorted(results.glob("data/*.h5")):
        with open_dataset(path) as reader:
            counts = {split: len(reader.dataset(f"{split}/labels")) for split in SPLITS}
            names, sha = reader.class_names, str(reader.attrs.get("source_sha256", ""))
            shape = tuple(map(int, reader.image_shape))
        found.append(PreparedSet(path.stem, str(path), shape, names, counts, sha, users.get(path.stem, [])))
    return found, unread


def _users(files: Iterable[Path]) -> tuple[dict[str, list[str]], list[str]]:
    """Id of a data set → names of the studies that use it; and the files that are no study."""
    users: dict[str, list[str]] = {}
    unread = []
    for file in files:
        try:
            plan = Plan(load_study(file))
        except ConfigError as error:
            unread.append(str(error).splitlines()[0])
            continue
        for name in plan.datasets:
            users.setdefault(name, []).append(plan.study.name)
    return {name: list(dict.fromkeys(names)) for name, names in users.items()}, unread


def rows(found: Sequence[PreparedSet]) -> list[tuple[str, ...]]:
    """The terminal's table."""
    return [HEADER, *(one.cells() for one in found)]
