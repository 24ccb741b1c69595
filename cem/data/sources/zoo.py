"""Data sets that torchvision fetches: digits and clothes as arrays, faces as files that are read one at a time.

torchvision downloads, and compares the lists with their known MD5. The lists of faces are read here, so that labels are
known before any job starts, without torch.
"""

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cem.config import TorchvisionDataset
from cem.config.imports import expanded
from cem.data.sources.files import content_digest, kind_of, local, shown
from cem.data.sources.headers import check_headers
from cem.data.sources.packages import array_digest
from cem.data.sources.picture import Pictures, without_warnings
from cem.data.sources.source import DataError, Format, Labelling, Source, check_labels, make_source

PLACES = {  # where torchvision looks below `root`; of the faces, the lists and then the folder of the images
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
    "celeba": (
        "celeba/list_eval_partition.txt",
        "celeba/list_attr_celeba.txt",
        "celeba/identity_CelebA.txt",
        "celeba/list_bbox_celeba.txt",
        "celeba/list_landmarks_align_celeba.txt",
        "celeba/img_align_celeba",
    ),
    "lfw": ("lfw-py/people.txt", "lfw-py/lfw-names.txt", "lfw-py/lfw-funneled.tgz", "lfw-py/lfw_funneled"),
}
IDENTITY = "identity"


@dataclass(frozen=True)
class Faces:
    """Files of the images and their classes. parts: 0 training, 1 val, 2 test, of each; None: there are none."""

    files: list[str]
    labels: Int[np.ndarray, " n"]
    names: list[str]
    parts: Int[np.ndarray, " n"] | None = None
    note: str = ""


def read_torchvision(dataset: TorchvisionDataset) -> Source:
    """Read a data set through torchvision, which downloads it first where that is allowed and needed.

    Raises DataError when the files are not there and cannot be fetched, or are not the published ones.
    """
    if dataset.dataset in LISTS:
        return _read_faces(dataset)
    train_images, train_labels, names = _part(dataset, train=True)
    test_images, test_labels, _ = _part(dataset, train=False)
    images = np.concatenate([train_images, test_images])
    labels = np.concatenate([train_labels, test_labels])
    is_test = np.arange(len(labels)) >= len(train_labels)
    labelling = check_labels(dataset.name, labels, is_test=is_test, class_names=names)
    description = f"{dataset.dataset} as torchvision provides it."
    return make_source(dataset.name, images, labelling, description, array_digest(images, labelling.labels))


def check_torchvision(dataset: TorchvisionDataset) -> Labelling | None:
    """The labels of faces that are there; None for what may still be downloaded, and for arrays.

    Raises DataError when files are absent and are not downloaded, or a list of faces is damaged.
    """
    absent = [place for place in PLACES[dataset.dataset] if kind_of(str(_local(dataset, place))) == "none"]
    if absent:
        if (why := _why_not_fetched(dataset)) is not None:
            raise DataError(_absent(dataset, why))
        return None
    if dataset.dataset not in LISTS:
        return None
    faces = LISTS[dataset.dataset](dataset)
    return _labelling(dataset, faces, check_headers(faces.files, one_size=dataset.fit == "one_size"))


@without_warnings()
def _read_faces(dataset: TorchvisionDataset) -> Source:
    _fetch_faces(dataset)
    faces = LISTS[dataset.dataset](dataset)
    pictures = Pictures(faces.files)
    classes = f", by {dataset.attribute}" if dataset.dataset == "celeba" else ""
    description = f"{dataset.dataset} as torchvision provides it{classes}."
    places = [str(_local(dataset, place)) for place in PLACES[dataset.dataset]]

    def digest() -> str:
        return content_digest(places, pictures.digests)

    return make_source(dataset.name, pictures, _labelling(dataset, faces), description, digest, pictures.remarks)


def _labelling(dataset: TorchvisionDataset, faces: Faces, remarks: list[str] | None = None) -> Labelling:
    """The labels without the persons that have too few images, and notes."""
    notes = [faces.note, *(remarks or [])]
    return check_labels(
        dataset.name,
        faces.labels,
        is_test=None if faces.parts is None else faces.parts == 2,
        is_val=None if faces.parts is None else faces.parts == 1,
        class_names=faces.names,
        notes=[note for note in notes if note],
    )


def list_celeba(dataset: TorchvisionDataset) -> Faces:
    """The images of CelebA. Raises DataError when the attribute is unknown, or the lists are not of the same images."""
    folder = _local(dataset, "celeba")
    rows = _rows(folder / "list_eval_partition.txt", 2)
    parts = _numbers(folder / "list_eval_partition.txt", [row[1] for row in rows], {"0": 0, "1": 1, "2": 2})
    files = [str(folder / "img_align_celeba" / row[0]) for row in rows]
    if dataset.attribute == IDENTITY:
        owners = [row[1] for row in _rows(folder / "identity_CelebA.txt", 2, rows)]
        return _of_persons(dataset, files, owners, "celeba by identity is one part: nobody is in two of its own parts.")
    path = folder / "list_attr_celeba.txt"
    lines = _lines(path)
    if len(lines) < 2:
        raise DataError(_damaged(path, "a count, and a line with the names of the attributes"))
    names = lines[1].split()
    if dataset.attribute not in names:
        raise DataError(
            f"{shown(str(path))}: expected an attribute of CelebA, found {dataset.attribute!r}. "
            f"Choose from: {IDENTITY}, {', '.join(names)}."
        )
    column = 1 + names.index(dataset.attribute)
    said = [row[column] for row in _rows(path, 1 + len(names), rows, header=2)]
    labels = _numbers(path, said, {"-1": 0, "1": 1})
    return Faces(files, labels, [f"not {dataset.attribute}", dataset.attribute], parts)


