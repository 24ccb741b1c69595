"""The only HDF5 code: data sets, activations, mixtures, reconstructions.

Every file carries `kind`, `version`, `created_by` and the SHA-256 of each file it was made from. It is written under a
temporary name beside its target, flushed to disk and renamed, so a file is whole or absent; and since nobody ever
writes to a file under its final name, no file needs a lock. HDF5's locks, which fail on many cluster file systems, are
therefore off: the variable has to be set before h5py is imported.
"""

import os

os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"

import io
import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
from jaxtyping import Float, Int, UInt8

from cem import __version__
from cem.storage.files import StoreError, sha256, whole_or_absent

VERSION = 1
SPLITS = ("private", "val", "shadow", "test")
T = TypeVar("T")
R = TypeVar("R", bound="Reader")
Rows = Int[np.ndarray, " rows"] | slice


class _Disk(io.FileIO):
    """A file that keeps its first failed write for the end.

    HDF5 cannot close a file that it cannot flush: it would crash the process at exit. Here it always can.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data)
        try:
            while left and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextmanager
def write_file(
    path: str | Path, kind: str, sources: Mapping[str, str | Path] | None = None, attrs: Mapping[str, Any] | None = None
) -> Iterator[h5py.File]:
    """Write an HDF5 file, whole or not at all.

    sources: name → path of each file this one is made from; their SHA-256 is recorded.
    attrs: further root attributes; what HDF5 has no type for is stored as JSON.
    """
    digests = {name: sha256(source) for name, source in (sources or {}).items()}
    with whole_or_absent(path) as temporary, _Disk(temporary, "w+") as disk:
        with h5py.File(disk, "w") as file:
            file.attrs["kind"] = kind
            file.attrs["version"] = VERSION
            file.attrs["created_by"] = f"cem {__version__}"
            file.attrs["sources"] = json.dumps(digests)
            for name, value in (attrs or {}).items():
                file.attrs[name] = value if isinstance(value, (int, float, str)) else json.dumps(value)
            yield file
        if disk.failure is not None:
            raise disk.failure


class Reader:
    """An open file whose kind and version were checked."""

    kind: str

    def __init__(self, path: str | Path, maker: str | None = None, kind: str | None = None) -> None:
        self.path = Path(path)
        self.kind = kind or type(self).kind
        self.maker = maker or f"the rule that writes {self.path.name}"
        if not self.path.is_file():
            raise StoreError(f"{path}: expected a file of kind {self.kind!r}, found none. Run {self.maker}.")
        try:
            self.file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise StoreError(
                f"{path}: expected an HDF5 file of kind {self.kind!r}, but it is truncated or not HDF5 ({error}). "
                f"Delete it and rerun {self.maker}."
            ) from None
        found, version = self.file.attrs.get("kind"), self.file.attrs.get("version")
        if (found, version) != (self.kind, VERSION):
            self.file.close()
            raise StoreError(
                f"{path}: expected kind {self.kind!r} version {VERSION}, found {found!r} version {version}. "
                f"Delete it and rerun {self.maker}."
            )
        try:
            self._refuse_what_lies_elsewhere()
        except StoreError:
            self.file.close()
            raise

    def _refuse_what_lies_elsewhere(self) -> None:
        """Raise StoreError unless every name is of an object in this file, and every dataset has its bytes there.

        Nothing is followed or read to find that out: a file from elsewhere could name any file that its reader may
        read, and hand its bytes out as images.
        """
        # Each link once; those that are soft or lead out of the file are visited but not followed. h5py's own classes
        # of links know no user-defined ones.
        found: list[tuple[bytes, int]] = []
        self.file.id.links.visit(lambda name, info: found.append((name, info.type)), info=True)
        for name, kind in found:
            if kind in (h5py.h5l.TYPE_SOFT, h5py.h5l.TYPE_EXTERNAL):
                link = self.file.get(name, getlink=True)
                raise self._foreign(name, f"a {type(link).__name__}", repr(getattr(link, "filename", link.path)))
            if kind != h5py.h5l.TYPE_HARD:
                raise self._foreign(name, f"a user-defined link of type {kind}", "what only its maker knows")
            item = self.file[name]
            if not isinstance(item, h5py.Dataset):
                continue
            if item.is_virtual:
                raise self._foreign(name, "a virtual dataset", repr(item.virtual_sources()[0].file_name))
            if item.external:
                raise self._foreign(name, "a dataset with external storage", repr(item.external[0][0]))

    def _foreign(self, name: bytes, what: str, target: str) -> StoreError:
        shown = name.decode(errors="replace")
        return StoreError(
            f"{self.path}: expected all data inside the file, found {shown!r} to be {what}, which leads to {target}. "
            f"Files of cem have none: somebody else made or changed this one. Do not use it; delete it and rerun "
            f"{self.maker}."
        )

    def check_source(self, name: str, path: str | Path) -> None:
        """Raise StoreError unless this file was made from exactly the file at `path`."""
        recorded, found = self.sources.get(name), sha256(path)
        if recorded != found:
            raise StoreError(
                f"{self.path}: expected it to be made from {path} (sha256 {found[:12]}…), but it was made from another "
                f"{name} (sha256 {str(recorded)[:12]}…). Delete {self.path} and rerun {self.maker}."
            )

    @property
    def sources(self) -> dict[str, str]:
        """Name → SHA-256 of each file this one was made from."""
        return dict(json.loads(self.file.attrs["sources"]))

    @property
    def attrs(self) -> dict[str, Any]:
        """The root attributes."""
        return {name: value.item() if hasattr(value, "item") else value for name, value in self.file.attrs.items()}

    def array(self, name: str) -> np.ndarray:
        """A whole dataset. Raises StoreError when it is not there."""
        return np.asarray(self.dataset(name))

    def dataset(self, name: str) -> h5py.Dataset:
        """A dataset, unread. Raises StoreError when it is not there."""
        if name not in self.file:
            raise StoreError(
                f"{self.path}: expected a dataset {name!r}, found none. Delete the file and rerun {self.maker}."
            )
        return self.file[name]

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.file.close()


class DatasetReader(Reader):
    """A prepared data set: uint8 images and labels of the four splits."""

    kind = "dataset"

    def images(self, split: str) -> UInt8[np.ndarray, "n channel height width"]:
        """All images of a split."""
        return self.array(f"{split}/images")

    def labels(self, split: str) -> Int[np.ndarray, " n"]:
        """All labels of a split."""
        return self.array(f"{split}/labels")

    @property
    def class_names(self) -> list[str]:
        """One name per class of the defender's, in the order of the labels."""
        return list(json.loads(self.file.attrs["class_names"]))

    @property
    def shadow_class_names(self) -> list[str]:
        """Names of shadow's classes where these are others: its labels go on from num_classes. Else empty."""
        return list(json.loads(self.file.attrs.get("shadow_class_names", "[]")))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or decided when the data was prepared. Files of cem 0.1.0 do not say."""
        return tuple(json.loads(self.file.attrs.get("notes", "[]")))

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.dataset("private/images").shape[1:]
        return channels, height, width


class ActivationReader(Reader):
    """The encoder's outputs on the four splits. Clean ẑ is on disk; only what `corrupt` makes of it is handed out."""

    kind = "activations"

    def __init__(self, path: str | Path, maker: str | None = None, kind: str | None = None) -> None:
        super().__init__(path, maker, kind)
        self._maps: dict[str, np.ndarray] = {}

    @property
    def smashed_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of ẑ."""
        channels, height, width = super().dataset("private/smashed").shape[1:]
        return channels, height, width

    @property
    def learned(self) -> dict[str, np.ndarray]:
        """What the run's defence has learned and needs wherever z leaves the client, by name; often nothing."""
        names = self.file.get("defense", ())
        return {name: self.array(f"defense/{name}") for name in names}

    def dataset(self, name: str) -> h5py.Dataset:
        """Any dataset but the clean ẑ, which would let an attack see what never leaves the client."""
        if name.endswith("/smashed"):
            raise StoreError(f"{name} is clean: use read(), which hands out what `corrupt` makes of it")
        return super().dataset(name)

    def count(self, split: str) -> int:
        """How many images a split has."""
        return int(super().dataset(f"{split}/smashed").shape[0])

    def labels(self, split: str) -> Int[np.ndarray, " n"]:
        """All labels of a split."""
        return self.array(f"{split}/labels")

    def read(self, split: str, rows: Rows, corrupt: Callable[[Float[np.ndarray, "rows c h w"]], T]) -> T:
        """What `corrupt` makes of a copy of the given rows, in the order given; they may repeat.

        Rows are taken from the mapped file: HDF5's own selection of scattered rows is some hundred times slower.
        """
        clean = self._mapped(f"{split}/smashed")[rows]
        return corrupt(clean.copy() if isinstance(rows, slice) else clean)  # rows chosen by number are a copy already

    def _mapped(self, name: str) -> np.ndarray:
        """A contiguous dataset as the bytes of the open file, read when they are used."""
        if name not in self._maps:
            dataset = super().dataset(name)
            offset = dataset.id.get_offset()
            if offset is None:
                raise StoreError(
                    f"{self.path}: expected {name} to be contiguous and not empty, found chunks {dataset.chunks}, "
                    f"shape {dataset.shape}. Delete the file and rerun {self.maker}."
                )
            file = mmap.mmap(self.file.id.get_vfd_handle(), 0, access=mmap.ACCESS_READ)
            self._maps[name] = np.frombuffer(file, dataset.dtype, dataset.size, offset).reshape(dataset.shape)
        return self._maps[name]


def open_dataset(path: str | Path) -> DatasetReader:
    """Open a prepared data set. Raises StoreError when it is absent, damaged or of another kind or version."""
    return DatasetReader(path, maker="prepare_data")


def open_activations(path: str | Path) -> ActivationReader:
    """Open stored activations. Raises StoreError when they are absent, damaged or of another kind or version."""
    return ActivationReader(path, maker="extract_activations")
