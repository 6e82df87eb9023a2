"""Box functions on tables, and what holds for any boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.vision.boxes import Boxes, area, clip, from_yolo, iou, no_boxes, suppress, to_yolo

WIDTH, HEIGHT = 64, 48


@st.composite
def some_boxes(draw: st.DrawFn) -> Boxes:
    corner = st.tuples(*[st.floats(-100, 160, width=16)] * 2)
    side = st.tuples(*[st.floats(0, 100, width=16)] * 2)
    rows = [(x, y, x + w, y + h) for (x, y), (w, h) in draw(st.lists(st.tuples(corner, side), max_size=8))]
    return np.array(rows, np.float32).reshape(-1, 4)


def test_empty_in_empty_out() -> None:
    assert area(no_boxes()).shape == (0,)
    assert clip(no_boxes(), 9, 9).shape == (0, 4)
    assert iou(no_boxes(), np.ones((3, 4), np.float32)).shape == (0, 3)
    assert suppress(no_boxes(), np.zeros(0, np.float32), 0.5, 9).shape == (0,)
    assert to_yolo(no_boxes(), 9, 9).shape == (0, 4)


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),
        ((10, 10, 0, 0), (0, 0, 10, 10), 0),
    ],
)
def test_overlap(a: tuple[float, ...], b: tuple[float, ...], overlap: float) -> None:
    assert iou(np.array([a], np.float32), np.array([b], np.float32))[0, 0] == pytest.approx(overlap)


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([(0, 0, 10, 10), (1, 0, 11, 10), (30, 0, 40, 10)], np.float32)
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    assert suppress(boxes, scores, 0.5, 9).tolist() == [1, 2]
    assert suppress(boxes, scores, 0.9, 9).tolist() == [1, 2, 0]
    assert suppress(boxes, scores, 0.9, 1).tolist() == [1]


@given(some_boxes(), some_boxes())
def test_overlap_is_symmetric_and_a_fraction(a: Boxes, b: Boxes) -> None:
    overlaps = iou(a, b)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    assert np.array_equal(overlaps, iou(b, a).T)


@given(some_boxes())
def test_clipping_twice_is_clipping_once_and_never_grows(boxes: Boxes) -> None:
    once = clip(boxes, WIDTH, HEIGHT)
    assert np.array_equal(clip(once, WIDTH, HEIGHT), once)
    assert (area(once) <= area(boxes) + 1e-3).all()


@given(some_boxes())
def test_yolo_fractions_come_back_as_the_same_corners(boxes: Boxes) -> None:
    assert np.allclose(from_yolo(to_yolo(boxes, WIDTH, HEIGHT), WIDTH, HEIGHT), boxes, atol=1e-3)


@given(some_boxes(), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_what_is_kept_does_not_overlap_and_what_is_not_does(boxes: Boxes, seed: int, max_iou: float) -> None:
    scores = np.random.default_rng(seed).random(len(boxes), np.float32)
    kept = suppress(boxes, scores, max_iou, len(boxes) + 1)
    among = iou(boxes[kept], boxes[kept])
    assert (np.triu(among, 1) <= max_iou).all()
    gone = np.setdiff1d(np.arange(len(boxes)), kept)
    for n in gone:
        assert any(iou(boxes[[k]], boxes[[n]])[0, 0] > max_iou and scores[k] >= scores[n] for k in kept)
