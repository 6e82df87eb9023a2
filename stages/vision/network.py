"""A detector file -> a Network, which turns a canvas into rows: run by OpenVINO, or by onnxruntime where a GPU is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino
from openvino.preprocess import PrePostProcessor

from stages.params import Precision, StageError
from stages.vision.images import Image

Rows = npt.NDArray[np.float32]
Device = Literal["cpu", "cuda", "tensorrt"]

# In the order in which onnxruntime is to try them: what one cannot run, the next does.
PROVIDERS: Mapping[Device, Sequence[str]] = MappingProxyType(
    {
        "cpu": ("CPUExecutionProvider",),
        "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    }
)


@dataclass(frozen=True)
class Network:
    """One that is loaded; one instance a thread.

    run: canvas (image_size, image_size, 3) RGB -> rows (4 + classes, anchors): centre and size of a box in px of the
    canvas, then a score in [0, 1] a class. Rows hold until the next call, which reuses their memory.
    """

    image_size: int
    run: Callable[[Image], Rows]


def openvino_network(
    file: Path, classes: int, precision: Precision = "f32", threads: int = 0, cache: Path | None = None
) -> Network:
    """On the processor; threads 0: all cores. int8 is in the file: what it leaves in float is computed in f32.

    cache: a folder for what was compiled, from which it loads in half the time (int8: 0.7 s of processor time, not
    1.5). Raises StageError unless file is a model with a square input and 4 + classes rows of output.
    """
    check_there(file)
    try:
        model = openvino.Core().read_model(file)
        size = checked_size(file, _lengths(model.input(0)), _lengths(model.output(0)), classes)
        # The division by 255 is part of the graph, where it costs a third of what it costs in NumPy.
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned, the networks of several processes wait for the same core
        } | ({"CACHE_DIR": str(cache)} if cache else {})
        request = openvino.Core().compile_model(steps.build(), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise StageError(f"{file}: not a model that OpenVINO reads ({_reason(error)}); dvc repro -sf train") from None

    def run(canvas: Image) -> Rows:
        rows: Rows = request.infer([canvas[None]], share_inputs=True, share_outputs=True)[0][0]
        return rows

    return Network(size, run)


def _lengths(port: Any) -> list[object]:
    return [axis.get_length() if axis.is_static else "?" for axis in port.partial_shape]


def onnxruntime_network(file: Path, classes: int, device: Device, threads: int = 0) -> Network:
    """In f32, as openvino_network otherwise. TensorRT compiles for its GPU once, and keeps the result beside file.

    Raises StageError also when the device does not take the network: onnxruntime would go on without it.
    """
    import onnxruntime  # noqa: PLC0415 -- where there is no GPU it is not installed

    check_there(file)
    no_gpu = StageError(f"{device}: onnxruntime cannot use it here; see that nvidia-smi and its CUDA libraries work")
    if device not in devices():
        raise no_gpu
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors: what it falls back to is checked below
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(file.parent)}
    providers = [(name, kept if name == "TensorrtExecutionProvider" else {}) for name in PROVIDERS[device]]
    try:
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    except Exception as error:  # noqa: BLE001 -- its errors have no class in common
        raise StageError(f"{file}: not a model that onnxruntime reads ({_reason(error)})") from None
    if session.get_providers()[0] != PROVIDERS[device][0]:
        raise no_gpu
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    size = checked_size(file, entry.shape, exit_.shape, classes)

    def run(canvas: Image) -> Rows:
        rows: Rows = session.run(None, {entry.name: tensor_of(canvas)})[0][0]
        return rows

    return Network(size, run)


def tensor_of(canvas: Image) -> npt.NDArray[np.float32]:
    """(size, size, 3) in [0, 255] -> (1, 3, size, size) in [0, 1], as the network was trained."""
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def check_there(file: Path) -> None:
    if not file.is_file():
        raise StageError(f"{file}: not found; dvc repro, or dvc pull, brings it")


def checked_size(file: Path, inputs: Sequence[object], outputs: Sequence[object], classes: int) -> int:
    """The side of the square input in px."""
    if len(inputs) != 4 or list(inputs[:2]) != [1, 3] or inputs[2] != inputs[3] or not isinstance(inputs[2], int):
        raise StageError(f"{file}: input {_shape(inputs)}, expected [1,3,size,size]; dvc repro -sf train")
    if len(outputs) != 3 or outputs[1] != 4 + classes:
        raise StageError(f"{file}: output {_shape(outputs)}, expected [1,{4 + classes},anchors] for {classes} classes")
    return inputs[2]


def _shape(lengths: Sequence[object]) -> str:
    return f"[{','.join(str(length) for length in lengths)}]"


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


@cache
def devices() -> tuple[Device, ...]:
    """What this machine may run a network on, by what is installed: whether a GPU answers is known on loading."""
    if find_spec("onnxruntime") is None:
        return ("cpu",)
    import onnxruntime  # noqa: PLC0415 -- as above

    there = onnxruntime.get_available_providers()
    gpus: list[Device] = [device for device in ("cuda", "tensorrt") if PROVIDERS[device][0] in there]
    return ("cpu", *gpus)


def processor_has(precision: Precision) -> bool:
    """Whether this processor computes in it natively; OpenVINO would emulate it, or quietly run f32."""
    return precision == "f32" or precision.upper() in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