def list_lfw(dataset: TorchvisionDataset) -> Faces:
    """The images of all people of LFW, funneled. Raises DataError when the list is damaged."""
    folder = _local(dataset, "lfw-py")
    people = [words for line in _lines(folder / "people.txt") if len(words := line.split("\t")) == 2]
    if not people or not all(re.fullmatch(r"\s*[0-9]+\s*", count) for _, count in people):
        raise DataError(_damaged(folder / "people.txt", "lines of a name, a tab and how many images there are"))
    pairs = [(name, number) for name, count in sorted(people) for number in range(1, int(count) + 1)]
    files = [str(folder / "lfw_funneled" / name / f"{name}_{number:04d}.jpg") for name, number in pairs]
    return _of_persons(dataset, files, [name for name, _ in pairs], "")


def _of_persons(dataset: TorchvisionDataset, files: list[str], owners: list[str], note: str) -> Faces:
    """Faces whose class is the person, without the people who have fewer images than asked for."""
    counts = Counter(owners)
    names = sorted(name for name, count in counts.items() if count >= dataset.min_images)
    number = {name: label for label, name in enumerate(names)}
    kept = [(file, number[name]) for file, name in zip(files, owners, strict=True) if name in number]
    if len(names) < 2:
        raise DataError(
            f"{dataset.name}: expected at least 2 people, found {len(names)} with {dataset.min_images} images or more "
            f"(min_images) of {len(counts)}. Lower min_images."
        )
    if len(names) < len(counts):
        left = f"{len(counts) - len(names)} people with fewer than {dataset.min_images} images were left out."
        note = f"{note} {left}".strip()
    return Faces([file for file, _ in kept], np.array([label for _, label in kept]), names, note=note)


LISTS = {"celeba": list_celeba, "lfw": list_lfw}


def _local(dataset: TorchvisionDataset, place: str) -> Path:
    """A path below `root`, whose `~` is the home folder, as torchvision takes it."""
    return expanded(dataset.root) / place


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{shown(str(path))}: expected a list of faces, cannot read it: {error}. Fetch it again."
        ) from None


def _rows(path: Path, width: int, like: list[list[str]] | None = None, header: int = 0) -> list[list[str]]:
    """Words of each line after the header: a file and what is said of it. like: rows of the same files, in order."""
    rows = [line.split() for line in _lines(path)[header:] if line.strip()]
    if not rows or any(len(row) != width for row in rows):
        raise DataError(_damaged(path, f"lines of {width} words, a file and what is said of it"))
    if like is not None and [row[0] for row in rows] != [row[0] for row in like]:
        raise DataError(_damaged(path, "the same files as list_eval_partition.txt"))
    return rows


def _numbers(path: Path, words: list[str], meaning: dict[str, int]) -> Int[np.ndarray, " n"]:
    """What each word stands for. Raises DataError for another one."""
    if other := set(words) - set(meaning):
        raise DataError(_damaged(path, f"{' or '.join(meaning)} (not {min(other)!r})"))
    return np.array([meaning[word] for word in words], np.int64)


def _damaged(path: Path, expected: str) -> str:
    return f"{shown(str(path))}: expected {expected}, found something else. Fetch it again."


def _fetch_faces(dataset: TorchvisionDataset) -> None:
    """Have torchvision fetch what is missing, and compare the lists with their MD5. Raises DataError."""
    import torchvision.datasets as zoo

    try:
        if dataset.dataset == "celeba":
            zoo.CelebA(dataset.root, split="all", target_type=[], download=dataset.download)
        else:
            zoo.LFWPeople(dataset.root)  # offers no download any more
    except Exception as error:  # gdown, which fetches CelebA, has errors of its own
        raise DataError(_absent(dataset, _first_line(error))) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _part(dataset: TorchvisionDataset, train: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, labels and class names of the training or the test part."""
    import torchvision.datasets as zoo

    makers = {"mnist": zoo.MNIST, "fashion_mnist": zoo.FashionMNIST}
    try:
        part = makers[dataset.dataset](dataset.root, train=train, download=dataset.download)
    except (RuntimeError, OSError) as error:
        raise DataError(_absent(dataset, _first_line(error))) from error
    except (AssertionError, ValueError) as error:  # torchvision checks its files by assertions
        where = shown(str(_local(dataset, "")))
        raise DataError(
            f"{where}: expected the files of {dataset.dataset}, found one that is cut or something else: "
            f"{str(error).strip() or 'of another format'}. Delete them and fetch them again."
        ) from error
    return np.asarray(part.data), np.asarray(part.targets), [str(name) for name in part.classes]


def _why_not_fetched(dataset: TorchvisionDataset) -> str | None:
    """Why what is absent will not be downloaded; None: it will."""
    if dataset.dataset == "lfw":
        return "torchvision offers no download of LFW any more"
    if not dataset.download:
        return "download is off"
    if dataset.dataset == "celeba" and importlib.util.find_spec("gdown") is None:
        return "CelebA's download needs the package gdown (pip install gdown)"
    return None


def _absent(dataset: TorchvisionDataset, reason: str) -> str:
    return (
        f"{dataset.name}: expected its files below {dataset.root}, cannot get them: {reason}. Run once where there is "
        f"a network, or place {' and '.join(PLACES[dataset.dataset])} (unpacked) into {local(dataset.root)}."
    )


TORCHVISION = Format(read_torchvision, check_torchvision)
