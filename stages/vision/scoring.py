"""Detections against ground truth -> mAP, precision and recall, confusion, and the count: pure functions."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from stages.vision.boxes import iou
from stages.vision.detector import Detections, Detector, finger_count
from stages.vision.labelled import LabelledPicture

logger = logging.getLogger(__name__)

Counts = npt.NDArray[np.int64]
MATCH = 0.5  # overlap at which a detection is taken for a hand, as in AP50


@dataclass(frozen=True)
class AveragePrecision:
    """Mean over the classes that occur, and each class's own: None where there is no ground truth."""

    map50: float
    map50_95: float
    ap50: list[float | None]
    ap50_95: list[float | None]


def average_precision(
    pictures: Sequence[LabelledPicture], detections: Sequence[Detections], classes: int, max_boxes: int
) -> AveragePrecision:
    """COCO's: 101 recall points, IoU 0.5 to 0.95 by 0.05 (https://cocodataset.org/#detection-eval)."""
    truth = COCO(
        {
            "info": {},
            "images": [{"id": n + 1, "width": p.width, "height": p.height} for n, p in enumerate(pictures)],
            "categories": [{"id": class_id + 1, "name": str(class_id)} for class_id in range(classes)],
            "annotations": [
                {"id": number + 1, "image_id": n + 1, "iscrowd": 0, "area": float(box[2] * box[3]), **labelled}
                for number, (n, box, labelled) in enumerate(_coco_boxes((p.boxes, p.class_ids) for p in pictures))
            ],
        }
    )
    found = [
        {"image_id": n + 1, "score": float(score), **labelled}
        for (n, _, labelled), score in zip(
            _coco_boxes((d.boxes, d.class_ids) for d in detections),
            np.concatenate([d.scores for d in detections]),
            strict=True,
        )
    ]
    if not found:
        occurs = np.bincount(np.concatenate([p.class_ids for p in pictures]), minlength=classes) > 0
        nothing = [0.0 if there else None for there in occurs]
        return AveragePrecision(0.0, 0.0, nothing, nothing)
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.print_function = logger.debug  # it prints otherwise
    evaluation.params.maxDets = [1, 10, max_boxes]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class) over all areas; -1: no truth
    occurs = (precision > -1).any(axis=(0, 1))
    by_class = precision.mean(axis=1)  # (IoU, class)
    ap50 = [float(by_class[0, c]) if occurs[c] else None for c in range(classes)]
    ap50_95 = [float(by_class[:, c].mean()) if occurs[c] else None for c in range(classes)]
    return AveragePrecision(_mean(ap50), _mean(ap50_95), ap50, ap50_95)


def _coco_boxes(
    labelled: Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
) -> Iterable[tuple[int, list[float], dict[str, object]]]:
    """(picture number, x y w h, what both truth and detections carry) for each box."""
    for n, (boxes, class_ids) in enumerate(labelled):
        for (x1, y1, x2, y2), class_id in zip(boxes.tolist(), class_ids.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            yield n, box, {"bbox": box, "category_id": class_id + 1}


def _mean(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else 0.0


def precision_recall_curves(
    pictures: Sequence[LabelledPicture], detections: Sequence[Detections], classes: int
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """For each class: (precision, recall) as the confidence falls, at IoU 0.5."""
    curves = []
    for class_id in range(classes):
        scores: list[float] = []
        hits: list[bool] = []
        for picture, found in zip(pictures, detections, strict=True):
            mine = found.class_ids == class_id
            matched = match(found.boxes[mine], picture.boxes[picture.class_ids == class_id])
            scores += found.scores[mine].tolist()
            hits += (matched >= 0).tolist()
        truths = sum(int((picture.class_ids == class_id).sum()) for picture in pictures)
        order = np.argsort(-np.array(scores), kind="stable")
        right = np.cumsum(np.array(hits, np.float64)[order])
        curves.append((right / np.arange(1, len(right) + 1), right / max(truths, 1)))
    return curves


def confusion(
    pictures: Sequence[LabelledPicture], detections: Sequence[Detections], classes: int
) -> npt.NDArray[np.int64]:
    """(classes + 1, classes + 1): rows the truth, columns what was seen; the last of each is "nothing there"."""
    table = np.zeros((classes + 1, classes + 1), np.int64)
    for picture, found in zip(pictures, detections, strict=True):
        matched = match(found.boxes, picture.boxes)
        truth = np.where(matched >= 0, picture.class_ids[matched] if len(picture.class_ids) else classes, classes)
        np.add.at(table, (truth, found.class_ids), 1)
        missed = picture.class_ids[np.setdiff1d(np.arange(len(picture.boxes)), matched)]
        np.add.at(table, (missed, np.full_like(missed, classes)), 1)
    return table


def match(found: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """found (N, 4) by falling score, truth (M, 4) -> (N,) index of the truth each is taken for, -1 for none.

    Greedy, each truth once: the best overlap of at least 0.5 among those not yet taken.
    """
    overlaps = iou(found, truth)
    matched = np.full(len(found), -1, np.intp)
    for n in range(len(found) if len(truth) else 0):
        best = int(overlaps[n].argmax())
        if overlaps[n, best] >= MATCH:
            matched[n] = best
            overlaps[:, best] = 0
    return matched


def true_counts(pictures: Sequence[LabelledPicture], counts: Sequence[int | None]) -> Counts:
    return np.array([finger_count(picture.class_ids, counts) for picture in pictures], np.int64)


def seen_counts(detections: Sequence[Detections], counts: Sequence[int | None]) -> Counts:
    return np.array([finger_count(found.class_ids, counts) for found in detections], np.int64)


def choose_confidence(
    pictures: Sequence[LabelledPicture], detections: Sequence[Detections], counts: Sequence[int | None]
) -> tuple[float, dict[float, float]]:
    """The threshold of the highest count accuracy, and the accuracy at each that was tried.

    Among equals the middle one: what lies far from a change is least likely to be chance.
    """
    truth = true_counts(pictures, counts)
    accuracy = {
        confidence: float((seen_counts([d.above(confidence) for d in detections], counts) == truth).mean())
        for confidence in (round(0.05 + step / 100, 2) for step in range(91))
    }
    best = [confidence for confidence, right in accuracy.items() if right == max(accuracy.values())]
    return best[len(best) // 2], accuracy


def bootstrap_interval(
    values: npt.NDArray[np.float64], resamplings: int, random: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the mean of values (N,), pictures drawn with replacement (Efron, 1979)."""
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamplings)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def counts_by(
    detector: Detector, pictures: Sequence[LabelledPicture], confidence: float, counts: Sequence[int | None]
) -> Counts:
    """What a released model counts on each of pictures, with its own threshold."""
    return seen_counts([detector(picture.read(), confidence) for picture in pictures], counts)
