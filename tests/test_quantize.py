"""A detector becomes int8: the same answers nearly, the same bytes always."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import pytest

from stages.quantize import calibrated
from stages.vision.detector import letterboxed
from stages.vision.network import openvino_network
from tests.native import ROOT, blurred_noise
from tests.released import CLASSES, SIZE, write_data

pytestmark = pytest.mark.slow  # nncf takes seconds to import


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    """A network with Ultralytics' names: one layer, and an end that joins scores to boxes a thousand times as large."""
    return write_convolution(tmp_path / "detector.onnx")


def write_convolution(path: Path) -> Path:
    helper, floats, random = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    constants: dict[str, npt.NDArray[Any]] = {
        "weight": random.normal(0, 0.3, (11, 3, 8, 8)).astype(np.float32),
        "sides": np.array([4, 7], np.int64),
        "px": np.array(1000, np.float32),
        "flat": np.array([1, 11, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["seen"], "/model.0/conv/Conv", strides=[8, 8]),
        helper.make_node("Sigmoid", ["seen"], ["scaled"], "/model.0/act/Sigmoid"),
        helper.make_node("Split", ["scaled", "sides"], ["boxes", "scores"], "/model.1/Split", axis=1),
        helper.make_node("Mul", ["boxes", "px"], ["boxes_px"], "/model.1/Mul_2"),
        helper.make_node("Concat", ["boxes_px", "scores"], ["joined"], "/model.1/Concat_3", axis=1),
        helper.make_node("Reshape", ["joined", "flat"], ["output0"], "/model.1/Reshape"),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("images", floats, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", floats, [1, 11, (SIZE // 8) ** 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_int8_answers_nearly_as_the_detector_and_is_the_same_every_time(convolution: Path, tmp_path: Path) -> None:
    yolo, splits = write_data(tmp_path, [3] * 6)
    made = [tmp_path / name / "detector.int8.xml" for name in ("one", "two")]
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for path in made:
        command = [sys.executable, "-m", "stages.quantize", *map(str, (yolo, splits, convolution, path))]
        subprocess.run(command, cwd=tmp_path, check=True)
    one, two = made
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".bin").read_bytes() == two.with_suffix(".bin").read_bytes()
    assert 'element_type="i8"' in one.read_text()
    assert str(tmp_path) not in one.read_text()
    assert list(tmp_path.glob("*/*.partial")) == []

    exact, rounded = (openvino_network(path, len(CLASSES)) for path in (convolution, one))
    canvas = letterboxed(blurred_noise(0, SIZE, SIZE), SIZE)[0]
    apart = np.abs(exact.run(canvas) - rounded.run(canvas))
    assert apart[:4].max() < 60, "px, of a thousand"
    assert apart[4:].max() < 0.06, "with one scale for boxes and scores every score would be 0"


def test_where_boxes_and_scores_meet_all_stays_in_float(convolution: Path) -> None:
    tensors = [np.random.default_rng(seed).random((1, 3, SIZE, SIZE), np.float32) for seed in range(2)]
    operations = calibrated(convolution, tensors).get_ordered_ops()
    quantized = {op.get_friendly_name() for op in operations if op.get_type_name() == "FakeQuantize"}
    assert quantized
    assert not [name for name in quantized if name.startswith("/model.1/")]
    assert openvino.Core().read_model(convolution).get_ordered_ops()  # which was not changed
