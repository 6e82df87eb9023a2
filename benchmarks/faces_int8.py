"""CenterFace's two looks in f32, bf16 and int8, in ms: `python -m benchmarks.faces_int8 PICTURES [--rounds 30]`.

PICTURES: a folder of photographs as they came, on a tenth of which NNCF calibrates int8. It tells whether int8 would
pay for the face network; recall is not looked at. All are timed in turn. Two threads.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import nncf
import numpy as np
import openvino

from stages.vision.faces import CANVASES, QUARTER_TURNS, SMALL, Tensor, centerface_file, fitted, small_square
from stages.vision.images import Image, read_image

LOOKS = {"first, 544x416": (1, 3, CANVASES[0][1], CANVASES[0][0]), "second": (len(QUARTER_TURNS), 3, SMALL, SMALL)}
SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 2, "ENABLE_CPU_PINNING": False}
EACH = 10  # th picture is calibrated on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    seen = [look for path in sorted(asked.pictures.iterdir())[::EACH] for look in both_looks(read_image(path))]
    network = openvino.Core().read_model(centerface_file())
    network.reshape([-1, 3, -1, -1])
    in_int8 = nncf.quantize(network, nncf.Dataset(seen), subset_size=len(seen), preset=nncf.QuantizationPreset.MIXED)
    models = {"f32": network, "bf16": network, "int8": in_int8}
    taken: dict[tuple[str, str], list[float]] = {}
    requests = {
        (look, name): compiled(model, shape, "bf16" if name == "bf16" else "f32")
        for look, shape in LOOKS.items()
        for name, model in models.items()
    }
    random = np.random.default_rng(0)
    for _ in range(asked.rounds):
        for key, request in requests.items():
            tensor = random.uniform(0, 255, LOOKS[key[0]]).astype(np.float32)
            request.infer([tensor])  # brings its weights back into the cache
            started = time.perf_counter()
            request.infer([tensor])
            taken.setdefault(key, []).append((time.perf_counter() - started) * 1000)
    sys.stdout.write("| look | " + " | ".join(models) + " |\n|---|" + "---:|" * len(models) + "\n")
    for look in LOOKS:
        cells = (f"{statistics.median(taken[look, name]):.1f}" for name in models)
        sys.stdout.write(f"| {look} | {' | '.join(cells)} |\n")


def both_looks(image: Image) -> list[Tensor]:
    small = small_square(image)[0].transpose(2, 0, 1)[None].astype(np.float32)
    return [fitted(image, CANVASES[0])[0], small]


def compiled(model: openvino.Model, shape: tuple[int, ...], precision: str) -> openvino.InferRequest:
    model.reshape(list(shape))
    settings = SETTINGS | {"INFERENCE_PRECISION_HINT": precision}
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


if __name__ == "__main__":
    main()
