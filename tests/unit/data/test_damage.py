"""Thousands of damaged files: each is read or refused in one line, and nothing is left behind."""

import gzip
import io
import itertools
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.config import IdxDataset, ImageFolderDataset, NpzDataset, Split
from cem.data.check import check_files
from cem.data.prepare import prepare_data
from cem.data.sources import DataError
from cem.data.sources.headers import check_headers
from cem.data.sources.picture import Pictures

RNG = np.random.default_rng(20)
SPLIT = Split(val=2, shadow=2, test=2)
IMAGES, ARRAYS = 3000, 500


def images() -> list[tuple[str, bytes]]:
    """Suffix and content of small images of every format that Pillow writes and we read."""
    pixels = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    colour, frames = Image.fromarray(pixels), [Image.new("RGB", (16, 12), (i, 9, 9)) for i in (40, 90)]
    several = {"save_all": True, "append_images": frames}
    made = [
        ("jpg", colour, {"exif": exif}), ("jpg", colour.convert("L"), {"progressive": True}),
        ("jpg", colour.convert("CMYK"), {}), ("png", colour, {"exif": exif}), ("png", colour.convert("P"), {}),
        ("png", colour.convert("1"), {}), ("png", colour, several), ("gif", colour, several), ("bmp", colour, {}),
        ("webp", colour, {"exif": exif}), ("webp", colour, several), ("tiff", colour, {"exif": exif}),
        ("tiff", colour, {"compression": "tiff_lzw"}), ("tiff", colour, {"compression": "jpeg"}), ("ppm", colour, {}),
        ("pgm", colour.convert("L"), {}), ("pbm", colour.convert("1"), {}), ("tga", colour, {}), ("pcx", colour, {}),
        ("ico", colour, {"sizes": [(12, 12)]}), ("sgi", colour, {}), ("jp2", colour, {}), ("dds", colour, {}),
        ("im", colour, {}), ("msp", colour.convert("1"), {}), ("xbm", colour.convert("1"), {}),
        ("mpo", colour, several), ("avif", colour, {}), ("qoi", colour, {}), ("dib", colour, {}),
    ]  # fmt: skip
    found = []
    for suffix, image, settings in made:
        content = io.BytesIO()
        image.save(content, Image.registered_extensions()[f".{suffix}"], **settings)
        found.append((suffix, content.getvalue()))
    return found


def damaged(content: bytes) -> bytes:
    """Cut, overwritten, with bytes lost or added, or with a number made huge."""
    data = bytearray(content)
    place = int(RNG.integers(len(data)) if RNG.random() < 0.5 else RNG.integers(min(64, len(data))))
    match RNG.integers(7):
        case 0:
            del data[place:]
        case 1:
            del data[place : place + int(RNG.integers(1, 40))]
        case 2:
            data[place:place] = RNG.bytes(int(RNG.integers(1, 40)))
        case 3:
            data[place : place + 4] = struct.pack("<I" if RNG.random() < 0.5 else ">I", int(RNG.choice(HUGE)))
        case 4:
            data[place : place + 8] = bytes(8)
        case _:
            for _ in range(int(RNG.integers(1, 6))):
                data[int(RNG.integers(len(data)))] ^= int(RNG.integers(1, 256))
    return bytes(data)


