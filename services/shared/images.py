"""Probe hygiene: from a file that anybody may have made to plain pixels and nothing else.

Used by the client before it seals a probe, and by the connector for each probe that it opened and
each file of its gallery.

Invariants:
- The size of the file and the size of the picture are checked before a single pixel is decoded.
- Only three formats are ever tried, and only Pillow decodes; no other library sees outside bytes.
- What is left is RGB rows: no metadata, no colour profile, no transparency, no further frames.
- Whatever a file does to its decoder, the caller sees `NotAnImage` or `ImageTooLarge`, with no
  byte of the picture in the message.

A decoder can still be attacked through a picture within the limits. That is why the connector calls
`clean` in a process of its own, with bounds on its memory and time.
"""

import hashlib
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "JPEG2000")
"""Formats accepted: those that ANSI/NIST-ITL Type-10 records carry and cameras make."""

FILE_BYTES_MAX = 8 * 1024 * 1024
"""Largest file accepted: what a 25 megapixel photograph takes at good quality."""

PIXELS_MAX = 25_000_000
"""Largest picture accepted, in pixels: 75 MB of RGB, which a worker decodes in about a second."""

SIDE_MAX = 16_384
"""Longest side accepted: keeps a picture one pixel high from having a row of 25 million."""

REDUCTIONS = ((1.0, 95), (1.0, 85), (0.75, 90), (0.5, 90), (0.35, 90), (0.25, 90))
"""Scale and JPEG quality tried in turn when a picture must fit a byte limit. Quality goes before
scale, because a face loses more by resampling; a quarter is the last step, since below it a 25
megapixel picture no longer shows more than the detector looks at."""

# Pillow's own limit, as a second line behind ours: it guards decoders that learn the size late.
# This is Pillow's setting for the whole process; nothing else in a process of ours opens pictures.
Image.MAX_IMAGE_PIXELS = PIXELS_MAX


class ImageRefused(Exception):
    """The file cannot be used as a picture."""


class NotAnImage(ImageRefused):
    """The file is not a JPEG, PNG or JPEG 2000 picture, or it is damaged."""


class ImageTooLarge(ImageRefused):
    """The file, or the picture in it, is larger than accepted."""


@dataclass(frozen=True)
class CleanImage:
    """A decoded picture with nothing but its pixels."""

    pixels: bytes
    """RGB, 8 bits a channel, row by row, upright."""
    width: int
    height: int
    file_sha256: bytes
    """SHA-256 of the file that the pixels came from."""
    pixels_sha256: bytes
    """SHA-256 of `pixels`."""


def clean(file: bytes) -> CleanImage:
    """Decode a picture file into upright RGB pixels, or say why it cannot be used.

    Raises NotAnImage or ImageTooLarge, and nothing else.
    """
    if len(file) > FILE_BYTES_MAX:
        raise ImageTooLarge(
            f"the file has {len(file)} bytes; at most {FILE_BYTES_MAX} are accepted"
        )
    try:
        picture = _upright_rgb(file)
        pixels = picture.tobytes()
    except ImageRefused:
        raise
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge("the picture needs more memory than it may take") from None
    # Decoders meet hostile bytes here, and Pillow's plug-ins raise whatever their parsing trips
    # over (OSError, SyntaxError, struct.error, IndexError, ...). All of it means the same to us,
    # and the cause is not passed on, since it may quote the file.
    except Exception:  # noqa: BLE001
        raise NotAnImage("the file is damaged, or is no JPEG, PNG or JPEG 2000 picture") from None
    return CleanImage(
        pixels=pixels,
        width=picture.width,
        height=picture.height,
        file_sha256=hashlib.sha256(file).digest(),
        pixels_sha256=hashlib.sha256(pixels).digest(),
    )


def _upright_rgb(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file), formats=FORMATS) as opened:
        _check_size(opened)
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        return _to_rgb(upright)


def _check_size(picture: Image.Image) -> None:
    """Refuse by the size that the header states, before anything is decoded."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise NotAnImage("the picture has no pixels")
    if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
        raise ImageTooLarge(
            f"the picture is {width} x {height}; at most {PIXELS_MAX} pixels "
            f"and {SIDE_MAX} on a side are accepted"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Bring any mode to RGB as a person would see it."""
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion would clip at 255 and leave a white picture.
        picture = picture.convert("I").point(lambda level: level / 256).convert("L")
    if picture.has_transparency_data:
        # What is transparent shows white. Dropping the alpha channel instead would bring out
        # colours that the officer never saw.
        layer = picture.convert("RGBA")
        picture = Image.new("RGBA", layer.size, "white")
        picture.alpha_composite(layer)
    return picture.convert("RGB")


def encode_png(image: CleanImage) -> bytes:
    """Write the pixels as a PNG without metadata: larger than JPEG, and loses nothing."""
    out = io.BytesIO()
    _picture(image).save(out, "PNG")
    return out.getvalue()


def encode_within(image: CleanImage, bytes_max: int) -> bytes:
    """Write the picture into at most `bytes_max` bytes, losing as little as possible.

    PNG when it fits; otherwise JPEG, then JPEG of a smaller picture. Raises ImageTooLarge when not
    even the last reduction fits.
    """
    # A PNG of a photograph takes well over half a byte a channel; do not spend seconds to learn
    # that a large one does not fit.
    if len(image.pixels) <= 8 * bytes_max:
        lossless = encode_png(image)
        if len(lossless) <= bytes_max:
            return lossless
    picture = _picture(image)
    for scale, quality in REDUCTIONS:
        encoded = _encode_jpeg(picture, scale, quality)
        if len(encoded) <= bytes_max:
            return encoded
    raise ImageTooLarge(f"the picture does not fit into {bytes_max} bytes, even reduced")


def _picture(image: CleanImage) -> Image.Image:
    return Image.frombytes("RGB", (image.width, image.height), image.pixels)


def _encode_jpeg(picture: Image.Image, scale: float, quality: int) -> bytes:
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    # subsampling=0 keeps colour at full resolution, which costs the matcher nothing.
    picture.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
