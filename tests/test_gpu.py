"""How busy GPUs are, as a library with the names and structures of NVML tells it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serve.gpu import LIBRARY
from tests.native import ROOT

THREE_GPUS = """
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetUtilizationRates(void *device, unsigned busy[2]) {
    busy[0] = 25 * (long)device; busy[1] = 99;
    return (long)device == 2 ? 3 : 0; /* NVML_ERROR_NOT_SUPPORTED: it is cut into slices */
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]) {
    memory[0] = 80ull << 30; memory[1] = 79ull << 30; memory[2] = 1ull << 30;
    return 0;
}
"""


def told(folder: Path) -> str:
    """What a process prints that finds libraries in folder."""
    return subprocess.run(
        [sys.executable, "-c", "from serve.gpu import gpus; print([(g.index, g.busy, g.memory) for g in gpus()])"],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def built(folder: Path, init: int) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed: apt install gcc libc6-dev")
    source = folder / "nvml.c"
    source.write_text(THREE_GPUS)
    command = ["cc", "-shared", "-fPIC", f"-DINIT={init}", "-o", str(folder / LIBRARY), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_each_gpu_that_answers_is_told(tmp_path: Path) -> None:
    assert told(built(tmp_path, init=0)) == "[(0, 0.25, 1073741824), (2, 0.75, 1073741824)]"


def test_a_driver_that_does_not_start_is_no_gpu(tmp_path: Path) -> None:
    assert told(built(tmp_path, init=9)) == "[]"


def test_a_library_that_is_none_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_bytes(b"not a library")
    assert told(tmp_path) == "[]"
