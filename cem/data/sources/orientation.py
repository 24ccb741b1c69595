"""How an image file says that its pixels are turned, and what a viewer makes of that."""

import io
import os

from PIL import Image
from PIL.ExifTags import Base

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF's orientation → what a viewer does


def orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where it says nothing that can be read, which is what viewers do."""
    if image.format == "JPEG" and "exif" not in image.info and "xmp" not in image.info:
        return 1  # most are so, and Pillow's search takes longer than this
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except Exception:  # damage in a part that holds no pixels: Pillow raises whatever it leads to
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as a viewer shows them. Those of a TIFF whose own tag turns it are so already."""
    told = image.format == "TIFF" and Base.Orientation in getattr(image, "tag_v2", {})
    return image.size[::-1] if not told and orientation(image) >= 5 else image.size


def may_turn(file: io.BytesIO | io.BufferedReader) -> bool:
    """Whether a PNG has a part that may say how it is turned: EXIF, or a text that holds EXIF or XMP."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            start = file.read(min(length, 24)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
            if kind == b"eXIf" or start.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):
                return True
            file.seek(length - len(start) + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(place)
