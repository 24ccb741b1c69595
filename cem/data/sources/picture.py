"""One image file: whether it is one, what its header says, and its pixels, upright."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from cem.data.sources.depth import is_of_other_bits
from cem.data.sources.files import shown
from cem.data.sources.orientation import TURNS, may_turn, orientation, upright_size
from cem.data.sources.source import LARGEST_ASPECT, SMALLEST_SIDE, DataError, Raw, is_picture, several_sizes

# What Pillow reads by itself. Left out: what starts other programs (EPS), and containers of data or films.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "MPO", "ICO", "PCX", "SGI", "PSD",
    "DDS", "QOI", "IM", "MSP", "XBM", "XPM", "SUN", "BLP", "TGA",
)  # fmt: skip
_BY_NAME_ALONE = ("TGA",)  # formats that any bytes may pass for
_GREY = ("1", "L")
_JPEG = b"\xff\xd8\xff"  # how it begins
_MODES = (*_GREY, "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_CHECKED = 10_000  # images whose header is read before any job starts
_PIECE = 1 << 16  # bytes asked for at a time, where a file is longer than it says
_LOOKED_INTO = 100  # images that are read before any job starts, as they do not end as others do
_SPREAD = 1000  # and those of formats whose end says nothing, spread evenly
T = TypeVar("T")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow, whose warnings are of parts that hold no pixels, and of large images, which are refused.

    It is for many images at once: for each it would take longer than to open a small one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"PIL\.|{re.escape(__name__)}")
        yield


class Pictures:
    """The pixels of image files, each read when it is asked for; sequence of [height, width] or [height, width, 3].

    It is to be used `without_warnings`.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.digests: dict[str, bytes] = {}  # path → SHA-256 of each file that was read
        self._several: set[str] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int, /) -> Raw:
        """One image, upright. Raises DataError when it is damaged or not of a kind that can be read."""
        path = self.files[row]
        picture = decoded(path)
        self.digests[path] = picture.sha256
        if picture.several:
            self._several.add(path)
        return picture.pixels

    def remarks(self) -> list[str]:
        """What was noticed in the files that were read."""
        return remarks(sorted(self._several))


class Picture(NamedTuple):
    """What an image file holds. several: whether it holds several pictures; sha256: of the whole file."""

    pixels: Raw
    several: bool
    sha256: bytes


def _naming_the_file(read: Callable[[str], T]) -> Callable[[str], T]:
    """What reads a file, so that whatever Pillow raises becomes a DataError that names the file."""

    @wraps(read)
    def reading(path: str) -> T:
        try:
            return read(path)
        except DataError:
            raise
        except Exception as error:  # its readers raise whatever the damage leads them to: ValueError, struct.error, …
            why = str(error).replace(repr(path), "it") or type(error).__name__
            raise DataError(
                f"{shown(path)}: expected an image, cannot read it: {why}. Replace or remove the file."
            ) from None

    return reading


@_naming_the_file
def decoded(path: str) -> Picture:
    """The pixels of an image file, upright. Raises DataError."""
    content = _content(path)  # whole: Pillow reads a file in many small pieces
    memory = io.BytesIO(content)
    image = _image(memory, path)
    _check(path, image, memory)
    several = has_several(image)
    if image.format != "JPEG":  # whose header says it all; what follows loads it
        image.load()
    turn = TURNS.get(orientation(image))
    upright = image if turn is None else image.transpose(turn)
    grey = image.mode in _GREY
    if upright.mode != ("L" if grey else "RGB"):
        upright = upright.convert("L" if grey else "RGB")
    # What numpy.asarray(upright) gives, which takes longer to find out how.
    shape = (upright.height, upright.width) if grey else (upright.height, upright.width, 3)
    pixels: Raw = np.frombuffer(upright.tobytes(), np.uint8).reshape(shape)
    return Picture(pixels, several, hashlib.sha256(content).digest())


