"""Scores of hand-made detections whose right answer is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.vision.boxes import no_boxes
from stages.vision.detector import Detections
from stages.vision.gallery import write_gallery
from stages.vision.images import read_image
from stages.vision.labelled import LabelledPicture, Vocabulary
from stages.vision.scoring import (
    average_precision,
    bootstrap_interval,
    choose_confidence,
    confusion,
    match,
    precision_recall_curves,
)
from tests.native import noise, png

Box = tuple[float, float, float, float]
A, B = (10.0, 10.0, 30.0, 30.0), (40.0, 10.0, 60.0, 30.0)
VOCABULARY = Vocabulary(["0", "1", "unknown"], [0, 1, None])


def picture(*hands: tuple[Box, int], name: str = "p") -> LabelledPicture:
    boxes = np.array([box for box, _ in hands], np.float32).reshape(-1, 4)
    return LabelledPicture(name, Path(f"{name}.png"), 64, 48, boxes, np.array([c for _, c in hands], np.int64))


def seen(*hands: tuple[Box, int, float]) -> Detections:
    boxes = np.array([box for box, _, _ in hands], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([c for _, c, _ in hands], np.int64), np.array([s for *_, s in hands], np.float32))


def test_nothing_seen_scores_zero_and_classes_without_truth_score_none() -> None:
    ap = average_precision([picture((A, 0))], [seen()], 3, 20)
    assert (ap.map50, ap.map50_95, ap.ap50) == (0.0, 0.0, [0.0, None, None])


def test_all_seen_scores_one() -> None:
    ap = average_precision([picture((A, 0), (B, 1))], [seen((A, 0, 0.9), (B, 1, 0.8))], 3, 20)
    assert (ap.map50, ap.map50_95) == pytest.approx((1.0, 1.0))
    assert ap.ap50_95[2] is None


def test_average_precision_of_a_false_alarm_before_a_hit_is_half() -> None:
    ap = average_precision([picture((A, 0))], [seen((B, 0, 0.9), (A, 0, 0.8))], 3, 20)
    assert ap.map50 == pytest.approx(0.5, abs=1e-3)


def test_a_looser_box_counts_at_low_overlap_only() -> None:
    loose = (10.0, 10.0, 30.0, 36.0)  # IoU 0.77: right at six of the ten thresholds
    ap = average_precision([picture((A, 0))], [seen((loose, 0, 0.9))], 3, 20)
    assert (ap.map50, ap.map50_95) == pytest.approx((1.0, 0.6), abs=1e-3)


def test_each_truth_is_matched_once_by_the_most_confident() -> None:
    found = np.array([A, A, B], np.float32)
    assert match(found, np.array([B, A], np.float32)).tolist() == [1, -1, 0]
    assert match(found, no_boxes()).tolist() == [-1, -1, -1]
    assert match(no_boxes(), found).tolist() == []


def test_confusion_counts_mistaken_missed_and_imagined_hands() -> None:
    table = confusion([picture((A, 0), (B, 1)), picture()], [seen((A, 1, 0.9)), seen((A, 2, 0.9))], 3)
    assert table[0, 1] == 1  # a 0 taken for a 1
    assert table[1, 3] == 1  # a 1 missed
    assert table[3, 2] == 1  # an unknown where nothing was
    assert table.sum() == 3


def test_curves_follow_falling_confidence() -> None:
    ((precision, recall), *_) = precision_recall_curves([picture((A, 0), (B, 0))], [seen((A, 0, 0.9), (A, 0, 0.5))], 3)
    assert precision.tolist() == [1.0, 0.5]
    assert recall.tolist() == [0.5, 0.5]


def test_the_confidence_is_the_middle_of_those_that_count_best() -> None:
    pictures = [picture((A, 1)), picture()]
    confidence, accuracy = choose_confidence(pictures, [seen((A, 1, 0.8)), seen((A, 1, 0.3))], VOCABULARY.counts)
    assert accuracy[0.2] == 0.5
    assert accuracy[0.5] == 1.0
    assert confidence == pytest.approx((0.31 + 0.8) / 2, abs=0.011)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_mean(right: list[bool], seed: int) -> None:
    low, high = bootstrap_interval(np.array(right, np.float64), 200, np.random.default_rng(seed))
    assert 0 <= low <= np.mean(right) + 0.05
    assert np.mean(right) - 0.05 <= high <= 1


def test_the_gallery_shows_the_worst_first_and_leaves_out_the_perfect(tmp_path: Path) -> None:
    pictures = []
    for name, hand in (("perfect", 1), ("missed", 1), ("mistaken", 0)):
        path = tmp_path / f"{name}.png"
        path.write_bytes(png(noise(1)))
        pictures.append(LabelledPicture(name, path, 64, 48, np.array([A], np.float32), np.array([hand])))
    answers = [seen((A, 1, 0.9)), seen(), seen((A, 2, 0.9))]
    write_gallery(tmp_path / "worst", pictures, answers, VOCABULARY, most=5)
    names = sorted(path.name for path in (tmp_path / "worst").iterdir())
    assert names == ["01-true-1-counted-0-missed.jpg", "02-true-0-counted-0-mistaken.jpg"]
    assert read_image(tmp_path / "worst" / names[0]).shape == (380, 480, 3)
