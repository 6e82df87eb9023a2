"""A picture -> Seen: its faces hidden, and only then searched for hands; alike in a worker and without a server."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.intake import refused
from serve.jobs import Hand, Render, Seen
from serve.pictures import jpeg
from stages.files import sha256_of
from stages.params import FaceParams, StageError
from stages.registry import RELEASE_FILE
from stages.release import Release, read_release
from stages.vision import images
from stages.vision.detector import Detector
from stages.vision.faces import Blur, Blurred
from stages.vision.images import Image
from stages.vision.profile import brightness, sharpness

FACES = FaceParams(detector="centerface", confidence=0.2, margin=0.06, method="mosaic", cells=6)
TRIAL = (480, 640)  # px, height and width of the picture that a model must answer before it serves


@dataclass(frozen=True)
class Model:
    release: Release
    detector: Detector
    blur: Blur


def look(
    image: Image,
    blur: Blur,
    model: Model | None,
    confidence: float | None = None,
    iou: float | None = None,
    render: Render = "none",
) -> Seen:
    """model None: faces are hidden, and that is all. confidence, iou None: the model's own."""
    started = time.perf_counter()
    picture = blur(image)
    at_hidden = time.perf_counter()
    hands = found(model, picture, confidence, iou) if model else []
    at_detected = time.perf_counter()
    classes = model.release.classes if model else []
    return Seen(
        hands=hands,
        faces=len(picture.faces),
        blurred=True,
        width=image.shape[1],
        height=image.shape[0],
        brightness=brightness(picture.image),
        sharpness=sharpness(picture.image),
        decode=0.0,
        hide=at_hidden - started,
        detect=at_detected - at_hidden,
        jpeg=None if render == "none" else jpeg(picture, hands if render == "image" else [], classes),
    )


def found(model: Model, picture: Blurred, confidence: float | None, iou: float | None) -> list[Hand]:
    least = model.release.thresholds.confidence if confidence is None else confidence
    seen = model.detector(picture, least, iou)
    rows = zip(seen.class_ids.tolist(), seen.scores.tolist(), seen.boxes.tolist(), strict=True)
    return [Hand(class_id, score, (x1, y1, x2, y2)) for class_id, score, (x1, y1, x2, y2) in rows]


def decoded(content: bytes, max_pixels: int) -> Image:
    """Raises Problem."""
    try:
        return images.decode(content, max_pixels)
    except images.Unreadable as error:
        raise refused(error) from None


def hiding(faces: FaceParams) -> FaceParams:
    """As the model's own pictures were treated; where those came blurred already, what arrives here does not."""
    return FACES if faces.detector == "none" else faces


def checked_release(folder: Path) -> Release:
    """Raises StageError unless every file is the one that was released."""
    release = read_release(folder / RELEASE_FILE)
    for file, sha256 in release.files().items():
        if sha256_of(folder / file) != sha256:
            raise StageError(f"{folder / file}: not the file that was released; its sha256 should be {sha256}")
    return release


def tried(model: Model) -> None:
    """Raises Problem unless the model answers a picture with boxes inside it."""
    height, width = TRIAL
    seen = model.detector(model.blur(np.full((height, width, 3), 128, np.uint8)), confidence=0.0)
    if not (np.isfinite(seen.boxes).all() and ((seen.scores >= 0) & (seen.scores <= 1)).all()):
        raise StageError(f"{model.release.name}: answers a plain picture with numbers that are none")
