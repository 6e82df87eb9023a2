"""The exported detector and training pictures -> the same detector in int8, which serves if it counts as well."""

import io
import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import openvino

from stages.files import write_bytes
from stages.launch import launch
from stages.params import Params
from stages.vision.detector import letterboxed
from stages.vision.labelled import read_split, read_vocabulary
from stages.vision.network import openvino_network, tensor_of

logger = logging.getLogger(__name__)

# The end of the network, where boxes in px and scores in [0, 1] meet in one output: one scale for both would leave the
# scores nothing (mAP50-95 0.82 for 0.87 on real hands). In the names of Ultralytics' layers, the part that is no layer
# of its own: /model.23/dfl/Softmax, /model.23/Concat_3, and not /model.23/cv2.0/cv2.0.0/conv/Conv.
FLOAT = r"/model\.\d+/(dfl/.*|[A-Z]\w*)$"


def quantize(params: Params, yolo: Path, splits: Path, onnx: Path, int8: Path) -> None:
    """int8: the .xml of OpenVINO's format, whose weights lie beside it as .bin.

    In that format rather than ONNX: OpenVINO 2026.4 computes another function than onnxruntime from the same quantised
    ONNX file, and finds no hands with it.
    """
    vocabulary = read_vocabulary(yolo)
    pictures = read_split(splits, "train", vocabulary, most=params.quantize.pictures)
    size = openvino_network(onnx, len(vocabulary.classes)).image_size
    quantized = calibrated(onnx, [tensor_of(letterboxed(picture.read(), size)[0]) for picture in pictures])
    with TemporaryDirectory() as folder:
        made = Path(folder) / int8.name
        openvino.save_model(quantized, made, compress_to_fp16=False)
        write_bytes(int8, made.read_bytes())
        write_bytes(int8.with_suffix(".bin"), made.with_suffix(".bin").read_bytes())
    logger.info("%s from %d train pictures", int8.name, len(pictures))


def calibrated(onnx: Path, tensors: list[npt.NDArray[np.float32]]) -> openvino.Model:
    """Post-training quantisation: each layer's range is what the tensors (1, 3, size, size) reach in it."""
    os.environ["NNCF_CI"] = "1"  # it would report its use to its makers
    # It has no switch for its progress bars, which draw on stdout, terminal or not.
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        import nncf  # noqa: PLC0415 -- seconds

        nncf.set_log_level(logging.ERROR)  # it would name every operation that it leaves in float
        return nncf.quantize(
            openvino.Core().read_model(onnx),
            nncf.Dataset(tensors),
            preset=nncf.QuantizationPreset.MIXED,  # symmetric weights, asymmetric activations: SiLU is hardly negative
            subset_size=len(tensors),
            ignored_scope=nncf.IgnoredScope(patterns=[FLOAT], validate=False),
        )


if __name__ == "__main__":
    launch(quantize)
