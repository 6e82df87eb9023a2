"""A downloaded release on this machine -> the device and precision that run its detector fastest, and that Detector."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stages.params import DetectParams, Precision, StageError
from stages.release import INT8_FILE, Release
from stages.vision.detector import Detector
from stages.vision.network import Device, Network, devices, onnxruntime_network, openvino_network, processor_has

logger = logging.getLogger(__name__)

CACHE = "openvino"  # beside the files it was compiled from, and trusted as they are
RUNS = 5  # timed ones, after two that warm up


@dataclass(frozen=True)
class Choice:
    """Where a detector runs, and in which precision."""

    device: Device
    precision: Precision

    def __str__(self) -> str:
        return f"{self.device}/{self.precision}"


REFERENCE = Choice("cpu", "f32")  # that every machine has, and that the gates were passed with


def pick(folder: Path, release: Release, device: Literal[Device, "auto"] = "auto", threads: int = 0) -> Choice:
    """The fastest of what scored as well as f32 does, measured here and now: in 3 s on a processor, 2 s once cached.

    folder: as the registry filled it. Raises StageError for a device that this machine does not have.
    """
    milliseconds: dict[Choice, float] = {}
    for choice in choices([p for p in release.servable if processor_has(p)], device, devices()):
        try:
            milliseconds[choice] = duration(network(folder, release, choice, threads))
        except StageError as error:
            if choice.device == "cpu" or device != "auto":
                raise
            logger.warning("%s is not used: %s", choice, error)
    fastest = min(milliseconds, key=milliseconds.__getitem__)
    logger.info("%s: %s", fastest, ", ".join(f"{choice} {ms:.1f} ms" for choice, ms in milliseconds.items()))
    return fastest


def choices(precisions: Sequence[Precision], device: Literal[Device, "auto"], there: Sequence[Device]) -> list[Choice]:
    """precisions: of the processor; a GPU computes f32 alone, since no other was scored on one.

    Raises StageError for a device that is not there.
    """
    if device != "auto" and device not in there:
        raise StageError(
            f"SERVE_DEVICE: {device} is not on this machine, which has {' '.join(there)}; "
            "for cuda and tensorrt install onnxruntime-gpu, or set auto"
        )
    wanted = there if device == "auto" else [device]
    on_gpu: Sequence[Precision] = ["f32"]
    return [Choice(name, precision) for name in wanted for precision in (precisions if name == "cpu" else on_gpu)]


def load(folder: Path, release: Release, choice: Choice = REFERENCE, threads: int = 0) -> Detector:
    """After pick it is fast. Raises StageError when a file is not a detector of these classes."""
    rules = DetectParams(iou=release.thresholds.iou, max_boxes=release.thresholds.max_boxes)
    return Detector(network(folder, release, choice, threads), rules)


def network(folder: Path, release: Release, choice: Choice, threads: int) -> Network:
    classes = len(release.classes)
    if choice.device != "cpu":
        return onnxruntime_network(folder / release.file, classes, choice.device, threads)
    file = INT8_FILE if choice.precision == "int8" else release.file
    cache = folder / CACHE if os.access(folder, os.W_OK) else None
    return openvino_network(folder / file, classes, choice.precision, threads, cache)


def duration(network: Network) -> float:
    """Median of some runs, in ms. On noise: in a plain picture numbers get so small that some processors slow down."""
    canvas = np.random.default_rng(0).integers(0, 256, (network.image_size, network.image_size, 3), np.uint8)
    taken = []
    for _ in range(2 + RUNS):
        started = time.perf_counter()
        network.run(canvas)
        taken.append((time.perf_counter() - started) * 1000)
    return float(np.median(taken[2:]))
