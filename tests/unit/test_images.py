"""What picture hygiene lets through, and what becomes of the rest."""

import hashlib
import io

import pytest
from PIL import Image

from shared import images
from shared.images import ImageTooLarge, NotAnImage, clean, encode_png, encode_within
from support import pictures


def reopened(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "JPEG2000"])
def test_each_accepted_format_becomes_rgb_pixels(format_name: str) -> None:
    file = pictures.encoded(Image.new("RGB", (30, 20), (255, 0, 0)), format_name)

    image = clean(file)

    assert (image.width, image.height) == (30, 20)
    assert len(image.pixels) == 30 * 20 * 3
    assert image.pixels[0] > 250
    assert image.pixels[1] < 5


def test_digests_are_of_the_file_and_of_the_pixels() -> None:
    file = pictures.probe()

    image = clean(file)

    assert image.file_sha256 == hashlib.sha256(file).digest()
    assert image.pixels_sha256 == hashlib.sha256(image.pixels).digest()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 128, (128, 128, 128)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("I;16", 128 * 256, (128, 128, 128)),
    ],
)
def test_each_mode_becomes_what_a_person_would_see(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, ...]
) -> None:
    image = clean(pictures.encoded(Image.new(mode, (4, 4), colour), "PNG"))

    assert tuple(image.pixels[:3]) == expected


def test_colours_under_transparency_do_not_come_out() -> None:
    hidden = Image.new("RGBA", (4, 4), (200, 10, 10, 0))

    assert set(clean(pictures.encoded(hidden, "PNG")).pixels) == {255}


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"GIF89a",
        b"\xff\xd8\xff\xe0 but no more",
        b"%PDF-1.7",
        b"P6 4 4 255 " + bytes(48),
        pictures.encoded(Image.new("RGB", (8, 8)), "GIF"),
        pictures.encoded(Image.new("RGB", (8, 8)), "TIFF"),
    ],
    ids=["empty", "gif-start", "jpeg-start", "pdf", "ppm", "gif", "tiff"],
)
def test_what_is_no_accepted_picture_is_refused(file: bytes) -> None:
    with pytest.raises(NotAnImage):
        clean(file)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "JPEG2000"])
def test_truncated_file_is_refused(format_name: str) -> None:
    noise = Image.effect_noise((64, 64), 80)
    file = pictures.encoded(noise, format_name)

    with pytest.raises(NotAnImage):
        clean(file[: len(file) // 2])


def test_corrupt_png_is_refused() -> None:
    file = bytearray(pictures.blank(64, 64))
    file[file.index(b"IDAT") + 6] ^= 0xFF

    with pytest.raises(NotAnImage):
        clean(bytes(file))


@pytest.mark.parametrize(
    "bomb",
    [pictures.jpeg_bomb, pictures.jpeg_2000_bomb, pictures.png_bomb],
    ids=["jpeg", "jpeg-2000", "png"],
)
def test_bomb_is_refused_by_what_its_header_states(bomb: object) -> None:
    assert callable(bomb)
    file: bytes = bomb()
    assert len(file) < 200_000

    with pytest.raises(ImageTooLarge):
        clean(file)


def test_file_past_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ImageTooLarge, match="bytes"):
        clean(pictures.probe() + bytes(images.FILE_BYTES_MAX))


def test_very_long_picture_is_refused() -> None:
    with pytest.raises(ImageTooLarge):
        clean(pictures.blank(images.SIDE_MAX + 1, 1))


def test_error_quotes_nothing_of_the_file() -> None:
    with pytest.raises(NotAnImage) as caught:
        clean(b"\x89PNG\r\n\x1a\nSECRET-BYTES")

    assert "SECRET" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_picture_is_turned_upright() -> None:
    lying = Image.new("RGB", (40, 20), "black")
    lying.paste("white", (0, 0, 20, 20))

    image = clean(pictures.with_metadata(lying))

    assert (image.width, image.height) == (20, 40)
    assert image.pixels[0] > 200
    assert image.pixels[-1] < 50


@pytest.mark.parametrize("bytes_max", [2_000_000, 5_000], ids=["png", "jpeg"])
def test_metadata_is_gone_from_what_is_sent(bytes_max: int) -> None:
    file = pictures.with_metadata(Image.effect_noise((80, 80), 60).convert("RGB"))
    assert b"TEST-CAMERA" in file
    assert b"TEST-COMMENT" in file

    sent = encode_within(clean(file), bytes_max)

    assert b"TEST-" not in sent
    assert b"Exif" not in sent
    assert not reopened(sent).getexif()


def test_png_keeps_every_pixel() -> None:
    image = clean(pictures.probe())

    assert clean(encode_png(image)).pixels_sha256 == image.pixels_sha256


def test_picture_is_reduced_until_it_fits() -> None:
    noise = Image.effect_noise((1200, 900), 90).convert("RGB")
    image = clean(pictures.encoded(noise, "JPEG", quality=90))

    sent = encode_within(image, 150_000)

    assert len(sent) <= 150_000
    assert reopened(sent).width < 1200


def test_picture_that_cannot_be_made_to_fit_is_refused() -> None:
    noise = Image.effect_noise((1200, 900), 90).convert("RGB")

    with pytest.raises(ImageTooLarge):
        encode_within(clean(pictures.encoded(noise, "JPEG")), 1_000)
