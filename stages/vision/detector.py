"""A blurred picture -> hands: a network's rows made boxes of the picture, in scoring and in serving alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from stages.params import DetectParams
from stages.vision.boxes import Boxes, ClassIds, Scores, clip, suppress
from stages.vision.faces import Blurred
from stages.vision.images import Image
from stages.vision.network import Network

PADDING = 114  # the grey that Ultralytics pads with in training


@dataclass(frozen=True)
class Detections:
    """Hands by falling confidence: boxes (N, 4) in px of the picture, class_ids (N,), scores (N,) in [0, 1]."""

    boxes: Boxes
    class_ids: ClassIds
    scores: Scores

    def above(self, confidence: float) -> Self:
        """A box never suppresses one of higher score, so filtering now equals filtering before suppression."""
        kept = self.scores >= confidence
        return type(self)(self.boxes[kept], self.class_ids[kept], self.scores[kept])


def finger_count(class_ids: ClassIds, counts: Sequence[int | None]) -> int:
    """The product's number: the sum over hands; a class without a count (unknown) adds nothing."""
    return sum(counts[i] or 0 for i in class_ids)


class Detector:
    """A network and the rules by which boxes are chosen. One instance a thread, as its network."""

    def __init__(self, network: Network, rules: DetectParams) -> None:
        self._network = network
        self._rules = rules

    def __call__(self, picture: Blurred, confidence: float = 0.001, iou: float | None = None) -> Detections:
        """iou None: the overlap that the rules allow. Nothing but what the faces module has blurred is looked at."""
        canvas, scale, (left, top) = letterboxed(picture, self._network.image_size)
        rows = self._network.run(canvas)  # (4 + classes, anchors): centre, size, then a score a class
        # Few anchors pass, and only theirs are turned and decoded.
        candidates = np.flatnonzero(rows[4:].max(axis=0) >= confidence)
        centres, sizes, of_class = np.split(rows[:, candidates].T, [2, 4], axis=1)
        class_ids, scores = of_class.argmax(axis=1), of_class.max(axis=1)
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
        kept = suppress(corners, scores, self._rules.iou if iou is None else iou, self._rules.max_boxes)
        height, width = picture.image.shape[:2]
        padding = np.array([left, top, left, top], np.float32)
        boxes = clip(((corners[kept] - padding) / scale).astype(np.float32), width, height)
        return Detections(boxes, class_ids[kept], scores[kept])


def letterboxed(picture: Blurred, size: int) -> tuple[Image, float, tuple[int, int]]:
    """As in training: (size, size, 3) with the picture in the middle; its scale; padding left and above in px."""
    image = picture.image
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    if shown != (width, height):
        image = cv2.resize(image, shown, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    left, top = round((size - shown[0]) / 2 - 0.1), round((size - shown[1]) / 2 - 0.1)
    canvas = np.full((size, size, 3), PADDING, np.uint8)
    canvas[top : top + shown[1], left : left + shown[0]] = image
    return canvas, scale, (left, top)
