"""What torchvision fetches: arrays, and faces in files."""

from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
import yaml
from PIL import Image
from pydantic import ValidationError
from torchvision.datasets import CelebA, LFWPeople

from cem.config import DATASETS, Split, TorchvisionDataset
from cem.data.check import check_files
from cem.data.sources import DataError, read_labels, read_source

NAMES = ["Bald", "Male", "Smiling"]
PEOPLE = {"Ann_B": 6, "Bo_C": 1, "Cy_D": 5}


def save(path: Path, number: int, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TorchvisionDataset]:
    """Thirty faces as CelebA has them: persons 1 to 5, official parts of 18, 6 and 6 images."""
    folder = tmp_path / "celeba"
    folder.mkdir()
    files = [f"{number:06}.jpg" for number in range(1, 31)]
    for number, file in enumerate(files):
        save(folder / "img_align_celeba" / file, number)
    attributes = np.random.default_rng(1).choice([-1, 1], (30, len(NAMES)))
    part, person = np.repeat([0, 1, 2], [18, 6, 6]), np.arange(30) // 6 + 1
    text = {
        "list_eval_partition.txt": [f"{file} {value}" for file, value in zip(files, part, strict=True)],
        "identity_CelebA.txt": [f"{file} {value}" for file, value in zip(files, person, strict=True)],
        "list_attr_celeba.txt": ["30", " ".join(NAMES) + " "]
        + [f"{file} " + " ".join(f"{value:2d}" for value in row) for file, row in zip(files, attributes, strict=True)],
        "list_bbox_celeba.txt": ["30", "image_id x_1"] + [f"{file} 1" for file in files],
        "list_landmarks_align_celeba.txt": ["30", "lefteye_x"] + [f"{file} 1" for file in files],
    }
    for name, lines in text.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = [("", md5((folder / name).read_bytes()).hexdigest(), name) for name in text]
    monkeypatch.setattr(CelebA, "file_list", known)
    return lambda **settings: TorchvisionDataset(
        **{"dataset": "celeba", "root": str(tmp_path), "fit": "crop", "download": False} | settings
    )


@pytest.fixture
def lfw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TorchvisionDataset]:
    folder = tmp_path / "lfw-py"
    for name, count in PEOPLE.items():
        for number in range(1, count + 1):
            save(folder / "lfw_funneled" / name / f"{name}_{number:04}.jpg", number + 10 * len(name), (32, 32))
    lines = [f"{name}\t{count}" for name, count in PEOPLE.items()]
    (folder / "people.txt").write_text("\n".join(["2", "2", *lines[:2], "1", lines[2]]) + "\n")
    (folder / "lfw-names.txt").write_text("\n".join(lines) + "\n")
    (folder / "lfw-funneled.tgz").write_bytes(b"packed")
    monkeypatch.setattr(torchvision.datasets.lfw, "check_integrity", lambda path, md5: Path(path).exists())
    return lambda **settings: TorchvisionDataset(**{"dataset": "lfw", "root": str(tmp_path)} | settings)


def test_torchvision_reads_files_that_are_there(
    tmp_path: Path, images: np.ndarray, idx_bytes: Callable[[np.ndarray], bytes]
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.arange(60) % 10
    for part, rows in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images[rows]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[rows]))
    dataset = TorchvisionDataset(dataset="mnist", root=str(tmp_path), download=False)
    check_files(dataset)
    source = read_source(dataset)
    np.testing.assert_array_equal(source.images, images)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.is_test, np.arange(60) >= 40)
    assert len(source.class_names) == 10


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>", bytes(16)])
def test_a_file_of_torchvision_that_is_damaged_is_told(tmp_path: Path, content: bytes) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"expected the files of mnist, found one that is cut or something else"):
        read_source(TorchvisionDataset(dataset="mnist", root=str(tmp_path), download=False))


def test_the_home_of_nobody_is_a_folder_that_is_absent() -> None:
    with pytest.raises(DataError, match="expected its files below"):
        check_files(TorchvisionDataset(dataset="mnist", root="~nobody_at_all", download=False))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "celeba", "lfw"])
def test_absent_files_that_must_not_be_downloaded_are_refused(tmp_path: Path, name: str) -> None:
    dataset = TorchvisionDataset(dataset=name, root=str(tmp_path), download=False)
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=rf"{name}: expected its files below .* place .* into {tmp_path}"):
            refuses(dataset)


