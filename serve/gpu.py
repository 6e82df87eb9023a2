"""The NVIDIA driver's own library -> how busy each GPU of this machine is; on a machine without one, nothing."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

LIBRARY = "libnvidia-ml.so.1"  # comes with the driver; documented as NVML


@dataclass(frozen=True)
class Gpu:
    index: int
    busy: float  # share of the last moments in which it computed
    memory: int  # bytes in use, by whomever


class Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))  # %


class Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def gpus() -> Iterator[Gpu]:
    """Those that answer: one may be lost, or be cut into slices that tell no utilization."""
    nvml = library()
    count = ctypes.c_uint()
    if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return
    for index in range(count.value):
        device, busy, memory = ctypes.c_void_p(), Utilization(), Memory()
        answers = (
            nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)),
            nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(busy)),
            nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)),
        )
        if not any(answers):
            yield Gpu(index, busy.gpu / 100, memory.used)


@cache
def library() -> ctypes.CDLL | None:
    """Once in a process, and not before it forks."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None
