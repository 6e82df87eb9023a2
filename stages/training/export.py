"""The best state of a training -> detector.pt and detector.onnx: no date, path or origin in them, and one answer."""
# mypy: disable-error-code="no-untyped-call"

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
import ultralytics
from ultralytics.models import YOLO
from ultralytics.nn.tasks import DetectionModel

from stages.files import write_bytes
from stages.params import StageError
from stages.training.checkpoint import State
from stages.vision.images import Image

# What Ultralytics' own tools need to run the file; the rest of its metadata is dates, names of files and advertising.
KEPT_METADATA = ("batch", "channels", "end2end", "imgsz", "names", "stride", "task")
BOX_TOLERANCE = 0.1  # px of the network's input
SCORE_TOLERANCE = 1e-3


def write_detector(path: Path, state: State, classes: Sequence[str], image_size: int) -> Path:
    """A file that `YOLO(path)` loads, of the same bytes for the same weights."""
    model = network_for(state, len(classes))
    model.load_state_dict(state["best"])
    model.names = dict(enumerate(classes))
    model.half().eval().requires_grad_(requires_grad=False)
    content = io.BytesIO()
    train_args = {"task": "detect", "imgsz": image_size}
    torch.save({"model": model, "train_args": train_args, "version": ultralytics.__version__}, content)
    write_bytes(path, content.getvalue())
    return path


def network_for(state: State, classes: int) -> DetectionModel:
    """The architecture as it was trained: fine-tuning keeps the class branch as wide as the weights it began with, and
    a small network's width follows from the number of their classes (80 in COCO).
    """
    network = DetectionModel(state["architecture"], nc=classes, verbose=False)
    last = next(name for name in reversed(state["best"]) if ".cv3." in name and name.endswith(".weight"))
    width = state["best"][last].shape[1]
    if network.state_dict()[last].shape[1] != width:
        network.load(DetectionModel(state["architecture"], nc=width, verbose=False), verbose=False)
    return network


def write_onnx(detector: Path, image_size: int) -> Path:
    """Beside detector. (1, 3, size, size) RGB in [0, 1] -> (1, 4 + classes, anchors), boxes in px, none suppressed."""
    path = Path(YOLO(detector).export(format="onnx", imgsz=image_size, simplify=False, device="cpu"))
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key in KEPT_METADATA}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    write_bytes(path, model.SerializeToString(deterministic=True))
    return path


def check_onnx(path: Path, detector: Path, image_size: int, pictures: Iterable[Image]) -> dict[str, float]:
    """The greatest differences between the two files' answers. Raises StageError when one is above its tolerance.

    Run by OpenCV, which shares nothing with torch, nor with OpenVINO, by which evaluate scores the file.
    """
    reference: Any = YOLO(detector).model
    reference.float().eval()
    network = cv2.dnn.readNetFromONNX(str(path))
    difference = {"boxes_px": 0.0, "scores": 0.0}
    for picture in pictures:
        tensor = _tensor(picture, image_size)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(tensor))[0].numpy()
        network.setInput(tensor)
        answer = network.forward()
        if answer.shape != expected.shape:
            raise StageError(f"{path}: answers {answer.shape} where {detector.name} answers {expected.shape}")
        apart = np.abs(answer - expected)[0]
        difference["boxes_px"] = max(difference["boxes_px"], float(apart[:4].max()))
        difference["scores"] = max(difference["scores"], float(apart[4:].max()))
    if difference["boxes_px"] > BOX_TOLERANCE or difference["scores"] > SCORE_TOLERANCE:
        allowed = f"allowed {BOX_TOLERANCE} px and {SCORE_TOLERANCE}"
        raise StageError(f"{path}: differs from {detector.name} by {difference} on val pictures; {allowed}")
    return difference


def _tensor(picture: Image, size: int) -> npt.NDArray[np.float32]:
    square = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None].astype(np.float32) / 255)
