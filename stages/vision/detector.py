"""A picture -> hands: the detector file run by OpenVINO, the same for scoring and for serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np
import numpy.typing as npt
import openvino

from stages.params import DetectParams, StageError
from stages.vision.boxes import Boxes, Scores, clip, suppress
from stages.vision.faces import Blurred
from stages.vision.images import Image

Precision = Literal["f32", "bf16"]
ClassIds = npt.NDArray[np.int64]

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
    """A loaded model. One instance a thread: its input buffer is reused."""

    def __init__(
        self, model: Path, classes: int, rules: DetectParams, precision: Precision = "f32", threads: int = 0
    ) -> None:
        """Raises StageError unless model is an ONNX file with a square input and 4 + classes rows of output."""
        if not model.is_file():
            raise StageError(f"{model}: not found; dvc repro train, or dvc pull, brings it")
        try:
            self._compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads,  # 0: all cores
                },
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise StageError(f"{model}: not a model that OpenVINO reads ({reason}); dvc repro -sf train") from None
        inputs, outputs = self._compiled.input(0).partial_shape, self._compiled.output(0).partial_shape
        if not inputs.is_static or list(inputs)[:2] != [1, 3] or inputs[2] != inputs[3]:
            raise StageError(f"{model}: input {inputs}, expected [1,3,size,size]; dvc repro -sf train")
        if not outputs.is_static or outputs[1].get_length() != 4 + classes:
            raise StageError(f"{model}: output {outputs}, expected [1,{4 + classes},anchors] for {classes} classes")
        self.image_size: int = inputs[2].get_length()
        self._rules = rules
        self._canvas = np.full((self.image_size, self.image_size, 3), PADDING, np.uint8)

    def __call__(self, picture: Blurred, confidence: float = 0.001, iou: float | None = None) -> Detections:
        """iou None: the overlap that the rules allow. Nothing but what the faces module has blurred is looked at."""
        image = picture.image
        tensor, scale, (left, top) = self._letterbox(image)
        rows = self._compiled(tensor)[0][0].T  # (anchors, 4 + classes): centre, size, then a score a class
        class_ids = rows[:, 4:].argmax(axis=1)
        scores = rows[np.arange(len(rows)), 4 + class_ids]
        candidates = np.flatnonzero(scores >= confidence)
        rows, class_ids, scores = rows[candidates], class_ids[candidates], scores[candidates]
        half = rows[:, 2:4] / 2
        corners = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
        kept = suppress(corners, scores, self._rules.iou if iou is None else iou, self._rules.max_boxes)
        height, width = image.shape[:2]
        padding = np.array([left, top, left, top], np.float32)
        boxes = clip(((corners[kept] - padding) / scale).astype(np.float32), width, height)
        return Detections(boxes, class_ids[kept], scores[kept].astype(np.float32))

    def _letterbox(self, image: Image) -> tuple[npt.NDArray[np.float32], float, tuple[int, int]]:
        """(1, 3, size, size) in [0, 1], the scale, and the padding left and above in px: as in training."""
        height, width = image.shape[:2]
        size = self.image_size
        scale = size / max(height, width)
        shown = (max(1, round(width * scale)), max(1, round(height * scale)))
        if shown != (width, height):
            image = cv2.resize(image, shown, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        left, top = round((size - shown[0]) / 2 - 0.1), round((size - shown[1]) / 2 - 0.1)
        self._canvas[:] = PADDING
        self._canvas[top : top + shown[1], left : left + shown[0]] = image
        tensor = self._canvas.transpose(2, 0, 1)[None].astype(np.float32)
        tensor *= np.float32(1 / 255)
        return np.ascontiguousarray(tensor), scale, (left, top)


def processor_has(precision: Precision) -> bool:
    """Whether this processor computes in it natively; OpenVINO would emulate it, or quietly run f32."""
    return precision == "f32" or precision.upper() in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