def _content(path: str) -> bytes:
    """What a file holds. Without Python's file object, which takes longer than to read a small image."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        pieces = [os.read(file, size + 1)]
        while len(pieces[-1]) > 0 and sum(map(len, pieces)) != size:  # longer than it says, or than one call gives
            pieces.append(os.read(file, _PIECE))
    finally:
        os.close(file)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def remarks(several: Sequence[str]) -> list[str]:
    """Notes on the files that hold several pictures."""
    if not several:
        return []
    named = ", ".join(map(shown, several[:3])) + (", …" if len(several) > 3 else "")
    verb = "file holds" if len(several) == 1 else "files hold"
    return [f"{len(several)} {verb} several pictures, of which the first is read: {named}."]


@without_warnings()
def check_headers(files: Sequence[str], *, one_size: bool) -> list[str]:
    """Look at the headers and the ends of up to 10,000 images, spread evenly; gives notes.

    Raises DataError for one that is damaged, cut off (JPEG, PNG, GIF, WebP; some cameras put something behind each
    picture, of which the first hundred are then read), or of a kind that cannot be read, and, for `one_size`, when
    sizes differ.
    """
    several: list[str] = []
    looked_into = 0
    first: tuple[str, tuple[int, int]] | None = None
    asked = files[:: max(1, -(-len(files) // _CHECKED))]
    for number, path in enumerate(asked):
        size, has_more = _header(path)
        ends = _has_its_end(path)
        if (ends is False and looked_into < _LOOKED_INTO) or (ends is None and number % -(-len(asked) // _SPREAD) == 0):
            looked_into += ends is False
            decoded(path)  # which says what is wrong, if anything is
        if has_more:
            several.append(path)
        first = first or (path, size)
        if one_size and size != first[1]:
            raise DataError(several_sizes({first[1]: shown(first[0]), size: shown(path)}))
    return remarks(several)


_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}  # by how a file starts


@_naming_the_file
def _has_its_end(path: str) -> bool | None:
    """Whether a file ends as one of its format does; where not, it is cut off, or has something behind the picture.

    None: of a format whose end says nothing.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":  # WebP: its length is in its header
            return os.path.getsize(path) >= 8 + int.from_bytes(start[4:8], "little")
        end = next((end for begin, end in _ENDS.items() if start.startswith(begin)), b"")
        if not end:
            return None
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


@_naming_the_file
def _header(path: str) -> tuple[tuple[int, int], bool]:
    """Width and height as a viewer shows them, and whether the file holds several pictures."""
    with open(path, "rb") as file, _image(file, path) as image:
        _check(path, image, file)
        several = has_several(image)
        if image.format == "PNG" and "exif" not in image.info and may_turn(file):
            image.load()  # what turns it stands behind the pixels, or is found by those who have read them
        return upright_size(image), several


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


def _image(file: io.BytesIO | io.BufferedReader, path: str) -> Image.Image:
    formats = _formats(by_name=True)
    try:
        start = file.read(3)
        file.seek(0)
        if start == _JPEG:  # as Image.open does with most files, which takes it longer to find out
            return Image.OPEN["JPEG"][0](file, "")
    except SyntaxError:  # then it says what is wrong
        file.seek(0)
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        content = "it is empty" if not os.path.getsize(path) else "its content is of no kind that is known"
        raise OSError(content) from None


def _check(path: str, image: Image.Image, file: io.BytesIO | io.BufferedReader) -> None:
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
    other_bits = is_of_other_bits(image, file)
    see_through = "transparency" in image.info or (image.palette is not None and image.palette.mode.endswith("A"))
    if image.mode not in _MODES or see_through or other_bits:
        kind = f"{image.mode!r}{' with transparency' if see_through else ''}"
        kind += " of other than 8 bits a colour" if other_bits else ""
        raise DataError(
            f"{shown(path)}: expected 8-bit grey or colour without transparency, found Pillow's mode {kind}. "
            "Convert the image first."
        )


@cache
def _suffixes() -> frozenset[str]:
    formats = _formats(by_name=True)
    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in formats)


@cache
def _formats(*, by_name: bool) -> tuple[str, ...]:
    """The formats of this Pillow. by_name: also those that only a file's name gives away."""
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN and (by_name or form not in _BY_NAME_ALONE))
