"""One image file: whether it is one, what its header says, and its pixels, upright."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from cem.data.sources.depth import is_of_other_bits
from cem.data.sources.files import shown
from cem.data.sources.orientation import TURNS, orientation
from cem.data.sources.source import LARGEST_ASPECT, SMALLEST_SIDE, DataError, Raw, is_picture

# What Pillow reads by itself. Left out: what starts other programs (EPS), and containers of data or films.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "MPO", "ICO", "PCX", "SGI", "PSD",
    "DDS", "QOI", "IM", "MSP", "XBM", "XPM", "SUN", "BLP", "TGA",
)  # fmt: skip
_BY_NAME_ALONE = ("TGA",)  # formats that any bytes may pass for
_GREY = ("1", "L")
_JPEG = b"\xff\xd8\xff"  # how it begins
_MODES = (*_GREY, "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")
_PIECE = 1 << 16  # bytes asked for at a time, where a file is longer than it says
_TOGETHER, _BYTES = 32, 4 << 20  # images decoded step by step together; bytes of them: bounds the memory
P = ParamSpec("P")
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
        return next(self.each([row]))

    def each(self, rows: Iterable[int]) -> Iterator[Raw]:
        """The images of these rows, in their order. Raises DataError as for one."""
        for path, picture in decoded(self.files[row] for row in rows):
            self.digests[path] = picture.sha256
            if picture.several:
                self._several.add(path)
            yield picture.pixels

    def remarks(self) -> list[str]:
        """What was noticed in the files that were read."""
        return remarks(sorted(self._several))


class Picture(NamedTuple):
    """What an image file holds. several: whether it holds several pictures; sha256: of the whole file."""

    pixels: Raw
    several: bool
    sha256: bytes


class _Opened(NamedTuple):
    """An image whose header was read and found right, and what its file holds. several: as in Picture."""

    path: str
    content: bytes
    image: Image.Image
    several: bool

    @property
    def size(self) -> int:
        """Bytes that it takes: of the file, of Pillow's pixels (four each) and of ours (three)."""
        return len(self.content) + 7 * self.image.width * self.image.height


def naming_the_file(read: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """What reads a file, so that whatever Pillow raises becomes a DataError that names the file."""

    @wraps(read)
    def reading(path: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(path, *args, **kwargs)
        except DataError:
            raise
        except Exception as error:  # its readers raise whatever the damage leads them to: ValueError, struct.error, …
            why = str(error).replace(repr(path), "it") or type(error).__name__
            raise DataError(
                f"{shown(path)}: expected an image, cannot read it: {why}. Replace or remove the file."
            ) from None

    return reading


def decoded(paths: Iterable[str]) -> Iterator[tuple[str, Picture]]:
    """Image files with what they hold, upright, in order. Raises DataError.

    A few at a time go through each step together: the code of a step then stays in the processor's cache, which saves
    a quarter of the time that small images take one by one.
    """
    opened: list[_Opened] = []
    taken = 0
    for path in paths:
        opened.append(_open(path))
        taken += opened[-1].size
        if len(opened) == _TOGETHER or taken >= _BYTES:
            yield from _decode(opened)
            taken = 0
    yield from _decode(opened)


def _decode(opened: list[_Opened]) -> list[tuple[str, Picture]]:
    """What these hold; the list is emptied: each is let go of as soon as its pixels are there."""
    for place in range(len(opened)):
        _load(opened[place].path, opened[place].image)
    opened.reverse()
    found = []
    while opened:
        found.append((opened[-1].path, _picture(*opened.pop())))
    return found


@naming_the_file
def _open(path: str) -> _Opened:
    content = _content(path)  # whole: Pillow reads a file in many small pieces
    memory = io.BytesIO(content)
    image = open_image(memory, path)
    check_picture(path, image, memory)
    return _Opened(path, content, image, has_several(image))


@naming_the_file
def _load(path: str, image: Image.Image) -> None:
    image.load()


@naming_the_file
def _picture(path: str, content: bytes, image: Image.Image, several: bool) -> Picture:
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


def open_image(file: io.BytesIO | io.BufferedReader, path: str) -> Image.Image:
    """What Pillow makes of a file, its pixels not yet read. Raises OSError, or what the damage leads Pillow to."""
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


def check_picture(path: str, image: Image.Image, file: io.BytesIO | io.BufferedReader) -> None:
    """Raise DataError where an image is too large, no picture by its sides, or of colours that would be lost."""
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
