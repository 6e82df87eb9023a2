"""Boxes: float32 (N, 4), x1 y1 x2 y2 in px from the top left. Pure functions; empty in, empty out."""

from typing import cast

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
ClassIds = npt.NDArray[np.int64]


def no_boxes() -> Boxes:
    return np.zeros((0, 4), np.float32)


def area(boxes: Boxes) -> npt.NDArray[np.float32]:
    """(N, 4) px -> (N,) px²; a box turned inside out has none."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return cast(Scores, sides[:, 0] * sides[:, 1])


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """Each corner moved into the picture: (N, 4) -> (N, 4). Centre and size apart would move the box."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """Overlap of each a with each b. a (N, 4), b (M, 4) in px -> (N, M) in [0, 1]; two boxes without area: 0."""
    corner_low = np.maximum(a[:, None, :2], b[None, :, :2])
    corner_high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(corner_high - corner_low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - shared
    overlap: Scores = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def suppress(boxes: Boxes, scores: Scores, max_iou: float, max_boxes: int) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression over all classes -> at most max_boxes indices, by falling score."""
    order = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while order.size and len(kept) < max_boxes:
        first, rest = order[0], order[1:]
        kept.append(first)
        order = rest[iou(boxes[[first]], boxes[rest])[0] <= max_iou]
    return np.array(kept, np.intp)


def to_yolo(boxes: Boxes, width: int, height: int) -> npt.NDArray[np.float64]:
    """px corners -> x_centre y_centre w h as fractions of the picture, (N, 4)."""
    corners = boxes.astype(np.float64) / [width, height, width, height]
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)


def from_yolo(fractions: npt.NDArray[np.floating], width: int, height: int) -> Boxes:
    """x_centre y_centre w h as fractions of the picture -> px corners, (N, 4)."""
    centre, half = fractions[:, :2], fractions[:, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1) * [width, height, width, height]
    return corners.astype(np.float32)
