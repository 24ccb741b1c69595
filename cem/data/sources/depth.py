"""How many bits a colour has in an image file, of which Pillow keeps 8 without a word."""

import io

from PIL import Image
from PIL.ExifTags import Base


def is_of_other_bits(image: Image.Image, file: io.BytesIO | io.BufferedReader) -> bool:
    """Whether a colour has more than 8 bits in the file, of which Pillow would keep the high ones without a word.

    Of JPEG2000 also where it has fewer, whose white Pillow makes grey.
    """
    if image.format == "JPEG":  # of which Pillow reads 8 bits alone
        return False
    if image.format in _OTHER_BITS:  # Pillow says what it makes of these, not what they hold
        place = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(place)
        return _OTHER_BITS[image.format](content)
    bits = getattr(image, "tag_v2", {}).get(Base.BitsPerSample, ())
    if any(isinstance(one, int) and one > 8 for one in (bits if isinstance(bits, tuple) else (bits,))):
        return True  # TIFF: its tiles do not say so where each colour has a plane of its own
    for decoder, _, _, told in getattr(image, "tile", ()):
        parts = told if isinstance(told, tuple) else (told,)
        if decoder == "SGI16" or any(isinstance(part, str) and ";16" in part and part != "BGR;16" for part in parts):
            return True  # BGR;16: 16 bits for all three
        if decoder.startswith("ppm") and any(isinstance(part, int) and part > 255 for part in parts):
            return True
    return False


def _jpeg2000_of_other_bits(content: bytes) -> bool:
    """By the header of its codestream (SIZ): how many colours there are, then three bytes for each, first the depth."""
    header = content.partition(b"\xff\x4f\xff\x51")[2]
    count = int.from_bytes(header[36:38], "big")
    return any(depth & 0x7F != 7 for depth in header[38 : 38 + 3 * count : 3])  # one less than the bits


def _avif_of_other_bits(content: bytes) -> bool:
    """By the boxes that say how AV1 is used, of every picture in it: the flag high_bitdepth."""
    return any(len(box) > 2 and box[0] == 0x81 and box[2] & 0x40 for box in content.split(b"av1C")[1:])


_OTHER_BITS = {"JPEG2000": _jpeg2000_of_other_bits, "AVIF": _avif_of_other_bits}
