"""Which device and precision serve, and that each runtime answers as the others do."""

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
import pytest

from stages.params import DetectParams, Precision, StageError
from stages.release import INT8_FILE, INT8_WEIGHTS_FILE, PrecisionMetrics, Release, servable
from stages.vision.detector import Detector, letterboxed
from stages.vision.engines import REFERENCE, Choice, choices, load, pick
from stages.vision.network import Device, devices, onnxruntime_network, openvino_network, processor_has, tensor_of
from tests.fixed_model import CLASSES, row, write_model
from tests.native import blurred_noise
from tests.released import SIZE, model, release

RULES = DetectParams(iou=0.5, max_boxes=20)


@pytest.mark.parametrize(
    ("accuracies", "serve"),
    [
        ({"f32": 0.9}, ["f32"]),
        ({"f32": None, "bf16": None}, ["f32"]),
        ({"f32": 0.9, "bf16": 0.9, "int8": 0.91}, ["f32", "bf16", "int8"]),
        ({"int8": 0.895, "f32": 0.9}, ["f32", "int8"]),  # half a point is allowed
        ({"f32": 0.9, "bf16": 0.8949, "int8": 0.895}, ["f32", "int8"]),
        ({"f32": 0.95, "bf16": 0.95, "int8": 0.21}, ["f32", "bf16"]),  # collapsed: it finds no hands
        ({"f32": 0.9, "int4": 0.9}, ["f32"]),  # of a later version of this program
    ],
)
def test_a_precision_serves_only_when_it_counts_as_well_as_f32(
    accuracies: dict[str, float | None], serve: list[str]
) -> None:
    scored = {name: PrecisionMetrics(map50=0.9, count_accuracy=value) for name, value in accuracies.items()}
    assert servable(scored) == serve


@pytest.mark.parametrize(
    ("device", "there", "found"),
    [
        ("auto", ["cpu"], ["cpu/f32", "cpu/int8"]),
        ("cpu", ["cpu", "cuda"], ["cpu/f32", "cpu/int8"]),
        ("cuda", ["cpu", "cuda"], ["cuda/f32"]),
        ("auto", ["cpu", "cuda", "tensorrt"], ["cpu/f32", "cpu/int8", "cuda/f32", "tensorrt/f32"]),
    ],
)
def test_what_may_serve_on_this_machine(device: Device, there: Sequence[Device], found: list[str]) -> None:
    precisions: list[Precision] = ["f32", "int8"]
    assert [str(choice) for choice in choices(precisions, device, there)] == found


def test_a_device_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    said = r"SERVE_DEVICE: tensorrt is not on this machine, which has cpu; .* install onnxruntime-gpu, or set auto"
    with pytest.raises(StageError, match=said):
        choices(["f32"], "tensorrt", ["cpu"])
    assert "cpu" in devices()
    if "cuda" not in devices():
        with pytest.raises(StageError, match="SERVE_DEVICE: cuda is not on this machine"):
            pick(tmp_path, release(model(tmp_path / "detector.onnx"), None), "cuda")


@pytest.fixture
def three_precisions(tmp_path: Path) -> Release:
    """In tmp_path, as the registry fills a folder."""
    onnx = model(tmp_path / "detector.onnx")
    openvino.save_model(openvino.Core().read_model(onnx), tmp_path / INT8_FILE)
    scores = {"map50": 0.95, "count_accuracy": 0.9}
    return release(
        onnx,
        None,
        int8={INT8_FILE: "x", INT8_WEIGHTS_FILE: "y"},
        precisions={"f32": scores, "bf16": {**scores, "count_accuracy": 0.5}, "int8": scores},
    )


