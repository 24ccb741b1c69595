"""Image files by their headers and ends alone: what can be told in a moment, before any job starts."""

import os
from collections.abc import Sequence

from cem.data.sources.files import shown
from cem.data.sources.orientation import may_turn, upright_size
from cem.data.sources.picture import (
    check_picture,
    decoded,
    has_several,
    naming_the_file,
    open_image,
    remarks,
    without_warnings,
)
from cem.data.sources.source import DataError, several_sizes

_CHECKED = 10_000  # images whose header is read before any job starts
_LOOKED_INTO = 100  # images that are read before any job starts, as they do not end as others do
_SPREAD = 1000  # and those of formats whose end says nothing, spread evenly


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
            next(decoded([path]))  # which says what is wrong, if anything is
        if has_more:
            several.append(path)
        first = first or (path, size)
        if one_size and size != first[1]:
            raise DataError(several_sizes({first[1]: shown(first[0]), size: shown(path)}))
    return remarks(several)


_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}  # by how a file starts


@naming_the_file
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


@naming_the_file
def _header(path: str) -> tuple[tuple[int, int], bool]:
    """Width and height as a viewer shows them, and whether the file holds several pictures."""
    with open(path, "rb") as file, open_image(file, path) as image:
        check_picture(path, image, file)
        several = has_several(image)
        if image.format == "PNG" and "exif" not in image.info and may_turn(file):
            image.load()  # what turns it stands behind the pixels, or is found by those who have read them
        return upright_size(image), several
