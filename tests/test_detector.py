"""From a picture to hands, with the real runtime."""

from pathlib import Path

import numpy as np
import pytest

from stages.params import DetectParams, StageError
from stages.vision.detector import Detector, finger_count
from stages.vision.network import openvino_network
from tests.fixed_model import CLASSES, row, write_model
from tests.native import blurred_noise

RULES = DetectParams(iou=0.5, max_boxes=20)
COUNTS = [0, 1, 2, 3, 4, 5, None]


def detector(model: Path, rules: DetectParams = RULES, classes: int = CLASSES) -> Detector:
    return Detector(openvino_network(model, classes), rules)


@pytest.mark.parametrize(
    ("class_ids", "count"),
    [([], 0), ([0], 0), ([5], 5), ([2, 3], 5), ([6], 0), ([6, 4], 4)],
)
def test_the_count_is_the_sum_over_hands_and_unknown_adds_nothing(class_ids: list[int], count: int) -> None:
    assert finger_count(np.array(class_ids, np.int64), COUNTS) == count


def test_boxes_come_back_in_pixels_of_the_picture(tmp_path: Path) -> None:
    # 128x64 into 64x64: halved, and padded by 16 above and below
    model = write_model(tmp_path / "m.onnx", [row((10, 20, 30, 40), 3, 0.9)])
    found = detector(model)(blurred_noise(0, 128, 64))
    assert found.boxes.tolist() == [[20, 8, 60, 48]]
    assert found.class_ids.tolist() == [3]
    assert found.scores == pytest.approx([0.9])


def test_boxes_never_reach_outside_the_picture(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", [row((-10, 0, 80, 64), 3, 0.9)])
    assert detector(model)(blurred_noise(0, 128, 64)).boxes.tolist() == [[0, 0, 128, 64]]


def test_one_hand_has_one_count_whatever_the_classes(tmp_path: Path) -> None:
    rows = [row((10, 10, 40, 40), 2, 0.6), row((11, 10, 41, 40), 3, 0.8), row((42, 10, 60, 40), 5, 0.4)]
    found = detector(write_model(tmp_path / "m.onnx", rows))(blurred_noise(0))
    assert found.class_ids.tolist() == [3, 5]
    assert found.scores == pytest.approx([0.8, 0.4])


def test_no_more_boxes_than_allowed_and_none_below_the_confidence(tmp_path: Path) -> None:
    rows = [row((n * 8, 10, n * 8 + 7, 40), 1, 0.1 * (n + 1)) for n in range(6)]
    detect = detector(write_model(tmp_path / "m.onnx", rows), DetectParams(iou=0.5, max_boxes=3))
    assert detect(blurred_noise(0)).scores == pytest.approx([0.6, 0.5, 0.4])
    assert detect(blurred_noise(0), 0.55).scores == pytest.approx([0.6])
    assert detect(blurred_noise(0)).above(0.45).scores == pytest.approx([0.6, 0.5])


def test_a_caller_may_ask_for_another_overlap(tmp_path: Path) -> None:
    rows = [row((10, 10, 40, 40), 2, 0.6), row((20, 10, 50, 40), 3, 0.8)]  # they share half of what they cover
    detect = detector(write_model(tmp_path / "m.onnx", rows))
    assert [len(detect(blurred_noise(0), iou=iou).boxes) for iou in (None, 0.6, 0.4)] == [2, 2, 1]


def test_a_picture_without_hands_gives_empty_arrays(tmp_path: Path) -> None:
    found = detector(write_model(tmp_path / "m.onnx", []))(blurred_noise(0), 0.5)
    assert found.boxes.shape == (0, 4)
    assert found.class_ids.shape == found.scores.shape == (0,)


def test_a_damaged_or_foreign_model_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(write_model(tmp_path / "m.onnx", []).read_bytes()[:100])
    with pytest.raises(StageError, match=r"damaged.onnx: not a model that OpenVINO reads .*dvc repro -sf train"):
        detector(damaged)
    with pytest.raises(StageError, match=r"output \[1,11,8\], expected \[1,84,anchors\] for 80 classes"):
        detector(tmp_path / "m.onnx", classes=80)
    with pytest.raises(StageError, match=r"absent.onnx: not found"):
        detector(tmp_path / "absent.onnx")
