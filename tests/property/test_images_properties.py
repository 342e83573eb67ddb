"""Whatever a file holds, picture hygiene gives clean pixels or one of its two refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.images import ImageRefused, clean
from support import pictures
from support.examples import examples

SMALL = Image.effect_noise((24, 18), 60)
FILES = {name: pictures.encoded(SMALL, name) for name in ("JPEG", "PNG", "JPEG2000")}
WITH_EXIF = pictures.with_metadata(SMALL.convert("RGB"))


def check(file: bytes) -> None:
    try:
        image = clean(file)
    except ImageRefused:
        return
    assert len(image.pixels) == image.width * image.height * 3


@given(st.binary(max_size=200))
def test_any_bytes(file: bytes) -> None:
    check(file)


@pytest.mark.parametrize("file", [*FILES.values(), WITH_EXIF], ids=[*FILES, "with-exif"])
@examples(1)
@given(data=st.data())
def test_any_damage_to_a_picture(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    places = st.integers(min_value=0, max_value=len(file) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(min_value=0, max_value=255)), max_size=6)
    ):
        damaged[place] = value
    cut = data.draw(st.integers(min_value=0, max_value=len(file)))

    check(bytes(damaged[:cut] if data.draw(st.booleans()) else damaged))