def test_the_fastest_is_picked_by_measurement_and_serves(
    three_precisions: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        choice = pick(tmp_path, three_precisions, threads=1)
    assert choice in (Choice("cpu", "f32"), Choice("cpu", "int8"))
    (said,) = caplog.messages
    measured = {part.split()[-3]: float(part.split()[-2]) for part in said.split(", ")}
    assert measured.keys() == ({"cpu/f32", "cpu/int8"} if processor_has("int8") else {"cpu/f32"})
    assert measured[str(choice)] == min(measured.values())
    assert pickle.loads(pickle.dumps(choice)) == choice  # noqa: S301 -- our own
    for each in (REFERENCE, choice, Choice("cpu", "int8")):
        assert load(tmp_path, three_precisions, each, threads=1)(blurred_noise(0, SIZE, SIZE), 0.4).class_ids == [3]


def test_a_file_of_other_classes_does_not_serve(three_precisions: Release, tmp_path: Path) -> None:
    write_model(tmp_path / "detector.onnx", [], classes=3, size=SIZE)
    with pytest.raises(StageError, match=r"detector\.onnx: output \[1,7,8\], expected \[1,11,anchors\] for 7 classes"):
        load(tmp_path, three_precisions)


def test_a_release_of_schema_1_says_how_faces_are_hidden_among_its_params(three_precisions: Release) -> None:
    document = three_precisions.model_dump(mode="json")
    faces = {**document.pop("faces"), "cells": 4}
    document["lineage"]["params"]["faces"] = faces
    del document["int8"]
    old = Release.model_validate({**document, "schema_version": 1})
    assert old.faces.cells == 4
    assert old.files() == {"detector.onnx": old.sha256}


# The runtimes.


def test_onnxruntime_answers_as_openvino_does(tmp_path: Path) -> None:
    file = write_model(tmp_path / "m.onnx", [row((10, 20, 30, 40), 3, 0.9)])
    networks = (openvino_network(file, CLASSES, threads=1), onnxruntime_network(file, CLASSES, "cpu", threads=1))
    canvas = letterboxed(blurred_noise(0), 64)[0]
    one, other = (network.run(canvas).copy() for network in networks)
    assert one.shape == (4 + CLASSES, 8)
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_both_runtimes_hand_the_network_rgb_from_0_to_1(tmp_path: Path) -> None:
    """The first box of this network is the upper left pixel."""
    file = write_pixel_reader(tmp_path / "m.onnx")
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[0, 0] = (255, 51, 102)
    for network in (openvino_network(file, 1), onnxruntime_network(file, 1, "cpu")):
        np.testing.assert_allclose(network.run(canvas)[:3, 0], [1, 0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(tensor_of(canvas)[0, :, 0, 0], [1, 0.2, 0.4], rtol=1e-6)


def write_pixel_reader(path: Path) -> Path:
    import onnx

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    shape = onnx.numpy_helper.from_array(np.array([1, 3, -1], np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["pixels"]),
        helper.make_node("Pad", ["pixels", "pads"], ["output0"]),
    ]
    pads = onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 2, 0], np.int64), "pads")
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("images", floats, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", floats, [1, 5, 4096])],
        [shape, pads],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_file_that_onnxruntime_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"rubbish")
    with pytest.raises(StageError, match=r"m\.onnx: not a model that onnxruntime reads"):
        onnxruntime_network(tmp_path / "m.onnx", CLASSES, "cpu")
    with pytest.raises(StageError, match=r"absent\.onnx: not found"):
        onnxruntime_network(tmp_path / "absent.onnx", CLASSES, "cpu")


@pytest.mark.skipif("cuda" in devices(), reason="onnxruntime has a GPU here")
def test_a_gpu_that_does_not_answer_is_an_error_and_not_the_processor(tmp_path: Path) -> None:
    file = write_model(tmp_path / "m.onnx", [])
    with pytest.raises(StageError, match="cuda: onnxruntime cannot use it here"):
        onnxruntime_network(file, CLASSES, "cuda")


def test_rows_are_read_before_the_next_picture_overwrites_them(tmp_path: Path) -> None:
    detector = Detector(
        openvino_network(write_model(tmp_path / "m.onnx", [row((10, 20, 30, 40), 3, 0.9)]), CLASSES), RULES
    )
    first = detector(blurred_noise(0))
    detector(blurred_noise(1, 200, 100))
    assert first.scores == pytest.approx([0.9])
