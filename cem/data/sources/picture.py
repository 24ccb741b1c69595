"""One image file: whether it is one, what its header says, and its pixels, upright."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from cem.data.sources.files import shown
from cem.data.sources.source import LARGEST_ASPECT, SMALLEST_SIDE, DataError, Raw, is_picture, several_sizes

# What Pillow reads by itself. Left out: what starts other programs (EPS), and containers of data or films.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "MPO", "ICO", "PCX", "SGI", "PSD",
    "DDS", "QOI", "IM", "MSP", "XBM", "XPM", "TGA",
)  # fmt: skip
_BY_NAME_ALONE = ("TGA",)  # formats that any bytes may pass for
_GREY, _COLOUR = ("1", "L"), ("P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_CHECKED = 10_000  # images whose header is read before any job starts
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF's orientation → what a viewer does


class Pictures:
    """The pixels of image files, each read when it is asked for; sequence of [height, width] or [height, width, 3]."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self._several: set[str] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int, /) -> Raw:
        """One image, upright. Raises DataError when it is damaged or not of a kind that can be read."""
        pixels, several = decoded(self.files[row])
        if several:
            self._several.add(self.files[row])
        return pixels

    def remarks(self) -> list[str]:
        """What was noticed in the files that were read."""
        return remarks(sorted(self._several))


def decoded(path: str) -> tuple[Raw, bool]:
    """The pixels of an image file, upright, and whether it holds several pictures. Raises DataError."""
    with _reading(path):
        with open(path, "rb", buffering=0) as file:  # whole: Pillow reads a file in many small pieces
            content = io.BytesIO(file.read())
        with _image(content, path) as image:
            _check(path, image)
            several = has_several(image)
            image.load()
            turn = _TURNS.get(_orientation(image))
            upright = image if turn is None else image.transpose(turn)
            mode = "L" if image.mode in _GREY else "RGB"
            pixels: Raw = np.asarray(upright if upright.mode == mode else upright.convert(mode))
    return pixels, several


def remarks(several: Sequence[str]) -> list[str]:
    """Notes on the files that hold several pictures."""
    if not several:
        return []
    named = ", ".join(map(shown, several[:3])) + (", …" if len(several) > 3 else "")
    verb = "file holds" if len(several) == 1 else "files hold"
    return [f"{len(several)} {verb} several pictures, of which the first is read: {named}."]


def check_headers(files: Sequence[str], *, one_size: bool) -> list[str]:
    """Look at the headers of up to 10,000 images, spread evenly; gives notes.

    Raises DataError for one that is damaged or of a kind that cannot be read, and, for `one_size`, when sizes differ.
    """
    several: list[str] = []
    first: tuple[str, tuple[int, int]] | None = None
    for path in files[:: max(1, -(-len(files) // _CHECKED))]:
        with _reading(path), open(path, "rb") as file, _image(file, path) as image:
            _check(path, image)
            size = _upright_size(image)
            if has_several(image):
                several.append(path)
        first = first or (path, size)
        if one_size and size != first[1]:
            raise DataError(several_sizes({first[1]: shown(first[0]), size: shown(path)}))
    return remarks(several)


def is_picture_file(path: str) -> bool:
    """Whether a file is to be read as an image: by its name or, where that says nothing, by its first bytes."""
    if os.path.splitext(path)[1].lower() in _suffixes():
        return True
    try:
        with open(path, "rb") as file, Image.open(file, formats=_formats(by_name=False)):
            return True
    except Exception:  # what is no image by its name need not be one
        return False


def has_several(image: Image.Image) -> bool:
    """Whether a file holds several pictures."""
    return getattr(image, "is_animated", False) is True


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Whatever Pillow raises becomes a DataError that names the file.

    Its warnings are of parts that hold no pixels, and of large images, which `_check` refuses.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except DataError:
        raise
    except Exception as error:  # its readers raise whatever the damage leads them to: ValueError, struct.error, …
        why = str(error).replace(repr(path), "it") or type(error).__name__
        raise DataError(
            f"{shown(path)}: expected an image, cannot read it: {why}. Replace or remove the file."
        ) from None


def _image(file: io.BytesIO | io.BufferedReader, path: str) -> Image.Image:
    try:
        return Image.open(file, formats=_formats(by_name=True))
    except UnidentifiedImageError:
        content = "it is empty" if not os.path.getsize(path) else "its content is of no kind that is known"
        raise OSError(content) from None


def _check(path: str, image: Image.Image) -> None:
    width, height = image.size
    largest = Image.MAX_IMAGE_PIXELS or width * height
    if width * height > largest:
        raise DataError(
            f"{shown(path)}: expected at most {largest} pixels, found {width}×{height}. Shrink the image first."
        )
    if not is_picture(height, width):
        raise DataError(
            f"{shown(path)}: expected pictures, at least {SMALLEST_SIDE} pixels a side and at most {LARGEST_ASPECT} "
            f"times as long as wide, found {width}×{height}. Remove the file."
        )
    if image.mode not in _GREY + _COLOUR or "transparency" in image.info:
        kind = f"{image.mode!r}{' with transparency' if 'transparency' in image.info else ''}"
        raise DataError(
            f"{shown(path)}: expected 8-bit grey or colour without transparency, found Pillow's mode {kind}. "
            "Convert the image first."
        )


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where it says nothing that can be read, which is what viewers do."""
    if image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}:
        return 1  # most are so, and Pillow's search takes longer than this
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except Exception:  # damage in a part that holds no pixels: Pillow raises whatever it leads to
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as a viewer shows them, from the header: TIFF's are so; PNG may have its EXIF at the end."""
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    turned = known and _orientation(image) >= 5
    return image.size[::-1] if turned else image.size


@cache
def _suffixes() -> frozenset[str]:
    formats = _formats(by_name=True)
    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in formats)


@cache
def _formats(*, by_name: bool) -> tuple[str, ...]:
    """The formats of this Pillow. by_name: also those that only a file's name gives away."""
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN and (by_name or form not in _BY_NAME_ALONE))
