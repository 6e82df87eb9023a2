"""Labelled pictures and what was seen in them -> the worst of them as JPEGs, truth in green, detections in red."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stages.files import write_bytes
from stages.vision.boxes import Boxes, ClassIds
from stages.vision.detector import Detections
from stages.vision.images import Image, encode_jpeg
from stages.vision.labelled import LabelledPicture, Vocabulary
from stages.vision.scoring import confusion, seen_counts, true_counts

GREEN, RED, BLACK, WHITE = (30, 160, 60), (210, 40, 40), (0, 0, 0), (255, 255, 255)
CAPTION = 20  # px above the picture
LONGER_SIDE = 480  # px: enough to see why, small enough for a page of them


def write_gallery(
    out: Path, pictures: Sequence[LabelledPicture], seen: Sequence[Detections], vocabulary: Vocabulary, most: int
) -> None:
    """By the error of the count, then by hands missed, mistaken or imagined. A perfect picture is not shown."""
    out.mkdir(parents=True)
    counts = vocabulary.counts
    count_errors = np.abs(true_counts(pictures, counts) - seen_counts(seen, counts))
    hand_errors = [wrong_hands(p, s, len(vocabulary.classes)) for p, s in zip(pictures, seen, strict=True)]
    order = sorted(range(len(pictures)), key=lambda n: (-count_errors[n], -hand_errors[n], pictures[n].id))
    for rank, n in enumerate([n for n in order if hand_errors[n]][:most], start=1):
        (true,), (counted,) = true_counts([pictures[n]], counts), seen_counts([seen[n]], counts)
        image = panel(pictures[n], seen[n], vocabulary.classes, f"true {true}, counted {counted}")
        write_bytes(out / f"{rank:02}-true-{true}-counted-{counted}-{pictures[n].id}.jpg", encode_jpeg(image, 85))


def wrong_hands(picture: LabelledPicture, seen: Detections, classes: int) -> int:
    table = confusion([picture], [seen], classes)
    return int(table.sum() - np.trace(table))


def panel(picture: LabelledPicture, seen: Detections, classes: Sequence[str], caption: str) -> Image:
    """The picture under its caption, scaled so that lines and letters keep one size."""
    scale = LONGER_SIDE / max(picture.width, picture.height)
    image = cv2.resize(picture.read().image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
    image = drawn(image, picture.boxes * scale, picture.class_ids, classes, GREEN)
    image = drawn(image, seen.boxes * scale, seen.class_ids, classes, RED)
    image = cv2.copyMakeBorder(image, CAPTION, 0, 0, 0, cv2.BORDER_CONSTANT, value=WHITE).astype(np.uint8)
    return written(image, caption, (6, 14), BLACK)


def drawn(
    image: Image, boxes: Boxes, class_ids: ClassIds, classes: Sequence[str], colour: tuple[int, int, int]
) -> Image:
    """Truth is named at its upper left corner, what was seen at its lower left: both stay readable."""
    image = image.copy()
    for (x1, y1, x2, y2), class_id in zip(boxes.round().astype(int).tolist(), class_ids.tolist(), strict=True):
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        image = written(image, classes[class_id], (x1 + 4, y1 + 16 if colour == GREEN else y2 - 6), colour)
    return image


def written(image: Image, words: str, corner: tuple[int, int], colour: tuple[int, int, int]) -> Image:
    """words with a white rim, so that they are read on any ground."""
    image = image.copy()
    for ink, thickness in ((WHITE, 3), (colour, 1)):
        cv2.putText(image, words, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, thickness, cv2.LINE_AA)
    return image
