"""Pictures for tests: drawn faces, pictures made from them, and files that attack a decoder."""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Final

from PIL import Image

FACES: Final = Path(__file__).resolve().parents[2] / "services/countersign/data/faces"
GALLERY: Final = FACES / "gallery"
PROBES: Final = FACES / "probes"

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION: Final = 0x0112
_EXIF_MAKE: Final = 0x010F
_EXIF_GPS: Final = 0x8825
_ROTATED_90_CLOCKWISE: Final = 6


def probe(number: int = 0) -> bytes:
    """The probe of one drawn person."""
    return (PROBES / f"id{number:02d}_2.jpg").read_bytes()


def encoded(picture: Image.Image, format_name: str, **options: object) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    picture.save(out, format_name, **options)
    return out.getvalue()


def blank(width: int = 256, height: int = 256) -> bytes:
    """A picture with nothing in it."""
    return encoded(Image.new("RGB", (width, height), "grey"), "PNG")


def two_faces() -> bytes:
    """Two drawn people side by side."""
    with Image.open(io.BytesIO(probe(0))) as left, Image.open(io.BytesIO(probe(1))) as right:
        both = Image.new("RGB", (left.width + right.width, left.height))
        both.paste(left, (0, 0))
        both.paste(right, (left.width, 0))
    return encoded(both, "PNG")


def small_face() -> bytes:
    """A drawn person whose eyes are a few pixels apart, in a picture of ordinary size."""
    with Image.open(io.BytesIO(probe(0))) as face:
        small = face.resize((40, 40), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (256, 256), "grey")
    picture.paste(small, (100, 100))
    return encoded(picture, "PNG")


def with_metadata(picture: Image.Image) -> bytes:
    """A JPEG as a camera writes it: maker, position, and turned by 90 degrees."""
    exif = Image.Exif()
    exif[_EXIF_MAKE] = "TEST-CAMERA"
    exif[_EXIF_ORIENTATION] = _ROTATED_90_CLOCKWISE
    exif.get_ifd(_EXIF_GPS)[1] = "N"
    return encoded(picture, "JPEG", exif=exif, quality=95, comment=b"TEST-COMMENT")


def png_bomb(side: int = 30_000) -> bytes:
    """A PNG of a hundred kilobytes that decodes to 900 megapixels."""
    header = struct.pack("!IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return _PNG_START + b"".join(_chunk(kind, content) for kind, content in chunks)


def jpeg_bomb(side: int = 20_000) -> bytes:
    """A JPEG whose header states 400 megapixels."""
    small = bytearray(encoded(Image.new("L", (16, 16)), "JPEG"))
    frame = small.index(b"\xff\xc0")
    small[frame + 5 : frame + 9] = struct.pack("!HH", side, side)
    return bytes(small)


def jpeg_2000_bomb(side: int = 13_000) -> bytes:
    """A JPEG 2000 file whose headers state 169 megapixels."""
    small = encoded(Image.new("L", (16, 16)), "JPEG2000")
    shape, stated = struct.pack("!II", 16, 16), struct.pack("!II", side, side)
    return small.replace(shape, stated)


def megapixels(count: int) -> bytes:
    """A small file of a picture within the limits, which takes memory to decode."""
    return encoded(Image.new("RGB", (5000, 200 * count)), "PNG", compress_level=1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", checksum)


def sha256_of(record: str) -> bytes:
    """SHA-256 of a gallery picture's file."""
    return hashlib.sha256((GALLERY / record).read_bytes()).digest()