HUGE = [0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def ends(*steps: Callable[[], object]) -> str:
    """How each step ends: it reads, or raises DataError, in one line, and nothing else."""
    said = []
    for step in steps:
        try:
            step()
            said.append("read")
        except DataError as error:
            said.append("refused" if "\n" not in str(error) else f"refused in several lines: {error}")
    return ", then ".join(said)


def outcome(dataset: ImageFolderDataset | NpzDataset | IdxDataset, out: Path) -> str:
    """Of the check before any job, and of the preparation."""
    end = ends(lambda: check_files(dataset), lambda: prepare_data(dataset, out))
    assert out.exists() == end.endswith("then read")
    out.unlink(missing_ok=True)
    return end


def open_files() -> set[Path]:
    return {path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Warnings are no outcome: here they would be errors."""
    with warnings.catch_warnings(action="ignore"):
        yield


def test_damaged_images_are_read_or_refused(tmp_path: Path, quiet: None) -> None:
    folder = tmp_path / "raw"
    for name in "ab":
        for i in range(5):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 12), (40 * i, 9, 9)).save(folder / name / f"{i}.bmp")
    dataset = ImageFolderDataset(name="damaged", path=str(folder), fit="crop", split=SPLIT)
    found: dict[str, int] = {}
    before, opened = tree(tmp_path), open_files()
    for number, (suffix, content) in enumerate(itertools.islice(itertools.cycle(images()), IMAGES)):
        path = folder / "b" / f"x.{suffix}"
        path.write_bytes(damaged(content))
        file = [str(path)]
        end = ends(lambda: check_headers(file, one_size=False), lambda: Pictures(file)[0])  # noqa: B023  called at once
        if number % 20 == 0:
            assert outcome(dataset, tmp_path / "out.h5") == end
        found[end] = found.get(end, 0) + 1
        path.unlink()
        assert tree(tmp_path) == before
    assert open_files() == opened
    assert sum(found.values()) == IMAGES
    assert found["read, then read"] > IMAGES / 10
    assert found["refused, then refused"] > IMAGES / 10
    assert "refused, then read" not in found


@pytest.mark.parametrize("form", ["jpg", "png", "gif", "webp"])
def test_an_image_that_is_cut_off_is_refused_by_name_before_any_job(tmp_path: Path, form: str) -> None:
    path, more = tmp_path / f"whole.{form}", tmp_path / f"more.{form}"
    pixels = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pixels.save(path)
    more.write_bytes(path.read_bytes() + b"what a camera adds")
    check_headers([str(path), str(more)], one_size=False)
    for part in (0.5, 0.9):
        cut = tmp_path / f"cut.{form}"
        cut.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
        with pytest.raises(DataError, match=rf"cut\.{form}: expected an image, cannot read it"):
            check_headers([str(cut)], one_size=False)


def arrays() -> list[dict[str, bytes]]:
    """Files that hold a small data set, as npz and as idx."""
    x, y = RNG.integers(0, 256, (24, 9, 10), dtype=np.uint8), np.arange(24) % 2
    kept = {"x": x, "y": y, "train": np.arange(24) < 16, "classes": np.array(["a", "bé"])}
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **kept)
    np.savez_compressed(packed, **kept)
    sizes = np.array(x.shape, ">u4").tobytes()
    images = b"\0\0\x08\x03" + sizes + x.tobytes()
    labels = b"\0\0\x08\x01" + sizes[:4] + y.astype(np.uint8).tobytes()
    return [
        {"d.npz": plain.getvalue()},
        {"d.npz": packed.getvalue()},
        {"images": images, "labels": labels},
        {"images": gzip.compress(images), "labels": gzip.compress(labels)},
    ]


def test_damaged_arrays_are_read_or_refused(tmp_path: Path, quiet: None) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    paths = {name: str(folder / name) for name in ("images", "labels")}
    found: dict[str, int] = {}
    opened = open_files()
    for files in itertools.islice(itertools.cycle(arrays()), ARRAYS):
        hurt = str(RNG.choice(list(files)))
        for name, content in files.items():
            (folder / name).write_bytes(damaged(content) if name == hurt else content)
        before = tree(tmp_path)
        if "d.npz" in files:
            end = outcome(NpzDataset(name="damaged", path=str(folder / "d.npz"), split=SPLIT), tmp_path / "out.h5")
        else:
            end = outcome(IdxDataset(name="damaged", split=SPLIT, **paths), tmp_path / "out.h5")
        found[end] = found.get(end, 0) + 1
        assert tree(tmp_path) == before
    assert open_files() == opened
    assert sum(found.values()) == ARRAYS
    assert found["read, then read"] > 10
    assert found["refused, then refused"] > ARRAYS / 2
    assert "refused, then read" not in found