def test_a_failed_download_says_how_to_place_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(self: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", no_network)
    with pytest.raises(DataError, match=r"no route to host.* place MNIST/raw \(unpacked\) into"):
        read_source(TorchvisionDataset(dataset="mnist", root=str(tmp_path)))


def test_a_download_that_fails_in_its_own_words_or_none_is_told(
    celeba: Callable[..., TorchvisionDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FileURLRetrievalError(Exception):
        """gdown's, where too many have asked for the file."""

    for error, words in ((FileURLRetrievalError("Too many users\nhave viewed"), "Too many users"),
                         (FileURLRetrievalError(), "FileURLRetrievalError")):  # fmt: skip

        def fail(*_: object, told: Exception = error, **__: object) -> None:
            raise told

        monkeypatch.setattr(torchvision.datasets, "CelebA", fail)
        with pytest.raises(DataError, match=f"cannot get them: {words}"):
            read_source(celeba())


@pytest.mark.parametrize("attribute", ["Male", "Smiling"])
def test_celeba_by_attribute_is_what_torchvision_reads(
    celeba: Callable[..., TorchvisionDataset], tmp_path: Path, attribute: str
) -> None:
    source = read_source(celeba(attribute=attribute))
    theirs = CelebA(str(tmp_path), split="all", target_type="attr")
    np.testing.assert_array_equal(source.labels, theirs.attr[:, NAMES.index(attribute)])
    assert source.class_names == (f"not {attribute}", attribute)
    for row in (0, 29):
        np.testing.assert_array_equal(source.images[row], np.asarray(theirs[row][0]))
    np.testing.assert_array_equal(np.flatnonzero(source.is_val), np.arange(18, 24))
    np.testing.assert_array_equal(np.flatnonzero(source.is_test), np.arange(24, 30))
    known = read_labels(celeba(attribute=attribute))
    np.testing.assert_array_equal(known.labels, source.labels)


def test_celeba_by_identity_is_one_part(celeba: Callable[..., TorchvisionDataset], tmp_path: Path) -> None:
    source = read_source(celeba(attribute="identity"))
    theirs = CelebA(str(tmp_path), split="all", target_type="identity")
    assert [source.class_names[label] for label in source.labels] == [
        str(person) for person in theirs.identity[:, 0].tolist()
    ]
    assert (source.is_test, source.is_val) == (None, None)
    assert source.notes == ("celeba by identity is one part: nobody is in two of its own parts.",)


def test_the_content_of_any_face_decides_the_digest(celeba: Callable[..., TorchvisionDataset], tmp_path: Path) -> None:
    first = read_source(celeba()).sha256
    assert read_source(celeba()).sha256 == first
    save(tmp_path / "celeba/img_align_celeba/000030.jpg", 99)
    assert read_source(celeba()).sha256 != first


def test_lfw_is_what_torchvision_reads(lfw: Callable[..., TorchvisionDataset], tmp_path: Path) -> None:
    source = read_source(lfw())
    theirs = LFWPeople(str(tmp_path))
    assert [f"{tmp_path}/lfw-py/lfw_funneled/{Path(file).parent.name}/{Path(file).name}" for file in theirs.data] == (
        source.images.files
    )
    people = {number: name for name, number in theirs.class_to_idx.items()}
    assert [source.class_names[label] for label in source.labels] == [people[number] for number in theirs.targets]
    np.testing.assert_array_equal(read_labels(lfw()).labels, source.labels)


def test_people_with_few_images_are_left_out_when_asked(lfw: Callable[..., TorchvisionDataset]) -> None:
    source = read_source(lfw(min_images=5))
    assert (source.class_names, len(source.labels)) == (("Ann_B", "Cy_D"), 11)
    assert source.notes == ("1 people with fewer than 5 images were left out.",)
    with pytest.raises(
        DataError, match=r"expected at least 2 people, found 1 with 6 images or more \(min_images\) of 3"
    ):
        check_files(lfw(min_images=6))


def test_one_image_of_a_person_is_refused_before_any_job_with_what_to_do(
    lfw: Callable[..., TorchvisionDataset],
) -> None:
    with pytest.raises(DataError, match=r"gets none of class 'Bo_C'.*Raise dataset\.min_images"):
        check_files(lfw())
    check_files(lfw(min_images=5, split=Split(val=2, shadow=2, test=2)))


def test_lfw_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="torchvision offers no download of LFW any more"):
        check_files(TorchvisionDataset(dataset="lfw", root=str(tmp_path), download=True))


def test_lists_of_faces_that_are_damaged_are_refused(celeba: Callable[..., TorchvisionDataset], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected an attribute of CelebA, found 'Tall'\. Choose from: identity, Bald, Male"
    ):
        check_files(celeba(attribute="Tall"))
    path = tmp_path / "celeba/list_attr_celeba.txt"
    whole = path.read_text()
    for damaged, expected in (
        ("", "a count, and a line with the names"),
        ("30", "a count, and a line with the names"),
        (whole[:-9], "lines of 4 words"),
        (whole.replace("000007", "000008"), "the same files as list_eval_partition.txt"),
        (whole.replace(" 1", " 2"), "expected -1 or 1"),
    ):
        path.write_text(damaged)
        with pytest.raises(DataError, match=expected):
            check_files(celeba())
    path.write_text(whole + "\n")
    check_files(celeba())
    with pytest.raises(DataError, match="cannot get them: Dataset not found or corrupted"):
        read_source(celeba())


def test_a_damaged_face_is_named_before_any_job(celeba: Callable[..., TorchvisionDataset], tmp_path: Path) -> None:
    (tmp_path / "celeba/img_align_celeba/000012.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000012\.jpg: expected an image"):
        check_files(celeba())


@pytest.mark.parametrize(("name", "why"), [("cifar10", "pickles"), ("cifar100", "pickles"), ("svhn", r"\.mat files")])
def test_sets_whose_files_are_not_read_name_the_converter(name: str, why: str) -> None:
    with pytest.raises(
        ValidationError, match=rf"{why}.*\n  python docs/convert.py data/{name}.npz .*\n  dataset: "
    ) as error:
        TorchvisionDataset(dataset=name)
    command, line = error.value.errors()[0]["msg"].splitlines()[1:3]
    script = Path(__file__).parents[3] / "docs/convert.py"
    for word in command.split():
        if word.startswith("cifar"):
            assert word in script.read_text(encoding="utf-8")
    settings = yaml.safe_load(line)["dataset"]
    converted = DATASETS.members["npz"](**settings)
    assert converted.name == name
    assert converted.augmentation.flip == (name != "svhn")


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "mnist", "attribute": "Smiling"},
        {"dataset": "celeba", "min_images": 5},
        {"dataset": "mnist", "min_images": 5},
    ],
)
def test_settings_of_other_sets_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="leave it out"):
        TorchvisionDataset(**settings)
